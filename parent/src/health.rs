//! The verdict on this node: a pure function of what was observed and how long ago.
//!
//! A part counts as well only while a real round trip to it is younger than its limit; a part that was never reached is not
//! well, so a node starts unhealthy.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use casemate_protocol::health::EnclaveHealth;
use serde_json::{Value, json};

/// The enclave is asked every second and has three seconds to answer.
pub const ENCLAVE_LIMIT: Duration = Duration::from_secs(4);
/// NATS is asked every second and has three to answer.
pub const NATS_LIMIT: Duration = Duration::from_secs(4);
/// The store is asked every two seconds and has two and a half to answer; a failure is told at once, and this is for one that hangs.
pub const STORE_LIMIT: Duration = Duration::from_secs(10);
/// Evidence is renewed well before its certificate ends, about three hours after it was made.
pub const EVIDENCE_LIMIT: Duration = Duration::from_hours(2);

/// What is known of this node at one moment. Ages count from the last success.
#[derive(Debug, Clone, Default)]
pub struct Observed {
    /// Since the parent started.
    pub uptime: Duration,
    /// Whether the node is to stop.
    pub draining: bool,
    /// The enclave.
    pub enclave: ObservedEnclave,
    /// NATS.
    pub nats: ObservedNats,
    /// The object store.
    pub store: ObservedStore,
    /// The key service, as this process sees it.
    pub kms: ObservedKms,
}

/// What is known of the enclave.
#[derive(Debug, Clone, Default)]
pub struct ObservedEnclave {
    /// Whether its control connection stands and it took the configuration.
    pub connected: bool,
    /// Whether its requests connection stands.
    pub requests: bool,
    /// Why it did not take the configuration.
    pub refused: Option<String>,
    /// Its build.
    pub build: String,
    /// Age of its last answer.
    pub last_answer: Option<Duration>,
    /// Its last answer.
    pub health: Option<EnclaveHealth>,
}

/// What is known of NATS.
#[derive(Debug, Clone, Default)]
pub struct ObservedNats {
    /// Whether the connection stands.
    pub connected: bool,
    /// Age of the last round trip.
    pub last_round_trip: Option<Duration>,
    /// How long that took.
    pub rtt: Duration,
    /// Connections made after the first.
    pub reconnects: u64,
    /// Times that a subscription was full and messages were lost.
    pub slow_consumers: u64,
}

/// What is known of the object store.
#[derive(Debug, Clone, Default)]
pub struct ObservedStore {
    /// Age of the last round trip: an object written and read back.
    pub last_round_trip: Option<Duration>,
    /// How long that took.
    pub latency: Duration,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
    /// Round trips that failed.
    pub failures: u64,
}

/// What is known of the way to the key service. Whether it gives keys the enclave alone knows, and only when it needs one.
#[derive(Debug, Clone, Default)]
pub struct ObservedKms {
    /// Whether a connection was tried yet.
    pub tried: bool,
    /// How long the last connection took.
    pub latency: Duration,
    /// Why the latest attempt failed, if it did.
    pub error: Option<String>,
}

/// How the node is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Everything is as it should be.
    Healthy,
    /// It serves, and somebody should look at the reasons.
    Degraded,
    /// It cannot serve.
    Unhealthy,
}

impl Status {
    /// The word in the JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Degraded => "degraded",
            Self::Unhealthy => "unhealthy",
        }
    }
}

/// Why the node is not simply healthy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The node is to stop.
    Draining,
    /// There is no enclave.
    EnclaveNotConnected,
    /// The enclave did not take the configuration.
    EnclaveRefused(String),
    /// The enclave is silent.
    EnclaveNotAnswering,
    /// The enclave has no requests connection.
    EnclaveTakesNoRequests,
    /// The enclave has no evidence, or too old evidence.
    EvidenceStale,
    /// No connection to NATS, or no round trip.
    Nats,
    /// No round trip to the store.
    Store(Option<String>),
    /// The key service is degraded: open vaults and cached keys go on.
    KmsDegraded,
    /// The key service is down: no vault can be opened.
    KmsDown,
    /// The key service takes no connection: what is not cached cannot be opened.
    KmsUnreachable(String),
    /// What the enclave says itself.
    Enclave(String),
}

