//! Clock and randomness of the kernel that the enclave runs on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_gettime};

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
    /// Since the machine's start.
    start: Duration,
}

fn since_boot() -> Duration {
    let Ok(time) = clock_gettime(ClockId::CLOCK_MONOTONIC) else {
        // Without time no time-out ends and no session grows old.
        std::process::abort();
    };
    time.into()
}

impl SystemClock {
    /// A clock whose monotonic time begins now.
    pub fn new() -> Self {
        Self { start: since_boot() }
    }

    /// A clock whose monotonic time began with the machine: all processes measure the same, so that what one of them parked is as old for
    /// the next one as it is.
    pub const fn of_the_machine() -> Self {
        Self { start: Duration::ZERO }
    }
}

impl Default for SystemClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for SystemClock {
    fn monotonic(&self) -> Duration {
        since_boot().saturating_sub(self.start)
    }

    fn unix_seconds(&self) -> u64 {
        // A kernel that believes to live before 1970 has no time to tell.
        SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_clocks_of_the_machine_tell_one_time() {
        let (first, second) = (SystemClock::of_the_machine(), SystemClock::of_the_machine());
        let (before, between, after) = (first.monotonic(), second.monotonic(), first.monotonic());
        assert!(!before.is_zero() && before <= between && between <= after);
        assert!(SystemClock::new().monotonic() < before);
    }
}
