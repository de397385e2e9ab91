//! Requests: taken in, given to a vault-manager, answered exactly once.

use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrameKind, SessionId, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::{WINDOW_BYTES, WINDOW_REQUESTS};
use casemate_protocol::stage::Stage as Timed;

use super::event::{Action, Answer, RequestId, SlotId};
use super::overload::Asker;
use super::slot::{BYTES_PER_VAULT, Pending, Slot, Stage, State};
use super::{Router, milliseconds};
use crate::ipc::{Notice, ToManager};

/// A vault may hold one request for so many that the node has room for.
const GREED: usize = 8;

impl Router {
    pub(super) fn request(
        &mut self,
        id: RequestId,
        vault: VaultId,
        pending: Pending,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        if self.draining {
            return self.refuse(id, Refusal::new(ErrorCode::Draining), out);
        }
        // The parent counts the window too; whether it does is its own affair, what we hold is ours.
        if self.deadlines.len() >= WINDOW_REQUESTS || self.in_flight_bytes + pending.bytes > WINDOW_BYTES {
            return self.refuse_busy(id, out);
        }
        match (self.vaults.get(&vault).copied(), pending.kind) {
            (Some(slot), _) => self.enqueue(slot, id, pending, now, out),
            (None, DeviceFrameKind::Hello) => self.open_half(vault, id, pending, now, out),
            (None, DeviceFrameKind::Sealed) if self.can_resume(vault, pending.session, now) => {
                self.open_half(vault, id, pending, now, out);
            }
            // Its session ended with the process that knew it. No process is made for a name that anybody can write.
            (None, DeviceFrameKind::Finish | DeviceFrameKind::Sealed) => {
                self.session_unknown(id, out);
            }
        }
    }

    fn session_unknown(&mut self, id: RequestId, out: &mut Vec<Action>) {
        self.notice(Notice::SessionUnknown, out);
        self.refuse(id, Refusal::new(ErrorCode::SessionUnknown), out);
    }

    /// Gives a request to a slot.
    pub(super) fn enqueue(
        &mut self,
        slot_id: SlotId,
        id: RequestId,
        pending: Pending,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let (queue, room) = (self.limits.queue, WINDOW_REQUESTS.saturating_sub(self.deadlines.len()));
        // Attack stopped: a forged frame, for which a process comes and ends, just before one of the device's own.
        let ending = self.slots.get(slot_id).filter(|slot| slot.is_ending()).map(|slot| slot.vault);
        let waits_for_next = ending.is_some_and(|vault| self.can_resume(vault, pending.session, now));
        let Some(slot) = self.touch(slot_id) else {
            let retry_ms = self.retry_ms();
            return self.refuse(id, Refusal::retry(ErrorCode::Unavailable, retry_ms), out);
        };
        match pending.session {
            Some(session) if !waits_for_next && !slot.takes(&session, now) => return self.session_unknown(id, out),
            Some(_) => {}
            None => {
                if let Err(wait) = slot.hellos.take(now) {
                    return self.refuse(id, Refusal::retry(ErrorCode::Busy, milliseconds(wait)), out);
                }
            }
        }
        let serving = slot.serving_key().is_some();
        // Attack stopped: a few vaults that hold what they are given until its deadline, and with it the node's window. The fuller that is,
        // the less may one vault hold; who holds nothing is let in while there is any room.
        let held = slot.requests.len();
        let is_greedy = held > 0 && held * GREED >= room;
        if held >= queue || is_greedy || slot.bytes + pending.bytes > BYTES_PER_VAULT {
            return self.refuse_busy(id, out);
        }
        if serving && !self.has_room_for_work(slot_id, now) {
            return self.refuse_busy(id, out);
        }
        let Some(slot) = self.touch(slot_id) else { return };
        slot.bytes += pending.bytes;
        let (deadline, bytes) = (pending.deadline, pending.bytes);
        slot.requests.insert(id, pending);
        if !serving {
            slot.waiting.push_back(id);
        }
        self.deadlines.insert((deadline, id), slot_id);
        self.in_flight_bytes += bytes;
        if serving {
            self.deliver(slot_id, id, now, out);
        }
    }

