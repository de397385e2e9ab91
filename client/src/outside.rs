//! What a vault's loop takes from outside besides its transport: time and chance. The system's, or a simulation's; the loop never knows
//! which it was given.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::random;

/// Time and chance.
pub trait Outside: Send + Sync + fmt::Debug {
    /// Seconds since the Unix epoch, for judging evidence.
    fn unix_seconds(&self) -> u64;
    /// Monotonic time since an arbitrary start, for deadlines and pauses.
    fn monotonic(&self) -> Duration;
    /// Ends when `duration` has passed.
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>>;
    /// A random number for jitter.
    fn jitter(&self) -> u64;
}

/// What `future` gives until `until`; nothing when that comes first.
pub(crate) async fn until<T>(outside: &dyn Outside, until: Duration, future: impl Future<Output = T>) -> Option<T> {
    let limit = outside.sleep(until.saturating_sub(outside.monotonic()));
    tokio::select! {
        biased;
        value = future => Some(value),
        () = limit => None,
    }
}

/// The system's clocks, tokio's timer and the system's randomness.
#[derive(Debug, Clone, Copy)]
pub struct System {
    start: Instant,
}

impl Default for System {
    fn default() -> Self {
        Self { start: Instant::now() }
    }
}

impl Outside for System {
    fn unix_seconds(&self) -> u64 {
        unix_now()
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { tokio::time::sleep(duration).await })
    }

    fn jitter(&self) -> u64 {
        random::jitter()
    }
}

/// The system's time in Unix seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
