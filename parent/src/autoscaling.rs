//! The verdict for the Auto Scaling group: whether a new instance would cure what is wrong with this one.
//!
//! It is another question than the load balancer's. An outage of NATS, of the key service or of the store takes every node out of service
//! and is cured by no new one: a group that heard of it would replace its whole fleet, again and again, while the outage lasts.

use std::sync::Arc;
use std::time::Duration;

use aws_sdk_autoscaling::Client;
use aws_sdk_autoscaling::config::retry::RetryConfig;
use aws_sdk_autoscaling::config::timeout::TimeoutConfig;
use aws_sdk_autoscaling::config::{BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig};
use metrics::counter;
use tokio::time::MissedTickBehavior;

use crate::config::AutoScaling;
use crate::health::{ENCLAVE_LIMIT, EVIDENCE_LIMIT, Observed};
use crate::instance;
use crate::sdk::{CALL_TIMEOUT, Http, NewestCredentials, in_one_line};
use crate::state::NodeState;

/// Between two looks.
const INTERVAL: Duration = Duration::from_secs(1);
/// Between two attempts to tell the group.
const RETRY_INTERVAL: Duration = Duration::from_secs(30);
/// An enclave that has not answered since the parent's start may still boot: it has so many times the usual patience.
const BOOT_PATIENCE: u32 = 2;

/// What a new instance would cure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The enclave has not answered since the parent started.
    NeverAnswered,
    /// It answered before and does not now, or takes no requests.
    Silent,
    /// It answers, and has no evidence or none that is new enough: its security module fails.
    Evidence,
}

impl Fault {
    /// In the log's words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NeverAnswered => "the enclave has not answered since the start",
            Self::Silent => "the enclave does not answer",
            Self::Evidence => "the enclave's evidence is missing or too old",
        }
    }
}

/// What the group is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Word {
    /// Nothing: either all is well, or it is wrong in a way that no new instance cures, or not for long enough.
    Nothing,
    /// Replace this instance.
    Unhealthy(Fault),
}

/// What is wrong at this moment that a new instance would cure. The table is in `docs/watching.md`.
pub fn fault(observed: &Observed) -> Option<Fault> {
    let enclave = &observed.enclave;
    let drains = observed.draining || enclave.health.as_ref().is_some_and(|health| health.draining);
    // Who drains was told to, and who refuses this configuration would refuse it on any instance.
    if drains || enclave.refused.is_some() {
        return None;
    }
    let answers = enclave.connected && enclave.last_answer.is_some_and(|age| age <= ENCLAVE_LIMIT);
    if !answers && enclave.health.is_none() {
        return Some(Fault::NeverAnswered);
    }
    if !answers || !enclave.requests {
        return Some(Fault::Silent);
    }
    let age = enclave.health.as_ref().and_then(|health| health.evidence_age_s);
    if age.is_none_or(|age| Duration::from_secs(age) > EVIDENCE_LIMIT) {
        return Some(Fault::Evidence);
    }
    None
}

/// Judges a fault that has lasted for so long.
pub fn judge(fault: Option<Fault>, lasted: Duration, patience: Duration) -> Word {
    match fault {
        None => Word::Nothing,
        Some(Fault::NeverAnswered) if lasted < patience * BOOT_PATIENCE => Word::Nothing,
        Some(_) if lasted < patience => Word::Nothing,
        Some(fault) => Word::Unhealthy(fault),
    }
}

/// Since when there has been a fault, whichever: an enclave that dies, comes back without evidence and dies again is one long fault.
#[derive(Debug, Clone, Copy, Default)]
pub struct Lasting {
    since: Option<Duration>,
}

impl Lasting {
    /// Notes what is seen now; returns how long it has been wrong.
    pub fn note(&mut self, fault: Option<Fault>, now: Duration) -> Duration {
        match fault {
            None => {
                self.since = None;
                Duration::ZERO
            }
            Some(_) => now.saturating_sub(*self.since.get_or_insert(now)),
        }
    }
}

/// Looks every second until the task is dropped, and tells the group when it must.
pub async fn watch(
    config: AutoScaling,
    region: String,
    http: Http,
    credentials: NewestCredentials,
    state: Arc<NodeState>,
) {
    let instance = instance::find(&config.instance).await;
    let client = client(&config, region, http, credentials);
    let mut tick = tokio::time::interval(INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut lasting, mut told, mut next_attempt) = (Lasting::default(), false, Duration::ZERO);
    loop {
        tick.tick().await;
        let (observed, now) = (state.observe(), state.uptime());
        let fault = fault(&observed);
        let lasted = lasting.note(fault, now);
        let wanted = match judge(fault, lasted, config.patience) {
            Word::Unhealthy(fault) if !told => Some(("Unhealthy", fault.as_str())),
            // Healed while the group had not acted yet.
            Word::Nothing if told && fault.is_none() => Some(("Healthy", "the enclave answers again")),
            Word::Nothing | Word::Unhealthy(_) => None,
        };
        let Some((status, why)) = wanted.filter(|_| now >= next_attempt) else { continue };
        let call = client.set_instance_health().instance_id(&instance.id).health_status(status);
        // An instance that still starts has the group's own grace.
        match call.should_respect_grace_period(true).send().await {
            Ok(_) => {
                tracing::error!(status, why, instance = instance.id, "the Auto Scaling group was told");
                counter!("casemate_autoscaling_verdicts_total", "status" => status, "outcome" => "taken").increment(1);
                told = status == "Unhealthy";
            }
            Err(error) => {
                tracing::warn!(
                    status,
                    why,
                    error = in_one_line(&error),
                    "the Auto Scaling group could not be told; it is tried again"
                );
                counter!("casemate_autoscaling_verdicts_total", "status" => status, "outcome" => "failed").increment(1);
                next_attempt = now + RETRY_INTERVAL;
            }
        }
    }
}

