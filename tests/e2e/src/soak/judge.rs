//! Judges the samples of a long run: whether memory, descriptors, zombies or latency grow. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// The share of the samples, from the beginning, in which the parts may still settle.
const SETTLING: f64 = 0.3;
/// Growth that is none: of memory as a share and in bytes, of latency as a factor and in time. What is above both counts.
const MEMORY_SHARE: f64 = 0.10;
const MEMORY_BYTES: u64 = 4 << 20;
const MEDIAN: (f64, Duration) = (1.5, Duration::from_millis(1));
const P99: (f64, Duration) = (1.5, Duration::from_millis(10));
/// Descriptors that come and go with what is under way.
const DESCRIPTORS: u64 = 16;
/// Fewer samples than this say nothing.
const FEWEST: usize = 12;

/// What was seen of a node at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sample {
    /// Since the beginning.
    pub at: Duration,
    /// Memory of each part, in bytes; of the vault-managers, that of one.
    pub memory: BTreeMap<&'static str, u64>,
    /// Descriptors of each part, but for those that resident vaults account for.
    pub descriptors: BTreeMap<&'static str, u64>,
    /// Processes that have ended and that nobody has reaped.
    pub zombies: u64,
    /// Requests since the sample before.
    pub requests: u64,
    /// How long half of them took at most, and ninety-nine in a hundred.
    pub median: Duration,
    /// See there.
    pub p99: Duration,
}

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// Memory of a part grew.
    Memory {
        /// The part.
        part: &'static str,
        /// What it had once it had settled, in bytes.
        from: u64,
        /// What it had in the end.
        to: u64,
    },
    /// A part holds ever more descriptors.
    Descriptors {
        /// The part.
        part: &'static str,
        /// How many once it had settled.
        from: u64,
        /// How many in the end.
        to: u64,
    },
    /// Zombies were there whenever it was looked in the end.
    Zombies(u64),
    /// Requests took longer and longer.
    Latency {
        /// What of it: the median, or p99.
        of: &'static str,
        /// How long once the node had settled.
        from: Duration,
        /// How long in the end.
        to: Duration,
    },
    /// A part is not there any more.
    Gone(&'static str),
    /// Nothing was served for a while.
    Standstill(Duration),
    /// There are too few samples to say anything.
    TooShort(usize),
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory { part, from, to } => {
                write!(f, "memory of {part} grew from {} to {} KiB", from / 1024, to / 1024)
            }
            Self::Descriptors { part, from, to } => write!(f, "descriptors of {part} grew from {from} to {to}"),
            Self::Zombies(count) => write!(f, "{count} processes have ended and are not reaped"),
            Self::Latency { of, from, to } => write!(f, "the {of} of latency grew from {from:.1?} to {to:.1?}"),
            Self::Gone(part) => write!(f, "{part} is gone"),
            Self::Standstill(at) => write!(f, "nothing was served before {at:.0?}"),
            Self::TooShort(samples) => write!(f, "{samples} samples are too few to say anything; run it longer"),
        }
    }
}

/// Everything that grew.
pub fn judge(samples: &[Sample]) -> Vec<Finding> {
    if samples.len() < FEWEST {
        return vec![Finding::TooShort(samples.len())];
    }
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index"
    )]
    let settled = &samples[(samples.len() as f64 * SETTLING) as usize..];
    let (early, late) = (&settled[..settled.len() / 3], &settled[settled.len() - settled.len() / 3..]);
    let mut found = Vec::new();
    let first = &samples[0];
    for &part in first.memory.keys() {
        let (Some(from), Some(to)) =
            (of(early, |sample| &sample.memory, part), of(late, |sample| &sample.memory, part))
        else {
            found.push(Finding::Gone(part));
            continue;
        };
        if to > from + (share(from, MEMORY_SHARE)).max(MEMORY_BYTES.min(from / 4)) {
            found.push(Finding::Memory { part, from, to });
        }
    }
    for &part in first.descriptors.keys() {
        let both = (of(early, |sample| &sample.descriptors, part), of(late, |sample| &sample.descriptors, part));
        if let (Some(from), Some(to)) = both
            && to > from + DESCRIPTORS
        {
            found.push(Finding::Descriptors { part, from, to });
        }
    }
    let zombies = late.iter().map(|sample| sample.zombies).min().unwrap_or_default();
    if zombies > 0 {
        found.push(Finding::Zombies(zombies));
    }
    let mut compare = |of, latency: fn(&Sample) -> Duration, (factor, time): (f64, Duration)| {
        let (from, to) = (median(early, latency), median(late, latency));
        if to > from.mul_f64(factor) + time {
            found.push(Finding::Latency { of, from, to });
        }
    };
    compare("median", |sample| sample.median, MEDIAN);
    compare("p99", |sample| sample.p99, P99);
    found.extend(samples.iter().find(|sample| sample.requests == 0).map(|sample| Finding::Standstill(sample.at)));
    found
}

