//! Figures that wait to be sent: bounded, the oldest given up first.

use std::collections::VecDeque;
use std::time::SystemTime;

use super::figures::{Figure, NAMES};

/// Intervals that are kept while CloudWatch is away: an hour of the usual ones.
pub const INTERVALS: usize = 60;
/// Figures that the service takes in one call.
const FIGURES: usize = 1000;
/// Intervals in one call: each of its figures is told twice.
pub const BATCH: usize = FIGURES / (2 * NAMES.len());

/// The figures of one interval.
#[derive(Debug, Clone, PartialEq)]
pub struct Interval {
    /// Its end.
    pub at: SystemTime,
    /// Its figures.
    pub figures: Vec<Figure>,
}

/// What was not sent yet, the oldest first.
#[derive(Debug, Default)]
pub struct Backlog {
    waiting: VecDeque<Interval>,
}

impl Backlog {
    /// Takes an interval in; returns how many old ones had to go for it.
    pub fn push(&mut self, interval: Interval) -> usize {
        self.waiting.push_back(interval);
        let over = self.waiting.len().saturating_sub(INTERVALS);
        self.waiting.drain(..over);
        over
    }

    /// What goes into the next call; empty when there is nothing to send.
    pub fn batch(&self) -> Vec<Interval> {
        self.waiting.iter().take(BATCH).cloned().collect()
    }

    /// The first `intervals` were taken.
    pub fn sent(&mut self, intervals: usize) {
        self.waiting.drain(..intervals.min(self.waiting.len()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn interval(number: usize) -> Interval {
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(number as u64);
        Interval { at, figures: Vec::new() }
    }

    #[test]
    fn an_outage_costs_the_oldest_and_no_memory() {
        let mut backlog = Backlog::default();
        let dropped: usize = (0..INTERVALS + 25).map(|number| backlog.push(interval(number))).sum();
        assert_eq!(dropped, 25);
        let mut sent = Vec::new();
        loop {
            let batch = backlog.batch();
            if batch.is_empty() {
                break;
            }
            assert!(batch.len() <= BATCH);
            backlog.sent(batch.len());
            sent.extend(batch);
        }
        assert_eq!(sent, (25..INTERVALS + 25).map(interval).collect::<Vec<_>>(), "in order, none twice");
    }
}
