//! The store in an S3 bucket.

use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::path;
use futures_util::TryStreamExt;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};

use super::load::Reads;
use super::{LISTED_VERSIONS, Put, StoreError};
use crate::config::Aws;

/// One attempt of a call, and all of its attempts.
const ATTEMPT: Duration = Duration::from_secs(5);
const ATTEMPTS: Duration = Duration::from_secs(10);

/// A bucket, and where in it the objects are.
#[derive(Debug)]
pub(super) struct Bucket {
    store: AmazonS3,
    prefix: String,
}

impl Bucket {
    /// Opens a bucket; asks it nothing yet.
    pub(super) fn open(
        bucket: &str,
        prefix: &str,
        region: &str,
        endpoint: Option<&str>,
        aws: &Aws,
    ) -> Result<Self, Error> {
        let retry = RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: ATTEMPTS };
        let client = ClientOptions::new().with_timeout(ATTEMPT).with_connect_timeout(ATTEMPT);
        let mut builder = AmazonS3Builder::new()
            .with_bucket_name(bucket)
            .with_region(region)
            .with_retry(retry)
            .with_client_options(client);
        if let Some(endpoint) = endpoint {
            builder = builder.with_endpoint(endpoint).with_allow_http(endpoint.starts_with("http://"));
        }
        match aws {
            Aws::Static(credentials) => {
                let text = |secret: &[u8]| String::from_utf8_lossy(secret).into_owned();
                builder = builder
                    .with_access_key_id(&credentials.access_key_id)
                    .with_secret_access_key(text(&credentials.secret_access_key));
                if let Some(token) = &credentials.session_token {
                    builder = builder.with_token(text(token));
                }
            }
            // Without static keys it asks the instance metadata service by itself.
            Aws::Imds(endpoint) => builder = builder.with_metadata_endpoint(format!("http://{endpoint}")),
            Aws::None => {}
        }
        Ok(Self { store: builder.build()?, prefix: prefix.to_owned() })
    }

    /// Creates an object, if none has its name.
    pub(super) async fn create(&self, path: &str, bytes: Vec<u8>) -> Result<Put, StoreError> {
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.store.put_opts(&self.location(path)?, PutPayload::from(bytes), options).await {
            Ok(_) => Ok(Put::Created),
            Err(Error::AlreadyExists { .. } | Error::Precondition { .. }) => Ok(Put::Exists),
            Err(error) => Err(error.into()),
        }
    }

    /// Deletes an object; an absent one counts as deleted.
    pub(super) async fn delete(&self, path: &str) -> Result<(), StoreError> {
        match self.store.delete(&self.location(path)?).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Writes an object of this node's own and reads it back.
    pub(super) async fn round_trip(&self, path: &str, bytes: Vec<u8>) -> Result<(), StoreError> {
        let location = self.location(path)?;
        self.store.put(&location, PutPayload::from(bytes.clone())).await?;
        let read = self.store.get(&location).await?.bytes().await?;
        if read == bytes {
            return Ok(());
        }
        Err(std::io::Error::other("what was written is not what is read; do two nodes have the same name?").into())
    }

    fn location(&self, path: &str) -> Result<Path, StoreError> {
        let full = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(full).map_err(|_| StoreError::Path)
    }
}

impl Reads for Bucket {
    async fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let found = match self.store.get(&self.location(path)?).await {
            Ok(found) => found,
            Err(Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Before it is read into memory.
        let size = found.meta.size;
        if size > limit as u64 {
            return Err(StoreError::TooLarge { found: size, limit });
        }
        Ok(Some(found.bytes().await?.into()))
    }

    /// Reads the vault's own folder and no other.
    async fn list(&self, vault: VaultId) -> Result<Vec<(u64, u64)>, StoreError> {
        let folder = self.location(path::vault_folder(vault).trim_end_matches('/'))?;
        let mut found = self.store.list(Some(&folder));
        let mut versions = Vec::new();
        while let Some(meta) = found.try_next().await? {
            if versions.len() >= LISTED_VERSIONS {
                return Err(StoreError::TooMany);
            }
            versions.extend(meta.location.filename().and_then(path::parse_version).map(|version| (version, meta.size)));
        }
        versions.sort_unstable();
        Ok(versions)
    }
}
