//! The keyring: gives the supervisor shard keys, from memory when it can.
//!
//! Two caches stand behind each other, both of the one kind in [`super::cache`]: sealed shard keys as the store holds them, which are
//! no secrets and stay; and unsealed ones, which have a time to live and a hard limit. This file owns what the state machine does
//! not: locks, tasks, waiting callers and time.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_protocol::id::Shard;
use casemate_protocol::trust::ClusterId;
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::cache::{Action, Cache, Failure, Lookup, Policy, Waiter};
use super::ledger::{KmsStatus, Recorded};
use super::stored::{self, SealedShardKey, Slot};
use crate::outside::{BlobStore, BoxFuture, Clock, KeyService, KeyServiceError, Randomness, within};

/// How long one load may take, whoever waits for it: two calls to the key service and a few to the store.
const LOAD_DEADLINE: Duration = Duration::from_secs(15);
/// How often refreshes and hard limits are looked after.
const TICK: Duration = Duration::from_secs(1);

/// An unsealed shard key. Wiped when its last holder drops it; holders keep it for one derivation, not longer.
pub struct ShardKey {
    key: Zeroizing<[u8; 32]>,
    sealed: SealedShardKey,
}

impl ShardKey {
    /// Joins a key with what it was unsealed from.
    pub fn new(key: Zeroizing<[u8; 32]>, sealed: SealedShardKey) -> Self {
        Self { key, sealed }
    }

    /// The key.
    pub fn key(&self) -> &[u8; 32] {
        &self.key
    }

    /// What it was unsealed from.
    pub fn sealed(&self) -> &SealedShardKey {
        &self.sealed
    }

    /// Which shard key it is.
    pub fn slot(&self) -> Slot {
        self.sealed.slot()
    }
}

impl fmt::Debug for ShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardKey").field("key", &"redacted").field("sealed", &self.sealed).finish()
    }
}

/// Why there is no shard key now.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ShardKeyError {
    /// The key service or the store throttles, fails or cannot be reached.
    #[error("no shard key: {reason}; it is tried again after {retry_after:?}")]
    Unavailable {
        /// What failed.
        reason: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// The key was in memory, but the key service has not confirmed it within the hard limit.
    #[error("no shard key: the key service has not confirmed it for longer than the hard limit ({reason})")]
    HardLimit {
        /// Why it could not confirm.
        reason: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// The key service refuses this enclave, this key or this ciphertext.
    #[error(
        "no shard key: the key service refuses it ({code}); check the key's policy, its state and the image's measurements"
    )]
    Refused {
        /// The key service's own code.
        code: String,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// An answer that the key service cannot have given.
    #[error(
        "no shard key: an answer was not believed ({what}); look at who is on the path to the key service and the store"
    )]
    NotBelieved {
        /// What was wrong with it.
        what: &'static str,
        /// When asking again may help.
        retry_after: Duration,
    },
    /// The ciphertext at hand is none.
    #[error(transparent)]
    BlobLength(#[from] stored::BlobLengthError),
    /// The caller's deadline came first. The load goes on and the next caller finds its result.
    #[error("no shard key before the deadline; ask again")]
    DeadlineExceeded,
}

impl From<Failure> for ShardKeyError {
    fn from(failure: Failure) -> Self {
        let Failure { error, retry_after, past_hard_limit } = failure;
        match error {
            KeyServiceError::Refused(code) => Self::Refused { code, retry_after },
            KeyServiceError::NotBelieved(what) => Self::NotBelieved { what, retry_after },
            KeyServiceError::Throttled | KeyServiceError::Unavailable(_) => {
                let reason = error.to_string();
                if past_hard_limit {
                    Self::HardLimit { reason, retry_after }
                } else {
                    Self::Unavailable { reason, retry_after }
                }
            }
        }
    }
}

/// What a [`ShardKeyring`] is made of.
#[derive(Debug, Clone)]
pub struct ShardKeyringParts {
    /// Unseals shard keys.
    pub service: Arc<dyn KeyService>,
    /// Holds sealed ones.
    pub store: Arc<dyn BlobStore>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// For jitter.
    pub randomness: Arc<dyn Randomness>,
    /// This cluster, to which the key service binds each key.
    pub cluster: ClusterId,
    /// How long keys serve.
    pub policy: Policy,
}

/// Gives shard keys. Clones share everything. Its methods run on a tokio runtime and spawn their loads there, so that a caller who
/// leaves takes nobody's load with him.
#[derive(Clone)]
pub struct ShardKeyring(Arc<Inner>);

