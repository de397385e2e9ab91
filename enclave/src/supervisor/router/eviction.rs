//! Who leaves: the idle, least recently used first, when a place or memory is needed or their time is over. A vault with work in flight
//! is never among them.

use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::link::{LogEvent, LogLevel};

use super::event::{Action, SlotId};
use super::slot::State;
use super::{Router, log};

/// What one vault-manager is taken to hold, to guess how many must leave. The next sample corrects the guess.
const VAULT_BYTES: u64 = 256 * 1024;
/// Evictions at one sample of memory.
const EVICTIONS_PER_SAMPLE: u64 = 64;

impl Router {
    /// Makes room for one more resident; says whether there is room.
    pub(super) fn make_room(&mut self, now: Duration, out: &mut Vec<Action>) -> bool {
        while self.residents.len() >= self.limits.vaults {
            if !self.evict_one(now, out) {
                return false;
            }
        }
        // While memory is short, one must leave for each that comes.
        !self.memory_pressure || self.residents.is_empty() || self.evict_one(now, out)
    }

    /// Evicts the idle vault that is to leave first.
    fn evict_one(&mut self, now: Duration, out: &mut Vec<Action>) -> bool {
        let idle = |slot_id: &SlotId| self.slots.get(*slot_id).is_some_and(super::slot::Slot::is_idle);
        // Busy ones are passed over; there are no more of them than requests in flight and writes.
        let Some(candidate) = self.residents.leaving().find(idle) else { return false };
        self.evict(candidate, true, now, out);
        true
    }

    /// With `parks`, its place is needed; without, it is not to be open any more.
    fn evict(&mut self, slot_id: SlotId, parks: bool, now: Duration, out: &mut Vec<Action>) {
        // One that is on its way out already is not evicted again.
        if self.slots.get(slot_id).is_some_and(|slot| !matches!(slot.state, State::Closing(_))) {
            self.counters.evicted += 1;
            log(LogLevel::Info, LogEvent::VaultEvicted, Some(self.counters.evicted), out);
        }
        self.stop(slot_id, parks, now, out);
    }

    /// Closes vaults that nobody used for the idle time.
    pub(super) fn close_idle(&mut self, now: Duration, out: &mut Vec<Action>) {
        let is_over = |slot_id: &SlotId| {
            let slot = self.slots.get(*slot_id);
            slot.is_some_and(|slot| now.saturating_sub(slot.last_use) >= self.limits.idle)
        };
        // All of them: who lost a protected place is among the last on probation, whenever it was used.
        let over: Vec<_> = self.residents.leaving().filter(is_over).collect();
        for slot_id in over {
            if self.slots.get(slot_id).is_some_and(super::slot::Slot::is_idle) {
                self.evict(slot_id, false, now, out);
            }
        }
        self.forget_parked(now);
    }

    /// A sample of the machine's memory.
    pub(super) fn memory(&mut self, total: u64, available: u64, now: Duration, out: &mut Vec<Action>) {
        let used = total.saturating_sub(available);
        let line = |percent: u8| total / 100 * u64::from(percent);
        if used >= line(self.limits.memory_high) {
            if !self.memory_pressure {
                log(LogLevel::Warn, LogEvent::MemoryPressure, None, out);
            }
            self.memory_pressure = true;
        } else if used <= line(self.limits.memory_low) {
            self.memory_pressure = false;
        }
        if self.memory_pressure {
            self.halve_parked();
            let excess = used.saturating_sub(line(self.limits.memory_low));
            let count = (excess / VAULT_BYTES).clamp(1, EVICTIONS_PER_SAMPLE);
            for _ in 0..count {
                if !self.evict_one(now, out) {
                    break;
                }
            }
        }
    }

    /// The limit may have become smaller.
    pub(super) fn shrink(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.residents.shrink(self.limits.vaults);
        while self.residents.len() > self.limits.vaults && self.evict_one(now, out) {}
        self.trim_parked();
    }

    /// An operator closes a vault. What it has in flight is finished.
    pub(super) fn evict_by_name(&mut self, vault: VaultId, now: Duration, out: &mut Vec<Action>) {
        self.parked.take(&vault);
        if let Some(slot_id) = self.vaults.get(&vault).copied() {
            self.evict(slot_id, false, now, out);
        }
    }

    /// Refuses new work from here on and closes what is open.
    pub(super) fn drain(&mut self, now: Duration, out: &mut Vec<Action>) {
        if self.draining {
            return;
        }
        self.draining = true;
        self.parked.clear();
        log(LogLevel::Info, LogEvent::Draining, None, out);
        let all: Vec<_> = self.slots.iter().map(|(slot_id, _)| slot_id).collect();
        for slot_id in all {
            let Some(slot) = self.slots.get(slot_id) else { continue };
            match slot.state {
                State::Open { .. } => self.stop(slot_id, false, now, out),
                State::HalfOpen(_) if slot.requests.is_empty() => self.stop(slot_id, false, now, out),
                // Each ends soon by a limit of its own.
                State::HalfOpen(_) | State::Opening(_) | State::Closing(_) => {}
            }
        }
    }

    /// Says once that draining has ended.
    pub(super) fn drain_further(&mut self, out: &mut Vec<Action>) {
        if self.draining && !self.drained && self.slots.len() == 0 {
            self.drained = true;
            out.push(Action::Drained);
        }
    }
}
