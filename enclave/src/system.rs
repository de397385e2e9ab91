//! Clock and randomness of the kernel that the enclave runs on.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::outside::{Clock, Randomness};

/// getrandom(2), one call for each request. It keeps nothing, so a fork has nothing to duplicate.
#[derive(Debug, Clone, Copy, Default)]
pub struct OsRandomness;

impl Randomness for OsRandomness {
    fn fill(&self, out: &mut [u8]) {
        if getrandom::fill(out).is_err() {
            // Without randomness no key, nonce or salt may be made.
            std::process::abort();
        }
    }
}

/// The kernel's clocks.
#[derive(Debug, Clone, Copy)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self { start: Instant::now() }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }

    fn unix_seconds(&self) -> u64 {
        // A kernel that believes to live before 1970 has no time to tell.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}
