//! What must be seen somewhere: a model in which nothing happens keeps every promise.

use std::time::Duration;

use casemate_enclave::ipc::CommitResult;
use casemate_enclave::supervisor::router::Put;

use crate::device::Outcome;
use crate::manager::{Manager, Phase, ToManager};
use crate::slot::{Awaits, Closing, Node, Slot, State};
use crate::world::World;

/// A sign that a part of the model is alive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Sign {
    /// Everybody was answered everything.
    Done,
    /// An idle vault is on its way out.
    Evicted,
    /// A process goes on from what another one has left.
    Resumed,
    /// One that did has found no place, and leaves with a version on its way.
    NoPlace,
    /// A vault was told to stop, and its version is on its way.
    Finishing,
    /// A write comes again to a process that was made after it was done.
    Remembered,
    /// Two devices' writes share a version.
    Shared,
    /// An open vault is read anew.
    Reloading,
    /// A resident whose vault another owner has written to answers a device that has not heard of it.
    Overtaken,
    /// A vault-manager is told that another writer owns its vault.
    OtherWriter,
    /// A vault-manager is told that nobody knows what became of its version.
    Unknown,
    /// A put whose write was given up has created its version.
    LatePut,
    /// A version is known to be committed before its put has ended.
    ReadBack,
    /// The same bytes are put a second time.
    PutAgain,
    /// A put is under way to the store whose supervisor or call is gone.
    Adrift,
}

impl Sign {
    /// As a sentence.
    pub const fn text(self) -> &'static str {
        match self {
            Self::Done => "everybody is answered",
            Self::Evicted => "an idle vault is evicted",
            Self::Resumed => "a process goes on from what was parked",
            Self::NoPlace => "one that finds no place finishes its write",
            Self::Finishing => "a vault that was told to stop finishes its write",
            Self::Remembered => "an outcome is remembered over the end of its process",
            Self::Shared => "two writes share a version",
            Self::Reloading => "a vault is read anew for a newer head",
            Self::Overtaken => "an overtaken owner answers who has not heard of it",
            Self::OtherWriter => "an owner loses to the other",
            Self::Unknown => "the fate of a version is not learnt in time",
            Self::LatePut => "a late put lands",
            Self::ReadBack => "a silent put is found to have landed",
            Self::PutAgain => "the same bytes are put again",
            Self::Adrift => "a put outlives who sent it",
        }
    }

    /// Whether a world shows it.
    pub fn shows(self, world: &World) -> bool {
        let slots = || world.nodes.iter().filter_map(|node| Some((node, node.slot.as_ref()?)));
        let managers = || slots().filter_map(|(_, slot)| slot.manager.as_ref());
        let heard = |result| managers().any(|manager| manager.inbox.contains(&ToManager::CommitResult(result)));
        let is_stopping = |slot: &Slot| matches!(slot.state, State::Closing(Closing::Stopping { .. }));
        match self {
            Self::Done => world.is_done(),
            Self::Evicted => slots().any(|(_, slot)| is_stopping(slot) && slot.requests.is_empty()),
            Self::Resumed => slots().any(|(_, slot)| slot.resumed),
            Self::NoPlace => slots().any(|(_, slot)| {
                let parks = slot.state == State::Closing(Closing::Stopping { parks: true });
                parks && slot.resumed && slot.commit.is_some()
            }),
            Self::Finishing => slots().any(|(_, slot)| is_stopping(slot) && slot.commit.is_some()),
            Self::Remembered => managers().any(is_asked_again),
            Self::Shared => world.store.objects().any(|object| object.writes.count() > 1),
            Self::Reloading => slots().any(|(_, slot)| matches!(slot.state, State::Opening { reload: true, .. })),
            Self::Overtaken => {
                let newest = world.store.load().head();
                let is_older = |outcome, head| matches!(outcome, Outcome::Value(_)) && head < Some(newest);
                world.replies.iter().any(|reply| is_older(reply.outcome, reply.head))
            }
            Self::OtherWriter => heard(CommitResult::OtherWriter),
            Self::Unknown => heard(CommitResult::Unknown),
            Self::LatePut => slots().any(|(node, slot)| {
                let created = node.puts.iter().find(|put| put.said == Some(Put::Created)).map(|put| put.op);
                created.is_some() && slot.late_put == created
            }),
            Self::ReadBack => slots().any(|(node, slot)| is_known_before_its_end(node, slot)),
            Self::PutAgain => slots().any(|(_, slot)| {
                let write = slot.commit.as_ref();
                write.is_some_and(|write| write.awaits == Awaits::Put && write.now > Duration::ZERO)
            }),
            Self::Adrift => !world.adrift.is_empty(),
        }
    }
}

/// Whether a process is being opened over a version that has a write for which its device asks again.
fn is_asked_again(manager: &Manager) -> bool {
    let Phase::Loading { waiting, open: None } = &manager.phase else { return false };
    let opened = manager.inbox.iter().find_map(|message| match message {
        ToManager::Opened(chain) => Some(chain.writes()),
        _ => None,
    });
    let asked = waiting.iter().filter_map(|pending| pending.request.write());
    opened.is_some_and(|executed| asked.into_iter().any(|write| executed.contain(write)))
}

fn is_known_before_its_end(node: &Node, slot: &Slot) -> bool {
    let is_forgotten = slot.commit.is_none() && slot.late_put.is_none();
    is_forgotten && slot.state == State::Open && node.puts.iter().any(|put| put.version == slot.committed)
}
