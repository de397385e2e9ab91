//! Token buckets: how often something may happen, node-wide or for one vault.

use std::time::Duration;

const SECOND: Duration = Duration::from_secs(1);
/// The farthest moment that anybody who is refused is told. No device waits longer before it asks again.
const FARTHEST: Duration = Duration::from_secs(3);

/// Lets things happen at a rate, and after a pause some at once. It keeps no count but the one instant at which it would be full again
/// (the generic cell rate algorithm), so it needs no timer.
#[derive(Debug, Clone)]
pub struct TokenBucket {
    interval: Duration,
    /// How far ahead of its rate it may get.
    ahead: Duration,
    full_at: Duration,
    /// The moment that the next one who is refused is told, if there is none before it.
    promised: Duration,
}

impl TokenBucket {
    /// A full bucket: `rate` a second, and after a pause as many at once. A rate of zero counts as one.
    pub fn new(rate: u32) -> Self {
        Self::with_burst(rate, rate)
    }

    /// A full bucket: `rate` a second, and after a pause `burst` at once. Zero counts as one.
    pub fn with_burst(rate: u32, burst: u32) -> Self {
        let interval = SECOND / rate.max(1);
        let ahead = interval.saturating_mul(burst.max(1) - 1);
        Self { interval, ahead, full_at: Duration::ZERO, promised: Duration::ZERO }
    }

    /// Changes rate and burst and keeps what was used.
    pub fn set(&mut self, rate: u32, burst: u32) {
        let Self { interval, ahead, .. } = Self::with_burst(rate, burst);
        (self.interval, self.ahead) = (interval, ahead);
    }

    /// Takes a token.
    ///
    /// # Errors
    /// When there is none: the time after which to come back. Each who is refused is told a moment of his own, as tokens come, so
    /// that a thousand who were refused together do not come back together.
    pub fn take(&mut self, now: Duration) -> Result<(), Duration> {
        self.spend(1, now)
    }

    /// Takes `count` tokens, if there is one. Those that are missing are paid off before the next are taken: what costs more than the bucket
    /// holds happens all the same, at the same rate.
    ///
    /// # Errors
    /// As for [`TokenBucket::take`].
    pub fn spend(&mut self, count: u32, now: Duration) -> Result<(), Duration> {
        let earliest = self.earliest();
        if now >= earliest {
            self.full_at = self.full_at.max(now) + self.interval.saturating_mul(count);
            return Ok(());
        }
        let mut told = self.promised.max(earliest);
        if told.saturating_sub(now) > FARTHEST {
            told = earliest;
        }
        self.promised = told + self.interval;
        Err(told.saturating_sub(now))
    }

    /// The time until there is a token, without taking it; none when there is one.
    pub fn wait(&self, now: Duration) -> Option<Duration> {
        self.earliest().checked_sub(now).filter(|wait| !wait.is_zero())
    }

    fn earliest(&self) -> Duration {
        self.full_at.saturating_sub(self.ahead)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn never_more_than_rate_plus_burst(rate in 1_u32..200, burst in 1_u32..400, steps in prop::collection::vec(0_u64..50, 1..500)) {
            let mut bucket = TokenBucket::with_burst(rate, burst);
            let mut now = Duration::from_secs(5);
            let begin = now;
            let mut taken = 0_u32;
            for step in steps {
                now += Duration::from_millis(step);
                let wait = bucket.wait(now);
                match bucket.take(now) {
                    Ok(()) => {
                        prop_assert_eq!(wait, None);
                        taken += 1;
                    }
                    Err(told) => {
                        prop_assert!(wait.is_some_and(|wait| wait <= told && wait <= SECOND) && told <= FARTHEST);
                        prop_assert!(bucket.clone().take(now + told).is_ok());
                    }
                }
                let allowed = f64::from(rate) * now.saturating_sub(begin).as_secs_f64() + f64::from(burst) + 1.0;
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

    /// Whoever comes back when he was told finds a token, though all were refused at one moment.
    #[test]
    fn a_herd_is_told_to_come_back_one_by_one() {
        let (mut bucket, now) = (TokenBucket::with_burst(100, 10), Duration::from_secs(10));
        let refused: Vec<_> = (0..300).filter_map(|_| bucket.take(now).err()).collect();
        assert_eq!(refused.len(), 290);
        assert!(refused.is_sorted() && refused[289] <= FARTHEST);
        for wait in refused {
            assert_eq!(bucket.take(now + wait), Ok(()));
        }
    }
}
