//! The numbers that `/metrics` shows. All names are here, under `casemate_`; none carries a vault's name.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use casemate_protocol::health::EnclaveHealth;
use metrics::{Counter, Histogram, counter, describe_counter, describe_gauge, describe_histogram, gauge, histogram};
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use crate::enclave::BootId;
use crate::health::{self, Observed, Reason, Status};
use crate::stage;

/// The histograms of the stages of a request, label `stage`; [`crate::stage`] writes them. `casemate_request_seconds` is the whole.
///
/// | `stage` | from | until |
/// |---|---|---|
/// | `forward` | arrival in the parent | it is with the link |
/// | `wait` | arrival in the enclave | its vault's process is given it |
/// | `vault` | then | the vault-manager's reply |
/// | `spawn` | the order for a process | it can do handshakes |
/// | `load`, `key` | the parts of an opening | the store's objects are there; the vault's key is unwrapped |
/// | `open` | a vault-manager asks to be opened | it has objects and key |
/// | `commit` | the put of a version | it is known to be durable |
pub const STAGE_SECONDS: &str = "casemate_stage_seconds";
/// What the page says of them.
pub const STAGE_SECONDS_HELP: &str = "Time of the stages of requests, in the parent and since the enclave's boot";

/// Bounds of the other histograms, seconds.
const BUCKETS: &[f64] =
    &[0.0001, 0.000_25, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0];

/// How a device's request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// With the enclave's answer.
    Answered,
    /// The enclave refused before any vault.
    Refused,
    /// The window was full.
    Busy,
    /// No enclave.
    Unavailable,
    /// The deadline came first.
    Deadline,
    /// The link ended while it was in flight.
    Lost,
    /// Not of this protocol.
    Malformed,
    /// It asked for no answer, so it was not worked on.
    NoReply,
    /// One of a flood that the enclave would have refused.
    Stranger,
}

/// The outcomes again, for who must read them: the recorder's counters can only be written. One for the process, as the recorder is.
static OUTCOMES: [AtomicU64; 9] = [const { AtomicU64::new(0) }; 9];

/// Requests since the start: all of them, and those that this node should have served and did not. What an asker did wrong, and what the
/// enclave refused, is no error of the node's: anybody could raise an alarm with it.
pub fn requests_and_errors() -> (u64, u64) {
    let count = |outcome: Outcome| OUTCOMES[outcome as usize].load(Ordering::Relaxed);
    let errors = [Outcome::Busy, Outcome::Unavailable, Outcome::Deadline, Outcome::Lost];
    (OUTCOMES.iter().map(|count| count.load(Ordering::Relaxed)).sum(), errors.into_iter().map(count).sum())
}

/// What enclaves count and an alarm looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alarming {
    /// A vault-manager tried what it may not.
    SandboxKilled,
    /// Somebody answered in the key service's place.
    KmsForged,
    /// The key service throttled a call.
    KmsThrottled,
}

/// These again, likewise.
static ALARMING: [AtomicU64; 3] = [const { AtomicU64::new(0) }; 3];

/// How often that was told by the enclaves that this process has seen.
pub fn alarming(what: Alarming) -> u64 {
    ALARMING[what as usize].load(Ordering::Relaxed)
}

/// Handles for the hot path, looked up once.
#[derive(Debug)]
pub struct RequestMetrics {
    outcomes: [Counter; 9],
    seconds: Histogram,
}

impl Default for RequestMetrics {
    fn default() -> Self {
        let outcome = |name: &'static str| counter!("casemate_requests_total", "outcome" => name);
        Self {
            outcomes: [
                outcome("answered"),
                outcome("refused"),
                outcome("busy"),
                outcome("unavailable"),
                outcome("deadline"),
                outcome("lost"),
                outcome("malformed"),
                outcome("no_reply"),
                outcome("stranger"),
            ],
            seconds: histogram!("casemate_request_seconds"),
        }
    }
}

