//! The control connection: the parent hands in the trust configuration, tuning and credentials, and asks how things are.
//!
//! The parent is not believed. The first trust configuration holds for good, extended into a PCR and locked before anything else; what
//! else the parent can say denies service at most.

use std::sync::Arc;
use std::time::Duration;

use casemate_link::{Caller, Connection, Incoming};
use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::health::{EnclaveHealth, KmsNumbers, RefusalNumbers};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{CONTROL_BYTES, ControlCall, ControlReply, LogEvent, LogLevel, TOLD_VAULTS};
use casemate_protocol::resident::{VaultInfo, VaultsBy};
use casemate_protocol::secret::Secret;
use tokio::sync::{mpsc, oneshot};
use zeroize::Zeroizing;

use super::configure::{Configurator, ConfigureError};
use super::dial::Dialler;
use super::log::Log;
use super::memory;
use super::node::Node;
use super::router::VaultView;
use super::shell::{Command, Numbers};
use super::store::LinkStore;
use crate::keys::credentials::CredentialCell;
use crate::keys::ledger::KmsState;
use crate::outside::{Clock, IamCredentials};

/// How long the hot loop may take for an answer, and a vault to close. Health that takes longer is no health.
const ANSWER_DEADLINE: Duration = Duration::from_secs(2);
/// How long draining may take.
const DRAIN_DEADLINE: Duration = Duration::from_secs(90);
/// Listed vaults whose memory is read anew: a screenful, so that an operator sees a vault that was opened a moment ago. Of the others
/// the last sample is told.
const WEIGHED_ANEW: usize = 64;
/// Longest credential that is taken. Session tokens have no documented limit; real ones are around 1 KiB.
const CREDENTIAL_BYTES: usize = 16 * 1024;

/// What the control connection reaches. Clones share everything.
#[derive(Debug, Clone)]
pub struct Control {
    /// This node.
    pub node: Arc<Node>,
    /// Takes the trust configuration.
    pub configurator: Arc<Configurator>,
    /// The hot loop.
    pub commands: mpsc::Sender<Command>,
    /// Where IAM credentials stand.
    pub credentials: CredentialCell,
    /// The store.
    pub store: LinkStore,
    /// The link.
    pub dialler: Arc<Dialler>,
    /// Where events are told.
    pub log: Log,
    /// Monotonic time; zero is the boot.
    pub clock: Arc<dyn Clock>,
    /// What all vault-managers have in common ([`Zygote::shared_bytes`](crate::zygote::Zygote::shared_bytes)).
    pub shared_bytes: u64,
    /// The sandbox layers in force, by name.
    pub sandbox: Vec<String>,
    /// The sandbox layers that are not, each with the reason.
    pub sandbox_missing: Vec<String>,
}

impl Control {
    /// Serves a connection until it ends.
    pub async fn serve(&self, mut connection: Connection) {
        self.flush(&connection.caller);
        loop {
            tokio::select! {
                incoming = connection.incoming.recv() => match incoming {
                    Some(Incoming::Call { body, reply, .. }) => {
                        // A drain takes its time; health must not wait for it.
                        let control = self.clone();
                        tokio::spawn(async move {
                            let answer = control.answer(&body).await;
                            reply.reply(codec::encode(&answer).into());
                        });
                    }
                    Some(Incoming::Notice { .. }) => {}
                    None => return,
                },
                () = self.log.wait() => self.flush(&connection.caller),
            }
        }
    }

    /// Gives the parent what it takes of the log.
    fn flush(&self, caller: &Caller) {
        while let Some(record) = self.log.take() {
            if caller.notify(codec::encode(&record).into()).is_err() {
                return self.log.put_back(record);
            }
        }
    }

    async fn answer(&self, body: &[u8]) -> ControlReply {
        let call = match codec::decode(body, CONTROL_BYTES) {
            Ok(call) => call,
            Err(error) => return ControlReply::Refused(ErrorCode::Malformed, error.to_string()),
        };
        match call {
            ControlCall::Configure { trust_configuration, tuning } => {
                let configured = self.configurator.configure(trust_configuration, tuning).await;
                configured.map_or_else(|error| refused(&error), |()| ControlReply::Done)
            }
            ControlCall::Credentials { access_key_id, secret_access_key, session_token } => {
                self.credentials(access_key_id, &secret_access_key, session_token.as_ref())
            }
            ControlCall::Health => match self.ask(Command::Numbers).await {
                Some(numbers) => ControlReply::Health(Box::new(self.health(&numbers))),
                None => not_answering(),
            },
            ControlCall::Vaults { by, limit } => self.vaults(by.unwrap_or_default(), limit).await,
            ControlCall::Evict(vault) => self.evict(vault).await,
            ControlCall::Drain => self.drain().await,
        }
    }

    fn credentials(&self, id: String, secret: &Secret, token: Option<&Secret>) -> ControlReply {
        let text = |secret: &Secret| {
            let text = std::str::from_utf8(secret).ok().filter(|text| text.len() <= CREDENTIAL_BYTES);
            text.map(|text| Zeroizing::new(text.to_owned()))
        };
        // Outside: none was given; inside: what was given is no text.
        let token = token.map(text);
        match (text(secret), token) {
            (Some(_), Some(None)) | (None, _) => bad_credentials(),
            (Some(_), _) if id.len() > 128 => bad_credentials(),
            (Some(secret_access_key), token) => {
                let session_token = token.flatten();
                self.credentials.set(IamCredentials { access_key_id: id, secret_access_key, session_token });
                self.log.tell(LogLevel::Info, LogEvent::CredentialsReceived, None);
                ControlReply::Done
            }
        }
    }

