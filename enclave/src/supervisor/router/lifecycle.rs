//! A slot's life: half-open, started, ready, closing, gone.

use std::time::Duration;

use casemate_link::TokenBucket;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::DeviceFrameKind;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{LogEvent, LogLevel, VersionObject};
use casemate_protocol::object::{Kind, Object};
use casemate_protocol::stage::Stage as Timed;

use super::event::{Action, ManagerExit, Op, RequestId, SlotId, StoreFailed};
use super::slot::{Closing, HalfOpen, Handed, Pending, RESUMING_LIFE, STOP_LIMIT, STUCK_AFTER, Slot, Stage, State};
use super::{CLOSING_SLOTS, GENERATION, Router, log, milliseconds};
use crate::ipc::{FromManager, Newest, Notice, ToManager};

/// Wrong lock keys for which one vault is opened, at once and each second from then on. An honest device whose key was turned shows one.
const LOCKOUTS: u32 = 8;
const LOCKOUTS_PER_SECOND: u32 = 1;

impl Router {
    /// Takes a slot for a vault that has none: half-open, in the small pool that strangers share. It never takes a resident's place. For a
    /// frame of a parked session the store is not asked before the frame has opened.
    pub(super) fn open_half(
        &mut self,
        vault: VaultId,
        id: RequestId,
        pending: Pending,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        // Attack stopped: vaults that come back where there is no place, and are still writing when the next ones come back: they are in
        // neither pool, and their processes count all the same.
        let leaving = self.slots.len().saturating_sub(self.residents.len() + self.half_open.len());
        if pending.kind == DeviceFrameKind::Sealed && leaving >= CLOSING_SLOTS {
            return self.refuse_busy(id, out);
        }
        // Each costs a process and a look into the store: a herd of devices that lost their sessions comes in one by one.
        if let Err(wait) = self.hellos.take(now) {
            return self.refuse(id, Refusal::retry(ErrorCode::Busy, milliseconds(wait)), out);
        }
        // Before anybody is ended for it: that gives no slot back at once.
        if self.slots.len() >= self.limits.vaults + self.limits.half_open + CLOSING_SLOTS {
            return self.refuse_busy(id, out);
        }
        while self.half_open.len() >= self.limits.half_open {
            let Some(oldest) = self.half_open.front().copied() else { break };
            let refusal = self.busy();
            self.kill(oldest, Some(&refusal), out);
        }
        let op = self.op();
        let mut slot = Slot::new(vault, op, now);
        let resumes = pending.kind == DeviceFrameKind::Sealed;
        slot.resumes = resumes;
        if let Some(parked) = self.parked(vault, now) {
            slot.sessions = parked.sessions.clone();
        }
        let slot = self.slots.insert(slot);
        self.vaults.insert(vault, slot);
        self.half_open.push_back(slot);
        // Together: which of the two takes longer does not matter.
        out.push(Action::Spawn { slot, memory_bytes: self.limits.vault_memory_bytes });
        if resumes {
            self.start(slot, Newest::NotAsked, now, out);
        } else if self.negative.holds(vault, now) {
            self.start(slot, Newest::None, now, out);
        } else {
            out.push(Action::LoadNewest { slot, op, vault });
        }
        self.enqueue(slot, id, pending, now, out);
        if resumes {
            // Behind who it is, and before it can ask.
            self.deliver_waiting(slot, now, out);
        }
    }

    pub(super) fn spawned(&mut self, slot_id: SlotId, pid: u32) {
        if let Some(slot) = self.slots.get_mut(slot_id) {
            slot.pid = Some(pid);
        }
    }

    pub(super) fn newest(
        &mut self,
        slot_id: SlotId,
        op: Op,
        result: Result<Option<VersionObject>, StoreFailed>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.touch(slot_id) else { return };
        let vault = slot.vault;
        match slot.state {
            State::HalfOpen(HalfOpen::Preparing { asked, .. }) if asked == op => {}
            _ => return,
        }
        let Ok(newest) = result else {
            log(LogLevel::Warn, LogEvent::StoreFailed, None, out);
            return self.kill(slot_id, Some(&Refusal::retry(ErrorCode::Unavailable, 1000)), out);
        };
        if newest.is_none() {
            self.negative.insert(vault, now);
        }
        self.start(slot_id, newest.map_or(Newest::None, Newest::Shown), now, out);
    }

