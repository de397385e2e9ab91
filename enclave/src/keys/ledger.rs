//! What health says of the key service: the outcome of every call, and the state that follows from it.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::cache::Counters;
use crate::outside::{BoxFuture, Clock, GeneratedKey, KeyContext, KeyService, KeyServiceError, within};

/// Calls under way at most. After a restart every shard asks at once; the key service throttles whole accounts.
const CONCURRENT_CALLS: usize = 16;
/// The longest that any implementation of the key service may take. The real one has a shorter limit of its own.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// How the key service does, as far as this enclave can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KmsState {
    /// The last call was answered, or none was needed yet.
    Ok,
    /// Calls fail; keys in memory go on serving until their hard limit.
    Degraded,
    /// Calls fail and no key is in memory: vaults cannot be opened.
    Down,
}

impl KmsState {
    /// The word that health uses.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Degraded => "degraded",
            Self::Down => "down",
        }
    }
}

/// Everything that health and metrics say of the key service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KmsStatus {
    /// How it does.
    pub state: KmsState,
    /// Shard keys in memory.
    pub cached: usize,
    /// The cache's counts.
    pub cache: Counters,
    /// Calls made.
    pub calls: u64,
    /// Calls that were throttled.
    pub throttled: u64,
    /// Calls that failed, throttled ones included.
    pub failures: u64,
    /// Calls whose answer was not believed; failures too.
    pub forged: u64,
    /// Why the newest failed call failed.
    pub last_error: Option<String>,
    /// How long the newest call took.
    pub latency: Option<Duration>,
}

/// The record of calls.
#[derive(Debug, Clone, Default)]
pub struct Ledger {
    calls: u64,
    throttled: u64,
    failures: u64,
    forged: u64,
    last_error: Option<String>,
    latency: Option<Duration>,
    failing: bool,
}

impl Ledger {
    /// Enters the end of one call.
    pub fn record(&mut self, error: Option<&KeyServiceError>, took: Duration) {
        self.calls += 1;
        self.latency = Some(took);
        let Some(error) = error else {
            self.failing = false;
            return;
        };
        self.failures += 1;
        self.throttled += u64::from(matches!(error, KeyServiceError::Throttled));
        self.forged += u64::from(matches!(error, KeyServiceError::NotBelieved(_)));
        self.last_error = Some(error.to_string());
        // A refused ciphertext speaks of that ciphertext, which comes from the host, not of the key service. Otherwise the host
        // could paint a healthy key service as failing with one bad object.
        self.failing = !error.speaks_of_the_ciphertext();
    }

    /// The status now, with `cached` keys in memory.
    pub fn status(&self, cached: usize, cache: Counters) -> KmsStatus {
        KmsStatus {
            state: match (self.failing, cached) {
                (false, _) => KmsState::Ok,
                (true, 0) => KmsState::Down,
                (true, _) => KmsState::Degraded,
            },
            cached,
            cache,
            calls: self.calls,
            throttled: self.throttled,
            failures: self.failures,
            forged: self.forged,
            last_error: self.last_error.clone(),
            latency: self.latency,
        }
    }
}

/// A key service whose calls are counted, timed and bounded: a few at a time, each with a deadline.
#[derive(Debug)]
pub(super) struct Recorded {
    service: Arc<dyn KeyService>,
    clock: Arc<dyn Clock>,
    ledger: Mutex<Ledger>,
    permits: Semaphore,
}

impl Recorded {
    pub(super) fn new(service: Arc<dyn KeyService>, clock: Arc<dyn Clock>) -> Self {
        Self { service, clock, ledger: Mutex::default(), permits: Semaphore::new(CONCURRENT_CALLS) }
    }

    pub(super) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn call<T>(&self, call: BoxFuture<'_, Result<T, KeyServiceError>>) -> Result<T, KeyServiceError> {
        let _permit = self.permits.acquire().await.expect("the semaphore is never closed");
        let begun = self.clock.monotonic();
        let result = within(&*self.clock, CALL_DEADLINE, call)
            .await
            .unwrap_or_else(|| Err(KeyServiceError::Unavailable(format!("no answer within {CALL_DEADLINE:?}"))));
        let took = self.clock.monotonic().saturating_sub(begun);
        self.ledger().record(result.as_ref().err(), took);
        result
    }
}

impl KeyService for Recorded {
    fn generate<'a>(&'a self, context: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>> {
        Box::pin(self.call(self.service.generate(context)))
    }

    fn unseal<'a>(
        &'a self,
        context: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>> {
        Box::pin(self.call(self.service.unseal(context, ciphertext)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_state_follows_the_newest_call_and_what_is_held() {
        let mut ledger = Ledger::default();
        let state = |ledger: &Ledger, cached| ledger.status(cached, Counters::default()).state;
        assert_eq!(state(&ledger, 0), KmsState::Ok);
        ledger.record(Some(&KeyServiceError::Throttled), Duration::from_millis(3));
        assert_eq!(state(&ledger, 1), KmsState::Degraded);
        assert_eq!(state(&ledger, 0), KmsState::Down);
        ledger.record(None, Duration::from_millis(4));
        assert_eq!(state(&ledger, 0), KmsState::Ok);
        ledger.record(Some(&KeyServiceError::Refused("AccessDeniedException".to_owned())), Duration::ZERO);
        assert_eq!(state(&ledger, 0), KmsState::Down);
        ledger.record(Some(&KeyServiceError::Refused("InvalidCiphertextException".to_owned())), Duration::ZERO);
        assert_eq!(state(&ledger, 0), KmsState::Ok, "one bad object is no outage");
        let status = ledger.status(0, Counters::default());
        assert_eq!((status.calls, status.throttled, status.failures), (4, 1, 3));
        assert_eq!(status.last_error.as_deref(), Some("the key service refused: InvalidCiphertextException"));
    }
}
