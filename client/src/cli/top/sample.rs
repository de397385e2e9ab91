//! What the node answered at one moment, read out of its JSON.
//!
//! Fields that an older node does not send are zero or absent: an operator looks at nodes of every age.

use std::time::Duration;

use casemate_protocol::resident::VaultsBy;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One look at a node.
#[derive(Debug, Clone, Default)]
pub(super) struct Sample {
    /// When its enclave told its numbers, by the parent's clock.
    pub(super) at: Duration,
    /// Its health, as it came.
    pub(super) page: Value,
    /// Its health, read.
    pub(super) health: Health,
    /// The first of its vaults.
    pub(super) vaults: Vec<Vault>,
    /// Why it did not list them, if it did not.
    pub(super) unlisted: Option<String>,
}

/// Health, as far as it is shown.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Health {
    pub(super) status: String,
    pub(super) node: String,
    pub(super) version: String,
    pub(super) uptime_s: u64,
    pub(super) enclave: Enclave,
    pub(super) nats: Nats,
    pub(super) store: Store,
    pub(super) kms: Kms,
    pub(super) vaults: Vaults,
    pub(super) memory: Memory,
    pub(super) reasons: Vec<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Enclave {
    pub(super) connected: bool,
    pub(super) last_answer_ms: Option<u64>,
    pub(super) answered_at_ms: Option<u64>,
    pub(super) uptime_s: u64,
    pub(super) evidence_age_s: Option<u64>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Nats {
    pub(super) connected: bool,
    pub(super) rtt_us: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) ok: bool,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Kms {
    pub(super) state: String,
    pub(super) cached_keys: u64,
    pub(super) hits: u64,
    pub(super) misses: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Vaults {
    pub(super) resident: u64,
    pub(super) half_open: u64,
    pub(super) parked: u64,
    pub(super) limit: u64,
    pub(super) in_flight: u64,
    pub(super) evicted: u64,
    pub(super) opened: u64,
    pub(super) crashed: u64,
    pub(super) stuck: u64,
    pub(super) sandbox_killed: u64,
    pub(super) requests: u64,
    pub(super) refused: u64,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) total: u64,
    pub(super) used: u64,
    pub(super) available: u64,
}

/// One vault of the list.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Vault {
    #[serde(rename = "vault")]
    pub(super) id: String,
    pub(super) state: String,
    pub(super) memory_bytes: Option<u64>,
    pub(super) requests_per_second: Option<f64>,
    pub(super) latency_us: Option<u64>,
    pub(super) in_flight: u64,
    pub(super) queued: Option<u64>,
    pub(super) idle_ms: u64,
    pub(super) pid: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct List {
    vaults: Vec<Vault>,
}

impl Sample {
    /// Reads the answers to two questions that were asked at `asked`, by this program's clock.
    ///
    /// # Errors
    /// When an answer is not of the form that it has.
    pub(super) fn read(page: Value, list: Result<Value, String>, asked: Duration) -> Result<Self, serde_json::Error> {
        let health = Health::deserialize(&page)?;
        let (list, unlisted) = match list {
            Ok(list) => (List::deserialize(list)?, None),
            Err(why) => (List::default(), Some(why)),
        };
        let enclave = &health.enclave;
        // An older parent tells no more than an age, on its way for a while.
        let age = Duration::from_millis(enclave.last_answer_ms.unwrap_or(0));
        let at = enclave.answered_at_ms.map_or_else(|| asked.saturating_sub(age), Duration::from_millis);
        Ok(Self { at, page, health, vaults: list.vaults, unlisted })
    }

    /// Puts the vaults in order, the largest first. The node has chosen which they are; an older one has put them in no order.
    pub(super) fn sort(&mut self, by: VaultsBy) {
        self.vaults.sort_by(|one, other| {
            let order = match by {
                VaultsBy::Memory => other.memory_bytes.cmp(&one.memory_bytes),
                VaultsBy::Rate => {
                    let rate = |vault: &Vault| vault.requests_per_second.unwrap_or(0.0);
                    rate(other).total_cmp(&rate(one))
                }
                VaultsBy::Latency => other.latency_us.cmp(&one.latency_us),
                VaultsBy::Queue => other.in_flight.cmp(&one.in_flight),
                VaultsBy::Idle => other.idle_ms.cmp(&one.idle_ms),
            };
            order.then_with(|| one.id.cmp(&other.id))
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_older_node_is_read_too() {
        let page = json!({ "status": "healthy", "enclave": { "last_answer_ms": 400 }, "new": [1] });
        let list = json!({ "vaults": [{ "vault": "a", "in_flight": 2, "idle_ms": 3, "pid": 4, "memory_bytes": 5 }] });
        let sample = Sample::read(page, Ok(list), Duration::from_secs(10)).unwrap();
        assert_eq!(sample.at, Duration::from_millis(9600), "when the enclave told it, not when we asked");
        assert_eq!((sample.health.status.as_str(), sample.health.vaults.limit), ("healthy", 0));
        assert_eq!((sample.vaults[0].in_flight, sample.vaults[0].queued), (2, None));
        let page = json!({ "enclave": { "last_answer_ms": 400, "answered_at_ms": 7000 } });
        let sample = Sample::read(page, Err(String::new()), Duration::from_secs(10)).unwrap();
        assert_eq!(sample.at, Duration::from_secs(7));
    }

    #[test]
    fn nonsense_is_refused_and_a_missing_list_is_none() {
        assert!(Sample::read(json!({ "status": 5 }), Err(String::new()), Duration::ZERO).is_err());
        assert!(Sample::read(json!({}), Ok(json!({ "vaults": "x" })), Duration::ZERO).is_err());
        let sample = Sample::read(json!({}), Err("no enclave".to_owned()), Duration::ZERO).unwrap();
        assert_eq!((sample.vaults.len(), sample.unlisted.as_deref()), (0, Some("no enclave")));
    }

    #[test]
    fn vaults_are_in_the_order_that_is_asked_for() {
        let vault = |name: &str, memory, rate, latency, in_flight, idle| Vault {
            id: name.to_owned(),
            memory_bytes: memory,
            requests_per_second: rate,
            latency_us: latency,
            in_flight,
            idle_ms: idle,
            ..Vault::default()
        };
        let mut sample = Sample {
            vaults: vec![
                vault("a", None, None, None, 0, 9000),
                vault("b", Some(3), Some(1.0), Some(5), 1, 1000),
                vault("c", Some(2), Some(2.0), Some(4), 1, 0),
                vault("d", Some(1), Some(0.5), Some(6), 2, 0),
            ],
            ..Sample::default()
        };
        for (by, order) in [
            (VaultsBy::Memory, "bcda"),
            (VaultsBy::Rate, "cbda"),
            (VaultsBy::Latency, "dbca"),
            (VaultsBy::Queue, "dbca"),
            (VaultsBy::Idle, "abcd"),
        ] {
            sample.sort(by);
            assert_eq!(sample.vaults.iter().map(|vault| vault.id.as_str()).collect::<String>(), order, "{by:?}");
        }
    }
}
