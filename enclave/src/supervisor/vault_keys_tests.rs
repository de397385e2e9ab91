use std::sync::atomic::{AtomicU32, Ordering};

use casemate_protocol::trust::ClusterId;

use super::*;
use crate::keys::cache::Policy;
use crate::keys::shards::ShardKeyringParts;
use crate::outside::{BoxFuture, GeneratedKey, KeyContext, KeyService, KeyServiceError, StoreError};
use crate::supervisor::fakes::{ManualClock, MemoryStore};
use crate::system::OsRandomness;

/// A key service that wraps nothing: the ciphertext names the key.
#[derive(Debug, Default)]
struct Kms {
    calls: AtomicU32,
    refuses: bool,
}

impl Kms {
    fn key(ciphertext: &[u8]) -> Zeroizing<[u8; 32]> {
        Zeroizing::new(casemate_protocol::label::hash("test", &[ciphertext]))
    }
}

impl KeyService for Kms {
    fn generate<'a>(&'a self, _: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>> {
        let call = self.calls.fetch_add(1, Ordering::Relaxed);
        let ciphertext = call.to_be_bytes().to_vec();
        Box::pin(async move { Ok(GeneratedKey { plaintext: Self::key(&ciphertext), ciphertext }) })
    }

    fn unseal<'a>(
        &'a self,
        _: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        let refuses = self.refuses;
        Box::pin(async move {
            if refuses { Err(KeyServiceError::Refused("AccessDenied".to_owned())) } else { Ok(Self::key(ciphertext)) }
        })
    }
}

/// A store whose creates land and are then answered with a failure, so many times.
#[derive(Debug, Default)]
struct Flaky {
    inner: MemoryStore,
    failures: AtomicU32,
}

impl BlobStore for Flaky {
    fn get<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        self.inner.get(path, limit)
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move {
            let outcome = self.inner.create(path, bytes).await;
            let fails = path.contains("/keys/")
                && self.failures.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            if fails { Err(StoreError("cut".to_owned())) } else { outcome }
        })
    }
}

fn keys(store: Arc<dyn BlobStore>, service: Arc<Kms>) -> VaultKeys {
    let clock = Arc::new(ManualClock::default());
    let randomness = Arc::new(OsRandomness);
    let keyring = ShardKeyring::new(ShardKeyringParts {
        service,
        store: Arc::clone(&store),
        clock: clock.clone(),
        randomness: randomness.clone(),
        cluster: ClusterId([7; 32]),
        policy: Policy::default(),
    });
    VaultKeys { keyring, store, randomness, log: Log::new(clock) }
}

fn objects(store: &MemoryStore, vault: VaultId) -> Vec<KeyObject> {
    let bytes = store.0.lock().unwrap().get(&path::vault_key(vault, GENERATION)).cloned().unwrap();
    vec![KeyObject { generation: GENERATION, bytes }]
}

#[tokio::test]
async fn a_new_key_is_stored_before_it_is_used_and_opens_again() {
    let (store, kms) = (Arc::new(MemoryStore::default()), Arc::new(Kms::default()));
    let vault = VaultId::from_bytes([5; 20]);
    let made = keys(store.clone(), kms.clone()).vault_key(vault, &[]).await.unwrap();
    assert_eq!((made.key.len(), made.generation), (32, GENERATION));
    // Another boot, and the shard's own object lost: the copy in the wrapped key is enough.
    store.0.lock().unwrap().retain(|path, _| !path.contains("/shards/"));
    let opened = keys(store.clone(), kms).vault_key(vault, &objects(&store, vault)).await.unwrap();
    assert_eq!(opened.key, made.key);
}

#[tokio::test]
async fn of_two_creations_the_first_key_stands() {
    let (store, kms) = (Arc::new(MemoryStore::default()), Arc::new(Kms::default()));
    let vault = VaultId::from_bytes([5; 20]);
    let both = keys(store, kms);
    let (first, second) = (both.vault_key(vault, &[]).await.unwrap(), both.vault_key(vault, &[]).await.unwrap());
    assert_eq!(first.key, second.key);
}

#[tokio::test]
async fn an_unclear_put_is_read_back() {
    let store = Arc::new(Flaky { failures: AtomicU32::new(1), ..Flaky::default() });
    let vault = VaultId::from_bytes([5; 20]);
    let made = keys(store.clone(), Arc::new(Kms::default())).vault_key(vault, &[]).await.unwrap();
    let opened =
        keys(store.clone(), Arc::new(Kms::default())).vault_key(vault, &objects(&store.inner, vault)).await.unwrap();
    assert_eq!(opened.key, made.key);
}

#[tokio::test]
async fn many_cold_starts_of_one_shard_make_one_call() {
    let (store, kms) = (Arc::new(MemoryStore::default()), Arc::new(Kms::default()));
    let first = keys(store.clone(), kms.clone());
    let vaults: Vec<_> = (0..20)
        .map(|number| VaultId::from_bytes([[5; 1].as_slice(), &[number; 19]].concat().try_into().unwrap()))
        .collect();
    for vault in &vaults {
        first.vault_key(*vault, &[]).await.unwrap();
    }
    let again = keys(store.clone(), kms.clone());
    let before = kms.calls.load(Ordering::Relaxed);
    for vault in &vaults {
        again.vault_key(*vault, &objects(&store, *vault)).await.unwrap();
    }
    assert_eq!(kms.calls.load(Ordering::Relaxed) - before, 1);
}

#[tokio::test]
async fn refusals_and_forgeries_are_told_apart() {
    let (store, kms) = (Arc::new(MemoryStore::default()), Arc::new(Kms::default()));
    let (vault, other) = (VaultId::from_bytes([5; 20]), VaultId::from_bytes([6; 20]));
    let healthy = keys(store.clone(), kms);
    healthy.vault_key(vault, &[]).await.unwrap();
    let mut forged = objects(&store, vault);
    *forged[0].bytes.last_mut().unwrap() ^= 1;
    let code = |result: Result<VaultKey, Refusal>| result.unwrap_err().code;
    assert_eq!(code(healthy.vault_key(vault, &forged).await), ErrorCode::StateCorrupt);
    assert_eq!(code(healthy.vault_key(other, &objects(&store, vault)).await), ErrorCode::StateCorrupt, "exchanged");
    let refusing = keys(store.clone(), Arc::new(Kms { refuses: true, ..Kms::default() }));
    assert_eq!(code(refusing.vault_key(vault, &objects(&store, vault)).await), ErrorCode::AccessRefused);
}
