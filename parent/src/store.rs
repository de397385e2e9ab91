//! The object store: a local directory or S3, create-only and durable before it answers.
//!
//! What is in it is sealed and chained by the enclave; nothing here judges it. The clear headers are read only to know which
//! objects belong together, so that opening a vault is one operation.

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::{KeyObject, TOLD_VERSIONS, VersionObject};
use casemate_protocol::object::Object;
use casemate_protocol::path;
use futures_util::{StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    BackoffConfig, ClientOptions, ObjectStore as Backend, ObjectStoreExt, PutMode, PutOptions, PutPayload, RetryConfig,
};
use tokio::sync::Notify;

use crate::config::{Aws, Store};

mod durable;

/// Objects of one vault read at the same time.
const PARALLEL_READS: usize = 8;
/// Versions of one vault that are listed; far above what garbage collection leaves.
const LISTED_VERSIONS: usize = 65_536;
/// One attempt of a call of S3, and all of its attempts.
const S3_ATTEMPT: Duration = Duration::from_secs(5);
const S3_ATTEMPTS: Duration = Duration::from_secs(10);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store itself failed; after a put its outcome is unknown.
    #[error("the object store failed: {0}")]
    Backend(#[from] object_store::Error),
    /// A local disk failed; after a put its outcome is unknown.
    #[error("the object store failed: {0}")]
    Disk(#[source] io::Error),
    /// It took too long.
    #[error("the object store did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    /// A path outside `v1/`, or with characters that none of ours has.
    #[error("the path is not one of this project's objects")]
    Path,
    /// An object or a vault over its limit.
    #[error("an object has {found} bytes, at most {limit} are allowed; it is not one of ours")]
    TooLarge {
        /// What it has.
        found: u64,
        /// What it may have.
        limit: usize,
    },
    /// More versions than can be.
    #[error("a vault has more than {LISTED_VERSIONS} versions; its garbage collection does not run")]
    TooMany,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The directory.
    #[error("store.url: the directory {path} cannot be made or opened: {reason}")]
    Directory {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// S3.
    #[error("store.url: the bucket cannot be used: {0}")]
    S3(object_store::Error),
}

/// What became of a create-only put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// Durable and ours.
    Created,
    /// One was there.
    Exists,
}

/// All that opening a vault needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The newest snapshot and all above it, ascending.
    pub versions: Vec<VersionObject>,
    /// The wrapped keys that they name.
    pub keys: Vec<KeyObject>,
}

/// An open store.
#[derive(Debug)]
pub struct ObjectStore {
    backend: Arc<dyn Backend>,
    prefix: String,
    directory: Option<PathBuf>,
    timeout: Duration,
    /// Paths whose create has not ended. On a local disk an object can be seen before its directory entry is durable; who
    /// reads it back to learn whether a put was committed must not see it earlier.
    creating: Mutex<Vec<String>>,
    settled: Notify,
}

