//! The object store, reached over the link's blobs connection.
//!
//! Nothing here believes the parent: paths are built by the caller, sizes are checked, and an answer of another kind than the question is
//! a failure.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use casemate_link::{CallError, Caller, Connection};
use casemate_protocol::codec;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::{LOAD_BYTES, OBJECT_BYTES, WRAPPED_KEY_BYTES};
use casemate_protocol::link::{BLOB_BYTES, BlobCall, BlobReply, KeyObject, VersionObject};
use tokio::sync::watch;

use super::router::{Loaded, Put};
use crate::outside::{BlobStore, BoxFuture, PutOutcome, StoreError};

/// Longest wait for an answer unless the parent's tuning says otherwise.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
/// Longest wait for the end of a put that was given up: while it may still reach the store, its vault is not opened again.
const PUT_END: Duration = Duration::from_mins(1);

/// The store. Clones share the connection.
#[derive(Debug, Clone)]
pub struct LinkStore(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    connection: watch::Receiver<Option<Caller>>,
    timeout_ms: AtomicU64,
    failures: AtomicU64,
}

/// Puts each blobs connection where the store finds it; for [`super::dial::Dialler::keep`].
#[derive(Debug)]
pub struct StoreConnection(watch::Sender<Option<Caller>>);

impl StoreConnection {
    /// Serves `connection` until it ends.
    pub async fn serve(&self, mut connection: Connection) {
        self.0.send_replace(Some(connection.caller.clone()));
        // The parent asks nothing here; whatever it says is dropped, which tells it so.
        while connection.incoming.recv().await.is_some() {}
        self.0.send_replace(None);
    }
}

/// Why a call brought nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Failure {
    /// It never left this enclave.
    NotSent,
    /// It may have taken effect.
    Unclear,
}

impl From<Failure> for StoreError {
    fn from(failure: Failure) -> Self {
        Self(
            match failure {
                Failure::NotSent => "the link to the parent is down or full",
                Failure::Unclear => "no answer, or one that says that it failed",
            }
            .to_owned(),
        )
    }
}

impl LinkStore {
    /// A store that has no connection yet.
    pub fn new() -> (Self, StoreConnection) {
        let (sender, connection) = watch::channel(None);
        let timeout_ms = AtomicU64::new(u64::try_from(DEFAULT_TIMEOUT.as_millis()).expect("five seconds"));
        (Self(Arc::new(Shared { connection, timeout_ms, failures: AtomicU64::new(0) })), StoreConnection(sender))
    }

