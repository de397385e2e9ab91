//! Time that stands still until a test moves it, and time that goes on but may be let pass faster.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_enclave::outside::Clock;
use casemate_enclave::system::SystemClock;

/// A clock that only its owner moves. Both times move together unless Unix time is set.
#[derive(Debug)]
pub struct SimulatedClock {
    monotonic_ms: AtomicU64,
    unix_ms: AtomicU64,
}

impl SimulatedClock {
    /// A clock that stands at `unix_seconds`, and at zero in monotonic time.
    pub fn at(unix_seconds: u64) -> Self {
        Self { monotonic_ms: AtomicU64::new(0), unix_ms: AtomicU64::new(milliseconds(unix_seconds)) }
    }

    /// Lets `duration` pass, in whole milliseconds.
    pub fn advance(&self, duration: Duration) {
        let passed = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        for clock in [&self.monotonic_ms, &self.unix_ms] {
            clock.fetch_add(passed, Ordering::SeqCst);
        }
    }

    /// Sets Unix time, forwards or backwards, as a host that meddles with the clock would; monotonic time stays.
    pub fn set_unix_seconds(&self, unix_seconds: u64) {
        self.unix_ms.store(milliseconds(unix_seconds), Ordering::SeqCst);
    }
}

fn milliseconds(seconds: u64) -> u64 {
    seconds.saturating_mul(1000)
}

impl Clock for SimulatedClock {
    fn monotonic(&self) -> Duration {
        Duration::from_millis(self.monotonic_ms.load(Ordering::SeqCst))
    }

    fn unix_seconds(&self) -> u64 {
        self.unix_ms.load(Ordering::SeqCst) / 1000
    }
}

/// The kernel's clocks, of which a test lets time pass at once: both go ahead together, and never back. Whoever sleeps wakes when so much
/// has passed in earnest.
#[derive(Debug, Default)]
pub struct HastenedClock {
    kernel: SystemClock,
    ahead_seconds: AtomicU64,
}

impl HastenedClock {
    /// Lets so much time pass at once.
    pub fn pass(&self, seconds: u64) {
        self.ahead_seconds.fetch_add(seconds, Ordering::SeqCst);
    }

    fn ahead(&self) -> u64 {
        self.ahead_seconds.load(Ordering::SeqCst)
    }
}

impl Clock for HastenedClock {
    fn monotonic(&self) -> Duration {
        self.kernel.monotonic() + Duration::from_secs(self.ahead())
    }

    fn unix_seconds(&self) -> u64 {
        self.kernel.unix_seconds() + self.ahead()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_that_is_let_pass_passes_on_both_clocks() {
        let (kernel, clock) = (SystemClock::new(), HastenedClock::default());
        clock.pass(3_000);
        clock.pass(600);
        assert!((Duration::from_hours(1)..Duration::from_mins(61)).contains(&clock.monotonic()));
        let ahead = clock.unix_seconds() - kernel.unix_seconds();
        assert!((3_600..3_660).contains(&ahead), "{ahead}");
    }

    #[test]
    fn it_moves_when_it_is_moved() {
        let clock = SimulatedClock::at(1_000);
        clock.advance(Duration::from_millis(1_999));
        assert_eq!((clock.monotonic(), clock.unix_seconds()), (Duration::from_millis(1_999), 1_001));
        clock.set_unix_seconds(5);
        clock.advance(Duration::from_millis(1));
        assert_eq!((clock.monotonic(), clock.unix_seconds()), (Duration::from_secs(2), 5));
    }
}