impl ObjectStore {
    /// Opens the configured store. `timeout` bounds every read; a create is never abandoned, because its outcome is wanted.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(store: &Store, aws: &Aws, timeout: Duration) -> Result<Self, OpenError> {
        let (backend, prefix, directory): (Arc<dyn Backend>, _, _) = match store {
            Store::Directory(path) => {
                let failed = |reason: String| OpenError::Directory { path: path.display().to_string(), reason };
                // Sealed or not, the objects are nobody else's business.
                fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(|e| failed(e.to_string()))?;
                let local = LocalFileSystem::new_with_prefix(path).map_err(|error| failed(error.to_string()))?;
                (Arc::new(local.with_fsync(true)), String::new(), Some(path.clone()))
            }
            Store::S3 { bucket, prefix, region, endpoint } => {
                let retry =
                    RetryConfig { backoff: BackoffConfig::default(), max_retries: 3, retry_timeout: S3_ATTEMPTS };
                let client = ClientOptions::new().with_timeout(S3_ATTEMPT).with_connect_timeout(S3_ATTEMPT);
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
                (Arc::new(builder.build().map_err(OpenError::S3)?), prefix.clone(), None)
            }
        };
        Ok(Self { backend, prefix, directory, timeout, creating: Mutex::default(), settled: Notify::new() })
    }

    /// Everything that opening a vault needs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn load(&self, vault: VaultId) -> Result<Loaded, StoreError> {
        self.settled_below(&path::vault_folder(vault)).await?;
        // Garbage collection may delete between list and read; it never reaches the newest snapshot, so once more is enough.
        match self.within(self.load_once(vault)).await? {
            Some(loaded) => Ok(loaded),
            None => Ok(self.within(self.load_once(vault)).await?.unwrap_or(Loaded { versions: vec![], keys: vec![] })),
        }
    }

    /// `None` when an object went away between list and read.
    async fn load_once(&self, vault: VaultId) -> Result<Option<Loaded>, StoreError> {
        // Nearly every vault is wrapped under its shard's first key: ask for it at once, not after the headers.
        let first_key = path::vault_key(vault, 1);
        let (listed, first_key) =
            futures_util::try_join!(self.list(vault), self.read(&first_key, limits::WRAPPED_KEY_BYTES))?;
        let mut keys: Vec<_> = first_key.map(|bytes| KeyObject { generation: 1, bytes }).into_iter().collect();
        let Some((newest, _)) = listed.last().copied() else {
            return Ok(Some(Loaded { versions: Vec::new(), keys }));
        };
        let Some(newest_bytes) = self.read(&path::vault_version(vault, newest), limits::OBJECT_BYTES).await? else {
            return Ok(None);
        };
        let longest = newest.saturating_sub(limits::DELTAS_PER_SNAPSHOT as u64);
        // An unreadable header is for the enclave to judge: it gets as much as any chain has.
        let base = Object::parse(&newest_bytes).map_or(longest, |object| object.header.base).max(longest);
        let below: Vec<(u64, u64)> =
            listed.iter().copied().filter(|(version, _)| (base..newest).contains(version)).collect();
        let total = below.iter().map(|(_, size)| size).sum::<u64>() + newest_bytes.len() as u64;
        if total > limits::LOAD_BYTES as u64 {
            return Err(StoreError::TooLarge { found: total, limit: limits::LOAD_BYTES });
        }
        let read: Vec<Option<VersionObject>> = futures_util::stream::iter(below)
            .map(|(version, _)| async move {
                let bytes = self.read(&path::vault_version(vault, version), limits::OBJECT_BYTES).await?;
                Ok::<_, StoreError>(bytes.map(|bytes| VersionObject { version, bytes }))
            })
            .buffered(PARALLEL_READS)
            .try_collect()
            .await?;
        let Some(mut versions) = read.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        versions.push(VersionObject { version: newest, bytes: newest_bytes });

        let generations: BTreeSet<u32> = versions
            .iter()
            .filter_map(|version| Object::parse(&version.bytes).ok())
            .map(|object| object.header.key_generation)
            .filter(|generation| *generation != 1)
            .collect();
        for generation in generations {
            let found = self.read(&path::vault_key(vault, generation), limits::WRAPPED_KEY_BYTES).await?;
            keys.extend(found.map(|bytes| KeyObject { generation, bytes }));
        }
        Ok(Some(Loaded { versions, keys }))
    }

    /// The newest version alone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn newest(&self, vault: VaultId) -> Result<Option<VersionObject>, StoreError> {
        self.settled_below(&path::vault_folder(vault)).await?;
        self.within(async {
            let Some((version, _)) = self.list(vault).await?.last().copied() else { return Ok(None) };
            let bytes = self.read(&path::vault_version(vault, version), limits::OBJECT_BYTES).await?;
            Ok(bytes.map(|bytes| VersionObject { version, bytes }))
        })
        .await
    }

    /// The versions that exist, ascending; the oldest 4,096 of them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn versions(&self, vault: VaultId) -> Result<Vec<u64>, StoreError> {
        let listed = self.within(self.list(vault)).await?;
        Ok(listed.into_iter().map(|(version, _)| version).take(TOLD_VERSIONS).collect())
    }

    /// One object of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check(path)?;
        self.settled_below(path).await?;
        self.within(self.read(path, limit.min(limits::OBJECT_BYTES))).await
    }

    /// Creates an object, if none has this path, and makes it durable.
    ///
    /// # Errors
    /// See [`StoreError`]; the outcome is unknown then.
    pub async fn create(&self, path: &str, bytes: Vec<u8>) -> Result<Put, StoreError> {
        check(path)?;
        if bytes.len() > limits::OBJECT_BYTES {
            return Err(StoreError::TooLarge { found: bytes.len() as u64, limit: limits::OBJECT_BYTES });
        }
        let _creating = self.begin(path);
        let payload = PutPayload::from(bytes);
        if let Some(root) = &self.directory {
            let (root, name, bytes) = (root.clone(), path.to_owned(), payload.clone());
            let created = blocking(move || durable::create(&root, &name, &Bytes::from(bytes))).await;
            match created {
                Err(error) if error.kind() == ErrorKind::Unsupported => {}
                created => return created.map_err(StoreError::Disk),
            }
        }
        let location = self.location(path)?;
        let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        match self.backend.put_opts(&location, payload, options).await {
            Ok(_) => Ok(Put::Created),
            Err(object_store::Error::AlreadyExists { .. } | object_store::Error::Precondition { .. }) => {
                // The one who made it may have died before its directory entry was durable; whoever finds the same bytes
                // there will take them for committed.
                self.sync_folder(path).await?;
                Ok(Put::Exists)
            }
            Err(error) => {
                // The object may be there nevertheless.
                self.sync_folder(path).await.ok();
                Err(error.into())
            }
        }
    }

    /// Deletes objects in order; absent ones count as deleted.
    ///
    /// # Errors
    /// See [`StoreError`]; those before the failing one are deleted.
    pub async fn delete(&self, paths: &[String]) -> Result<(), StoreError> {
        for path in paths {
            check(path)?;
        }
        self.within(async {
            for path in paths {
                match self.backend.delete(&self.location(path)?).await {
                    Ok(()) | Err(object_store::Error::NotFound { .. }) => {}
                    Err(error) => return Err(error.into()),
                }
            }
            Ok(())
        })
        .await
    }

    /// Writes and reads back an object of this node's own, outside `v1/`: the round trip behind the health verdict. A full disk
    /// and lost permissions show here first.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn round_trip(&self, node: &str) -> Result<Duration, StoreError> {
        let begun = Instant::now();
        let location = self.location(&format!("health/{node}"))?;
        self.within(async {
            let written = begun.elapsed().as_nanos().to_be_bytes().to_vec();
            self.backend.put(&location, PutPayload::from(written)).await?;
            self.backend.get(&location).await?.bytes().await?;
            Ok(())
        })
        .await?;
        Ok(begun.elapsed())
    }

    fn location(&self, path: &str) -> Result<Path, StoreError> {
        let full = if self.prefix.is_empty() { path.to_owned() } else { format!("{}/{path}", self.prefix) };
        Path::parse(full).map_err(|_| StoreError::Path)
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, work).await.map_err(|_| StoreError::Deadline(self.timeout))?
    }

    async fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let found = match self.backend.get(&self.location(path)?).await {
            Ok(found) => found,
            Err(object_store::Error::NotFound { .. }) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        // Before it is read into memory.
        let size = found.meta.size;
        if size > limit as u64 {
            return Err(StoreError::TooLarge { found: size, limit });
        }
        Ok(Some(found.bytes().await?.into()))
    }

    /// Versions and sizes, ascending. Reads the vault's own folder and no other.
    async fn list(&self, vault: VaultId) -> Result<Vec<(u64, u64)>, StoreError> {
        let folder = self.location(path::vault_folder(vault).trim_end_matches('/'))?;
        let mut found = self.backend.list(Some(&folder));
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

    fn creating(&self) -> MutexGuard<'_, Vec<String>> {
        self.creating.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(&self, path: &str) -> Creating<'_> {
        self.creating().push(path.to_owned());
        Creating { store: self, path: path.to_owned() }
    }

    /// Waits until no create below `prefix` is under way.
    async fn settled_below(&self, prefix: &str) -> Result<(), StoreError> {
        self.within(async {
            loop {
                let mut settled = std::pin::pin!(self.settled.notified());
                settled.as_mut().enable();
                if !self.creating().iter().any(|path| path.starts_with(prefix)) {
                    return Ok(());
                }
                settled.await;
            }
        })
        .await
    }

    async fn sync_folder(&self, path: &str) -> Result<(), StoreError> {
        let Some(folder) = self.directory.as_ref().and_then(|root| Some(root.join(path).parent()?.to_owned())) else {
            return Ok(());
        };
        blocking(move || durable::sync_folder(&folder)).await.map_err(StoreError::Disk)
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other)?
}

/// A create under way.
#[derive(Debug)]
struct Creating<'a> {
    store: &'a ObjectStore,
    path: String,
}

impl Drop for Creating<'_> {
    fn drop(&mut self) {
        let mut creating = self.store.creating();
        if let Some(place) = creating.iter().position(|path| *path == self.path) {
            creating.swap_remove(place);
        }
        drop(creating);
        self.store.settled.notify_waiters();
    }
}

/// Only what the enclave has business with: below `v1/`, plain segments.
fn check(path: &str) -> Result<(), StoreError> {
    let plain = |segment: &str| {
        !segment.is_empty()
            && !segment.starts_with('.')
            && segment.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-_".contains(&byte))
    };
    let fits = path.len() <= 200 && path.strip_prefix("v1/").is_some_and(|rest| rest.split('/').all(plain));
    if fits { Ok(()) } else { Err(StoreError::Path) }
}

#[cfg(test)]
mod tests;