    /// Tells the process who it is. Its socket is there before it is.
    fn start(&mut self, slot_id: SlotId, newest: Newest, now: Duration, out: &mut Vec<Action>) {
        let versions_kept = self.limits.versions_kept;
        let vault = self.slots.get(slot_id).map(|slot| slot.vault);
        let parked = vault.and_then(|vault| self.parked(vault, now));
        let handed = parked.map_or(Handed::Nothing, |parked| parked.whole_at.map_or(Handed::Sessions, Handed::Whole));
        let parked = parked.map(|parked| parked.sealed.clone());
        let Some(slot) = self.touch(slot_id) else { return };
        let State::HalfOpen(HalfOpen::Preparing { static_key, .. }) = slot.state else { return };
        if let Newest::Shown(newest) = &newest {
            slot.committed = newest.version;
            slot.shows_tombstone = shows_tombstone(newest);
        }
        slot.handed = handed;
        slot.state = State::HalfOpen(HalfOpen::Starting);
        let message = ToManager::Start { vault: slot.vault, newest, versions_kept, generation: GENERATION, parked };
        out.push(Action::Send { slot: slot_id, message });
        if let Some(static_key) = static_key {
            self.ready(slot_id, static_key, now, out);
        }
    }

    /// The process says that it is ready: once.
    fn ready(&mut self, slot_id: SlotId, key: [u8; 32], now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        match &mut slot.state {
            State::HalfOpen(HalfOpen::Preparing { static_key: static_key @ None, .. }) => *static_key = Some(key),
            State::HalfOpen(HalfOpen::Starting) => {
                slot.state = State::HalfOpen(HalfOpen::Ready { static_key: key });
                if slot.resumes {
                    slot.half_open_until = now + RESUMING_LIFE;
                }
                // A frame that was there before the process was has not been worked on until now.
                slot.released = now;
                let made_ready = now.saturating_sub(slot.born);
                slot.made_ready = made_ready;
                self.stages.note(Timed::Spawn, made_ready);
                self.deliver_waiting(slot_id, now, out);
            }
            State::HalfOpen(HalfOpen::Preparing { .. } | HalfOpen::Ready { .. })
            | State::Opening(_)
            | State::Open { .. }
            | State::Closing(_) => self.violation(slot_id, "a second ready", out),
        }
    }

    pub(super) fn manager_said(&mut self, slot_id: SlotId, message: FromManager, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        if slot.is_ending() {
            return;
        }
        if !matches!(message, FromManager::Reply { .. }) && !slot.may_speak() {
            // On its way out, too: it has a while until it must be gone.
            return self.condemn(slot_id, "more messages than it was given requests for", out);
        }
        match message {
            FromManager::Ready { static_key } => self.ready(slot_id, static_key, now, out),
            FromManager::Reply { id, frame } => self.replied(slot_id, id, frame, now, out),
            FromManager::Open { create } => self.open(slot_id, create, now, out),
            FromManager::Commit { version, object } => self.commit(slot_id, version, object, now, out),
            FromManager::Collect { below } => self.collect(slot_id, below, now, out),
            FromManager::Purge { tombstone } => self.purge(slot_id, tombstone, now, out),
            FromManager::Parked { sealed, is_whole } => self.park(slot_id, sealed, is_whole, now, out),
            FromManager::Resume => self.resume(slot_id, now, out),
            FromManager::Noticed(notice) => {
                self.doubt(slot_id, notice, now);
                self.notice(notice, out);
            }
        }
    }

    /// A vault-manager says in front of an answer that whoever asked has shown no right to.
    fn doubt(&mut self, slot_id: SlotId, notice: Notice, now: Duration) {
        let Some(slot) = self.slots.get_mut(slot_id) else { return };
        match notice {
            Notice::BadFrame | Notice::SessionUnknown | Notice::Stranger | Notice::TurnedAway => {}
            Notice::LockTurned => {
                let tries = || TokenBucket::with_burst(LOCKOUTS_PER_SECOND, LOCKOUTS);
                let wrong_keys = self.lockouts.get_or_insert_mut(slot.vault, tries);
                // Whether there is still a token is asked when the vault is to be opened.
                let _: Result<(), Duration> = wrong_keys.take(now);
            }
            Notice::Rollback
            | Notice::Fork
            | Notice::HistoryUnknown
            | Notice::HeadInvalid
            | Notice::Vanished
            | Notice::StateCorrupt => return,
        }
        slot.doubted = slot.doubted.saturating_add(1);
    }

