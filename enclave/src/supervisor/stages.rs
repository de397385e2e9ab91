//! How long the stages of requests took since boot: counts in arrays, so that noting one costs an addition or two.

use std::time::Duration;

use casemate_protocol::stage::{BUCKETS, Stage, StageTimes, bucket};

/// One histogram for each stage.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stages([Times; Stage::ALL.len()]);

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Times {
    counts: [u64; BUCKETS],
    nanos: u64,
}

impl Stages {
    /// Notes that a stage took so long.
    pub fn note(&mut self, stage: Stage, took: Duration) {
        let times = &mut self.0[stage as usize];
        times.counts[bucket(took)] += 1;
        // 584 years of waiting fit; what the kernel's clock cannot have said must not end the supervisor all the same.
        times.nanos = times.nanos.saturating_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }

    /// As they travel, in the order of [`Stage::ALL`].
    pub fn told(&self) -> Vec<StageTimes> {
        self.0.iter().map(|times| StageTimes { counts: times.counts.to_vec(), sum_us: times.nanos / 1000 }).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_time_stands_in_its_stage_and_bucket() {
        let mut stages = Stages::default();
        stages.note(Stage::Wait, Duration::ZERO);
        stages.note(Stage::Vault, Duration::from_micros(40));
        stages.note(Stage::Vault, Duration::from_nanos(40_500));
        stages.note(Stage::Vault, Duration::MAX);
        let told = stages.told();
        assert_eq!(told.len(), Stage::ALL.len());
        let [wait, vault, spawn, ..] = told.as_slice() else { panic!("stages") };
        assert_eq!((wait.counts[0], wait.sum_us), (1, 0));
        assert_eq!((vault.counts[2], vault.counts[BUCKETS - 1], vault.sum_us), (2, 1, u64::MAX / 1000));
        assert!(spawn.counts.iter().all(|count| *count == 0));
    }

    /// A request notes a handful of these, on the thread that serves everybody. The bound is far above what it takes, and the quickest of
    /// several rounds counts, because test machines are shared; what it holds off is an allocation, a lock or a system call.
    #[test]
    fn noting_is_cheap() {
        const NOTES: u32 = 10_000;
        let mut stages = Stages::default();
        let mut round = || {
            let begun = std::time::Instant::now();
            for number in 0..NOTES {
                stages.note(Stage::ALL[number as usize % Stage::ALL.len()], Duration::from_micros(number.into()));
            }
            begun.elapsed() / NOTES
        };
        let each = (0..20).map(|_| round()).min();
        assert!(each < Some(Duration::from_micros(1)), "{each:?}");
        assert_eq!(stages.told().iter().flat_map(|times| &times.counts).sum::<u64>(), 200_000);
    }
}
