//! Opening a vault: from the first message that shows a device key of its header (or a valid creation) to its key and its objects.

use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{LogEvent, LogLevel};
use casemate_protocol::stage::Stage as Timed;

use super::event::{Action, Loaded, Op, SlotId, StoreFailed, VaultKey};
use super::slot::{
    HALF_OPEN_LIFE, HalfOpen, Handed, OPENING_LIMIT, Opening, OpeningStep, RESUMING_LIFE, STOP_LIMIT, State,
};
use super::{GENERATION, Router, log, milliseconds};
use crate::ipc::{Notice, ToManager};

impl Router {
    pub(super) fn open(&mut self, slot_id: SlotId, create: bool, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let (static_key, reload) = match &slot.state {
            State::HalfOpen(HalfOpen::Ready { static_key }) => (*static_key, false),
            State::Open { static_key } if slot.commit.is_none() => (*static_key, true),
            // It was told to stop meanwhile.
            State::Closing(_) => return,
            State::HalfOpen(HalfOpen::Preparing { .. } | HalfOpen::Starting)
            | State::Opening(_)
            | State::Open { .. } => return self.violation(slot_id, "an open out of turn", out),
        };
        let vault = slot.vault;
        if let Err(wait) = self.used_up(slot_id, now) {
            let refusal = Refusal::retry(ErrorCode::Busy, milliseconds(wait));
            out.push(Action::Send { slot: slot_id, message: ToManager::OpenRefused(refusal) });
            return;
        }
        if let Err(refusal) = self.admit(vault, create, reload, now, out) {
            return self.refuse_open(slot_id, refusal, Duration::ZERO, now, out);
        }
        if create {
            self.negative.remove(vault);
        }
        let op = self.op();
        let Some(slot) = self.touch(slot_id) else { return };
        let step = OpeningStep::Loading(op);
        slot.state = State::Opening(Opening {
            static_key,
            create,
            begun: now,
            stepped: now,
            reload,
            deadline: now + OPENING_LIMIT,
            step,
        });
        if !reload {
            self.half_open.retain(|half_open| *half_open != slot_id);
        }
        self.residents.enter(slot_id);
        // The key service's answer is waited for together with the store's.
        out.push(Action::WarmShardKey { shard: vault.shard(), generation: GENERATION });
        out.push(Action::Load { slot: slot_id, op, vault });
    }

    /// A process goes on with all of its vault, for which nothing is to be read that the process before it would have read again. Where there
    /// is no place for it, it answers what it was asked and leaves as that one did.
    pub(super) fn resume(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let (static_key, version) = match (&slot.state, slot.handed) {
            (State::HalfOpen(HalfOpen::Ready { static_key }), Handed::Whole(version)) => (*static_key, version),
            // It was told to stop meanwhile.
            (State::Closing(_), _) => return,
            _ => {
                // What its predecessor left may be what leads it astray.
                let vault = slot.vault;
                self.parked.take(&vault);
                return self.violation(slot_id, "a vault resumed out of turn", out);
            }
        };
        let has_place = self.find_place(slot_id, now, out);
        self.half_open.retain(|half_open| *half_open != slot_id);
        self.residents.enter(slot_id);
        let Some(slot) = self.touch(slot_id) else { return };
        slot.committed = version;
        slot.shows_tombstone = false;
        let made_ready = slot.made_ready;
        self.serve(slot_id, static_key, made_ready, now);
        if !has_place {
            self.stop(slot_id, !self.draining, now, out);
        }
    }

    /// Whether a vault that goes on from what was parked may stay. Nobody has shown a lock key, so those that were wrong do not count.
    fn find_place(&mut self, slot_id: SlotId, now: Duration, out: &mut Vec<Action>) -> bool {
        self.used_up(slot_id, now).is_ok() && !self.draining && self.opens.take(now).is_ok() && self.make_room(now, out)
    }

    /// Whether a process may ask for its vault again. Whatever becomes of that: nobody else may go on from what was parked.
    fn used_up(&mut self, slot_id: SlotId, now: Duration) -> Result<(), Duration> {
        let Some(slot) = self.touch(slot_id) else { return Err(Duration::ZERO) };
        slot.resumes = false;
        let vault = slot.vault;
        // Attack stopped: a process that asks again and again, and uses up what all vaults share.
        let asked = slot.openings.take(now);
        self.parked.take(&vault);
        asked
    }

    /// A vault is open from now on.
    fn serve(&mut self, slot_id: SlotId, static_key: [u8; 32], cold_start: Duration, now: Duration) {
        let Some(slot) = self.touch(slot_id) else { return };
        slot.state = State::Open { static_key };
        slot.released = now;
        slot.last_use = now;
        self.counters.opened += 1;
        let micros = u64::try_from(cold_start.as_micros()).unwrap_or(u64::MAX);
        self.counters.open_us = self.counters.open_us.saturating_add(micros);
    }

