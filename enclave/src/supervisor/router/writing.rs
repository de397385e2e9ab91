//! What a vault-manager may do to the store: commit the next version of its own vault, and have old ones deleted.

use std::time::Duration;

use bytes::Bytes;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{LogEvent, LogLevel};
use casemate_protocol::stage::Stage as Timed;
use casemate_protocol::{limits, path};

use super::commit::{Commit, Step};
use super::event::{Action, Op, Put, SlotId, StoreFailed};
use super::slot::{Closing, HalfOpen, STOP_LIMIT, STUCK_AFTER, Slot, State};
use super::{Router, log};
use crate::ipc::{CommitResult, ToManager};

impl Router {
    /// A vault-manager wants a version stored. The path is built here, from the slot's own vault.
    pub(super) fn commit(
        &mut self,
        slot_id: SlotId,
        version: u64,
        object: Vec<u8>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let (op, timeout) = (self.op(), self.limits.store_timeout);
        let Some(slot) = self.touch(slot_id) else { return };
        let may_write = matches!(slot.state, State::Open { .. } | State::Closing(Closing::Stopping { .. }))
            && slot.commit.is_none()
            && slot.late_put.is_none();
        let is_next = version > slot.committed && (1..=limits::OBJECT_BYTES).contains(&object.len());
        if !may_write || !is_next {
            return self.violation(slot_id, "a commit out of turn", out);
        }
        // Attack stopped: a process that goes on writing for itself, and fills the store of all vaults.
        if !slot.may_commit() {
            return self.condemn(slot_id, "more versions than it was given requests for", out);
        }
        // And one that has its devices ask for it, until nobody else gets a word in. It is told what it is told of a store that is away.
        if !slot.may_store(object.len(), now) {
            slot.released = now;
            out.push(Action::Send { slot: slot_id, message: ToManager::CommitResult(CommitResult::NotSent) });
            return;
        }
        let (path, bytes) = (path::vault_version(slot.vault, version), Bytes::from(object));
        let commit = Commit::begin(version, path.clone(), bytes.clone(), timeout, now, op);
        // What it had in flight when it was told to stop is finished first. Attack stopped: a process that never stops to write.
        if let State::Closing(Closing::Stopping { kill_at, kill_by, .. }) = &mut slot.state {
            *kill_at = (*kill_at).max(commit.deadline() + STOP_LIMIT).min(*kill_by);
        }
        slot.commit = Some(commit);
        // Whatever a process says of its own end: nothing older than this is gone on with.
        let vault = slot.vault;
        self.parked.take(&vault);
        out.push(Action::Put { slot: slot_id, op, path, bytes });
    }

    pub(super) fn put_done(&mut self, slot_id: SlotId, op: Op, put: Put, now: Duration, out: &mut Vec<Action>) {
        let next = self.op();
        let Some(slot) = self.touch(slot_id) else { return };
        if slot.late_put == Some(op) {
            slot.late_put = None;
            return self.release(slot_id, now, out);
        }
        let Some(commit) = &mut slot.commit else { return };
        let step = commit.put_done(op, put, now, next);
        self.take_step(slot_id, step, now, out);
    }

    pub(super) fn read_back(
        &mut self,
        slot_id: SlotId,
        op: Op,
        result: &Result<Option<Vec<u8>>, StoreFailed>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.touch(slot_id) else { return };
        let Some(commit) = &mut slot.commit else { return };
        let step = commit.read_back(op, result, now);
        self.take_step(slot_id, step, now, out);
    }

    pub(super) fn advance_commit(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        let next = self.op();
        let Some(slot) = self.touch(slot_id) else { return };
        let Some(commit) = &mut slot.commit else { return };
        let step = commit.tick(now, next);
        self.take_step(slot_id, step, now, out);
    }