struct Inner {
    service: Recorded,
    store: Arc<dyn BlobStore>,
    clock: Arc<dyn Clock>,
    randomness: Arc<dyn Randomness>,
    cluster_id: String,
    backoff_base: Duration,
    sealed: Shelf<Slot, SealedShardKey>,
    unsealed: Shelf<SealedShardKey, Arc<ShardKey>>,
}

impl fmt::Debug for ShardKeyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardKeyring").field("cluster_id", &self.0.cluster_id).finish_non_exhaustive()
    }
}

impl ShardKeyring {
    /// An empty keyring.
    pub fn new(parts: ShardKeyringParts) -> Self {
        let ShardKeyringParts { service, store, clock, randomness, cluster, policy } = parts;
        Self(Arc::new(Inner {
            service: Recorded::new(service, Arc::clone(&clock)),
            store,
            clock,
            randomness,
            cluster_id: hex::encode(cluster.0),
            backoff_base: policy.backoff_base,
            sealed: Shelf::new(policy.clone().forever()),
            unsealed: Shelf::new(policy),
        }))
    }

    /// The shard key that stands in the store; made there if there is none yet.
    ///
    /// # Errors
    /// See [`ShardKeyError`].
    pub async fn shard_key(
        &self,
        shard: Shard,
        generation: u32,
        deadline: Duration,
    ) -> Result<Arc<ShardKey>, ShardKeyError> {
        let slot = Slot { shard, generation };
        self.in_time(deadline, async {
            let sealed = get(&self.0, slot).await?;
            let result = get(&self.0, sealed).await;
            if let Err(Failure { error: KeyServiceError::Refused(_) | KeyServiceError::NotBelieved(_), .. }) = &result {
                // The host may have shown a false object once: it is read anew before the next try.
                self.0.sealed.lock().cache.forget(|known| *known == slot);
            }
            result
        })
        .await
    }

    /// The shard key sealed in `blob`, the copy that a wrapped vault key carries: works without the store, and whatever the store
    /// shows. Shares its place in memory with [`Self::shard_key`] when both are the same ciphertext.
    ///
    /// # Errors
    /// See [`ShardKeyError`].
    pub async fn shard_key_from_blob(
        &self,
        shard: Shard,
        generation: u32,
        blob: &[u8],
        deadline: Duration,
    ) -> Result<Arc<ShardKey>, ShardKeyError> {
        let sealed = SealedShardKey::new(Slot { shard, generation }, blob)?;
        self.in_time(deadline, get(&self.0, sealed)).await
    }

    async fn in_time(
        &self,
        deadline: Duration,
        key: impl Future<Output = Result<Arc<ShardKey>, Failure>> + Send,
    ) -> Result<Arc<ShardKey>, ShardKeyError> {
        match within(&*self.0.clock, deadline, key).await {
            Some(result) => result.map_err(ShardKeyError::from),
            None => Err(ShardKeyError::DeadlineExceeded),
        }
    }

    /// The clock by which keys age.
    pub fn clock(&self) -> &dyn Clock {
        &*self.0.clock
    }

    /// Drops and wipes every key of `shard`: it has moved to another node.
    pub fn forget_shard(&self, shard: Shard) {
        self.0.sealed.lock().cache.forget(|slot| slot.shard == shard);
        self.0.unsealed.lock().cache.forget(|sealed| sealed.slot().shard == shard);
    }

    /// What health says.
    pub fn status(&self) -> KmsStatus {
        let (held, counters) = {
            let unsealed = self.0.unsealed.lock();
            (unsealed.cache.held(), unsealed.cache.counters())
        };
        self.0.service.ledger().status(held, counters)
    }

    /// Refreshes keys in the background and drops those past their hard limit, until the task is dropped.
    pub async fn run(self) {
        loop {
            self.tick();
            self.0.clock.sleep(TICK).await;
        }
    }

    /// One round of [`Self::run`].
    fn tick(&self) {
        let now = self.0.clock.monotonic();
        let mut actions = Vec::new();
        let mut unsealed = self.0.unsealed.lock();
        unsealed.cache.tick(now, &mut actions);
        perform(&self.0, &mut unsealed, actions);
    }
}

/// A cache with the callers that wait on it.
struct Shelf<K, V>(Mutex<Shelved<K, V>>);

struct Shelved<K, V> {
    cache: Cache<K, V>,
    waiting: HashMap<Waiter, oneshot::Sender<Result<V, Failure>>>,
}