/// The median of one part's numbers; none when the part is missing from a sample.
fn of(samples: &[Sample], numbers: impl Fn(&Sample) -> &BTreeMap<&'static str, u64>, part: &str) -> Option<u64> {
    let mut values = samples.iter().map(|sample| numbers(sample).get(part).copied()).collect::<Option<Vec<_>>>()?;
    values.sort_unstable();
    values.get(values.len() / 2).copied()
}

fn median(samples: &[Sample], of: impl Fn(&Sample) -> Duration) -> Duration {
    let mut values: Vec<_> = samples.iter().map(of).collect();
    values.sort_unstable();
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "bytes of a machine"
)]
fn share(of: u64, part: f64) -> u64 {
    (of as f64 * part) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEBIBYTE: u64 = 1 << 20;

    fn sample(number: u64) -> Sample {
        // What goes up and down is no growth.
        let wave = [0, 300, 700, 100][usize::try_from(number % 4).unwrap()] * 1024;
        Sample {
            at: Duration::from_secs(number),
            memory: [("supervisor", 30 * MEBIBYTE + wave), ("one vault-manager", 100 * 1024)].into(),
            descriptors: [("supervisor", 40 + number % 3)].into(),
            zombies: u64::from(number.is_multiple_of(2)),
            requests: 1000,
            median: Duration::from_micros(800 + 100 * (number % 5)),
            p99: Duration::from_millis(5),
        }
    }

    /// An hour in which each sample is changed so.
    fn hour(change: impl Fn(u64, &mut Sample)) -> Vec<Finding> {
        let samples: Vec<_> = (0..120)
            .map(|number| {
                let mut sample = sample(number);
                change(number, &mut sample);
                sample
            })
            .collect();
        judge(&samples)
    }

    #[test]
    fn a_steady_hour_passes() {
        assert_eq!(hour(|_, _| {}), []);
    }

    #[test]
    fn settling_is_no_growth() {
        let warm = |number: u64, sample: &mut Sample| {
            if number < 20 {
                sample.memory.insert("supervisor", 5 * MEBIBYTE);
                sample.median = Duration::from_micros(100);
            }
        };
        assert_eq!(hour(warm), []);
    }

    #[test]
    fn each_kind_of_growth_is_found() {
        let leak = hour(|number, sample| *sample.memory.get_mut("supervisor").unwrap() += number * 100 * 1024);
        assert!(matches!(leak[..], [Finding::Memory { part: "supervisor", .. }]), "{leak:?}");
        let fat = hour(|number, sample| *sample.memory.get_mut("one vault-manager").unwrap() += number * 4 * 1024);
        assert!(matches!(fat[..], [Finding::Memory { part: "one vault-manager", .. }]), "{fat:?}");
        let open = hour(|number, sample| *sample.descriptors.get_mut("supervisor").unwrap() += number);
        assert!(matches!(open[..], [Finding::Descriptors { part: "supervisor", .. }]), "{open:?}");
        assert_eq!(hour(|number, sample| sample.zombies = number / 10), [Finding::Zombies(9)]);
        let slow = hour(|number, sample| sample.median += Duration::from_micros(100) * u32::try_from(number).unwrap());
        assert!(matches!(slow[..], [Finding::Latency { of: "median", .. }]), "{slow:?}");
        let tail = hour(|number, sample| sample.p99 += Duration::from_millis(1) * u32::try_from(number).unwrap());
        assert!(matches!(tail[..], [Finding::Latency { of: "p99", .. }]), "{tail:?}");
    }

    #[test]
    fn what_ends_or_stands_still_is_found() {
        let gone = hour(|number, sample| {
            if number > 110 {
                sample.memory.remove("supervisor");
            }
        });
        assert_eq!(gone, [Finding::Gone("supervisor")]);
        let still = hour(|number, sample| sample.requests = if number == 50 { 0 } else { 10 });
        assert_eq!(still, [Finding::Standstill(Duration::from_secs(50))]);
        assert_eq!(judge(&[]), [Finding::TooShort(0)]);
    }
}
