//! What this node is: its identity, its cluster once it was told, and its evidence.

use std::sync::{Arc, OnceLock, PoisonError, RwLock};
use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::link::AttestReply;
use casemate_protocol::statement::Credentials;
use casemate_protocol::trust::{ClusterId, TrustConfiguration, node_user_data};

use super::identity::Identity;
use super::wall_clock::{self, ClockError, Moment};
use crate::outside::{BoxFuture, Clock, EvidenceRequest, Measurements, ModuleError, SecurityModule};

/// The platform's number in credentials: AWS Nitro.
pub const PLATFORM_NITRO: u8 = 0;
/// Evidence is made anew when it is this old.
pub const EVIDENCE_RENEWED_AFTER: Duration = Duration::from_mins(30);
/// Evidence older than this is used no more: its leaf certificate may have ended.
pub const EVIDENCE_LIFE: Duration = Duration::from_hours(1);
/// How long the security module may take.
const MODULE_DEADLINE: Duration = Duration::from_secs(10);

/// The cluster that this node belongs to, for good.
#[derive(Debug)]
pub struct Cluster {
    /// The trust configuration.
    pub configuration: TrustConfiguration,
    /// Its bytes, as they were handed in.
    pub bytes: Vec<u8>,
    /// Their hash.
    pub id: ClusterId,
}

/// This node.
#[derive(Debug)]
pub struct Node {
    module: Arc<dyn SecurityModule>,
    clock: Arc<dyn Clock>,
    identity: Identity,
    measurements: Measurements,
    cluster: OnceLock<Cluster>,
    evidence: RwLock<Option<Evidence>>,
}

#[derive(Debug, Clone)]
struct Evidence {
    document: Arc<[u8]>,
    made: Moment,
}

/// The node belongs to a cluster already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("this node belongs to a cluster already, until it ends; start a new enclave to change it")]
pub struct JoinError;

/// Why there is no evidence.
#[derive(Debug, Clone, thiserror::Error)]
pub enum EvidenceError {
    /// No trust configuration yet.
    #[error("the node has no trust configuration yet; the parent hands one in")]
    NotConfigured,
    /// The module refused.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The kernel's clock is not believed.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// It was set since the node's evidence was made.
    #[error(
        "the kernel's clock has jumped; there is evidence again when it is back, or the security module agrees with it"
    )]
    Jumped,
    /// The module did not answer.
    #[error("the security module did not answer within {MODULE_DEADLINE:?}; the enclave must be started anew")]
    Deadline,
}

impl Node {
    /// A node that belongs to no cluster yet.
    pub fn new(
        module: Arc<dyn SecurityModule>,
        clock: Arc<dyn Clock>,
        identity: Identity,
        measurements: Measurements,
    ) -> Self {
        Self { module, clock, identity, measurements, cluster: OnceLock::new(), evidence: RwLock::new(None) }
    }

    /// The security module.
    pub fn module(&self) -> &Arc<dyn SecurityModule> {
        &self.module
    }

    /// What the image measures.
    pub fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    /// The cluster, once known.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.get()
    }

    /// Joins a cluster. The first one holds.
    ///
    /// # Errors
    /// [`JoinError`] when there is one already.
    pub fn join(&self, cluster: Cluster) -> Result<(), JoinError> {
        self.cluster.set(cluster).map_err(|_| JoinError)
    }

    /// The age of the evidence in use; none when there is none that may be used.
    pub fn evidence_age(&self) -> Option<Duration> {
        let now = self.clock.monotonic();
        self.evidence().map(|evidence| now.saturating_sub(evidence.made.monotonic))
    }

    /// Whether the kernel's clock has jumped since the evidence was made. Until it is made anew, or the clock is back, there is none.
    pub fn clock_has_jumped(&self) -> bool {
        let evidence = self.evidence.read().unwrap_or_else(PoisonError::into_inner);
        evidence.as_ref().is_some_and(|evidence| evidence.made.has_jumped(&*self.clock))
    }

    /// What handshake message 2 carries; none before the node has cluster and evidence.
    pub fn credentials(&self, vault: VaultId, static_key: [u8; 32]) -> Option<Credentials> {
        let (cluster, evidence) = (self.cluster.get()?, self.evidence()?);
        Some(Credentials {
            platform: PLATFORM_NITRO,
            evidence: evidence.document.to_vec(),
            trust_configuration: cluster.bytes.clone(),
            identity: self.identity.public(),
            statement: self.identity.state(vault, static_key, self.clock.unix_seconds()),
        })
    }

    /// Makes the node's evidence anew, if the kernel's clock may still be believed.
    ///
    /// # Errors
    /// See [`EvidenceError`]; the old evidence then stays until its life ends.
    pub async fn renew_evidence(&self) -> Result<(), EvidenceError> {
        let made = Moment::now(&*self.clock);
        let (module, clock) = (Arc::clone(&self.module), Arc::clone(&self.clock));
        asked(move || Ok(wall_clock::check(&*module, &*clock)?)).await?;
        let document = self.attest(None).await?;
        *self.evidence.write().unwrap_or_else(PoisonError::into_inner) =
            Some(Evidence { document: document.into(), made });
        Ok(())
    }

    /// Answers somebody's nonce with fresh evidence, unless the node has none of its own because of its clock.
    ///
    /// # Errors
    /// See [`EvidenceError`].
    pub async fn attest_for(&self, nonce: Vec<u8>) -> Result<AttestReply, EvidenceError> {
        let cluster = self.cluster.get().ok_or(EvidenceError::NotConfigured)?;
        // Who is told that this node is what it should be would go on to make statements with it.
        if self.clock_has_jumped() {
            return Err(EvidenceError::Jumped);
        }
        let evidence = self.attest(Some(nonce)).await?;
        Ok(AttestReply {
            platform: PLATFORM_NITRO,
            evidence,
            trust_configuration: cluster.bytes.clone(),
            identity: self.identity.public(),
            refused: None,
        })
    }

    fn attest(&self, nonce: Option<Vec<u8>>) -> BoxFuture<'_, Result<Vec<u8>, EvidenceError>> {
        Box::pin(async move {
            let cluster = self.cluster.get().ok_or(EvidenceError::NotConfigured)?;
            let public_key = self.identity.public();
            let user_data = node_user_data(&public_key, cluster.id);
            let request =
                EvidenceRequest { user_data: Some(user_data.to_vec()), nonce, public_key: Some(public_key.to_vec()) };
            let module = Arc::clone(&self.module);
            asked(move || Ok(module.attest(request)?)).await
        })
    }

    fn evidence(&self) -> Option<Evidence> {
        let now = self.clock.monotonic();
        let evidence = self.evidence.read().unwrap_or_else(PoisonError::into_inner).clone()?;
        let is_young = now.saturating_sub(evidence.made.monotonic) < EVIDENCE_LIFE;
        // Attack stopped: statements of another time than that at which the module agreed with the clock.
        (is_young && !evidence.made.has_jumped(&*self.clock)).then_some(evidence)
    }
}

/// What the security module answers to `question`, off this thread and within its deadline.
async fn asked<T: Send + 'static>(
    question: impl FnOnce() -> Result<T, EvidenceError> + Send + 'static,
) -> Result<T, EvidenceError> {
    match tokio::time::timeout(MODULE_DEADLINE, tokio::task::spawn_blocking(question)).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) | Err(_) => Err(EvidenceError::Deadline),
    }
}