impl Reason {
    /// How bad it is.
    pub const fn status(&self) -> Status {
        match self {
            // An outage of the key service must not take nodes out: resident vaults are served without it.
            Self::KmsDegraded | Self::KmsDown | Self::KmsUnreachable(_) | Self::Enclave(_) => Status::Degraded,
            _ => Status::Unhealthy,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Draining => f.write_str("draining"),
            Self::EnclaveNotConnected => f.write_str("enclave: not connected"),
            Self::EnclaveRefused(why) => write!(f, "enclave: refused its configuration: {why}"),
            Self::EnclaveNotAnswering => f.write_str("enclave: does not answer"),
            Self::EnclaveTakesNoRequests => f.write_str("enclave: has no requests connection"),
            Self::EvidenceStale => f.write_str("enclave: its evidence is missing or too old"),
            Self::Nats => f.write_str("nats: no round trip"),
            Self::Store(None) => f.write_str("store: no round trip"),
            Self::Store(Some(why)) => write!(f, "store: {why}"),
            Self::KmsDegraded => f.write_str("kms: degraded"),
            Self::KmsDown => f.write_str("kms: down"),
            Self::KmsUnreachable(why) => write!(f, "kms: {why}"),
            Self::Enclave(text) => write!(f, "enclave: {text}"),
        }
    }
}

/// The verdict.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verdict {
    /// How the node is: as its worst reason.
    pub status: Status,
    /// Why.
    pub reasons: Vec<Reason>,
}

impl Verdict {
    /// Whether a load balancer should send traffic here.
    pub fn serves(&self) -> bool {
        self.status != Status::Unhealthy
    }
}

/// Judges.
pub fn verdict(observed: &Observed) -> Verdict {
    let mut reasons = Vec::new();
    let fresh = |age: Option<Duration>, limit: Duration| age.is_some_and(|age| age <= limit);
    if observed.draining || observed.enclave.health.as_ref().is_some_and(|health| health.draining) {
        reasons.push(Reason::Draining);
    }
    let enclave = &observed.enclave;
    if let Some(why) = &enclave.refused {
        reasons.push(Reason::EnclaveRefused(why.clone()));
    } else if !enclave.connected {
        reasons.push(Reason::EnclaveNotConnected);
    } else if !fresh(enclave.last_answer, ENCLAVE_LIMIT) {
        reasons.push(Reason::EnclaveNotAnswering);
    } else if !enclave.requests {
        reasons.push(Reason::EnclaveTakesNoRequests);
    }
    if let (true, Some(health)) = (enclave.connected, &enclave.health) {
        if !fresh(health.evidence_age_s.map(Duration::from_secs), EVIDENCE_LIMIT) {
            reasons.push(Reason::EvidenceStale);
        }
        match health.kms.state.as_str() {
            "degraded" => reasons.push(Reason::KmsDegraded),
            "down" => reasons.push(Reason::KmsDown),
            _ => {}
        }
        // The enclave's words are bounded here: this page must stay readable whatever it says.
        reasons.extend(health.reasons.iter().take(16).map(|text| Reason::Enclave(text.chars().take(120).collect())));
    }
    if !observed.nats.connected || !fresh(observed.nats.last_round_trip, NATS_LIMIT) {
        reasons.push(Reason::Nats);
    }
    // A device's write would fail as the round trip just did: the load balancer, which asks several times, decides how much that matters.
    if observed.store.error.is_some() || !fresh(observed.store.last_round_trip, STORE_LIMIT) {
        reasons.push(Reason::Store(observed.store.error.clone()));
    }
    if let Some(why) = &observed.kms.error {
        reasons.push(Reason::KmsUnreachable(why.clone()));
    }
    let worst = |status: Status| reasons.iter().any(|reason| reason.status() == status);
    let status = if worst(Status::Unhealthy) {
        Status::Unhealthy
    } else if worst(Status::Degraded) {
        Status::Degraded
    } else {
        Status::Healthy
    };
    Verdict { status, reasons }
}

