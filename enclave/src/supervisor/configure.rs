//! Configuration: the first trust configuration is locked into PCR16 and makes this node a member of its cluster, for good.

use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use casemate_protocol::codec::DecodeError;
use casemate_protocol::link::{LogEvent, LogLevel, Tuning};
use casemate_protocol::trust::{ClusterId, TrustConfiguration};
use tokio::sync::{Mutex, mpsc};

use super::backoff;
use super::log::Log;
use super::node::{Cluster, EVIDENCE_RENEWED_AFTER, EvidenceError, Node};
use super::shell::Command;
use super::store::LinkStore;
use super::vault_keys::VaultKeys;
use super::wall_clock::ClockError;
use crate::keys::arn::{KeyArn, KeyArnError};
use crate::keys::cache::Policy;
use crate::keys::connector::{ConnectorSetupError, Endpoint};
use crate::keys::credentials::CredentialCell;
use crate::keys::evidence::ModuleEvidence;
use crate::keys::ledger::KmsStatus;
use crate::keys::recipient::{RecipientKey, RecipientKeyError};
use crate::keys::service::{AwsKms, AwsKmsParts, DEFAULT_DEADLINE};
use crate::keys::shards::{ShardKeyring, ShardKeyringParts};
use crate::outside::{Clock, ModuleError, Randomness, Relay, SecurityModule};

/// The PCR that holds the cluster id.
pub const CLUSTER_PCR: u16 = 16;

/// Where the key service of a key is, and who vouches for it. Release mains name [`Endpoint::aws`].
pub type EndpointOf = Arc<dyn Fn(&KeyArn) -> Endpoint + Send + Sync>;

/// Why a configuration was not taken.
#[derive(Debug, thiserror::Error)]
pub enum ConfigureError {
    /// Another one is locked.
    #[error("another trust configuration is locked until this enclave ends; start a new one to change it")]
    Other,
    /// Not a trust configuration.
    #[error("not a trust configuration: {0}")]
    Malformed(DecodeError),
    /// Its key is none.
    #[error("the trust configuration's key: {0}")]
    Key(#[from] KeyArnError),
    /// Its region is not its key's.
    #[error("the trust configuration's region is not the one of its KMS key; make both the same")]
    Region,
    /// The security module refused to extend or lock the PCR.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// No recipient key.
    #[error(transparent)]
    Recipient(#[from] RecipientKeyError),
    /// No way to the key service.
    #[error(transparent)]
    Connector(#[from] ConnectorSetupError),
    /// A part of the supervisor is gone.
    #[error("a thread of the supervisor has ended; the enclave must be started anew")]
    OtherThread,
}

/// What configuration needs and starts.
pub struct ConfiguratorParts {
    /// This node.
    pub node: Arc<Node>,
    /// The security module.
    pub module: Arc<dyn SecurityModule>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub randomness: Arc<dyn Randomness>,
    /// The store.
    pub store: LinkStore,
    /// The way to the key service.
    pub relay: Arc<dyn Relay>,
    /// Where the key service is.
    pub endpoint: EndpointOf,
    /// Where IAM credentials stand.
    pub credentials: CredentialCell,
    /// Where vault keys are found once there is a cluster.
    pub keys: Arc<OnceLock<VaultKeys>>,
    /// The hot loop.
    pub commands: mpsc::Sender<Command>,
    /// Told once there is evidence, from when on requests can be served.
    pub ready: Arc<tokio::sync::Notify>,
    /// Where events are told.
    pub log: Log,
}

impl fmt::Debug for ConfiguratorParts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfiguratorParts").field("node", &self.node).finish_non_exhaustive()
    }
}

/// Takes trust configurations: the first, and from then on only that one again.
pub struct Configurator {
    parts: ConfiguratorParts,
    /// Whether the PCR holds the cluster id already, and of which configuration.
    locked: Mutex<Option<ClusterId>>,
    /// How often another one was offered.
    refused: AtomicU64,
}

impl fmt::Debug for Configurator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Configurator").field(&self.parts).finish()
    }
}

impl Configurator {
    /// A configurator of a node that belongs to no cluster yet.
    pub fn new(parts: ConfiguratorParts) -> Self {
        Self { parts, locked: Mutex::new(None), refused: AtomicU64::new(0) }
    }

    /// How the key service does; none before configuration.
    pub fn key_service(&self) -> Option<KmsStatus> {
        self.parts.keys.get().map(|keys| keys.keyring.status())
    }

    /// How often another trust configuration was offered after the first.
    pub fn refused(&self) -> u64 {
        self.refused.load(Ordering::Relaxed)
    }

    /// Takes a trust configuration and the tuning.
    ///
    /// # Errors
    /// See [`ConfigureError`]. What was locked stays locked.
    pub async fn configure(&self, bytes: Vec<u8>, tuning: Tuning) -> Result<(), ConfigureError> {
        let mut locked = self.locked.lock().await;
        let configuration = TrustConfiguration::decode(&bytes).map_err(ConfigureError::Malformed)?;
        let key: KeyArn = configuration.kms_key_arn.parse()?;
        if key.region() != configuration.region {
            return Err(ConfigureError::Region);
        }
        let id = ClusterId::of(&bytes);
        match *locked {
            Some(present) if present != id => {
                let count = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
                self.parts.log.tell(LogLevel::Error, LogEvent::ReconfigureRefused, Some(count));
                return Err(ConfigureError::Other);
            }
            Some(_) => {}
            None => {
                self.lock_pcr(id).await?;
                *locked = Some(id);
            }
        }
        if self.parts.node.cluster().is_none() {
            self.join(Cluster { configuration, bytes, id }, key, &tuning).await?;
        }
        self.parts.store.set_timeout(Duration::from_millis(tuning.store_timeout_ms.clamp(100, 60_000)));
        self.parts.commands.send(Command::Tune(tuning)).await.map_err(|_| ConfigureError::OtherThread)
    }