    /// Sends a waiting request to its process, which is ready, or goes on with the session that it is in.
    pub(super) fn deliver(&mut self, slot_id: SlotId, id: RequestId, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        slot.is_asked();
        let (vault, static_key) = (slot.vault, slot.serving_key());
        let Some(pending) = slot.requests.get_mut(&id) else { return };
        pending.stage = Stage::Sent(now);
        let waited = now.saturating_sub(pending.arrived);
        let deadline_ms = milliseconds(pending.deadline.saturating_sub(now));
        let frame = std::mem::take(&mut pending.frame);
        out.push(match (pending.kind, static_key) {
            (DeviceFrameKind::Hello, Some(static_key)) => {
                Action::SendHello { slot: slot_id, vault, static_key, id, deadline_ms, frame }
            }
            (DeviceFrameKind::Hello, None) => {
                debug_assert!(false, "a handshake waits until the process is ready");
                return;
            }
            (DeviceFrameKind::Finish | DeviceFrameKind::Sealed, _) => {
                let message = ToManager::Request { id, deadline_ms, frame, credentials: None };
                Action::Send { slot: slot_id, message }
            }
        });
        self.stages.note(Timed::Wait, waited);
    }

    /// Sends everything that waited for the process.
    pub(super) fn deliver_waiting(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        while let Some(id) = self.slots.get_mut(slot_id).and_then(|slot| slot.waiting.pop_front()) {
            self.deliver(slot_id, id, now, out);
        }
    }

    /// The vault-manager answered a request.
    pub(super) fn replied(
        &mut self,
        slot_id: SlotId,
        id: RequestId,
        frame: Vec<u8>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let session =
            self.slots.get(slot_id).and_then(|slot| slot.requests.get(&id)).and_then(|pending| pending.session);
        let Some(stage) = self.timed(slot_id, id, now) else {
            // A number that it was never given. On its way out, too: what says nothing it could say for ever.
            return self.condemn(slot_id, "a reply to no request", out);
        };
        match stage {
            Stage::Waiting => return self.condemn(slot_id, "a reply to a request that it does not have", out),
            Stage::Sent(_) | Stage::Overdue(_) => self.learn(slot_id, session, &frame, now),
        }
        if let Stage::Sent(sent) | Stage::Overdue(sent) = stage {
            let worked = self.slots.get(slot_id).filter(|slot| slot.has_worked_since(sent));
            self.overload.answered(worked.map(|_| now.saturating_sub(sent)));
        }
        if matches!(stage, Stage::Overdue(_)) {
            // Its caller was told already.
            self.forget(slot_id, id);
        } else {
            self.answer(slot_id, id, Answer::Frame(frame), out);
        }
        // Attack stopped: a forged frame under a name that was overheard, whose process keeps the vault's devices waiting.
        let is_useless =
            |slot: &&Slot| slot.resumes && matches!(slot.state, State::HalfOpen(_)) && slot.requests.is_empty();
        if self.slots.get(slot_id).as_ref().is_some_and(is_useless) {
            self.kill(slot_id, None, out);
        }
    }

    /// Whether one more request of this vault can be worked on.
    fn has_room_for_work(&mut self, slot_id: SlotId, now: Duration) -> bool {
        let Some(slot) = self.slots.get(slot_id) else { return false };
        let mut asker = Asker { working: self.working, own: slot.counted, let_in_at: slot.let_in_at };
        if self.overload.is_stale(asker, now) {
            self.slots.iter_mut().for_each(|slot| slot.count(&mut self.working, now));
            asker.working = self.working;
            asker.own = self.slots.get(slot_id).map_or(0, |slot| slot.counted);
        }
        let admits = self.overload.admits(asker, now);
        if admits && let Some(slot) = self.slots.get_mut(slot_id) {
            slot.let_in_at = Some(now);
        }
        admits
    }

    /// What an answer says of who asked: a name that was given out, or that somebody may use one. Only the latter is use of a vault: a
    /// stranger's frames keep nobody resident.
    fn learn(&mut self, slot_id: SlotId, session: Option<SessionId>, frame: &[u8], now: Duration) {
        let Some(slot) = self.slots.get_mut(slot_id) else { return };
        let doubted = slot.doubted > 0;
        slot.doubted = slot.doubted.saturating_sub(1);
        match session {
            None => {
                if let Ok(VaultFrame::Welcome { session, .. }) = VaultFrame::decode(frame) {
                    slot.sessions.name(session, now);
                }
            }
            Some(session) if doubted => slot.sessions.fail(session, now),
            Some(session) => {
                slot.sessions.prove(session, now);
                slot.last_use = now;
                self.residents.used(slot_id, self.limits.vaults);
            }
        }
    }