/// The page that `/health` and `casemate node status` show.
pub fn page(node: &str, cluster: &str, observed: &Observed) -> Value {
    let verdict = verdict(observed);
    let millis = |age: Option<Duration>| age.map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    let enclave = &observed.enclave;
    let health = enclave.health.clone().unwrap_or_default();
    let pcr = |index: usize| health.measurements.get(index * 48..(index + 1) * 48).map(hex::encode);
    json!({
        "status": verdict.status.as_str(),
        "node": node,
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_s": observed.uptime.as_secs(),
        "cluster": cluster,
        "draining": observed.draining || health.draining,
        "enclave": {
            "connected": enclave.connected,
            "last_answer_ms": millis(enclave.last_answer),
            // By our clock: whoever takes differences of its numbers must not count the way of this page as time.
            "answered_at_ms": millis(enclave.last_answer.map(|age| observed.uptime.saturating_sub(age))),
            "build": enclave.build,
            "uptime_s": health.uptime_s,
            "measurements": { "pcr0": pcr(0), "pcr1": pcr(1), "pcr2": pcr(2) },
            "evidence_age_s": health.evidence_age_s,
            "sandbox": health.sandbox,
            "sandbox_missing": health.sandbox_missing,
        },
        "nats": {
            "connected": observed.nats.connected,
            "rtt_us": u64::try_from(observed.nats.rtt.as_micros()).unwrap_or(u64::MAX),
            "last_round_trip_ms": millis(observed.nats.last_round_trip),
            "reconnects": observed.nats.reconnects,
            "slow_consumers": observed.nats.slow_consumers,
        },
        "store": {
            "ok": observed.store.error.is_none() && observed.store.last_round_trip.is_some_and(|age| age <= STORE_LIMIT),
            "last_round_trip_ms": millis(observed.store.last_round_trip),
            "latency_ms": millis(Some(observed.store.latency)),
            // Round trips of the parent and operations of the enclave: the one speaks up every two seconds, the other at once.
            "failures": observed.store.failures.saturating_add(health.store_failures),
        },
        "kms": {
            "state": health.kms.state,
            // Whether it takes connections; null before the first attempt.
            "reachable": observed.kms.tried.then_some(observed.kms.error.is_none()),
            "cached_keys": health.kms.cached,
            "hits": health.kms.hits,
            "misses": health.kms.misses,
            "calls": health.kms.calls,
            "throttled": health.kms.throttled,
            "failures": health.kms.failures,
            "latency_ms": health.kms.latency_ms,
            "forged": health.kms.forged,
        },
        "refusals": health.refusals.named().collect::<BTreeMap<_, _>>(),
        "vaults": {
            "resident": health.vaults.resident,
            "half_open": health.vaults.half_open,
            "parked": health.vaults.parked,
            "limit": health.vaults.limit,
            "in_flight": health.vaults.in_flight,
            "evicted": health.vaults.evicted,
            "opened": health.vaults.opened,
            "crashed": health.vaults.crashed,
            "sandbox_killed": health.vaults.sandbox_killed,
            "stuck": health.vaults.stuck,
            "requests": health.vaults.requests,
            "refused": health.vaults.refused,
        },
        "memory": {
            "total": health.memory_total,
            "used": health.memory_total.saturating_sub(health.memory_available),
            "available": health.memory_available,
        },
        "reasons": verdict.reasons.iter().map(ToString::to_string).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn well() -> Observed {
        let second = Some(Duration::from_secs(1));
        let health = EnclaveHealth {
            evidence_age_s: Some(10),
            measurements: vec![7; 144],
            memory_total: 100,
            memory_available: 60,
            ..EnclaveHealth::default()
        };
        Observed {
            uptime: Duration::from_mins(1),
            draining: false,
            enclave: ObservedEnclave {
                connected: true,
                requests: true,
                last_answer: second,
                health: Some(health),
                ..ObservedEnclave::default()
            },
            nats: ObservedNats { connected: true, last_round_trip: second, ..ObservedNats::default() },
            store: ObservedStore { last_round_trip: second, ..ObservedStore::default() },
            kms: ObservedKms { tried: true, ..ObservedKms::default() },
        }
    }

    #[test]
    fn a_node_starts_unhealthy() {
        let verdict = verdict(&Observed::default());
        assert!(!verdict.serves());
        assert_eq!(verdict.reasons, [Reason::EnclaveNotConnected, Reason::Nats, Reason::Store(None)]);
    }

    #[test]
    fn each_part_alone_decides() {
        type Case = (fn(&mut Observed, Option<Duration>), Option<Duration>, Reason, Status);
        assert_eq!(verdict(&well()), Verdict { status: Status::Healthy, reasons: Vec::new() });
        let long = |limit: Duration| Some(limit + Duration::from_millis(1));
        let kms = |o: &mut Observed, state: &str| o.enclave.health.as_mut().unwrap().kms.state = state.to_owned();
        let cases: [Case; 9] = [
            (|o, _| o.draining = true, None, Reason::Draining, Status::Unhealthy),
            (|o, _| o.enclave.health.as_mut().unwrap().draining = true, None, Reason::Draining, Status::Unhealthy),
            (|o, _| o.enclave.connected = false, None, Reason::EnclaveNotConnected, Status::Unhealthy),
            (|o, age| o.enclave.last_answer = age, long(ENCLAVE_LIMIT), Reason::EnclaveNotAnswering, Status::Unhealthy),
            (|o, _| o.enclave.requests = false, None, Reason::EnclaveTakesNoRequests, Status::Unhealthy),
            (
                |o, age| o.enclave.health.as_mut().unwrap().evidence_age_s = age.map(|age| age.as_secs() + 1),
                Some(EVIDENCE_LIMIT),
                Reason::EvidenceStale,
                Status::Unhealthy,
            ),
            (|o, age| o.nats.last_round_trip = age, long(NATS_LIMIT), Reason::Nats, Status::Unhealthy),
            (|o, _| o.nats.connected = false, None, Reason::Nats, Status::Unhealthy),
            (|o, age| o.store.last_round_trip = age, long(STORE_LIMIT), Reason::Store(None), Status::Unhealthy),
        ];
        for (change, age, reason, status) in cases {
            let mut observed = well();
            change(&mut observed, age);
            assert_eq!(verdict(&observed), Verdict { status, reasons: vec![reason] });
        }
        let mut failing = well();
        failing.store.error = Some("full".to_owned());
        assert_eq!(
            verdict(&failing).reasons,
            [Reason::Store(Some("full".to_owned()))],
            "told at once, however fresh the last success"
        );
        let mut cut_off = well();
        cut_off.kms.error = Some("no route".to_owned());
        let reasons = vec![Reason::KmsUnreachable("no route".to_owned())];
        assert_eq!(verdict(&cut_off), Verdict { status: Status::Degraded, reasons });
        for (state, reason) in [("degraded", Reason::KmsDegraded), ("down", Reason::KmsDown)] {
            let mut observed = well();
            kms(&mut observed, state);
            let verdict = verdict(&observed);
            assert_eq!(verdict, Verdict { status: Status::Degraded, reasons: vec![reason] });
            assert!(verdict.serves(), "an outage of the key service must not take the node out");
        }
    }

    #[test]
    fn the_page_shows_what_the_load_balancer_and_people_need() {
        let page = page("node-1", "ab", &well());
        assert_eq!(page["status"], "healthy");
        assert_eq!(page["memory"]["used"], 40);
        assert_eq!(
            (&page["enclave"]["last_answer_ms"], &page["enclave"]["answered_at_ms"]),
            (&json!(1000), &json!(59_000))
        );
        assert_eq!(page["enclave"]["measurements"]["pcr2"], "07".repeat(48));
        for field in ["node", "version", "uptime_s", "nats", "store", "kms", "vaults", "reasons"] {
            assert!(!page[field].is_null(), "{field}");
        }
        // Nothing is shown of an enclave that never answered.
        assert!(super::page("n", "c", &Observed::default())["enclave"]["measurements"]["pcr0"].is_null());
    }
}
