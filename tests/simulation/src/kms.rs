//! The key service: one for all nodes; slow, throttling or away when the weather says so, and never wrong.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_enclave::outside::{BoxFuture, GeneratedKey, KeyContext, KeyService, KeyServiceError};
use zeroize::Zeroizing;

use crate::dice::Dice;
use crate::event::Place;
use crate::findings::Findings;
use crate::time::Time;
use crate::weather::Weather;

struct Inner {
    dice: Dice,
    keys: BTreeMap<Vec<u8>, (KeyContext, [u8; 32])>,
    /// Unsealing calls under way, by node, boot and ciphertext.
    under_way: BTreeSet<(usize, u64, Vec<u8>)>,
    /// When a node was last given a key, by node, boot and ciphertext.
    confirmed: BTreeMap<(usize, u64, Vec<u8>), Duration>,
    calls: u64,
}

/// The key service. Clones share it.
#[derive(Clone)]
pub struct Kms {
    inner: Arc<Mutex<Inner>>,
    time: Time,
    weather: Weather,
    findings: Findings,
}

impl fmt::Debug for Kms {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kms").field("keys", &self.inner().keys.len()).finish_non_exhaustive()
    }
}

impl Kms {
    /// A key service that has made no key.
    pub fn new(time: Time, weather: Weather, findings: Findings, dice: Dice) -> Self {
        let inner =
            Inner { dice, keys: BTreeMap::new(), under_way: BTreeSet::new(), confirmed: BTreeMap::new(), calls: 0 };
        Self { inner: Arc::new(Mutex::new(inner)), time, weather, findings }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The key in a ciphertext: what the final judgement opens vaults with.
    pub fn key(&self, ciphertext: &[u8]) -> Option<[u8; 32]> {
        self.inner().keys.get(ciphertext).map(|(_, key)| *key)
    }

    /// When a node was last given the key in a ciphertext.
    pub fn confirmed(&self, place: Place, ciphertext: &[u8]) -> Option<Duration> {
        self.inner().confirmed.get(&(place.node, place.boot, ciphertext.to_vec())).copied()
    }

    /// Calls so far.
    pub fn calls(&self) -> u64 {
        self.inner().calls
    }

    /// Waits as long as a call takes, and says how it goes.
    async fn call(&self) -> Result<(), KeyServiceError> {
        let (takes, result) = {
            let mut inner = self.inner();
            inner.calls += 1;
            let takes = inner.dice.millis(2, 15);
            if self.weather.strikes(&mut inner.dice, self.weather.kms) {
                match inner.dice.roll(4) {
                    0 => (takes, Err(KeyServiceError::Throttled)),
                    1 => (takes, Err(KeyServiceError::Unavailable("internal failure".to_owned()))),
                    2 => (inner.dice.millis(100, 3_000), Ok(())),
                    _ => (inner.dice.millis(1_000, 7_000), Err(KeyServiceError::Unavailable("cut".to_owned()))),
                }
            } else {
                (takes, Ok(()))
            }
        };
        self.time.wait(takes).await;
        result
    }
}

/// The key service as one boot of one node reaches it.
#[derive(Debug)]
pub struct NodeKms {
    /// The service.
    pub kms: Kms,
    /// Who calls.
    pub place: Place,
}

/// An unsealing call under way; it ends also when nobody waits for it any more.
struct UnderWay<'a>(&'a Kms, (usize, u64, Vec<u8>));

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.inner().under_way.remove(&self.1);
    }
}

impl KeyService for NodeKms {
    fn generate<'a>(&'a self, context: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>> {
        Box::pin(async move {
            self.kms.call().await?;
            let mut inner = self.kms.inner();
            let (key, ciphertext) = (inner.dice.bytes32(), inner.dice.bytes32().to_vec());
            inner.keys.insert(ciphertext.clone(), (context.clone(), key));
            self.kms.findings.trace(format_args!("kms: node {} has a key made", self.place.node));
            Ok(GeneratedKey { plaintext: Zeroizing::new(key), ciphertext })
        })
    }

    fn unseal<'a>(
        &'a self,
        context: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>> {
        let key = (self.place.node, self.place.boot, ciphertext.to_vec());
        Box::pin(async move {
            if !self.kms.inner().under_way.insert(key.clone()) {
                self.kms.findings.violation(format_args!("two calls unseal one shard key at a time"));
            }
            let under_way = UnderWay(&self.kms, key);
            let result = self.kms.call().await;
            self.kms.findings.trace(format_args!("kms: node {} unseals: {}", self.place.node, result.is_ok()));
            result?;
            let mut inner = self.kms.inner();
            let found = inner.keys.get(ciphertext).filter(|(made_in, _)| made_in == context).map(|(_, key)| *key);
            let key = found.ok_or(KeyServiceError::Refused("InvalidCiphertextException".to_owned()))?;
            let now = self.kms.time.now();
            inner.confirmed.insert(under_way.1.clone(), now);
            drop(inner);
            Ok(Zeroizing::new(key))
        })
    }
}
