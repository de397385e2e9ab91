//! Going on with parked sessions: what a process takes up of the one before it, and what it leaves to the one after it.

use std::mem;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::head::Head;
use casemate_protocol::link::VersionObject;
use zeroize::Zeroizing;

use super::audit::Noted;
use super::chain::{self, ChainError};
use super::cipher::RootKey;
use super::entrant::Entrant;
use super::manager::{Manager, NewestHeader, Phase};
use super::open::{HeadStanding, OpenVault};
use super::parking::{PARKED_SESSIONS, Parked, SealedWhole};
use crate::ipc::{FromManager, Notice};

/// What the process before this one left, until the vault is open or a device brings it a new lock key.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) root: RootKey,
    pub(super) head: Head,
    /// The rest of the vault, where all of it was parked.
    pub(super) whole: Option<SealedWhole>,
}

impl Manager<'_> {
    /// Takes up what was parked, once: not before somebody names a session that this process does not know, so that a stranger's handshake
    /// brings no key into memory.
    pub(super) fn take_up(&mut self) {
        let (Some(parked), Some(key)) = (self.parked.take(), &self.parking_key) else { return };
        let Some((parked, whole)) = key.open(&parked) else { return };
        let Some(root) = RootKey::from_secret(self.vault, &parked.root) else { return };
        self.held = Some(Held { root, head: parked.head, whole });
        self.sessions.resume(parked.sessions);
        parked.noted.into_iter().for_each(|Noted { device, event }| self.note(device, event));
    }

    /// A frame of a parked session has opened: goes on with the vault as it was left, or asks for it.
    pub(super) fn go_on(&mut self) {
        let (Some(held), Some(key), Phase::HalfOpen { .. }) = (&self.held, &self.parking_key, &self.phase) else {
            return;
        };
        let whole = held.whole.as_ref().and_then(|whole| key.open_whole(whole));
        let vault = whole.and_then(|whole| OpenVault::resume(self.vault, held.root.clone(), held.head, whole).ok());
        if let Some(vault) = vault {
            self.held = None;
            self.out.push(FromManager::Resume);
            self.open_as_left(Box::new(vault), Vec::new());
        } else {
            self.phase = Phase::Loading { waiting: Vec::new(), open: None };
            self.out.push(FromManager::Open { create: false });
        }
    }

    /// Opens the vault for the parked sessions of devices that it still knows.
    fn open_as_left(&mut self, vault: Box<OpenVault>, waiting: Vec<Entrant>) {
        self.sessions.retain(|device| vault.state.device(device).is_some());
        self.refuse_without_session();
        self.phase = Phase::Idle(vault);
        self.enter_all(waiting);
        self.release_queue();
    }

    /// Ends, and parks what the process that comes next needs to go on, if that is wanted and possible: a vault that is open, or one that
    /// has not got further than what was parked before.
    pub(super) fn end(&mut self) {
        let (phase, held) = (mem::replace(&mut self.phase, Phase::Ended), self.held.take());
        let (Some(key), true) = (&self.parking_key, self.parks) else { return };
        let sessions = self.sessions.leave(PARKED_SESSIONS);
        if sessions.is_empty() {
            return;
        }
        let (root, head, whole) = match (phase, held) {
            (Phase::Idle(vault), _) => {
                let Some(head) = vault.head() else { return };
                (vault.root().to_secret(), head, vault.to_whole())
            }
            (_, Some(held)) => {
                let whole = held.whole.and_then(|whole| key.open_whole(&whole));
                (held.root.to_secret(), held.head, whole)
            }
            (_, None) => return,
        };
        let noted = mem::take(&mut self.pending_audit);
        let sealed = key.seal(&Parked { root, head, sessions, noted }, whole.as_ref(), self.randomness);
        self.out.push(FromManager::Parked { sealed, is_whole: whole.is_some() });
    }

    /// Opens the vault for the sessions that were parked, with the root key that was parked beside them.
    pub(super) fn open_with_parked(
        &mut self,
        held: &Held,
        waiting: Vec<Entrant>,
        vault_key: &Zeroizing<[u8; 32]>,
        versions: &[VersionObject],
    ) {
        match chain::open(self.vault, &held.root, versions) {
            Ok(chain) => {
                let vault = OpenVault::from_chain(self.vault, vault_key.clone(), held.root.clone(), chain);
                let standing = vault.judge(&held.head);
                match standing {
                    HeadStanding::Known => {}
                    // More versions than are remembered were written elsewhere: what this node knew says nothing any more.
                    HeadStanding::Refused(ErrorCode::HistoryUnknown) => self.end_sessions(),
                    // Attack stopped: a store that goes back behind what this node has answered with, before any device that knows asks.
                    HeadStanding::Newer => {
                        self.out.push(FromManager::Noticed(Notice::Rollback));
                        return self.fail_opening(waiting, ErrorCode::RollbackDetected);
                    }
                    HeadStanding::Refused(code) => {
                        self.out.extend(standing.notice().map(FromManager::Noticed));
                        return self.fail_opening(waiting, code);
                    }
                }
                self.open_as_left(Box::new(vault), waiting);
            }
            // The lock key was turned elsewhere: the sessions end with the one they began under.
            Err(ChainError::OtherLockKey(header)) => {
                self.end_sessions();
                if waiting.is_empty() {
                    self.phase = Phase::HalfOpen { newest: NewestHeader::Shown(header) };
                } else {
                    self.open_with_each(waiting, vault_key, versions);
                }
            }
            Err(ChainError::Deleted) => {
                self.phase = Phase::Deleted { head: None };
                self.turn_all_away(waiting, &ErrorCode::Deleted.into());
                self.fail_queue(&ErrorCode::Deleted.into());
            }
            // As when it is not there: a creation has made the supervisor look for it.
            Err(ChainError::Corrupt) if versions.is_empty() => {
                self.out.push(FromManager::Noticed(Notice::Rollback));
                self.fail_opening(waiting, ErrorCode::RollbackDetected);
            }
            Err(ChainError::Corrupt) => {
                self.out.push(FromManager::Noticed(Notice::StateCorrupt));
                self.fail_opening(waiting, ErrorCode::StateCorrupt);
            }
        }
    }

    /// Refuses what waits in sessions that are not there any more.
    fn refuse_without_session(&mut self) {
        let now = self.clock.monotonic();
        for pending in mem::take(&mut self.queue) {
            if self.sessions.get(&pending.session, now).is_some() {
                self.queue.push_back(pending);
            } else {
                self.refuse(pending.id, ErrorCode::SessionUnknown.into());
            }
        }
    }

    /// What waits in sessions that have ended with the lock key under which they began: their devices make new ones.
    fn end_sessions(&mut self) {
        self.sessions.clear();
        self.refuse_without_session();
    }
}