    fn take_step(&mut self, slot_id: SlotId, step: Step, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let Some(commit) = &slot.commit else { return };
        let (path, slot) = (commit.path.clone(), slot_id);
        match step {
            Step::Wait => {}
            Step::Put(op) => out.push(Action::Put { slot, op, path, bytes: commit.bytes.clone() }),
            Step::ReadBack(op) => out.push(Action::ReadBack { slot, op, path }),
            Step::Done(result) => self.committed(slot_id, result, now, out),
        }
    }

    /// A write is over.
    fn committed(&mut self, slot_id: SlotId, result: CommitResult, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let Some(commit) = slot.commit.take() else { return };
        slot.released = now;
        let vault = slot.vault;
        if let State::Closing(Closing::Stopping { kill_at, .. }) = &mut slot.state {
            // Time for a write is not time for anything else.
            *kill_at = (*kill_at).min(now + STUCK_AFTER + STOP_LIMIT);
        }
        if result == CommitResult::Committed {
            slot.committed = commit.version;
            self.stages.note(Timed::Commit, now.saturating_sub(commit.begun()));
        } else {
            slot.late_put = commit.outstanding_put();
        }
        out.push(Action::Send { slot: slot_id, message: ToManager::CommitResult(result) });
        match result {
            CommitResult::Committed => self.negative.remove(vault),
            CommitResult::NotSent => {}
            // What the process holds is not what is stored, or nobody knows: it tells its callers and ends. The next request opens
            // what is there.
            CommitResult::OtherWriter => {
                log(LogLevel::Warn, LogEvent::VaultMoved, None, out);
                self.stop(slot_id, false, now, out);
            }
            CommitResult::Unknown => {
                log(LogLevel::Warn, LogEvent::OutcomeUnknown, None, out);
                self.stop(slot_id, false, now, out);
            }
        }
    }

    /// A vault-manager wants old versions deleted: only durable, superseded ones of its own. Attack stopped: a process that crowds the queue
    /// of deletions, which all vaults share. What is passed over is asked for again with the next snapshot.
    pub(super) fn collect(&mut self, slot_id: SlotId, below: u64, now: Duration, out: &mut Vec<Action>) {
        match self.deletable(slot_id) {
            Some((vault, committed)) if below <= committed => {
                let may_collect = self.touch(slot_id).is_some_and(|slot| slot.may_collect(now));
                out.extend(may_collect.then_some(Action::Collect { vault, below }));
            }
            Some(_) => self.violation(slot_id, "a deletion of what is not superseded", out),
            None => {}
        }
    }

    /// A vault-manager has ended its vault, or found that a crash left versions behind its tombstone. The latter is said by a process
    /// that is half-open still, of a header that nobody has authenticated: a host that plants one deletes no more than it could
    /// delete by itself.
    pub(super) fn purge(&mut self, slot_id: SlotId, tombstone: u64, now: Duration, out: &mut Vec<Action>) {
        // Attack stopped: a process that a stranger took over, before any device key was shown, that calls a living vault ended.
        let is_told = |slot: &&Slot| {
            matches!(slot.state, State::HalfOpen(HalfOpen::Ready { .. })) && slot.committed > 0 && slot.shows_tombstone
        };
        let found = self.slots.get(slot_id).filter(is_told).map(|slot| (slot.vault, slot.committed));
        match found.or_else(|| self.deletable(slot_id)) {
            Some((vault, committed)) if tombstone == committed && tombstone > 0 => {
                let may_purge = self.touch(slot_id).is_some_and(|slot| slot.may_purge(now));
                out.extend(may_purge.then_some(Action::Purge { vault, tombstone }));
            }
            Some(_) => self.violation(slot_id, "a deletion of what is not superseded", out),
            None => {}
        }
    }

    /// The vault whose versions this slot may have deleted, and its newest durable one. None before it is open.
    fn deletable(&self, slot_id: SlotId) -> Option<(VaultId, u64)> {
        let slot = self.slots.get(slot_id)?;
        let open = matches!(slot.state, State::Open { .. } | State::Closing(Closing::Stopping { .. }));
        open.then_some((slot.vault, slot.committed))
    }
}