    pub(super) fn notice(&mut self, notice: Notice, out: &mut Vec<Action>) {
        let count = self.notices.entry(notice).or_default();
        *count += 1;
        let count = Some(*count);
        match notice {
            Notice::Rollback => log(LogLevel::Error, LogEvent::RollbackDetected, count, out),
            Notice::Fork => log(LogLevel::Error, LogEvent::ForkDetected, count, out),
            Notice::StateCorrupt => log(LogLevel::Error, LogEvent::StateCorrupt, count, out),
            // Anybody can cause these; they are counted and fill no log.
            Notice::BadFrame
            | Notice::Stranger
            | Notice::HistoryUnknown
            | Notice::HeadInvalid
            | Notice::Vanished
            | Notice::LockTurned
            | Notice::SessionUnknown
            | Notice::TurnedAway => {}
        }
    }

    /// A vault-manager broke the rules of its socket: it is compromised or at fault, and in both cases not to be believed further.
    pub(super) fn violation(&mut self, slot_id: SlotId, what: &'static str, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        if matches!(slot.state, State::Closing(_)) {
            // A socket that breaks while its process ends is no news.
            return;
        }
        self.condemn(slot_id, what, out);
    }

    /// Ends it, in whatever state it is.
    pub(super) fn condemn(&mut self, slot_id: SlotId, what: &'static str, out: &mut Vec<Action>) {
        // For development; the parent gets the fixed word below.
        tracing::warn!(what, "a vault-manager broke the rules");
        log(LogLevel::Error, LogEvent::ManagerProtocol, None, out);
        self.counters.crashed += 1;
        self.kill(slot_id, None, out);
    }

    /// Lets a process end by itself: it answers what it holds first, and parks its sessions if it may.
    pub(super) fn stop(&mut self, slot_id: SlotId, parks: bool, now: Duration, out: &mut Vec<Action>) {
        let one_write = self.limits.store_timeout * 2 + STOP_LIMIT;
        let Some(slot) = self.touch(slot_id) else { return };
        match &mut slot.state {
            // It may have been leaving for want of a place, and is to be closed now.
            State::Closing(Closing::Stopping { parks: may_park, .. }) => {
                *may_park &= parks;
                return;
            }
            State::Closing(_) => return,
            // Nothing is promised to anybody yet.
            State::HalfOpen(_) | State::Opening(_) => {
                let refusal = self.away();
                return self.kill(slot_id, Some(&refusal), out);
            }
            State::Open { .. } => {}
        }
        // Attack stopped: a process that keeps its place among the leaving for as long as a device's deadline lasts.
        let last = slot.requests.values().map(|pending| pending.deadline).max().map(|last| last.min(now + STUCK_AFTER));
        let writing = slot.commit.as_ref().map(super::commit::Commit::deadline);
        let kill_at = [last, writing].into_iter().flatten().fold(now, Duration::max) + STOP_LIMIT;
        // A version that was on its way here when it was told, and one more that overtook the word.
        let kill_by = kill_at + one_write * 2;
        slot.state = State::Closing(Closing::Stopping { kill_at, kill_by, parks });
        self.residents.leave(slot_id);
        out.push(Action::Send { slot: slot_id, message: ToManager::Stop { park: parks } });
    }

    /// Ends a process now. Its callers are told: those whose request it never got by `refusal`, if there is one.
    pub(super) fn kill(&mut self, slot_id: SlotId, refusal: Option<&Refusal>, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        if slot.is_ending() {
            return;
        }
        self.end(slot_id, Closing::Killed, refusal, out);
        out.push(Action::Kill { slot: slot_id });
    }

    /// Everything that ends with a process.
    fn end(&mut self, slot_id: SlotId, closing: Closing, refusal: Option<&Refusal>, out: &mut Vec<Action>) {
        self.leave_parked(slot_id);
        let Some(slot) = self.touch(slot_id) else { return };
        // Devices that came while the slot was closing wait for the next process, not for this one.
        let keep_waiting = matches!(slot.state, State::Closing(_));
        slot.state = State::Closing(closing);
        self.half_open.retain(|half_open| *half_open != slot_id);
        self.residents.leave(slot_id);
        self.answer_all(slot_id, refusal, keep_waiting, out);
        if let Some(slot) = self.touch(slot_id)
            && let Some(commit) = slot.commit.take()
        {
            slot.late_put = commit.outstanding_put();
        }
    }

    pub(super) fn spawn_failed(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        log(LogLevel::Error, LogEvent::ManagerCrashed, None, out);
        let refusal = self.busy();
        if let Some(slot) = self.touch(slot_id) {
            // What was sent to it nobody has received.
            for pending in slot.requests.values_mut().filter(|pending| matches!(pending.stage, Stage::Sent(_))) {
                pending.stage = Stage::Waiting;
            }
        }
        self.gone(slot_id, Some(&refusal), now, out);
    }

    pub(super) fn exited(&mut self, slot_id: SlotId, exit: ManagerExit, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let is_killed = slot.is_ending();
        match exit {
            // An alarm in whatever state it was: who is being sent away may try things, too.
            ManagerExit::SandboxKilled => {
                self.counters.sandbox_killed += 1;
                log(LogLevel::Error, LogEvent::ManagerSandboxKilled, None, out);
            }
            // It said all it had to say: its vault could not be opened, or belongs to another writer.
            ManagerExit::Status(0) => {}
            _ if is_killed => {}
            ManagerExit::Signal(number) | ManagerExit::Status(number) => self.crashed(u64::try_from(number).ok(), out),
            ManagerExit::LayerFailed(number) => self.crashed(Some(number.into()), out),
        }
        self.gone(slot_id, None, now, out);
    }

    fn crashed(&mut self, value: Option<u64>, out: &mut Vec<Action>) {
        self.counters.crashed += 1;
        log(LogLevel::Error, LogEvent::ManagerCrashed, value, out);
    }

    fn gone(&mut self, slot_id: SlotId, refusal: Option<&Refusal>, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        slot.pid = None;
        self.end(slot_id, Closing::Exited, refusal, out);
        self.release(slot_id, now, out);
    }

    /// Gives a slot back once its process is reaped and no call to the store is under way; who waited gets a new one.
    pub(super) fn release(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.slots.get(slot_id) else { return };
        if !matches!(slot.state, State::Closing(Closing::Exited)) || slot.late_put.is_some() {
            return;
        }
        let Some(mut slot) = self.slots.remove(slot_id) else { return };
        self.working -= slot.counted;
        if let Some(wake) = slot.wake {
            self.wakes.remove(&(wake, slot_id));
        }
        self.vaults.remove(&slot.vault);
        out.push(Action::Release { slot: slot_id });
        for id in slot.waiting {
            let Some(pending) = slot.requests.remove(&id) else { continue };
            debug_assert_eq!(pending.stage, Stage::Waiting);
            self.deadlines.remove(&(pending.deadline, id));
            self.in_flight_bytes = self.in_flight_bytes.saturating_sub(pending.bytes);
            self.request(id, slot.vault, pending, now, out);
        }
    }

    /// Slots whose time has come.
    pub(super) fn wake_slots(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.settle(now);
        while let Some((at, slot_id)) = self.wakes.first().copied().filter(|(at, _)| *at <= now) {
            self.wakes.remove(&(at, slot_id));
            if let Some(slot) = self.touch(slot_id) {
                slot.wake = None;
                self.wake_slot(slot_id, now, out);
            }
            self.settle(now);
        }
    }

    fn wake_slot(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        self.advance_commit(slot_id, now, out);
        let Some(slot) = self.touch(slot_id) else { return };
        match &slot.state {
            State::HalfOpen(_) if now >= slot.half_open_until => {
                let refusal = self.away();
                return self.kill(slot_id, Some(&refusal), out);
            }
            State::Opening(opening) if now >= opening.deadline => {
                return self.opening_failed(slot_id, Refusal::retry(ErrorCode::Unavailable, 1000), now, out);
            }
            State::Closing(Closing::Stopping { kill_at, .. }) if now >= *kill_at => {
                return self.kill(slot_id, None, out);
            }
            State::Closing(_) => return,
            State::HalfOpen(_) | State::Opening(_) | State::Open { .. } => {}
        }
        if slot.stuck_at().is_some_and(|at| now >= at) {
            self.counters.stuck += 1;
            log(LogLevel::Error, LogEvent::ManagerStuck, None, out);
            self.kill(slot_id, None, out);
        }
    }
}

/// Whether an object calls itself a tombstone, in its clear header.
fn shows_tombstone(newest: &VersionObject) -> bool {
    Object::parse(&newest.bytes).is_ok_and(|object| object.header.kind == Kind::Tombstone)
}
