//! What CloudWatch is told for one interval: a pure function of what the counters said before and after it, and of what was observed at
//! its end.

use std::time::Duration;

use casemate_protocol::stage::{BOUNDS, BUCKETS, Stage, StageTimes, bounds};

use crate::health::{ENCLAVE_LIMIT, Observed};
use crate::metric::Alarming;

/// What a figure counts in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Of a hundred.
    Percent,
    /// Things.
    Count,
    /// Milliseconds.
    Milliseconds,
    /// Seconds.
    Seconds,
    /// Yes or no.
    None,
}

/// One figure. Its value is one number, or a set of numbers each of which came so often.
#[derive(Debug, Clone, PartialEq)]
pub struct Figure {
    /// The metric.
    pub name: &'static str,
    /// What it counts in.
    pub unit: Unit,
    /// Values and how often each came; one value once for what is measured at the interval's end.
    pub values: Vec<(f64, f64)>,
}

/// Every metric there is, as the documentation has them.
pub const NAMES: [&str; 14] = [
    "MemoryUtilization",
    "ResidentVaults",
    "ColdStartLatency",
    "RequestLatency",
    "RequestCount",
    "ErrorCount",
    "KmsLatency",
    "KmsThrottled",
    "KmsCacheHitRate",
    "NatsReconnects",
    "EvidenceAge",
    "EnclaveUp",
    "SandboxKilled",
    "KmsForged",
];

/// What the counters say at one moment. Those of the enclave begin anew with its boot, but for those that an alarm looks at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Counters {
    /// Requests of devices since the parent's start.
    pub requests: u64,
    /// Those that this node should have served and did not.
    pub errors: u64,
    /// Connections to NATS after the first.
    pub nats_reconnects: u64,
    /// Whole requests by how long they took.
    pub answered: StageTimes,
    /// Openings by how long they took.
    pub opened: StageTimes,
    /// Lookups for a shard key that were answered from memory.
    pub kms_hits: u64,
    /// And those that were not.
    pub kms_misses: u64,
    /// Calls of the key service.
    pub kms_calls: u64,
    /// Calls that it throttled, over all boots.
    pub kms_throttled: u64,
    /// Answers in its place that it did not give, over all boots.
    pub kms_forged: u64,
    /// Vault-managers that tried what they may not, over all boots.
    pub sandbox_killed: u64,
}

impl Counters {
    /// What was told, and what this process counted itself.
    pub fn of(
        observed: &Observed,
        (requests, errors): (u64, u64),
        answered: StageTimes,
        alarming: impl Fn(Alarming) -> u64,
    ) -> Self {
        let health = observed.enclave.health.clone().unwrap_or_default();
        let place = Stage::ALL.iter().position(|stage| *stage == Stage::Open);
        Self {
            requests,
            errors,
            nats_reconnects: observed.nats.reconnects,
            answered,
            opened: place.and_then(|place| health.stages.get(place).cloned()).unwrap_or_default(),
            kms_hits: health.kms.hits,
            kms_misses: health.kms.misses,
            kms_calls: health.kms.calls,
            kms_throttled: alarming(Alarming::KmsThrottled),
            kms_forged: alarming(Alarming::KmsForged),
            sandbox_killed: alarming(Alarming::SandboxKilled),
        }
    }
}