    /// Whether another vault may be opened now. Cold vaults come at a node-wide rate and take the places of idle ones only, so that one
    /// user's traffic never evicts everyone.
    fn admit(
        &mut self,
        vault: VaultId,
        create: bool,
        reload: bool,
        now: Duration,
        out: &mut Vec<Action>,
    ) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::new(ErrorCode::Draining));
        }
        // Attack stopped: a device of this vault that comes with wrong lock keys again and again, out of the openings that all share.
        if let Some(wait) = self.lockouts.peek(&vault).and_then(|wrong_keys| wrong_keys.wait(now)) {
            return Err(Refusal::retry(ErrorCode::Busy, milliseconds(wait)));
        }
        if create {
            let taken = self.creates.take(now);
            taken.map_err(|wait| Refusal::retry(ErrorCode::RateLimited, milliseconds(wait)))?;
        }
        self.opens.take(now).map_err(|wait| Refusal::retry(ErrorCode::Busy, milliseconds(wait)))?;
        if reload || self.make_room(now, out) {
            return Ok(());
        }
        Err(self.busy())
    }

    pub(super) fn loaded(
        &mut self,
        slot_id: SlotId,
        op: Op,
        result: Result<Loaded, StoreFailed>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let next = self.op();
        let Some(slot) = self.touch(slot_id) else { return };
        let vault = slot.vault;
        let State::Opening(opening) = &mut slot.state else { return };
        if !matches!(opening.step, OpeningStep::Loading(asked) if asked == op) {
            return;
        }
        let Ok(loaded) = result else {
            log(LogLevel::Warn, LogEvent::StoreFailed, None, out);
            return self.opening_failed(slot_id, Refusal::retry(ErrorCode::Unavailable, 1000), now, out);
        };
        let load = now.saturating_sub(std::mem::replace(&mut opening.stepped, now));
        match (loaded.versions.is_empty(), loaded.keys.is_empty()) {
            (true, _) if !opening.create => {
                self.opening_failed(slot_id, Refusal::new(ErrorCode::NotFound), now, out);
            }
            // Versions that no key opens: the store lost or hides the key object.
            (false, true) => {
                self.notice(Notice::StateCorrupt, out);
                self.opening_failed(slot_id, Refusal::new(ErrorCode::StateCorrupt), now, out);
            }
            (true, true | false) | (false, false) => {
                let wrapped = loaded.keys.clone();
                opening.step = OpeningStep::Unwrapping(next, loaded);
                out.push(Action::VaultKey { slot: slot_id, op: next, vault, wrapped });
            }
        }
        self.stages.note(Timed::Load, load);
    }

    pub(super) fn vault_key(
        &mut self,
        slot_id: SlotId,
        op: Op,
        result: Result<VaultKey, Refusal>,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.touch(slot_id) else { return };
        let State::Opening(opening) = &mut slot.state else { return };
        let OpeningStep::Unwrapping(asked, loaded) = &mut opening.step else { return };
        if *asked != op {
            return;
        }
        let key = match result {
            Ok(key) => key,
            Err(refusal) => {
                // A stored key that is not this vault's.
                if refusal.code == ErrorCode::StateCorrupt {
                    self.notice(Notice::StateCorrupt, out);
                }
                return self.opening_failed(slot_id, refusal, now, out);
            }
        };
        let versions = std::mem::take(&mut loaded.versions);
        let (static_key, reload, begun) = (opening.static_key, opening.reload, opening.begun);
        let (whole, unwrap) = (now.saturating_sub(begun), now.saturating_sub(opening.stepped));
        // A vault that is open already knows its version: what the host shows on a reload may be junk under a high number.
        if !reload {
            slot.committed = versions.last().map_or(0, |newest| newest.version);
        }
        if reload {
            slot.state = State::Open { static_key };
            slot.released = now;
            slot.last_use = now;
        } else {
            // Our part of it: what the device took for its next message is not counted.
            let cold_start = slot.made_ready + whole;
            self.serve(slot_id, static_key, cold_start, now);
        }
        self.stages.note(Timed::Key, unwrap);
        self.stages.note(Timed::Open, whole);
        let message = ToManager::Opened { vault_key: key.key, generation: key.generation, versions };
        out.push(Action::Send { slot: slot_id, message });
        if self.draining {
            self.stop(slot_id, false, now, out);
        }
    }

    /// The opening did not work: the process is told and stands where it stood before.
    pub(super) fn opening_failed(&mut self, slot_id: SlotId, refusal: Refusal, now: Duration, out: &mut Vec<Action>) {
        let Some(slot) = self.touch(slot_id) else { return };
        let State::Opening(opening) = &slot.state else { return };
        let (static_key, reload, waited) = (opening.static_key, opening.reload, now.saturating_sub(opening.begun));
        slot.released = now;
        if reload {
            slot.state = State::Open { static_key };
        } else {
            slot.state = State::HalfOpen(HalfOpen::Ready { static_key });
            self.residents.leave(slot_id);
            self.half_open.push_back(slot_id);
        }
        self.refuse_open(slot_id, refusal, waited, now, out);
    }

    /// Tells a process that its vault is not opened, for which it has waited so long. A half-open one keeps only the time that it needs to
    /// tell its callers, however often it asks.
    fn refuse_open(
        &mut self,
        slot_id: SlotId,
        refusal: Refusal,
        waited: Duration,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        let Some(slot) = self.touch(slot_id) else { return };
        if slot.is_ending() {
            return;
        }
        let latest = slot.born + HALF_OPEN_LIFE + RESUMING_LIFE + waited + STOP_LIMIT;
        slot.half_open_until = slot.half_open_until.max(latest.min(now + STOP_LIMIT));
        out.push(Action::Send { slot: slot_id, message: ToManager::OpenRefused(refusal) });
    }
}
