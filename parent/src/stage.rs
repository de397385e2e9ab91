//! The time of each stage of a request, as `/metrics` shows it: the parent's own stage counted here, the enclave's as it told them last.
//!
//! The recorder of all other metrics takes single samples, but the enclave tells whole histograms. So this family is written here.

use std::fmt::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_protocol::stage::{BUCKETS, Stage, StageTimes, bounds, bucket};

use crate::metric::{STAGE_SECONDS, STAGE_SECONDS_HELP};

/// The stage that is the parent's own.
const FORWARD: &str = "forward";
/// Its times. One for the process, as the recorder of the other metrics is.
static FORWARDED: Times = Times::new();

struct Times {
    counts: [AtomicU64; BUCKETS],
    nanos: AtomicU64,
}

impl Times {
    const fn new() -> Self {
        Self { counts: [const { AtomicU64::new(0) }; BUCKETS], nanos: AtomicU64::new(0) }
    }

    fn note(&self, took: Duration) {
        self.counts[bucket(took)].fetch_add(1, Ordering::Relaxed);
        self.nanos.fetch_add(u64::try_from(took.as_nanos()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    fn told(&self) -> StageTimes {
        let counts = self.counts.iter().map(|count| count.load(Ordering::Relaxed)).collect();
        StageTimes { counts, sum_us: self.nanos.load(Ordering::Relaxed) / 1000 }
    }
}

/// Notes how long a request took from its arrival until it was with the link.
pub fn forwarded(took: Duration) {
    FORWARDED.note(took);
}

/// Whole requests, from arrival to answer: what CloudWatch is told of. `/metrics` has them as `casemate_request_seconds`.
static ANSWERED: Times = Times::new();

/// Notes how long an answered request took in all.
pub fn answered(took: Duration) {
    ANSWERED.note(took);
}

/// The times of all answered requests since the start.
pub fn answered_times() -> StageTimes {
    ANSWERED.told()
}

/// The family in Prometheus's text format. `enclave` is in the order of [`Stage::ALL`]; what this build has no word for is left out.
pub fn render(enclave: &[StageTimes]) -> String {
    family(&FORWARDED.told(), enclave).unwrap_or_default()
}

fn family(forward: &StageTimes, enclave: &[StageTimes]) -> Result<String, fmt::Error> {
    let mut page = String::new();
    writeln!(page, "# HELP {STAGE_SECONDS} {STAGE_SECONDS_HELP}\n# TYPE {STAGE_SECONDS} histogram")?;
    let words = Stage::ALL.iter().map(|stage| stage.as_str());
    for (word, times) in [(FORWARD, forward)].into_iter().chain(words.zip(enclave)) {
        // An enclave with other bounds: its numbers would be shown under the wrong ones.
        if times.counts.len() != BUCKETS {
            continue;
        }
        let mut sum = 0_u64;
        let labels = bounds().map(|bound| bound.as_secs_f64().to_string()).chain(["+Inf".to_owned()]);
        for (count, label) in times.counts.iter().zip(labels) {
            // The enclave's numbers, which may be any.
            sum = sum.saturating_add(*count);
            writeln!(page, "{STAGE_SECONDS}_bucket{{stage=\"{word}\",le=\"{label}\"}} {sum}")?;
        }
        let seconds = Duration::from_micros(times.sum_us).as_secs_f64();
        writeln!(page, "{STAGE_SECONDS}_sum{{stage=\"{word}\"}} {seconds}")?;
        writeln!(page, "{STAGE_SECONDS}_count{{stage=\"{word}\"}} {sum}")?;
    }
    Ok(page)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(filled: &[(usize, u64)], sum_us: u64) -> StageTimes {
        let mut counts = vec![0; BUCKETS];
        for (bucket, count) in filled {
            counts[*bucket] = *count;
        }
        StageTimes { counts, sum_us }
    }

    #[test]
    fn histograms_are_cumulative_and_end_at_infinity() {
        let page = family(&times(&[(0, 3)], 30), &[times(&[(1, 2), (BUCKETS - 1, 1)], 70_000_050)]).unwrap();
        let lines: Vec<_> = page.lines().collect();
        assert_eq!(lines[1], "# TYPE casemate_stage_seconds histogram");
        assert_eq!(lines.len(), 2 + 2 * (BUCKETS + 2));
        for line in [
            "casemate_stage_seconds_bucket{stage=\"forward\",le=\"0.000016\"} 3",
            "casemate_stage_seconds_bucket{stage=\"forward\",le=\"+Inf\"} 3",
            "casemate_stage_seconds_sum{stage=\"forward\"} 0.00003",
            "casemate_stage_seconds_bucket{stage=\"wait\",le=\"0.000016\"} 0",
            "casemate_stage_seconds_bucket{stage=\"wait\",le=\"0.000032\"} 2",
            "casemate_stage_seconds_bucket{stage=\"wait\",le=\"67.108864\"} 2",
            "casemate_stage_seconds_bucket{stage=\"wait\",le=\"+Inf\"} 3",
            "casemate_stage_seconds_sum{stage=\"wait\"} 70.00005",
            "casemate_stage_seconds_count{stage=\"wait\"} 3",
        ] {
            assert!(lines.contains(&line), "{line} in\n{page}");
        }
    }

    #[test]
    fn an_enclave_of_another_build_or_a_broken_one_is_no_nonsense_on_the_page() {
        let forward = times(&[], 0);
        let other = StageTimes { counts: vec![1; 3], sum_us: 1 };
        assert!(!family(&forward, &[other]).unwrap().contains("wait"));
        let newer = vec![times(&[(0, 1)], 1); Stage::ALL.len() + 2];
        let page = family(&forward, &newer).unwrap();
        assert_eq!(page.matches("_count").count(), 1 + Stage::ALL.len(), "those that have a word here");
        let absurd = StageTimes { counts: vec![u64::MAX; BUCKETS], sum_us: u64::MAX };
        assert!(family(&forward, &[absurd]).unwrap().contains(&format!("stage=\"wait\"}} {}", u64::MAX)));
    }

    #[test]
    fn our_own_stage_is_counted() {
        forwarded(Duration::from_micros(20));
        let page = render(&[]);
        let count = page.lines().find_map(|line| line.strip_prefix("casemate_stage_seconds_count{stage=\"forward\"} "));
        assert!(count.unwrap().parse::<u64>().unwrap() >= 1, "{page}");
    }
}
