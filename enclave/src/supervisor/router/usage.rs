//! What one vault has used lately: requests, their time inside the enclave, memory.
//!
//! Two windows of time stand beside each other: the one that runs, and the one before it. "Lately" is the first and that share of the
//! second which it does not cover yet. Nothing has to be done when a window ends, however many vaults there are: the next request
//! of the vault, or the next look at it, sees that it has.

use std::time::Duration;

use casemate_protocol::resident::LATELY_S;

/// Length of a window.
const WINDOW: Duration = Duration::from_secs(LATELY_S);

/// What one vault has used.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Usage {
    /// The number of the window that ran at the last request.
    window: u64,
    running: Tally,
    before: Tally,
    /// Resident memory in bytes, when it was sampled last.
    pub(super) memory: Option<u64>,
}

/// Requests, and the sum of their times.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Tally {
    requests: u64,
    micros: u64,
}

/// What became of a vault's requests lately.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lately {
    /// How many were answered.
    pub(super) requests: u64,
    /// Their mean time; none when there were none.
    pub(super) mean: Option<Duration>,
}

impl Usage {
    /// A request was answered that was inside the enclave for so long.
    pub(super) fn note(&mut self, took: Duration, now: Duration) {
        (self.running, self.before) = self.at(now);
        self.window = window(now);
        self.running.requests += 1;
        self.running.micros = self.running.micros.saturating_add(u64::try_from(took.as_micros()).unwrap_or(u64::MAX));
    }

    /// What became of its requests lately.
    pub(super) fn lately(&self, now: Duration) -> Lately {
        let (running, before) = self.at(now);
        let left = WINDOW.saturating_sub(Duration::from_millis(millis(now) % millis(WINDOW)));
        // Rounded up: one request in a quiet while is one and not none.
        let share = |number: u64| number.saturating_mul(millis(left)).div_ceil(millis(WINDOW));
        let requests = running.requests.saturating_add(share(before.requests));
        let micros = running.micros.saturating_add(share(before.micros));
        Lately { requests, mean: micros.checked_div(requests).map(Duration::from_micros) }
    }

    /// The tallies of the window that runs now and of the one before.
    fn at(&self, now: Duration) -> (Tally, Tally) {
        match window(now).saturating_sub(self.window) {
            0 => (self.running, self.before),
            1 => (Tally::default(), self.running),
            _ => (Tally::default(), Tally::default()),
        }
    }
}

fn window(now: Duration) -> u64 {
    now.as_secs() / LATELY_S
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn requests(usage: &Usage, now: Duration) -> u64 {
        usage.lately(now).requests
    }

    #[test]
    fn what_is_lately_fades() {
        let mut usage = Usage::default();
        assert_eq!(usage.lately(WINDOW * 3), Lately { requests: 0, mean: None });
        let start = WINDOW * 10;
        for number in 0..80 {
            usage.note(2 * MS, start + number * MS);
        }
        let now = start + 80 * MS;
        assert_eq!(usage.lately(now), Lately { requests: 80, mean: Some(2 * MS) });
        assert_eq!(requests(&usage, start + WINDOW), 80);
        assert_eq!(requests(&usage, start + WINDOW * 3 / 2), 40, "half of the window before still counts");
        assert_eq!(usage.lately(start + WINDOW * 3 / 2).mean, Some(2 * MS));
        usage.note(4 * MS, start + WINDOW * 3 / 2);
        assert_eq!(requests(&usage, start + WINDOW * 3 / 2), 41);
        assert_eq!(requests(&usage, start + WINDOW * 5 / 2), 1, "rounded up");
        assert_eq!(requests(&usage, start + WINDOW * 4), 0);
    }

    #[test]
    fn a_steady_rate_reads_as_what_it_is() {
        let mut usage = Usage::default();
        // Ten a second, for three windows.
        for number in 0..240 {
            let now = WINDOW + number * 100 * MS;
            usage.note(MS, now);
            assert!(number < 80 || (79..=81).contains(&requests(&usage, now)), "{usage:?} at {now:?}");
        }
    }

    #[test]
    fn a_clock_that_stands_still_or_numbers_that_cannot_be_harm_nobody() {
        let mut usage = Usage::default();
        usage.note(Duration::MAX, WINDOW * 2);
        usage.note(Duration::MAX, WINDOW);
        assert_eq!(usage.lately(Duration::ZERO).requests, 2);
        assert!(usage.lately(Duration::MAX).mean.is_none());
    }
}
