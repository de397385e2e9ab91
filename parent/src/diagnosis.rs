//! What an on-call engineer asks first, asked now: each part is reached anew, and what is wrong comes with what to do next.
//!
//! `casemate-parent check` does the same before a parent runs; this is the running one's own word.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use async_nats::Client;
use casemate_protocol::link::{ControlCall, ControlReply};
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::check::{Fault, Finding};
use crate::enclave::Enclave;
use crate::health::{Reason, verdict};
use crate::log;
use crate::nats::Probe;
use crate::relay::Relay;
use crate::state::NodeState;
use crate::store::ObjectStore;

/// Messages to NATS and back, as `nats server ping` would send them.
const PINGS: usize = 5;
const ENCLAVE_WAIT: Duration = Duration::from_secs(3);
const KMS_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for all pings. With the others' waits, which run beside each other, it stays below the command line's ten seconds.
const NATS_WAIT: Duration = Duration::from_secs(4);

/// Reaches every part.
#[derive(Debug)]
pub struct Diagnosis {
    /// What is known.
    pub state: Arc<NodeState>,
    /// The enclave.
    pub enclave: Arc<Enclave>,
    /// The object store.
    pub store: Arc<ObjectStore>,
    /// The way to the key service.
    pub relay: Arc<Relay>,
    /// The connection to NATS, once there is one.
    pub nats: Arc<OnceLock<Client>>,
    /// The first part of subjects.
    pub prefix: String,
    /// One at a time: two would take each other's pings.
    pub turn: Mutex<()>,
}

impl Diagnosis {
    /// Reaches for everything; at most a few seconds.
    pub async fn make(&self) -> Value {
        let _turn = self.turn.lock().await;
        let (enclave, nats, store, kms) = tokio::join!(self.enclave(), self.nats(), self.store(), self.kms());
        let observed = self.state.observe();
        let mut findings = vec![
            Finding { part: "enclave", result: enclave },
            Finding { part: "nats", result: nats },
            Finding { part: "store", result: store },
            Finding { part: "kms", result: kms },
        ];
        // What the round trips do not show: draining, evidence, the enclave's own words.
        for reason in verdict(&observed).reasons {
            let part = part(&reason);
            let told = findings.iter().any(|finding| finding.part == part && finding.result.is_err());
            if !told || matches!(reason, Reason::Enclave(_) | Reason::Draining | Reason::EvidenceStale) {
                findings
                    .push(Finding { part, result: Err(Fault { what: reason.to_string(), remedy: remedy(&reason) }) });
            }
        }
        let latest: Vec<_> = log::latest()
            .into_iter()
            .map(|kept| json!({ "at": kept.at, "level": kept.level, "text": kept.text, "times": kept.times }))
            .collect();
        json!({
            "health": self.state.page(),
            "findings": findings.iter().map(shown).collect::<Vec<_>>(),
            "latest_errors": latest,
            "versions": {
                "parent": env!("CARGO_PKG_VERSION"),
                "enclave": observed.enclave.build,
                "nats_server": self.nats.get().map(|client| client.server_info().version),
                "kernel": std::fs::read_to_string("/proc/sys/kernel/osrelease").ok().map(|text| text.trim().to_owned()),
            },
        })
    }

    async fn enclave(&self) -> Result<String, Fault> {
        let begun = std::time::Instant::now();
        match self.enclave.order(&ControlCall::Health, ENCLAVE_WAIT).await {
            Ok(ControlReply::Health(health)) => Ok(format!(
                "answers in {} µs, up for {} s, {} vaults resident",
                begun.elapsed().as_micros(),
                health.uptime_s,
                health.vaults.resident
            )),
            Ok(_) => Err(Fault {
                what: "the enclave's answer was not understood".to_owned(),
                remedy: "Parent and image are too far apart: install the two of one release.",
            }),
            Err(error) => Err(Fault { what: error.to_string(), remedy: remedy(&Reason::EnclaveNotAnswering) }),
        }
    }

    async fn nats(&self) -> Result<String, Fault> {
        let failed = |what: String| Fault { what, remedy: remedy(&Reason::Nats) };
        let Some(client) = self.nats.get().cloned() else {
            return Err(failed("no connection was ever made".to_owned()));
        };
        let subject = format!("{}.v1.node.{}.diagnose", self.prefix, self.state.node());
        let pinging = async {
            let mut probe = Probe::at(client, subject).await?;
            let mut times = Vec::with_capacity(PINGS);
            for _ in 0..PINGS {
                times.push(probe.round_trip().await?);
            }
            Ok::<_, crate::nats::NatsError>(times)
        };
        match tokio::time::timeout(NATS_WAIT, pinging).await {
            Ok(Ok(times)) => {
                let micros = |time: Option<&Duration>| time.map_or(0, Duration::as_micros);
                let mean = times.iter().sum::<Duration>().as_micros() / PINGS as u128;
                let (least, most) = (micros(times.iter().min()), micros(times.iter().max()));
                Ok(format!("{PINGS} messages there and back: least {least} µs, mean {mean} µs, most {most} µs"))
            }
            Ok(Err(error)) => Err(failed(error.to_string())),
            Err(_) => Err(failed(format!("{PINGS} messages did not come back within {} s", NATS_WAIT.as_secs()))),
        }
    }

