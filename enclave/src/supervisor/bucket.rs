//! Token buckets: how often something may happen, node-wide.

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);

/// Lets `rate` things happen per second, and after a pause as many at once. It keeps no count but the one instant at which it would be
/// full again (the generic cell rate algorithm), so it needs no timer.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    interval: Duration,
    full_at: Duration,
}

impl TokenBucket {
    /// A full bucket. A rate of zero counts as one.
    pub fn new(rate: u32) -> Self {
        Self { interval: SECOND / rate.max(1), full_at: Duration::ZERO }
    }

    /// Changes the rate and keeps what was used.
    pub fn set_rate(&mut self, rate: u32) {
        self.interval = SECOND / rate.max(1);
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When there is none: the time after which there will be one.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let burst = SECOND.saturating_sub(self.interval);
        let earliest = self.full_at.saturating_sub(burst);
        if let Some(wait) = earliest.checked_sub(now).filter(|wait| !wait.is_zero()) {
            return Err(wait);
        }
        self.full_at = self.full_at.max(now) + self.interval;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_more_than_rate_plus_burst(rate in 1_u32..200, steps in prop::collection::vec(0_u64..50, 1..500)) {
            let mut bucket = TokenBucket::new(rate);
            let mut now = Duration::from_secs(5);
            let begin = now;
            let mut taken = 0_u32;
            for step in steps {
                now += Duration::from_millis(step);
                match bucket.take(now) {
                    Ok(()) => taken += 1,
                    Err(wait) => prop_assert!(wait <= SECOND && bucket.clone().take(now + wait).is_ok()),
                }
                let allowed = f64::from(rate) * (1.0 + now.saturating_sub(begin).as_secs_f64()) + 1.0;
                prop_assert!(f64::from(taken) <= allowed);
            }
        }
    }

    #[test]
    fn a_pause_fills_it_again_and_no_more() {
        let mut bucket = TokenBucket::new(3);
        for second in [10, 20] {
            let now = Duration::from_secs(second);
            assert_eq!((0..10).filter(|_| bucket.take(now).is_ok()).count(), 3);
        }
    }
}