    /// The PCR takes the hash, which names the bytes: a PCR's input is bounded, a configuration is longer.
    async fn lock_pcr(&self, id: ClusterId) -> Result<(), ConfigureError> {
        let module = Arc::clone(&self.parts.module);
        let locking = tokio::task::spawn_blocking(move || {
            module.extend(CLUSTER_PCR, &id.0)?;
            module.lock(CLUSTER_PCR)
        });
        Ok(locking.await.map_err(|_| ConfigureError::OtherThread)??)
    }

    async fn join(&self, cluster: Cluster, key: KeyArn, tuning: &Tuning) -> Result<(), ConfigureError> {
        let parts = &self.parts;
        // Some hundred milliseconds of CPU.
        let recipient = tokio::task::spawn_blocking(RecipientKey::generate);
        let recipient = Arc::new(recipient.await.map_err(|_| ConfigureError::OtherThread)??);
        let evidence = ModuleEvidence::new(Arc::clone(&parts.module), Arc::clone(&parts.clock), Arc::clone(&recipient));
        let service = AwsKms::new(AwsKmsParts {
            endpoint: (parts.endpoint)(&key),
            key,
            relay: Arc::clone(&parts.relay),
            credentials: parts.credentials.clone(),
            recipient,
            evidence: Arc::new(evidence),
            deadline: DEFAULT_DEADLINE,
        })?;
        let store = Arc::new(parts.store.clone());
        let keyring = ShardKeyring::new(ShardKeyringParts {
            service: Arc::new(service),
            store: store.clone(),
            clock: Arc::clone(&parts.clock),
            randomness: Arc::clone(&parts.randomness),
            cluster: cluster.id,
            policy: policy(tuning),
        });
        tokio::spawn(keyring.clone().run());
        let keys = VaultKeys { keyring, store, randomness: Arc::clone(&parts.randomness), log: parts.log.clone() };
        // Both are set once: this runs under the lock, and only while the node has no cluster.
        drop(parts.keys.set(keys));
        parts.node.join(cluster).map_err(|_| ConfigureError::Other)?;
        parts.log.tell(LogLevel::Info, LogEvent::Configured, None);
        let (node, clock) = (Arc::clone(&parts.node), Arc::clone(&parts.clock));
        tokio::spawn(renew_evidence(node, clock, parts.log.clone(), Arc::clone(&parts.ready)));
        Ok(())
    }
}

/// The cache's policy. Times come from the parent: a long one keeps a key that was released to this enclave, a short one costs calls.
pub(crate) fn policy(tuning: &Tuning) -> Policy {
    let hours = |hours| Duration::from_hours(hours);
    let ttl = Duration::from_millis(tuning.shard_key_ttl_ms).clamp(Duration::from_secs(1), hours(24));
    let hard_limit = Duration::from_millis(tuning.shard_key_hard_ms).clamp(ttl, hours(24));
    Policy { capacity: NonZeroUsize::new(512).expect("not zero"), ttl, hard_limit, ..Policy::default() }
}

/// How often it is looked whether the kernel's clock has jumped.
const CLOCK_LOOKED_AT: Duration = Duration::from_secs(1);

/// Keeps the node's evidence young.
async fn renew_evidence(node: Arc<Node>, clock: Arc<dyn Clock>, log: Log, ready: Arc<tokio::sync::Notify>) {
    let mut attempt = 0;
    loop {
        let wait = match node.renew_evidence().await {
            Ok(()) => {
                log.tell(LogLevel::Info, LogEvent::EvidenceRenewed, None);
                ready.notify_one();
                attempt = 0;
                EVIDENCE_RENEWED_AFTER
            }
            Err(error) => {
                tracing::warn!(%error, "no evidence");
                let apart = matches!(error, EvidenceError::Clock(ClockError::Apart { .. }));
                let event = if apart { LogEvent::ClockDiffers } else { LogEvent::EvidenceFailed };
                log.tell(LogLevel::Error, event, None);
                attempt += 1;
                backoff::wait(attempt, 0)
            }
        };
        // By the clock by which evidence ages.
        let due = clock.monotonic() + wait;
        loop {
            let left = due.saturating_sub(clock.monotonic());
            if left.is_zero() {
                break;
            }
            clock.sleep(left.min(CLOCK_LOOKED_AT)).await;
            // There is no evidence then; it is back as soon as the module agrees with the clock again.
            if attempt == 0 && node.clock_has_jumped() {
                log.tell(LogLevel::Warn, LogEvent::ClockJumped, None);
                break;
            }
        }
    }
}

#[cfg(test)]
#[path = "configure_tests.rs"]
mod tests;