    async fn store(&self) -> Result<String, Fault> {
        // A name of its own: the health check writes the node's.
        match self.store.round_trip(&format!("{}-diagnose", self.state.node())).await {
            Ok(took) => Ok(format!("wrote and read an object in {} ms", took.as_millis())),
            Err(error) => Err(Fault { what: error.to_string(), remedy: remedy(&Reason::Store(None)) }),
        }
    }

    async fn kms(&self) -> Result<String, Fault> {
        let kms = self.state.observe().enclave.health.map(|health| health.kms);
        let took = self
            .relay
            .reach(KMS_WAIT)
            .await
            .map_err(|what| Fault { what, remedy: remedy(&Reason::KmsUnreachable(String::new())) })?;
        match kms {
            None => Ok(format!("takes connections in {} ms; what the enclave finds is not known", took.as_millis())),
            Some(kms) if kms.state == "ok" => Ok(format!(
                "takes connections in {} ms; {} keys cached, {} calls, {} throttled, {} failed",
                took.as_millis(),
                kms.cached,
                kms.calls,
                kms.throttled,
                kms.failures
            )),
            Some(kms) => Err(Fault {
                what: format!(
                    "{}: {} calls, {} throttled, {} failed",
                    kms.state, kms.calls, kms.throttled, kms.failures
                ),
                remedy: remedy(if kms.state == "down" { &Reason::KmsDown } else { &Reason::KmsDegraded }),
            }),
        }
    }
}

fn shown(finding: &Finding) -> Value {
    match &finding.result {
        Ok(found) => json!({ "part": finding.part, "ok": true, "what": found, "next": null }),
        Err(fault) => json!({ "part": finding.part, "ok": false, "what": fault.what, "next": fault.remedy }),
    }
}

const fn part(reason: &Reason) -> &'static str {
    match reason {
        Reason::Draining => "node",
        Reason::Nats => "nats",
        Reason::Store(_) => "store",
        Reason::KmsDegraded | Reason::KmsDown | Reason::KmsUnreachable(_) => "kms",
        Reason::EnclaveNotConnected
        | Reason::EnclaveRefused(_)
        | Reason::EnclaveNotAnswering
        | Reason::EnclaveTakesNoRequests
        | Reason::EvidenceStale
        | Reason::Enclave(_) => "enclave",
    }
}

/// What to do about a reason: the next step, and the runbook that has the others.
pub const fn remedy(reason: &Reason) -> &'static str {
    match reason {
        Reason::Draining => {
            "Nothing, if it was drained on purpose; otherwise restart it: systemctl restart casemate-parent (runbooks/enclave-restart.md)."
        }
        Reason::EnclaveNotConnected | Reason::EnclaveNotAnswering | Reason::EnclaveTakesNoRequests => {
            "It restarts by itself within a minute; if it does not: systemctl status nitro-enclave, and runbooks/enclave-restart.md."
        }
        Reason::EnclaveRefused(_) => {
            "Compare [trust] in the configuration with the other nodes': a running enclave keeps the first it was given. systemctl restart nitro-enclave takes the new one."
        }
        Reason::EvidenceStale => {
            "Restart the enclave: systemctl restart nitro-enclave. If it recurs on this host alone, replace the instance (runbooks/enclave-restart.md)."
        }
        Reason::Nats => {
            "See that the NATS servers run and that this host reaches them: casemate-parent check; then runbooks/nats-disconnection.md."
        }
        Reason::Store(_) => {
            "See that the bucket or the disk is there, has room and may be written by this role: casemate-parent check; then runbooks/incident-response.md."
        }
        Reason::KmsDegraded => {
            "Resident vaults and cached keys go on; see throttled and failed above, and runbooks/kms-throttling.md."
        }
        Reason::KmsDown => {
            "No vault can be opened until KMS answers; do not restart the enclave, it would lose its cached keys. runbooks/kms-throttling.md."
        }
        Reason::KmsUnreachable(_) => {
            "See the KMS endpoint's security group and the host's route to it; do not restart the enclave. runbooks/kms-throttling.md."
        }
        Reason::Enclave(_) => {
            "The enclave says so itself: memory is in runbooks/high-memory.md, a missing sandbox layer in SECURITY.md."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_remedy_names_a_page_that_is_there() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let reasons = [
            Reason::Draining,
            Reason::EnclaveNotConnected,
            Reason::EnclaveRefused(String::new()),
            Reason::EnclaveNotAnswering,
            Reason::EnclaveTakesNoRequests,
            Reason::EvidenceStale,
            Reason::Nats,
            Reason::Store(None),
            Reason::KmsDegraded,
            Reason::KmsDown,
            Reason::KmsUnreachable(String::new()),
            Reason::Enclave(String::new()),
        ];
        for reason in reasons {
            let words = remedy(&reason).split([' ', '(', ')', ',', ';']);
            for page in words.filter_map(|word| word.trim_end_matches('.').strip_suffix(".md")) {
                assert!(root.join(format!("{page}.md")).is_file(), "{reason}: {page}.md");
            }
        }
    }
}
