//! The object store: a local directory or S3, create-only and durable before it answers.
//!
//! What is in it is sealed and chained by the enclave; nothing here judges it. The clear headers are read only to know which
//! objects belong together, so that opening a vault is one operation.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::{KeyObject, TOLD_VERSIONS, VersionObject};
use casemate_protocol::path;
use futures_util::FutureExt;
use tokio::sync::Notify;

use crate::config::{Aws, Store};

mod disk;
mod load;
mod s3;

use disk::Disk;
use load::Reads;
use s3::Bucket;

/// Versions of one vault that are listed; far above what garbage collection leaves.
const LISTED_VERSIONS: usize = 65_536;

/// Bytes of the round trip behind the health verdict: as many as a small vault's, so that a disk with room for a name alone is not well.
const ROUND_TRIP_BYTES: usize = 16 * 1024;
/// And its longest time; [`crate::health::STORE_LIMIT`] counts on it.
const ROUND_TRIP_TIMEOUT: Duration = Duration::from_millis(2500);

/// Why the store did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The store itself failed; after a put its outcome is unknown.
    #[error("the object store failed: {0}")]
    Backend(#[from] object_store::Error),
    /// A local disk failed; after a put its outcome is unknown.
    #[error("the object store failed: {0}")]
    Disk(#[from] io::Error),
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
    backend: Backend,
    timeout: Duration,
    /// Paths whose create has not ended. On a local disk an object can be seen before its directory entry is durable; who
    /// reads it back to learn whether a put was committed must not see it earlier.
    creating: Mutex<Vec<String>>,
    settled: Notify,
}

#[derive(Debug)]
enum Backend {
    Disk(Arc<Disk>),
    S3(Bucket),
}

impl ObjectStore {
    /// Opens the configured store. `timeout` bounds every read; a create is never abandoned, because its outcome is wanted.
    ///
    /// # Errors
    /// See [`OpenError`].
    pub fn open(store: &Store, aws: &Aws, timeout: Duration) -> Result<Self, OpenError> {
        let backend = match store {
            Store::Directory(path) => {
                let failed = |error: io::Error| OpenError::Directory {
                    path: path.display().to_string(),
                    reason: error.to_string(),
                };
                Backend::Disk(Arc::new(Disk::open(path).map_err(failed)?))
            }
            Store::S3 { bucket, prefix, region, endpoint } => {
                Backend::S3(Bucket::open(bucket, prefix, region, endpoint.as_deref(), aws).map_err(OpenError::S3)?)
            }
        };
        Ok(Self { backend, timeout, creating: Mutex::default(), settled: Notify::new() })
    }

    /// Everything that opening a vault needs.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn load(&self, vault: VaultId) -> Result<Loaded, StoreError> {
        self.settled_below(&path::vault_folder(vault)).await?;
        self.within(async {
            match &self.backend {
                Backend::Disk(disk) => on_disk(disk, async move |disk| load::load(&*disk, vault).await).await,
                Backend::S3(bucket) => load::load(bucket, vault).await,
            }
        })
        .await
    }

    /// The newest version alone.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn newest(&self, vault: VaultId) -> Result<Option<VersionObject>, StoreError> {
        self.settled_below(&path::vault_folder(vault)).await?;
        self.within(async {
            match &self.backend {
                Backend::Disk(disk) => on_disk(disk, async move |disk| load::newest(&*disk, vault).await).await,
                Backend::S3(bucket) => load::newest(bucket, vault).await,
            }
        })
        .await
    }

    /// The versions that exist, ascending; the oldest 4,096 of them.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn versions(&self, vault: VaultId) -> Result<Vec<u64>, StoreError> {
        let listed = self
            .within(async {
                match &self.backend {
                    Backend::Disk(disk) => on_disk(disk, async move |disk| disk.list(vault).await).await,
                    Backend::S3(bucket) => bucket.list(vault).await,
                }
            })
            .await?;
        Ok(listed.into_iter().map(|(version, _)| version).take(TOLD_VERSIONS).collect())
    }

    /// One object of at most `limit` bytes.
    ///
    /// # Errors
    /// See [`StoreError`].
    pub async fn get(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        check(path)?;
        self.settled_below(path).await?;
        let limit = limit.min(limits::OBJECT_BYTES);
        self.within(async {
            match &self.backend {
                Backend::Disk(disk) => {
                    let path = path.to_owned();
                    on_disk(disk, async move |disk| disk.read(&path, limit).await).await
                }
                Backend::S3(bucket) => bucket.read(path, limit).await,
            }
        })
        .await
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
        let creating = self.begin(path);
        match &self.backend {
            Backend::Disk(disk) => {
                let path = path.to_owned();
                let (put, durable) = on_disk(disk, async move |disk| Ok(disk.create(&path, &bytes)?)).await?;
                creating.settle(durable).map(|()| put)
            }
            Backend::S3(bucket) => bucket.create(path, bytes).await,
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
            match &self.backend {
                Backend::Disk(disk) => {
                    let paths = paths.to_vec();
                    let delete =
                        async move |disk: Arc<Disk>| Ok(paths.iter().try_for_each(|path| disk.delete(path))?);
                    on_disk(disk, delete).await
                }
                Backend::S3(bucket) => {
                    for path in paths {
                        bucket.delete(path).await?;
                    }
                    Ok(())
                }
            }
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
        // Never the same bytes twice: what is read back is what was written now.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos().to_be_bytes();
        let (path, written) = (format!("health/{node}"), now.repeat(ROUND_TRIP_BYTES / now.len()));
        let timeout = self.timeout.min(ROUND_TRIP_TIMEOUT);
        let trip = async {
            match &self.backend {
                Backend::Disk(disk) => on_disk(disk, async move |disk| Ok(disk.round_trip(&path, &written)?)).await,
                Backend::S3(bucket) => bucket.round_trip(&path, written).await,
            }
        };
        tokio::time::timeout(timeout, trip).await.map_err(|_| StoreError::Deadline(timeout))??;
        Ok(begun.elapsed())
    }

    async fn within<T>(&self, work: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        tokio::time::timeout(self.timeout, work).await.map_err(|_| StoreError::Deadline(self.timeout))?
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
}

/// Does all of something at a disk on one thread that may block. What is done there waits for nothing else.
async fn on_disk<T, F>(disk: &Arc<Disk>, work: impl FnOnce(Arc<Disk>) -> F + Send + 'static) -> Result<T, StoreError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, StoreError>>,
{
    let disk = Arc::clone(disk);
    let done = tokio::task::spawn_blocking(move || work(disk).now_or_never());
    done.await.map_err(io::Error::other)?.ok_or_else(|| io::Error::other("a disk waits for nothing"))?
}

/// A create under way.
#[derive(Debug)]
struct Creating<'a> {
    store: &'a ObjectStore,
    path: String,
}

impl Creating<'_> {
    /// Ends it, unless its name could not be made durable: then the object can be seen and may not last, and nobody reads it, and takes
    /// it for committed, as long as this process runs.
    fn settle(self, durable: io::Result<()>) -> Result<(), StoreError> {
        durable.map_err(|error| {
            std::mem::forget(self);
            error.into()
        })
    }
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