/// The figures of the interval between two looks.
pub fn figures(before: &Counters, now: &Counters, observed: &Observed) -> Vec<Figure> {
    let enclave = &observed.enclave;
    let up = enclave.connected && enclave.last_answer.is_some_and(|age| age <= ENCLAVE_LIMIT);
    let mut figures = vec![
        one("EnclaveUp", Unit::None, if up { 1.0 } else { 0.0 }),
        one("RequestCount", Unit::Count, number(rise(before.requests, now.requests))),
        one("ErrorCount", Unit::Count, number(rise(before.errors, now.errors))),
        one("NatsReconnects", Unit::Count, number(rise(before.nats_reconnects, now.nats_reconnects))),
        // Also of an enclave that says nothing any more: whoever broke into it may have silenced it.
        one("SandboxKilled", Unit::Count, number(rise(before.sandbox_killed, now.sandbox_killed))),
        one("KmsForged", Unit::Count, number(rise(before.kms_forged, now.kms_forged))),
    ];
    figures.extend(times("RequestLatency", &before.answered, &now.answered));
    // What a silent enclave said last is no figure of this interval.
    let Some(health) = enclave.health.as_ref().filter(|_| up) else { return figures };
    if let Some(used) = health.memory_total.checked_sub(health.memory_available).filter(|_| health.memory_total > 0) {
        let percent = number(used) / number(health.memory_total) * 100.0;
        figures.push(one("MemoryUtilization", Unit::Percent, percent));
    }
    figures.push(one("ResidentVaults", Unit::Count, number(health.vaults.resident)));
    figures.extend(times("ColdStartLatency", &before.opened, &now.opened));
    if let Some(age) = health.evidence_age_s {
        figures.push(one("EvidenceAge", Unit::Seconds, number(age)));
    }
    figures.push(one("KmsThrottled", Unit::Count, number(rise(before.kms_throttled, now.kms_throttled))));
    if rise(before.kms_calls, now.kms_calls) > 0 {
        figures.push(one("KmsLatency", Unit::Milliseconds, number(health.kms.latency_ms)));
    }
    let (hits, misses) = (rise(before.kms_hits, now.kms_hits), rise(before.kms_misses, now.kms_misses));
    if let Some(lookups) = hits.checked_add(misses).filter(|lookups| *lookups > 0) {
        figures.push(one("KmsCacheHitRate", Unit::Percent, number(hits) / number(lookups) * 100.0));
    }
    figures
}

/// How far a counter rose. One that fell belongs to another boot, and all of it is new.
fn rise(before: u64, now: u64) -> u64 {
    now.checked_sub(before).unwrap_or(now)
}

/// Times as values: each is the upper bound of its bucket, so that a percentile is never shown smaller than it was.
fn times(name: &'static str, before: &StageTimes, now: &StageTimes) -> Option<Figure> {
    if now.counts.len() != BUCKETS {
        return None;
    }
    let restarted = before.counts.iter().zip(&now.counts).any(|(before, now)| now < before);
    let earlier = |bucket: usize| if restarted { 0 } else { before.counts.get(bucket).copied().unwrap_or(0) };
    let values: Vec<_> = (0..BUCKETS)
        .filter_map(|bucket| {
            let count = now.counts[bucket] - earlier(bucket);
            let bound = bounds().nth(bucket.min(BOUNDS - 1)).unwrap_or(Duration::ZERO);
            (count > 0).then(|| (bound.as_secs_f64() * 1000.0, number(count)))
        })
        .collect();
    (!values.is_empty()).then_some(Figure { name, unit: Unit::Milliseconds, values })
}

fn one(name: &'static str, unit: Unit, value: f64) -> Figure {
    Figure { name, unit, values: vec![(value, 1.0)] }
}

