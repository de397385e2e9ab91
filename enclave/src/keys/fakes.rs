//! A false outside for this folder's tests: a clock that is set, a key service and a store that fail on demand.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use zeroize::Zeroizing;

use crate::outside::{
    BlobStore, BoxFuture, Clock, EvidenceRequest, GeneratedKey, KeyContext, KeyService, KeyServiceError, Measurements,
    ModuleError, PutOutcome, Randomness, SecurityModule, StoreError,
};

/// A clock that stands still until it is told.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(AtomicU64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        self.0.fetch_add(u64::try_from(by.as_millis()).unwrap(), Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.0.load(Ordering::SeqCst))
    }

    fn unix_seconds(&self) -> u64 {
        1_790_000_000 + self.0.load(Ordering::SeqCst) / 1_000
    }
}

/// Counts up instead of being random, so that goldens hold.
#[derive(Debug, Default)]
pub(crate) struct CountingRandomness(AtomicU64);

impl Randomness for CountingRandomness {
    fn fill(&self, out: &mut [u8]) {
        for byte in out {
            *byte = u8::try_from(self.0.fetch_add(1, Ordering::SeqCst) % 251).unwrap();
        }
    }
}

/// A module whose documents are "document 0", "document 1", …
#[derive(Debug, Default)]
pub(crate) struct FakeModule {
    made: AtomicUsize,
    last_public_key: Mutex<Option<Vec<u8>>>,
}

impl FakeModule {
    pub(crate) fn documents(&self) -> usize {
        self.made.load(Ordering::SeqCst)
    }

    pub(crate) fn last_public_key(&self) -> Option<Vec<u8>> {
        self.last_public_key.lock().unwrap().clone()
    }
}

impl SecurityModule for FakeModule {
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        Ok(Measurements { pcrs: [[1; 48]; 3] })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        *self.last_public_key.lock().unwrap() = request.public_key;
        Ok(format!("document {}", self.made.fetch_add(1, Ordering::SeqCst)).into_bytes())
    }

    fn extend(&self, _: u16, _: &[u8]) -> Result<Vec<u8>, ModuleError> {
        Err(ModuleError { operation: "extend", reason: "not part of these tests".to_owned() })
    }

    fn lock(&self, _: u16) -> Result<(), ModuleError> {
        Ok(())
    }

    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        Ok(None)
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        out.fill(7);
        Ok(())
    }
}

/// A key service whose ciphertexts name their key and context in clear.
#[derive(Debug, Default)]
pub(crate) struct FakeService {
    pub(crate) generated: AtomicUsize,
    pub(crate) unsealed: AtomicUsize,
    /// Makes calls fail, in this order, before any succeeds.
    pub(crate) failures: Mutex<VecDeque<KeyServiceError>>,
    pub(crate) delay: Mutex<Duration>,
}

impl FakeService {
    async fn end(&self) -> Result<(), KeyServiceError> {
        let delay = *self.delay.lock().unwrap();
        tokio::time::sleep(delay).await;
        self.failures.lock().unwrap().pop_front().map_or(Ok(()), Err)
    }

    pub(crate) fn fail(&self, error: &KeyServiceError, times: usize) {
        self.failures.lock().unwrap().extend(std::iter::repeat_n(error.clone(), times));
    }

    fn seal(context: &KeyContext, number: u8) -> Vec<u8> {
        format!("{number}|{}|{}|{}", context.cluster_id, context.shard, context.generation).into_bytes()
    }

    /// The key inside the `number`-th ciphertext.
    pub(crate) fn key(number: u8) -> [u8; 32] {
        [number.wrapping_mul(3).wrapping_add(1); 32]
    }
}

impl KeyService for FakeService {
    fn generate<'a>(&'a self, context: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>> {
        Box::pin(async move {
            let number = u8::try_from(self.generated.fetch_add(1, Ordering::SeqCst)).unwrap();
            self.end().await?;
            Ok(GeneratedKey { plaintext: Zeroizing::new(Self::key(number)), ciphertext: Self::seal(context, number) })
        })
    }

    fn unseal<'a>(
        &'a self,
        context: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>> {
        Box::pin(async move {
            self.unsealed.fetch_add(1, Ordering::SeqCst);
            self.end().await?;
            let refused = || KeyServiceError::Refused("InvalidCiphertextException".to_owned());
            let number = std::str::from_utf8(ciphertext).ok().and_then(|text| text.split('|').next()?.parse().ok());
            let number: u8 = number.ok_or_else(refused)?;
            if Self::seal(context, number) != ciphertext {
                return Err(refused());
            }
            Ok(Zeroizing::new(Self::key(number)))
        })
    }
}

/// What the store does with the next puts.
#[derive(Debug, Clone)]
pub(crate) enum PutFault {
    /// Fails, and nothing is written.
    Lost,
    /// Fails, although the object was written.
    Unanswered,
    /// Says "exists" although nothing is there (an S3 409 for a put that ran at the same time and failed).
    FalseExists,
    /// Another node's object is written just before, so that this one loses the race.
    Raced(Vec<u8>),
}

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct FakeStore {
    pub(crate) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    pub(crate) puts: Mutex<Vec<Vec<u8>>>,
    pub(crate) gets: AtomicUsize,
    pub(crate) put_faults: Mutex<VecDeque<PutFault>>,
    pub(crate) get_faults: AtomicUsize,
}

impl FakeStore {
    fn objects(&self) -> MutexGuard<'_, BTreeMap<String, Vec<u8>>> {
        self.objects.lock().unwrap()
    }

    fn put(&self, path: &str, bytes: Vec<u8>) -> PutOutcome {
        let mut objects = self.objects();
        if objects.contains_key(path) {
            return PutOutcome::Exists;
        }
        objects.insert(path.to_owned(), bytes);
        PutOutcome::Created
    }
}

impl BlobStore for FakeStore {
    fn get<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move {
            self.gets.fetch_add(1, Ordering::SeqCst);
            if self.get_faults.load(Ordering::SeqCst) > 0 {
                self.get_faults.fetch_sub(1, Ordering::SeqCst);
                return Err(StoreError("told to fail".to_owned()));
            }
            let object = self.objects().get(path).cloned();
            if object.as_ref().is_some_and(|object| object.len() > limit) {
                return Err(StoreError("the object is longer than the limit".to_owned()));
            }
            Ok(object)
        })
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move {
            self.puts.lock().unwrap().push(bytes.clone());
            let fault = self.put_faults.lock().unwrap().pop_front();
            match fault {
                None => Ok(self.put(path, bytes)),
                Some(PutFault::Lost) => Err(StoreError("told to lose it".to_owned())),
                Some(PutFault::Unanswered) => {
                    self.put(path, bytes);
                    Err(StoreError("told not to answer".to_owned()))
                }
                Some(PutFault::FalseExists) => Ok(PutOutcome::Exists),
                Some(PutFault::Raced(winner)) => {
                    self.put(path, winner);
                    Ok(self.put(path, bytes))
                }
            }
        })
    }
}
