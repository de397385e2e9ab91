//! Parked sessions and vaults: kept from the end of one process of a vault until the next one goes on with them, or until the vault's idle
//! time is over. They are sealed to the vault-managers of their vault ([`crate::vault::parking`]).

use std::time::Duration;

use casemate_protocol::frame::SessionId;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::SESSION_AGE;
use casemate_protocol::link::{LogEvent, LogLevel};
use lru::LruCache;

use super::event::{Action, SlotId};
use super::sessions::Sessions;
use super::slot::{Closing, HalfOpen, Handed, STOP_LIMIT, State};
use super::{Router, log};
use crate::vault::parking::PARKED_BYTES;

/// What all vaults together may have parked, in bytes.
const ALL_BYTES: usize = 64 * 1024 * 1024;

/// What one vault has parked.
#[derive(Debug)]
pub(super) struct Parked {
    /// Used once: whoever says [`Open`](crate::ipc::FromManager::Open) or [`Resume`](crate::ipc::FromManager::Resume) has used it up.
    pub(super) sealed: Vec<u8>,
    /// The version that the vault had, if all of it is in there.
    pub(super) whole_at: Option<u64>,
    /// The names that are in there.
    pub(super) sessions: Sessions,
    pub(super) until: Duration,
}

/// What all vaults have parked.
#[derive(Debug)]
pub(super) struct ParkedVaults {
    /// In the order in which they were parked.
    vaults: LruCache<VaultId, Parked>,
    bytes: usize,
}

impl Default for ParkedVaults {
    fn default() -> Self {
        Self { vaults: LruCache::unbounded(), bytes: 0 }
    }
}

impl ParkedVaults {
    pub(super) fn get(&self, vault: &VaultId) -> Option<&Parked> {
        self.vaults.peek(vault)
    }

    fn get_mut(&mut self, vault: &VaultId) -> Option<&mut Parked> {
        self.vaults.peek_mut(vault)
    }

    pub(super) fn len(&self) -> usize {
        self.vaults.len()
    }

    pub(super) fn put(&mut self, vault: VaultId, parked: Parked) {
        self.take(&vault);
        self.bytes += parked.sealed.len();
        self.vaults.put(vault, parked);
    }

    pub(super) fn take(&mut self, vault: &VaultId) -> Option<Parked> {
        let parked = self.vaults.pop(vault)?;
        self.bytes -= parked.sealed.len();
        Some(parked)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keeps those that were parked last, so many vaults and bytes at most.
    pub(super) fn trim(&mut self, vaults: usize, bytes: usize) {
        while self.vaults.len() > vaults || self.bytes > bytes {
            let Some((_, oldest)) = self.vaults.pop_lru() else { return };
            self.bytes -= oldest.sealed.len();
        }
    }
}

impl Router {
    /// What a vault has parked, while it is good.
    pub(super) fn parked(&self, vault: VaultId, now: Duration) -> Option<&Parked> {
        self.parked.get(&vault).filter(|parked| now < parked.until)
    }

    /// Whether a frame under this name may bring a process into being.
    pub(super) fn can_resume(&self, vault: VaultId, session: Option<SessionId>, now: Duration) -> bool {
        let Some((parked, session)) = self.parked(vault, now).zip(session) else { return false };
        parked.sessions.knows(&session, now)
    }

    /// A process has parked its sessions and ends: it was told to, or its vault cannot be opened now.
    pub(super) fn park(
        &mut self,
        slot_id: SlotId,
        sealed: Vec<u8>,
        is_whole: bool,
        now: Duration,
        out: &mut Vec<Action>,
    ) {
        // Attack stopped: a process that has us keep what it likes. Nothing of it is kept, on its way out either.
        if sealed.len() > PARKED_BYTES {
            log(LogLevel::Error, LogEvent::ManagerProtocol, None, out);
            self.counters.crashed += 1;
            return self.kill(slot_id, None, out);
        }
        let Some(slot) = self.touch(slot_id) else { return };
        let whole_at = match (&slot.state, slot.handed) {
            (State::Closing(Closing::Stopping { parks: true, .. }), _) => Some(slot.committed),
            // What comes meanwhile waits for the next process.
            (State::HalfOpen(HalfOpen::Ready { .. }), handed @ (Handed::Sessions | Handed::Whole(_))) => {
                let kill_at = now + STOP_LIMIT;
                slot.state = State::Closing(Closing::Stopping { kill_at, kill_by: kill_at, parks: true });
                self.half_open.retain(|half_open| *half_open != slot_id);
                // It has got no further than what it was handed.
                if let Handed::Whole(version) = handed { Some(version) } else { None }
            }
            // It was told to stop for good meanwhile.
            (State::Closing(_), _) => return,
            (State::HalfOpen(_) | State::Opening(_) | State::Open { .. }, _) => {
                return self.violation(slot_id, "sessions parked out of turn", out);
            }
        };
        let Some(slot) = self.slots.get(slot_id).filter(|_| !self.draining) else { return };
        // Resident or parked, no key outlives the vault's idle time.
        let until = slot.last_use + self.limits.idle.min(SESSION_AGE);
        let parked =
            Parked { sealed, whole_at: whole_at.filter(|_| is_whole), sessions: slot.sessions.to_be_parked(), until };
        self.parked.put(slot.vault, parked);
        self.trim_parked();
    }

    /// Memory is short: the older half goes. What is left of a vault costs memory as its process did, and less is lost with it.
    pub(super) fn halve_parked(&mut self) {
        self.parked.trim(self.limits.vaults, self.parked.bytes / 2);
    }

    /// No more vaults are parked than may be resident.
    pub(super) fn trim_parked(&mut self) {
        self.parked.trim(self.limits.vaults, ALL_BYTES);
    }

    /// Forgets what nobody came for.
    pub(super) fn forget_parked(&mut self, now: Duration) {
        let over = self.parked.vaults.iter().filter(|(_, parked)| now >= parked.until);
        let over: Vec<_> = over.map(|(vault, _)| *vault).collect();
        for vault in over {
            self.parked.take(&vault);
        }
    }

    /// A process that never went on with what it was handed ends: who abused a name has used up some of its failures.
    pub(super) fn leave_parked(&mut self, slot_id: SlotId) {
        let Some(slot) = self.slots.get(slot_id) else { return };
        if matches!(slot.state, State::HalfOpen(_))
            && let Some(parked) = self.parked.get_mut(&slot.vault)
        {
            parked.sessions.learn_from(&slot.sessions);
        }
    }
}