fn client(config: &AutoScaling, region: String, http: Http, credentials: NewestCredentials) -> Client {
    let mut builder = aws_sdk_autoscaling::Config::builder()
        .behavior_version(BehaviorVersion::latest())
        .region(Region::new(region))
        .http_client(http)
        .credentials_provider(credentials)
        .identity_cache(IdentityCache::no_cache())
        .retry_config(RetryConfig::disabled())
        .timeout_config(TimeoutConfig::builder().operation_timeout(CALL_TIMEOUT).build())
        .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
    if let Some(endpoint) = &config.endpoint {
        builder = builder.endpoint_url(endpoint);
    }
    Client::from_conf(builder.build())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{self, ObservedEnclave, ObservedKms, ObservedNats, ObservedStore};
    use casemate_protocol::health::EnclaveHealth;

    const PATIENCE: Duration = Duration::from_mins(2);

    fn well() -> Observed {
        let second = Some(Duration::from_secs(1));
        Observed {
            enclave: ObservedEnclave {
                connected: true,
                requests: true,
                last_answer: second,
                health: Some(EnclaveHealth { evidence_age_s: Some(10), ..EnclaveHealth::default() }),
                ..ObservedEnclave::default()
            },
            nats: ObservedNats { connected: true, last_round_trip: second, ..ObservedNats::default() },
            store: ObservedStore { last_round_trip: second, ..ObservedStore::default() },
            ..Observed::default()
        }
    }

    fn health(observed: &mut Observed) -> &mut EnclaveHealth {
        observed.enclave.health.as_mut().unwrap()
    }

    /// The table of `docs/watching.md`: what is wrong, whether the load balancer sends traffic, what the group is told in the end.
    #[test]
    fn the_load_balancer_and_the_group_hear_different_things() {
        type Case = (&'static str, fn(&mut Observed), bool, Option<Fault>);
        let cases: [Case; 15] = [
            ("nothing", |_| {}, true, None),
            ("no enclave yet", |o| o.enclave = ObservedEnclave::default(), false, Some(Fault::NeverAnswered)),
            ("dead", |o| o.enclave.connected = false, false, Some(Fault::Silent)),
            ("hung", |o| o.enclave.last_answer = Some(ENCLAVE_LIMIT * 2), false, Some(Fault::Silent)),
            ("takes no requests", |o| o.enclave.requests = false, false, Some(Fault::Silent)),
            ("no evidence", |o| health(o).evidence_age_s = None, false, Some(Fault::Evidence)),
            ("old evidence", |o| health(o).evidence_age_s = Some(7201), false, Some(Fault::Evidence)),
            ("refused configuration", |o| o.enclave.refused = Some("no".to_owned()), false, None),
            ("node drains", |o| o.draining = true, false, None),
            ("enclave drains", |o| health(o).draining = true, false, None),
            ("NATS", |o| o.nats = ObservedNats::default(), false, None),
            ("store", |o| o.store.error = Some("full".to_owned()), false, None),
            ("KMS degraded", |o| health(o).kms.state = "degraded".to_owned(), true, None),
            ("KMS down", |o| health(o).kms.state = "down".to_owned(), true, None),
            (
                "KMS unreachable",
                |o| o.kms = ObservedKms { error: Some("no".to_owned()), ..ObservedKms::default() },
                true,
                None,
            ),
        ];
        for (what, change, serves, expected) in cases {
            let mut observed = well();
            change(&mut observed);
            assert_eq!(health::verdict(&observed).serves(), serves, "{what}: the load balancer");
            assert_eq!(fault(&observed), expected, "{what}: the group");
        }
        // Everything else at once, and the enclave well: no node is replaced for it.
        let mut outage = well();
        outage.nats = ObservedNats::default();
        outage.store = ObservedStore::default();
        health(&mut outage).kms.state = "down".to_owned();
        assert_eq!(judge(fault(&outage), Duration::MAX, PATIENCE), Word::Nothing);
    }

    #[test]
    fn a_fault_must_last() {
        let second = Duration::from_secs(1);
        assert_eq!(judge(Some(Fault::Silent), PATIENCE.saturating_sub(second), PATIENCE), Word::Nothing);
        assert_eq!(judge(Some(Fault::Silent), PATIENCE, PATIENCE), Word::Unhealthy(Fault::Silent));
        assert_eq!(judge(Some(Fault::NeverAnswered), PATIENCE, PATIENCE), Word::Nothing, "it may still boot");
        let boot = PATIENCE * BOOT_PATIENCE;
        assert_eq!(judge(Some(Fault::NeverAnswered), boot, PATIENCE), Word::Unhealthy(Fault::NeverAnswered));
        let mut lasting = Lasting::default();
        assert_eq!(lasting.note(Some(Fault::Silent), second * 10), Duration::ZERO);
        assert_eq!(lasting.note(Some(Fault::Evidence), second * 15), second * 5, "another fault is no cure");
        assert_eq!(lasting.note(None, second * 16), Duration::ZERO);
        assert_eq!(lasting.note(Some(Fault::Silent), second * 20), Duration::ZERO, "a cure is");
    }
}