#[expect(clippy::cast_precision_loss, reason = "a figure is a float; these numbers are far below 2^53")]
fn number(value: u64) -> f64 {
    value as f64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{ObservedEnclave, ObservedNats};
    use casemate_protocol::health::EnclaveHealth;

    fn observed(health: EnclaveHealth) -> Observed {
        let enclave = ObservedEnclave {
            connected: true,
            last_answer: Some(Duration::from_secs(1)),
            health: Some(health),
            ..ObservedEnclave::default()
        };
        Observed { enclave, nats: ObservedNats { reconnects: 3, ..ObservedNats::default() }, ..Observed::default() }
    }

    fn busy() -> EnclaveHealth {
        let mut health = EnclaveHealth {
            memory_total: 200,
            memory_available: 50,
            evidence_age_s: Some(60),
            stages: vec![StageTimes::default(); Stage::ALL.len()],
            ..EnclaveHealth::default()
        };
        health.vaults.resident = 7;
        (health.kms.hits, health.kms.misses, health.kms.calls) = (9, 1, 1);
        health.kms.latency_ms = 30;
        health.stages[Stage::Open as usize] = counted(&[(8, 4)]);
        health
    }

    fn counted(filled: &[(usize, u64)]) -> StageTimes {
        let mut counts = vec![0; BUCKETS];
        for (bucket, count) in filled {
            counts[*bucket] = *count;
        }
        StageTimes { counts, sum_us: 0 }
    }

    const fn alarming(what: Alarming) -> u64 {
        match what {
            Alarming::SandboxKilled => 1,
            Alarming::KmsThrottled => 2,
            Alarming::KmsForged => 3,
        }
    }

    fn value(figures: &[Figure], name: &str) -> Option<f64> {
        let figure = figures.iter().find(|figure| figure.name == name)?;
        assert!(NAMES.contains(&figure.name));
        Some(figure.values[0].0)
    }

    #[test]
    fn every_metric_has_its_figure() {
        let observed = observed(busy());
        let now = Counters::of(&observed, (100, 4), counted(&[(3, 5)]), alarming);
        let figures = figures(&Counters::default(), &now, &observed);
        assert_eq!(figures.len(), NAMES.len(), "{figures:?}");
        let expected = [
            ("MemoryUtilization", 75.0),
            ("ResidentVaults", 7.0),
            ("ColdStartLatency", 4.096),
            ("RequestLatency", 0.128),
            ("RequestCount", 100.0),
            ("ErrorCount", 4.0),
            ("KmsLatency", 30.0),
            ("KmsThrottled", 2.0),
            ("KmsCacheHitRate", 90.0),
            ("NatsReconnects", 3.0),
            ("EvidenceAge", 60.0),
            ("EnclaveUp", 1.0),
            ("SandboxKilled", 1.0),
            ("KmsForged", 3.0),
        ];
        for (name, expected) in expected {
            let found = value(&figures, name).unwrap();
            assert!((found - expected).abs() < 1e-9, "{name}: {found}");
        }
        let cold = figures.iter().find(|figure| figure.name == "ColdStartLatency").unwrap();
        assert_eq!(cold.values, [(4.096, 4.0)], "as often as it came");
    }

    #[test]
    fn counters_are_differences_and_another_boot_is_none() {
        let observed = observed(busy());
        let now = Counters::of(&observed, (100, 4), counted(&[(3, 5)]), alarming);
        let quiet = figures(&now, &now, &observed);
        assert_eq!(value(&quiet, "RequestCount"), Some(0.0));
        for counted in ["KmsThrottled", "KmsForged", "SandboxKilled"] {
            assert_eq!(value(&quiet, counted), Some(0.0), "{counted}");
        }
        for absent in ["RequestLatency", "ColdStartLatency", "KmsCacheHitRate", "KmsLatency"] {
            assert_eq!(value(&quiet, absent), None, "{absent}: nothing happened");
        }
        let before = Counters { kms_hits: 1000, kms_misses: 1000, opened: counted(&[(8, 100)]), ..now.clone() };
        let rebooted = figures(&before, &now, &observed);
        assert_eq!(value(&rebooted, "KmsCacheHitRate"), Some(90.0));
        assert_eq!(rebooted.iter().find(|f| f.name == "ColdStartLatency").unwrap().values, [(4.096, 4.0)]);
    }

    #[test]
    fn a_silent_enclave_has_no_figures_but_that_it_is_down_and_what_it_warned_of() {
        let mut observed = observed(busy());
        observed.enclave.last_answer = Some(ENCLAVE_LIMIT + Duration::from_secs(1));
        let now = Counters::of(&observed, (100, 40), counted(&[]), alarming);
        let figures = figures(&Counters::default(), &now, &observed);
        assert_eq!(value(&figures, "EnclaveUp"), Some(0.0));
        assert_eq!(value(&figures, "ErrorCount"), Some(40.0));
        assert_eq!((value(&figures, "SandboxKilled"), value(&figures, "KmsForged")), (Some(1.0), Some(3.0)));
        for absent in ["MemoryUtilization", "ResidentVaults", "EvidenceAge", "KmsThrottled"] {
            assert_eq!(value(&figures, absent), None, "{absent}");
        }
    }

    #[test]
    fn the_documentation_has_every_metric() {
        let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/watching.md")).unwrap();
        for name in NAMES {
            assert!(page.contains(&format!("| `{name}` |")), "{name} has no row in docs/watching.md");
        }
    }
}
