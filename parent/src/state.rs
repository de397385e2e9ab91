//! What this process knows of its parts, collected by those who talk to them.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use casemate_protocol::health::EnclaveHealth;
use casemate_protocol::stage::StageTimes;
use casemate_protocol::trust::ClusterId;
use serde_json::Value;

use crate::health::{self, Observed, ObservedEnclave, ObservedKms, ObservedNats, ObservedStore};

/// Collects; shared by every task.
#[derive(Debug)]
pub struct NodeState {
    node: String,
    cluster: ClusterId,
    started: Instant,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    draining: bool,
    enclave: ObservedEnclave,
    enclave_answered: Option<Instant>,
    nats: ObservedNats,
    nats_answered: Option<Instant>,
    store: ObservedStore,
    store_answered: Option<Instant>,
    kms: ObservedKms,
}

impl NodeState {
    /// A node of which nothing is known yet.
    pub fn new(node: &str, cluster: ClusterId) -> Self {
        Self { node: node.to_owned(), cluster, started: Instant::now(), inner: Mutex::default() }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // Each change below is a plain assignment: nothing is ever half done.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The cluster that this node's trust configuration makes.
    pub const fn cluster(&self) -> ClusterId {
        self.cluster
    }

    /// This node's name.
    pub fn node(&self) -> &str {
        &self.node
    }

    /// Since the start.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// The node is to stop.
    pub fn set_draining(&self) {
        self.inner().draining = true;
    }

    /// An enclave took its configuration.
    pub fn enclave_connected(&self, build: &str) {
        let mut inner = self.inner();
        let requests = inner.enclave.requests;
        inner.enclave = ObservedEnclave {
            connected: true,
            requests,
            build: build.chars().take(100).collect(),
            ..ObservedEnclave::default()
        };
        inner.enclave_answered = None;
    }

    /// An enclave did not take its configuration.
    pub fn enclave_refused(&self, why: &str) {
        self.inner().enclave.refused = Some(why.chars().take(200).collect());
    }

    /// The control connection ended.
    pub fn enclave_gone(&self) {
        self.inner().enclave.connected = false;
    }

    /// The requests connection began or ended.
    pub fn set_requests(&self, stands: bool) {
        self.inner().enclave.requests = stands;
    }

    /// The enclave answered.
    pub fn enclave_answered(&self, health: EnclaveHealth) {
        let mut inner = self.inner();
        inner.enclave.health = Some(health);
        inner.enclave_answered = Some(Instant::now());
    }

    /// The connection to NATS began or ended.
    pub fn set_nats(&self, connected: bool, reconnects: u64) {
        let mut inner = self.inner();
        inner.nats.connected = connected;
        inner.nats.reconnects = reconnects;
    }

    /// A message went to NATS and came back.
    pub fn nats_answered(&self, rtt: Duration) {
        let mut inner = self.inner();
        inner.nats.rtt = rtt;
        inner.nats_answered = Some(Instant::now());
    }

    /// A subscription was full.
    pub fn slow_consumer(&self) {
        self.inner().nats.slow_consumers += 1;
    }

    /// The store took and gave an object.
    pub fn store_answered(&self, latency: Duration) {
        let mut inner = self.inner();
        inner.store.latency = latency;
        inner.store.error = None;
        inner.store_answered = Some(Instant::now());
    }

    /// The store failed.
    pub fn store_failed(&self, why: &str) {
        let mut inner = self.inner();
        inner.store.failures += 1;
        inner.store.error = Some(why.chars().take(200).collect());
    }

    /// The key service took a connection, after so long, or did not.
    pub fn kms_tried(&self, tried: Result<Duration, String>) {
        let mut inner = self.inner();
        inner.kms.tried = true;
        match tried {
            Ok(latency) => {
                inner.kms.latency = latency;
                inner.kms.error = None;
            }
            Err(why) => inner.kms.error = Some(why.chars().take(200).collect()),
        }
    }

    /// How long the stages of requests took in the enclave, as it told last.
    pub fn stages(&self) -> Vec<StageTimes> {
        self.inner().enclave.health.as_ref().map(|health| health.stages.clone()).unwrap_or_default()
    }

    /// All of it, now.
    pub fn observe(&self) -> Observed {
        let age = |at: Option<Instant>| at.map(|at| at.elapsed());
        let inner = self.inner();
        Observed {
            uptime: self.started.elapsed(),
            draining: inner.draining,
            enclave: ObservedEnclave { last_answer: age(inner.enclave_answered), ..inner.enclave.clone() },
            nats: ObservedNats { last_round_trip: age(inner.nats_answered), ..inner.nats.clone() },
            store: ObservedStore { last_round_trip: age(inner.store_answered), ..inner.store.clone() },
            kms: inner.kms.clone(),
        }
    }

    /// The page that `/health` and `casemate node status` show.
    pub fn page(&self) -> Value {
        health::page(&self.node, &self.cluster.to_string(), &self.observe())
    }
}
