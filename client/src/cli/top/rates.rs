//! How fast the node's counters rise: differences between two of its answers.

use std::time::Duration;

use serde::Serialize;

use super::sample::Sample;

/// The enclave tells its numbers once a second. Two answers that are closer than this are the same numbers, told twice.
const APART: Duration = Duration::from_millis(300);

/// Counters at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counters {
    at: Duration,
    requests: u64,
    refused: u64,
    evictions: u64,
    opens: u64,
    hits: u64,
    misses: u64,
}

/// What happens in a second.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub(super) struct Rates {
    /// Requests answered.
    #[serde(rename = "requests_per_second")]
    pub(super) requests: f64,
    /// Requests refused by the supervisor.
    #[serde(rename = "refused_per_second")]
    pub(super) refused: f64,
    /// Vaults evicted.
    #[serde(rename = "evictions_per_second")]
    pub(super) evictions: f64,
    /// Vaults opened.
    #[serde(rename = "opens_per_second")]
    pub(super) opens: f64,
}

/// What two moments tell together.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Difference {
    /// They are the same moment.
    Same,
    /// The enclave or its parent was started anew in between.
    Restarted,
    /// They tell rates, and of the key cache's answers in between the share that was there, in percent, if there were any.
    Rates(Rates, Option<f64>),
}

impl Counters {
    /// The counters of an answer.
    pub(super) fn of(sample: &Sample) -> Self {
        let (vaults, kms) = (&sample.health.vaults, &sample.health.kms);
        Self {
            at: sample.at,
            requests: vaults.requests,
            refused: vaults.refused,
            evictions: vaults.evicted,
            opens: vaults.opened,
            hits: kms.hits,
            misses: kms.misses,
        }
    }

    /// The key cache's hits since the enclave's boot, in percent; none before its first answer.
    pub(super) fn hits_percent(&self) -> Option<f64> {
        share(self.hits, self.misses)
    }

    /// What has changed since `before`.
    pub(super) fn since(&self, before: &Self) -> Difference {
        if self.at.abs_diff(before.at) < APART {
            return Difference::Same;
        }
        let Some(time) = self.at.checked_sub(before.at) else { return Difference::Restarted };
        let rises = || {
            Some((
                self.requests.checked_sub(before.requests)?,
                self.refused.checked_sub(before.refused)?,
                self.evictions.checked_sub(before.evictions)?,
                self.opens.checked_sub(before.opens)?,
                share(self.hits.checked_sub(before.hits)?, self.misses.checked_sub(before.misses)?),
            ))
        };
        let Some((requests, refused, evictions, opens, hits)) = rises() else { return Difference::Restarted };
        let per_second = |count: u64| float(count) / time.as_secs_f64();
        let rates = Rates {
            requests: per_second(requests),
            refused: per_second(refused),
            evictions: per_second(evictions),
            opens: per_second(opens),
        };
        Difference::Rates(rates, hits)
    }
}

fn share(hits: u64, misses: u64) -> Option<f64> {
    let all = hits.saturating_add(misses);
    (all > 0).then(|| float(hits) * 100.0 / float(all))
}

#[expect(clippy::cast_precision_loss, reason = "for people; these numbers are far below 2^53")]
fn float(number: u64) -> f64 {
    number as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64, requests: u64, hits: u64, misses: u64) -> Counters {
        let at = Duration::from_millis(millis);
        Counters { at, requests, refused: requests / 10, evictions: 1, opens: misses, hits, misses }
    }

    #[test]
    fn rates_are_differences() {
        let Difference::Rates(rates, hits) = at(3500, 300, 29, 3).since(&at(1500, 100, 20, 2)) else { panic!("rates") };
        assert_eq!(rates, Rates { requests: 100.0, refused: 10.0, evictions: 0.0, opens: 0.5 });
        assert_eq!(hits, Some(90.0));
    }

    #[test]
    fn one_answer_told_twice_is_no_standstill() {
        assert_eq!(at(1500, 100, 0, 0).since(&at(1500, 100, 0, 0)), Difference::Same);
        assert_eq!(at(1650, 100, 0, 0).since(&at(1500, 100, 0, 0)), Difference::Same, "a little later, by our clock");
        assert_eq!(at(1400, 100, 0, 0).since(&at(1500, 100, 0, 0)), Difference::Same);
    }

    #[test]
    fn counters_that_fall_are_another_boot() {
        assert_eq!(at(2500, 10, 0, 0).since(&at(1500, 100, 0, 0)), Difference::Restarted);
        assert_eq!(at(2500, 100, 0, 0).since(&at(1500, 100, 1, 0)), Difference::Restarted);
        assert_eq!(at(500, 100, 0, 0).since(&at(1500, 100, 0, 0)), Difference::Restarted, "its clock has begun anew");
    }

    #[test]
    fn a_cache_that_nobody_asked_has_no_share() {
        let Difference::Rates(_, hits) = at(2500, 100, 7, 1).since(&at(1500, 100, 7, 1)) else { panic!("rates") };
        assert_eq!(hits, None);
        assert_eq!((at(0, 0, 0, 0).hits_percent(), at(0, 0, 3, 1).hits_percent()), (None, Some(75.0)));
    }
}