impl<K: Clone + Eq + Hash, V: Clone> Shelf<K, V> {
    fn new(policy: Policy) -> Self {
        Self(Mutex::new(Shelved { cache: Cache::new(policy), waiting: HashMap::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, Shelved<K, V>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What names a value on a shelf, and how that value is loaded.
trait Load: Clone + Eq + Hash + Send + 'static {
    type Value: Clone + Send + 'static;

    fn shelf(inner: &Inner) -> &Shelf<Self, Self::Value>;
    fn load<'a>(&'a self, inner: &'a Inner) -> BoxFuture<'a, Result<Self::Value, KeyServiceError>>;
}

impl Load for Slot {
    type Value = SealedShardKey;

    fn shelf(inner: &Inner) -> &Shelf<Self, SealedShardKey> {
        &inner.sealed
    }

    fn load<'a>(&'a self, inner: &'a Inner) -> BoxFuture<'a, Result<SealedShardKey, KeyServiceError>> {
        let pause = |attempt: u32| {
            let full = inner.backoff_base.saturating_mul(2_u32.saturating_pow(attempt - 1)).min(Duration::from_secs(2));
            let pause = full / 2 + (full / 2).mul_f64(f64::from(inner.jitter()) / f64::from(u32::MAX));
            inner.clock.sleep(pause)
        };
        Box::pin(stored::establish(*self, &inner.cluster_id, &inner.service, &*inner.store, pause))
    }
}

impl Load for SealedShardKey {
    type Value = Arc<ShardKey>;

    fn shelf(inner: &Inner) -> &Shelf<Self, Arc<ShardKey>> {
        &inner.unsealed
    }

    fn load<'a>(&'a self, inner: &'a Inner) -> BoxFuture<'a, Result<Arc<ShardKey>, KeyServiceError>> {
        Box::pin(async move {
            let context = self.slot().context(&inner.cluster_id);
            let key = inner.service.unseal(&context, self.blob()).await?;
            Ok(Arc::new(ShardKey::new(key, self.clone())))
        })
    }
}

impl Inner {
    fn jitter(&self) -> u32 {
        let mut bytes = [0; 4];
        self.randomness.fill(&mut bytes);
        u32::from_ne_bytes(bytes)
    }
}

async fn get<K: Load>(inner: &Arc<Inner>, key: K) -> Result<K::Value, Failure> {
    let answer = {
        let now = inner.clock.monotonic();
        let mut actions = Vec::new();
        let mut shelf = K::shelf(inner).lock();
        let found = shelf.cache.lookup(&key, now, &mut actions);
        let found = match found {
            Lookup::Hit(value) => Ok(Ok(value)),
            Lookup::Fail(failure) => Ok(Err(failure)),
            Lookup::Wait(waiter) => {
                let (sender, receiver) = oneshot::channel();
                shelf.waiting.insert(waiter, sender);
                Err(receiver)
            }
        };
        perform(inner, &mut shelf, actions);
        found
    };
    match answer {
        Ok(result) => result,
        Err(receiver) => {
            receiver.await.expect("every load ends, at its deadline at the latest, and answers its waiters")
        }
    }
}

/// Does what the cache wants done. Never waits: loads run in tasks of their own.
fn perform<K: Load>(inner: &Arc<Inner>, shelf: &mut Shelved<K, K::Value>, actions: Vec<Action<K, K::Value>>) {
    for action in actions {
        match action {
            Action::Answer(waiter, result) => {
                if let Some(sender) = shelf.waiting.remove(&waiter) {
                    // The caller may have left at its own deadline.
                    drop(sender.send(result));
                }
            }
            Action::Start(key) => {
                let inner = Arc::clone(inner);
                tokio::spawn(async move {
                    let result = within(&*inner.clock, LOAD_DEADLINE, key.load(&inner)).await.unwrap_or_else(|| {
                        Err(KeyServiceError::Unavailable(format!("no shard key within {LOAD_DEADLINE:?}")))
                    });
                    let (now, jitter) = (inner.clock.monotonic(), inner.jitter());
                    let mut actions = Vec::new();
                    let mut shelf = K::shelf(&inner).lock();
                    shelf.cache.finished(&key, result, now, jitter, &mut actions);
                    perform(&inner, &mut shelf, actions);
                });
            }
        }
    }
}

#[cfg(test)]
#[path = "shards_tests.rs"]
mod tests;