impl RequestMetrics {
    /// Counts a request.
    pub fn count(&self, outcome: Outcome) {
        self.outcomes[outcome as usize].increment(1);
        OUTCOMES[outcome as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Notes how long an answered request took.
    pub fn time(&self, took: Duration) {
        self.seconds.record(took);
        stage::answered(took);
    }
}

/// Starts collecting; the handle renders the page. The second call of a process gives the first one's handle.
///
/// # Errors
/// In words, when another recorder is installed.
pub fn install() -> Result<PrometheusHandle, String> {
    static HANDLE: OnceLock<Result<PrometheusHandle, String>> = OnceLock::new();
    HANDLE
        .get_or_init(|| {
            let builder = PrometheusBuilder::new().set_buckets(BUCKETS).map_err(|error| error.to_string())?;
            let handle = builder.install_recorder().map_err(|error| error.to_string())?;
            describe();
            Ok(handle)
        })
        .clone()
}

fn describe() {
    describe_counter!("casemate_requests_total", "Requests of devices by how they ended");
    describe_histogram!("casemate_request_seconds", "Time from a request's arrival to its answer");
    describe_counter!("casemate_nats_reconnects_total", "Connections to NATS after the first");
    describe_counter!("casemate_answers_dropped_total", "Answers given up because too many waited for NATS");
    describe_counter!("casemate_nats_slow_consumer_total", "Times that a subscription was full and lost messages");
    describe_counter!("casemate_store_failures_total", "Operations of the object store that failed");
    describe_histogram!("casemate_store_seconds", "Time of an operation of the object store");
    describe_counter!("casemate_relay_connections_total", "Relayed connections by how they began");
    describe_counter!("casemate_relay_bytes_total", "Bytes relayed, by direction");
    describe_counter!("casemate_enclave_log_records_total", "Log records of the enclave by level");
    describe_gauge!("casemate_enclave_up", "1 while the enclave answers");
    describe_gauge!("casemate_enclave_evidence_age_seconds", "Age of the evidence in use");
    describe_gauge!("casemate_enclave_memory_bytes", "Memory of the enclave by kind");
    describe_gauge!("casemate_vaults", "Vaults by state");
    describe_gauge!("casemate_vault_limit", "Vaults that may be resident");
    describe_counter!("casemate_vault_events_total", "What happened to vaults");
    describe_counter!("casemate_refusals_total", "What the enclave did not believe, by kind");
    describe_counter!("casemate_kms_events_total", "Key cache and key service");
    describe_counter!("casemate_cloudwatch_calls_total", "Calls of CloudWatch by how they ended");
    describe_counter!(
        "casemate_cloudwatch_dropped_total",
        "Intervals whose figures were given up because CloudWatch was away for too long"
    );
    describe_counter!(
        "casemate_autoscaling_verdicts_total",
        "Verdicts told to the Auto Scaling group, and whether it took them"
    );
    describe_gauge!("casemate_kms_reachable", "1 while the key service takes connections");
    describe_gauge!("casemate_nats_up", "1 while messages to NATS come back");
    describe_gauge!("casemate_nats_rtt_seconds", "Time of the last message to NATS and back");
    describe_gauge!("casemate_store_up", "1 while the object store takes and gives an object");
    describe_gauge!("casemate_health", "The verdict of /health: 2 healthy, 1 degraded, 0 unhealthy");
    describe_gauge!("casemate_kms_latency_milliseconds", "Time of the last call of the key service");
}

/// Notes an operation of the store.
pub fn store(operation: &'static str, took: Duration, failed: bool) {
    histogram!("casemate_store_seconds", "operation" => operation).record(took);
    if failed {
        counter!("casemate_store_failures_total", "operation" => operation).increment(1);
    }
}

/// What the enclave counts from its boot on, as counts of this process's. Those never fall, so that what a new boot counts is added to
/// what the one before it had counted: an alarm would be missed otherwise, until there were more of them than ever.
#[derive(Debug, Default)]
pub struct EnclaveCounts {
    boot: BootId,
    told: BTreeMap<(&'static str, &'static str), u64>,
}

impl EnclaveCounts {
    /// Counts of this boot come now.
    fn turn_to(&mut self, boot: BootId) {
        if self.boot != boot {
            *self = Self { boot, told: BTreeMap::new() };
        }
    }

    /// How much of what is told was not told before by this boot.
    fn added(&mut self, family: &'static str, label: &'static str, told: u64) -> u64 {
        let before = self.told.entry((family, label)).or_default();
        let added = told.saturating_sub(*before);
        *before += added;
        added
    }
}

/// Notes what the enclave of this boot tells of itself.
#[expect(clippy::cast_precision_loss, reason = "a gauge is a float; these numbers are far below 2^53")]
pub fn enclave(boot: BootId, health: &EnclaveHealth, counts: &mut EnclaveCounts) {
    counts.turn_to(boot);
    gauge!("casemate_enclave_up").set(1.0);
    if let Some(age) = health.evidence_age_s {
        gauge!("casemate_enclave_evidence_age_seconds").set(age as f64);
    }
    gauge!("casemate_enclave_memory_bytes", "kind" => "total").set(health.memory_total as f64);
    gauge!("casemate_enclave_memory_bytes", "kind" => "available").set(health.memory_available as f64);
    let vaults = &health.vaults;
    for (state, value) in [
        ("resident", vaults.resident),
        ("half_open", vaults.half_open),
        ("parked", vaults.parked),
        ("in_flight", vaults.in_flight),
    ] {
        gauge!("casemate_vaults", "state" => state).set(value as f64);
    }
    gauge!("casemate_vault_limit").set(vaults.limit as f64);
    for (event, value) in [
        ("evicted", vaults.evicted),
        ("opened", vaults.opened),
        ("crashed", vaults.crashed),
        ("sandbox_killed", vaults.sandbox_killed),
        ("stuck", vaults.stuck),
        ("requests", vaults.requests),
        ("refused", vaults.refused),
        ("open_microseconds", vaults.open_us),
    ] {
        let added = counts.added("vault_events", event, value);
        counter!("casemate_vault_events_total", "event" => event).increment(added);
    }
    for (kind, value) in health.refusals.named() {
        counter!("casemate_refusals_total", "kind" => kind).increment(counts.added("refusals", kind, value));
    }
    let kms = &health.kms;
    for (event, value) in [
        ("hit", kms.hits),
        ("miss", kms.misses),
        ("call", kms.calls),
        ("throttled", kms.throttled),
        ("failure", kms.failures),
        ("forged", kms.forged),
    ] {
        let added = counts.added("kms_events", event, value);
        counter!("casemate_kms_events_total", "event" => event).increment(added);
    }
    for (what, label, value) in [
        (Alarming::SandboxKilled, "sandbox_killed", vaults.sandbox_killed),
        (Alarming::KmsForged, "kms_forged", kms.forged),
        (Alarming::KmsThrottled, "kms_throttled", kms.throttled),
    ] {
        ALARMING[what as usize].fetch_add(counts.added("alarming", label, value), Ordering::Relaxed);
    }
    gauge!("casemate_kms_latency_milliseconds").set(kms.latency_ms as f64);
}

/// Notes the verdict and what it rests on, as the page of metrics is made.
pub fn verdict(observed: &Observed) {
    let flag = |holds: bool| if holds { 1.0 } else { 0.0 };
    let verdict = health::verdict(observed);
    gauge!("casemate_health").set(match verdict.status {
        Status::Healthy => 2.0,
        Status::Degraded => 1.0,
        Status::Unhealthy => 0.0,
    });
    let is_well = |bad: fn(&Reason) -> bool| flag(!verdict.reasons.iter().any(bad));
    gauge!("casemate_nats_up").set(is_well(|reason| matches!(reason, Reason::Nats)));
    gauge!("casemate_nats_rtt_seconds").set(observed.nats.rtt.as_secs_f64());
    gauge!("casemate_store_up").set(is_well(|reason| matches!(reason, Reason::Store(_))));
    gauge!("casemate_kms_reachable").set(flag(observed.kms.error.is_none()));
}

/// Notes that the enclave does not answer.
pub fn enclave_down() {
    gauge!("casemate_enclave_up").set(0.0);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_new_boot_counts_is_added() {
        let page = || install().unwrap().render();
        let mut counts = EnclaveCounts::default();
        let mut told = |boot, killed, forged, rollback| {
            let mut health = EnclaveHealth::default();
            (health.vaults.sandbox_killed, health.kms.forged, health.refusals.rollback) = (killed, forged, rollback);
            enclave([boot; 16], &health, &mut counts);
        };
        let alarms = [
            "casemate_vault_events_total{event=\"sandbox_killed\"}",
            "casemate_kms_events_total{event=\"forged\"}",
            "casemate_refusals_total{kind=\"rollback\"}",
        ];
        let counted = || {
            let page = page();
            alarms.map(|alarm| {
                let value = page.lines().find_map(|line| line.strip_prefix(alarm));
                value.map_or(0, |value| value.trim().parse::<u64>().unwrap())
            })
        };
        let alarmed = || [Alarming::SandboxKilled, Alarming::KmsForged].map(alarming);
        let (before, alarmed_before) = (counted(), alarmed());
        let since = || counted().into_iter().zip(before).map(|(now, before)| now - before).collect::<Vec<_>>();
        told(1, 2, 1, 3);
        told(1, 2, 1, 3);
        assert_eq!(since(), [2, 1, 3], "what was told before is not counted again");
        told(1, 4, 1, 3);
        assert_eq!(since(), [4, 1, 3]);
        // The enclave is another one, and has counted less, as much, and more.
        told(2, 1, 1, 5);
        assert_eq!(since(), [5, 2, 8]);
        told(2, 1, 2, 5);
        assert_eq!(since(), [5, 3, 8]);
        let rise = alarmed().into_iter().zip(alarmed_before).map(|(now, before)| now - before);
        assert_eq!(rise.collect::<Vec<_>>(), [5, 3], "as CloudWatch is told");
    }
}
