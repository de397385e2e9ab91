//! The second thread's work for the router: store, keys and evidence, each call a task of its own with a result that always comes.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use casemate_link::Ticket;
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::limits::OBJECT_BYTES;
use casemate_protocol::link::{KeyObject, LogEvent, LogLevel, RequestReply};
use tokio::sync::mpsc;

use super::deletion::Deletion;
use super::log::Log;
use super::node::Node;
use super::router::{Event, Op, SlotId, StoreFailed};
use super::shell::Command;
use super::store::LinkStore;
use super::vault_keys::VaultKeys;
use crate::outside::BlobStore;

/// One call to the outside.
#[derive(Debug)]
pub enum Job {
    /// See [`super::router::Action::LoadNewest`].
    LoadNewest(SlotId, Op, VaultId),
    /// See [`super::router::Action::Load`].
    Load(SlotId, Op, VaultId),
    /// See [`super::router::Action::WarmShardKey`].
    WarmShardKey(Shard, u32),
    /// See [`super::router::Action::VaultKey`].
    VaultKey(SlotId, Op, VaultId, Vec<KeyObject>),
    /// See [`super::router::Action::Put`].
    Put(SlotId, Op, String, Bytes),
    /// See [`super::router::Action::ReadBack`].
    ReadBack(SlotId, Op, String),
    /// See [`super::router::Action::Collect`] and [`super::router::Action::Purge`].
    Delete(Deletion),
    /// Somebody asks for fresh evidence over a nonce.
    Attest(Vec<u8>, Ticket),
}

/// What the jobs need.
#[derive(Debug, Clone)]
pub struct Workshop {
    /// The store.
    pub store: LinkStore,
    /// Vault keys, once the node is configured. No request reaches the router before.
    pub keys: Arc<OnceLock<VaultKeys>>,
    /// This node.
    pub node: Arc<Node>,
    /// Where results go.
    pub results: mpsc::Sender<Command>,
    /// Where deletions go.
    pub deletions: mpsc::Sender<Deletion>,
    /// Where failures are told.
    pub log: Log,
}

impl Workshop {
    /// Takes jobs until the router is gone. How many there are is bounded by the router's slots: each waits for a few at most.
    pub async fn run(self, mut jobs: mpsc::Receiver<Job>) {
        while let Some(job) = jobs.recv().await {
            tokio::spawn(self.clone().work(job));
        }
    }

    async fn work(self, job: Job) {
        let command = Command::Event(match job {
            Job::LoadNewest(slot, op, vault) => {
                Event::Newest { slot, op, result: self.store.newest(vault).await.map_err(|_| StoreFailed) }
            }
            Job::Load(slot, op, vault) => {
                Event::Loaded { slot, op, result: self.store.load(vault).await.map_err(|_| StoreFailed) }
            }
            Job::VaultKey(slot, op, vault, wrapped) => {
                let result = match self.keys.get() {
                    Some(keys) => keys.vault_key(vault, &wrapped).await,
                    None => Err(Refusal::retry(ErrorCode::Unavailable, 1000)),
                };
                Event::VaultKey { slot, op, result }
            }
            Job::Put(slot, op, path, bytes) => Event::PutDone { slot, op, put: self.store.put(path, bytes).await },
            Job::ReadBack(slot, op, path) => {
                let result = self.store.get(&path, OBJECT_BYTES).await.map_err(|_| StoreFailed);
                Event::ReadBack { slot, op, result }
            }
            Job::WarmShardKey(shard, generation) => {
                if let Some(keys) = self.keys.get() {
                    keys.warm(shard, generation).await;
                }
                return;
            }
            // A full queue leaves the collection to the next one.
            Job::Delete(deletion) => {
                let _ = self.deletions.try_send(deletion);
                return;
            }
            Job::Attest(nonce, reply) => {
                let answer = if let Ok(evidence) = self.node.attest_for(nonce).await {
                    RequestReply::Evidence(codec::encode(&evidence))
                } else {
                    self.log.tell(LogLevel::Error, LogEvent::EvidenceFailed, None);
                    RequestReply::Refused(Refusal::retry(ErrorCode::Unavailable, 1000))
                };
                drop(self.results.send(Command::Attested(reply, answer)).await);
                return;
            }
        });
        // The router's thread ends only with the process.
        drop(self.results.send(command).await);
    }
}