    async fn vaults(&self, by: VaultsBy, limit: Option<u32>) -> ControlReply {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(TOLD_VAULTS).min(TOLD_VAULTS);
        let Some(views) = self.ask(|answer| Command::Vaults(by, limit, answer)).await else { return not_answering() };
        let shared = self.shared_bytes;
        let read = tokio::task::spawn_blocking(move || {
            let info = |(place, view): (usize, VaultView)| VaultInfo {
                vault: view.vault,
                state: view.state.to_owned(),
                in_flight: view.in_flight,
                idle_ms: u64::try_from(view.idle.as_millis()).unwrap_or(u64::MAX),
                pid: view.pid.unwrap_or(0),
                memory_bytes: match (view.pid, view.memory) {
                    (Some(pid), _) if place < WEIGHED_ANEW => memory::resident(pid, shared),
                    (_, sampled) => sampled.unwrap_or(0),
                },
                queued: Some(view.queued),
                lately: Some(view.lately),
                latency_us: view.latency_us,
            };
            views.into_iter().enumerate().map(info).collect()
        });
        read.await.map_or_else(|_| not_answering(), ControlReply::Vaults)
    }

    async fn evict(&self, vault: VaultId) -> ControlReply {
        match self.ask(|answer| Command::Evict(vault, answer)).await {
            Some(true) => ControlReply::Done,
            Some(false) => ControlReply::Refused(ErrorCode::NotFound, "this vault is not open here".to_owned()),
            None => ControlReply::Refused(
                ErrorCode::Unavailable,
                "the vault finishes what it has in flight and closes then; ask for the list of vaults".to_owned(),
            ),
        }
    }

    async fn drain(&self) -> ControlReply {
        let (answer, drained) = oneshot::channel();
        if self.commands.send(Command::Drain(answer)).await.is_err() {
            return not_answering();
        }
        match tokio::time::timeout(DRAIN_DEADLINE, drained).await {
            Ok(Ok(())) => ControlReply::Done,
            Ok(Err(_)) | Err(_) => {
                ControlReply::Refused(ErrorCode::Unavailable, "not every vault has closed in time".to_owned())
            }
        }
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Option<T> {
        let (answer, answered) = oneshot::channel();
        let command = command(answer);
        tokio::time::timeout(ANSWER_DEADLINE, async {
            self.commands.send(command).await.ok()?;
            answered.await.ok()
        })
        .await
        .ok()?
    }

    fn health(&self, numbers: &Numbers) -> EnclaveHealth {
        let age = self.node.evidence_age();
        let kms = self.configurator.key_service();
        let mut reasons = Vec::new();
        let mut reason = |holds: bool, text: &str| {
            if holds {
                reasons.push(text.to_owned());
            }
        };
        reason(self.node.cluster().is_none(), "not configured");
        reason(age.is_none(), "no evidence");
        reason(self.node.clock_has_jumped(), "the kernel's clock has jumped");
        reason(!self.store.is_connected(), "store not connected");
        reason(numbers.is_short_of_memory, "memory is short");
        reason(numbers.is_draining, "draining");
        reason(kms.as_ref().is_some_and(|kms| kms.state != KmsState::Ok), "key service degraded");
        let count = |number: usize| u64::try_from(number).unwrap_or(u64::MAX);
        let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        EnclaveHealth {
            uptime_s: self.clock.monotonic().as_secs(),
            measurements: self.node.measurements().pcrs.concat(),
            evidence_age_s: age.map(|age| age.as_secs()),
            sandbox: self.sandbox.clone(),
            sandbox_missing: self.sandbox_missing.clone(),
            vaults: numbers.vaults,
            kms: kms.map_or_else(KmsNumbers::default, |kms| KmsNumbers {
                state: kms.state.as_str().to_owned(),
                cached: count(kms.cached),
                hits: kms.cache.hits,
                misses: kms.cache.misses,
                calls: kms.calls,
                throttled: kms.throttled,
                failures: kms.failures,
                latency_ms: kms.latency.map_or(0, milliseconds),
                forged: kms.forged,
            }),
            memory_total: numbers.memory.total,
            memory_available: numbers.memory.available,
            cluster: self.node.cluster().map(|cluster| cluster.id.0),
            draining: numbers.is_draining,
            reasons,
            store_failures: self.store.failures(),
            stages: numbers.stages.told(),
            refusals: RefusalNumbers {
                link_broken: self.dialler.broken(),
                reconfiguration: self.configurator.refused(),
                ..numbers.refusals
            },
        }
    }
}

fn refused(error: &ConfigureError) -> ControlReply {
    let code = match error {
        ConfigureError::Other => ErrorCode::AlreadyExists,
        ConfigureError::Malformed(_) | ConfigureError::Key(_) | ConfigureError::Region => ErrorCode::InvalidArgument,
        ConfigureError::Module(_)
        | ConfigureError::Recipient(_)
        | ConfigureError::Connector(_)
        | ConfigureError::OtherThread => ErrorCode::Unavailable,
    };
    ControlReply::Refused(code, error.to_string())
}

fn not_answering() -> ControlReply {
    ControlReply::Refused(ErrorCode::Unavailable, "the supervisor's loop does not answer".to_owned())
}

fn bad_credentials() -> ControlReply {
    ControlReply::Refused(
        ErrorCode::InvalidArgument,
        "IAM credentials are text: a key id of at most 128 characters, secret and token of at most 16 KiB".to_owned(),
    )
}