    /// Sets the longest wait for one answer.
    pub fn set_timeout(&self, timeout: Duration) {
        self.0.timeout_ms.store(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1), Ordering::Relaxed);
    }

    /// Calls that failed since boot.
    pub fn failures(&self) -> u64 {
        self.0.failures.load(Ordering::Relaxed)
    }

    /// Whether the connection is up.
    pub fn is_connected(&self) -> bool {
        self.0.connection.borrow().is_some()
    }

    fn timeout(&self) -> Duration {
        Duration::from_millis(self.0.timeout_ms.load(Ordering::Relaxed))
    }

    /// The newest version of a vault.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn newest(&self, vault: VaultId) -> Result<Option<VersionObject>, StoreError> {
        match self.call(&BlobCall::Newest(vault), self.timeout()).await? {
            BlobReply::Newest(newest) if newest.as_ref().is_none_or(is_object) => Ok(newest),
            _ => Err(self.failed()),
        }
    }

    /// Everything that opening a vault needs.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn load(&self, vault: VaultId) -> Result<Loaded, StoreError> {
        match self.call(&BlobCall::Load(vault), self.timeout()).await? {
            BlobReply::Loaded { versions, keys } if fits(&versions, &keys) => Ok(Loaded { versions, keys }),
            _ => Err(self.failed()),
        }
    }

    /// The versions that exist, ascending.
    ///
    /// # Errors
    /// When the store cannot tell.
    pub async fn versions(&self, vault: VaultId) -> Result<Vec<u64>, StoreError> {
        match self.call(&BlobCall::Versions(vault), self.timeout()).await? {
            BlobReply::Versions(versions) => Ok(versions),
            _ => Err(self.failed()),
        }
    }

    /// Deletes objects, in this order, [`DELETE_PATHS`](casemate_protocol::link::DELETE_PATHS) at most.
    ///
    /// # Errors
    /// When it is not known whether they are deleted.
    pub async fn delete(&self, paths: Vec<String>) -> Result<(), StoreError> {
        match self.call(&BlobCall::Delete { paths }, self.timeout()).await? {
            BlobReply::Deleted => Ok(()),
            _ => Err(self.failed()),
        }
    }

    /// One put, until it has ended.
    pub async fn put(&self, path: String, bytes: Bytes) -> Put {
        match self.call(&BlobCall::Create { path, bytes: bytes.into() }, PUT_END).await {
            Ok(BlobReply::Created) => Put::Created,
            Ok(BlobReply::Exists) => Put::Exists,
            Ok(_) => {
                self.count();
                Put::Unclear
            }
            Err(Failure::Unclear) => Put::Unclear,
            Err(Failure::NotSent) => Put::NotSent,
        }
    }

    async fn call(&self, call: &BlobCall, timeout: Duration) -> Result<BlobReply, Failure> {
        let end = tokio::time::Instant::now() + timeout;
        let mut connection = self.0.connection.clone();
        // A link that is being dialled again is waited for, for half of the time that an answer may take.
        let up = tokio::time::timeout(timeout.min(self.timeout()) / 2, connection.wait_for(Option::is_some));
        let caller = match up.await {
            Ok(Ok(caller)) => caller.clone(),
            Ok(Err(_)) | Err(_) => None,
        };
        let begun = caller.ok_or(CallError::Busy).and_then(|caller| caller.begin(codec::encode(call).into()));
        let Ok(in_flight) = begun else {
            self.count();
            return Err(Failure::NotSent);
        };
        let left = end.saturating_duration_since(tokio::time::Instant::now());
        let reply = in_flight.wait(left).await.ok().and_then(|reply| codec::decode(&reply, BLOB_BYTES).ok());
        match reply {
            // The text is the parent's; it goes nowhere.
            Some(BlobReply::Failed(_)) | None => {
                self.count();
                Err(Failure::Unclear)
            }
            Some(reply) => Ok(reply),
        }
    }

    fn failed(&self) -> StoreError {
        self.count();
        StoreError("an answer of another kind than the question".to_owned())
    }

    fn count(&self) {
        self.0.failures.fetch_add(1, Ordering::Relaxed);
    }
}

fn is_object(version: &VersionObject) -> bool {
    version.bytes.len() <= OBJECT_BYTES
}

/// Whether a load can be one of ours. Attack stopped: more than a vault-manager's socket takes, for which that process would be
/// blamed.
fn fits(versions: &[VersionObject], keys: &[KeyObject]) -> bool {
    let bytes: usize = versions.iter().map(|version| version.bytes.len()).sum();
    versions.iter().all(is_object) && bytes <= LOAD_BYTES && keys.iter().all(|key| key.bytes.len() <= WRAPPED_KEY_BYTES)
}

impl BlobStore for LinkStore {
    fn get<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move {
            let call = BlobCall::Get { path: path.to_owned(), limit: u32::try_from(limit).unwrap_or(u32::MAX) };
            match self.call(&call, self.timeout()).await? {
                BlobReply::Object(object) if object.as_ref().is_none_or(|object| object.len() <= limit) => Ok(object),
                _ => Err(self.failed()),
            }
        })
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move {
            match self.call(&BlobCall::Create { path: path.to_owned(), bytes }, self.timeout()).await? {
                BlobReply::Created => Ok(PutOutcome::Created),
                BlobReply::Exists => Ok(PutOutcome::Exists),
                _ => Err(self.failed()),
            }
        })
    }
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