    /// Answers a request that has a slot and takes it out of there.
    pub(super) fn answer(&mut self, slot_id: SlotId, id: RequestId, answer: Answer, out: &mut Vec<Action>) {
        let pending = self.slots.get(slot_id).and_then(|slot| slot.requests.get(&id));
        let Some((deadline, bytes)) = pending.map(|pending| (pending.deadline, pending.bytes)) else { return };
        self.forget(slot_id, id);
        self.tell(id, deadline, bytes, answer, out);
    }

    /// Answers everything that a process held, because it is gone or is about to be. Those that wait for a process are told
    /// `refusal`, unless they go on waiting for the next one.
    pub(super) fn answer_all(
        &mut self,
        slot_id: SlotId,
        refusal: Option<&Refusal>,
        keep_waiting: bool,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.touch(slot_id) else { return };
        let mut held = std::mem::take(&mut slot.requests);
        if keep_waiting {
            slot.requests = held.extract_if(.., |_, pending| pending.stage == Stage::Waiting).collect();
        } else {
            slot.waiting.clear();
        }
        slot.bytes = slot.requests.values().map(|pending| pending.bytes).sum();
        for (id, pending) in held {
            if !matches!(pending.stage, Stage::Overdue(_)) {
                let refusal = match (refusal, pending.stage, pending.kind) {
                    (Some(refusal), Stage::Waiting, _) | (Some(refusal), _, DeviceFrameKind::Hello) => refusal.clone(),
                    _ => pending.lost(self.retry_ms()),
                };
                self.tell(id, pending.deadline, pending.bytes, Answer::Refused(refusal), out);
            }
        }
    }

    /// Answers callers whose time is up.
    pub(super) fn expire_requests(&mut self, now: Duration, out: &mut Vec<Action>) {
        while let Some(entry) = self.deadlines.first_entry().filter(|entry| entry.key().0 <= now) {
            let ((deadline, id), slot_id) = (*entry.key(), *entry.get());
            let Some(slot) = self.touch(slot_id) else {
                debug_assert!(false, "a waiting caller has a slot");
                self.deadlines.remove(&(deadline, id));
                continue;
            };
            let Some(pending) = slot.requests.get_mut(&id) else {
                debug_assert!(false, "a waiting caller has a request");
                self.deadlines.remove(&(deadline, id));
                continue;
            };
            let (late, bytes) = (pending.late(), pending.bytes);
            match pending.stage {
                Stage::Sent(sent) => pending.stage = Stage::Overdue(sent),
                Stage::Waiting | Stage::Overdue(_) => {
                    slot.waiting.retain(|waiting| *waiting != id);
                    self.forget(slot_id, id);
                }
            }
            self.tell(id, deadline, bytes, Answer::Refused(late), out);
        }
    }

    /// Takes a request out of its slot.
    fn forget(&mut self, slot_id: SlotId, id: RequestId) {
        let Some(slot) = self.touch(slot_id) else { return };
        if let Some(pending) = slot.requests.remove(&id) {
            slot.bytes = slot.bytes.saturating_sub(pending.bytes);
        }
    }

    /// Tells a caller that was counted as waiting.
    fn tell(&mut self, id: RequestId, deadline: Duration, bytes: usize, answer: Answer, out: &mut Vec<Action>) {
        if self.deadlines.remove(&(deadline, id)).is_none() {
            debug_assert!(false, "request {id} was answered before");
            return;
        }
        self.in_flight_bytes = self.in_flight_bytes.saturating_sub(bytes);
        self.counters.requests += 1;
        if matches!(answer, Answer::Refused(_)) {
            self.counters.refused += 1;
        }
        out.push(Action::Answer { id, answer });
    }

    /// Refuses a request that never had a slot: there is too much to do.
    pub(super) fn refuse_busy(&mut self, id: RequestId, out: &mut Vec<Action>) {
        let refusal = self.busy();
        self.refuse(id, refusal, out);
    }

    /// Refuses a request that never had a slot.
    pub(super) fn refuse(&mut self, id: RequestId, refusal: Refusal, out: &mut Vec<Action>) {
        self.counters.requests += 1;
        self.counters.refused += 1;
        out.push(Action::Answer { id, answer: Answer::Refused(refusal) });
    }
}
