//! Entrants: devices that have shown a static key and wait to be let in.
//!
//! Until the vault is open, all that is known of them is whether the clear header lists them, or whether they may create the
//! vault. What they brought along is wiped with them.

use std::mem;
use std::time::Duration;

use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{SessionId, VaultFrame};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::lock::{LockCopy, recipient_tag};
use casemate_protocol::object::Header;
use casemate_protocol::reply::{Answer, AuditEvent, Outcome, Reply};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::secret::Secret;
use casemate_protocol::session::{Channel, Opening};
use zeroize::Zeroizing;

use super::chain::{self, ChainError};
use super::cipher::RootKey;
use super::device::Device;
use super::execute::{Context, Overlay};
use super::lock;
use super::manager::{Manager, NewestHeader, Pending, Phase};
use super::open::OpenVault;
use crate::ipc::{FromManager, Notice};

/// When to come again while a parked session has the vault opened, milliseconds.
const RESUMING_MS: u32 = 50;

/// A device that has finished the handshake.
#[derive(Debug)]
pub(super) struct Entrant {
    id: u64,
    session: SessionId,
    expires_at: Duration,
    device: [u8; 32],
    lock_key: Zeroizing<[u8; 32]>,
    head: Option<Head>,
    first: Option<Request>,
    hash: [u8; 32],
    channel: Channel,
}

impl Entrant {
    /// Parses what the device brought along.
    pub(super) fn new(
        id: u64,
        session: SessionId,
        expires_at: Duration,
        device: [u8; 32],
        opening: &Opening,
        channel: Channel,
    ) -> Result<Self, ErrorCode> {
        let lock_key = opening.lock_key.to_array().ok_or(ErrorCode::Malformed)?;
        let first: Option<Request> = match &opening.first_request {
            Some(bytes) => Some(codec::decode(bytes, limits::FIRST_REQUEST_BYTES).map_err(|_| ErrorCode::Malformed)?),
            None => None,
        };
        if let Some(Err(refusal)) = first.as_ref().map(|request| request.operation.validate()) {
            return Err(refusal.code);
        }
        let hash = first.as_ref().map_or([0; 32], |request| request_hash(request.sequence, &request.operation));
        Ok(Self { id, session, expires_at, device, lock_key, head: opening.head, first, hash, channel })
    }

    /// The creation that this entrant asks for, when the vault's id is the one that its key and salt give.
    fn creation(&self, vault: VaultId) -> Option<(&str, [u8; 32])> {
        match &self.first.as_ref()?.operation {
            Operation::CreateVault { salt, device_name, device_signing_key } => {
                (VaultId::derive(&self.device, salt) == vault).then_some((device_name, *device_signing_key))
            }
            _ => None,
        }
    }

    fn is_listed(&self, vault: VaultId, header: &Header) -> bool {
        header.copy_for(&recipient_tag(vault, &self.device)).is_some()
    }
}

impl Manager<'_> {
    /// Lets an entrant in, makes it wait, or refuses it.
    pub(super) fn enter(&mut self, entrant: Entrant) {
        match &mut self.phase {
            Phase::HalfOpen { newest } => {
                let create = match newest {
                    NewestHeader::None if entrant.creation(self.vault).is_some() => true,
                    NewestHeader::None => return self.turn_away(entrant, ErrorCode::NotFound.into()),
                    NewestHeader::Shown(header) if entrant.is_listed(self.vault, header) => false,
                    NewestHeader::Shown(_) => return self.turn_away_stranger(entrant),
                    // The parked session that this process is for has the vault open in a moment, or the process ends in a second.
                    NewestHeader::NotAsked => {
                        return self.turn_away(entrant, Refusal::retry(ErrorCode::Busy, RESUMING_MS));
                    }
                };
                self.phase = Phase::Loading { waiting: vec![entrant], open: None };
                self.out.push(FromManager::Open { create });
            }
            Phase::Loading { waiting, .. } => {
                if waiting.len() < Self::waiting_limit() {
                    waiting.push(entrant);
                } else {
                    self.turn_away(entrant, Refusal::retry(ErrorCode::Busy, 200));
                }
            }
            Phase::Idle(_) | Phase::Committing { .. } => self.admit(entrant),
            Phase::Deleted { .. } => self.turn_away(entrant, ErrorCode::Deleted.into()),
            Phase::Corrupt => self.turn_away(entrant, ErrorCode::StateCorrupt.into()),
            Phase::Ended => self.turn_away(entrant, Refusal::retry(ErrorCode::Draining, 200)),
        }
    }

    /// Refuses inside the session that the handshake made; nothing of it is kept. Who is not let in learns no head: it would say
    /// that a version has opened for this device.
    fn turn_away(&mut self, entrant: Entrant, refusal: Refusal) {
        self.turn_away_as(entrant, refusal, Notice::TurnedAway);
    }

    /// With `notice` in front of the answer, which tells the supervisor that the answer proves nothing of who asked: one for each.
    fn turn_away_as(&mut self, mut entrant: Entrant, refusal: Refusal, notice: Notice) {
        // Whether the head that it holds is one cannot be told without the vault's key; its owner knows.
        if refusal.code == ErrorCode::NotFound && entrant.head.is_some() {
            self.out.push(FromManager::Noticed(Notice::Vanished));
        }
        self.out.push(FromManager::Noticed(notice));
        let reply = Reply { request_hash: entrant.hash, head: None, outcome: Outcome::Refused(refusal) };
        match entrant.channel.seal(&codec::encode_secret(&reply)) {
            Ok(run) => self.reply(entrant.id, &VaultFrame::Sealed { run }),
            Err(_) => self.refuse(entrant.id, ErrorCode::Internal.into()),
        }
    }

    pub(super) fn turn_all_away(&mut self, waiting: Vec<Entrant>, refusal: &Refusal) {
        for entrant in waiting {
            self.turn_away(entrant, refusal.clone());
        }
    }

    pub(super) fn enter_all(&mut self, waiting: Vec<Entrant>) {
        for entrant in waiting {
            self.enter(entrant);
        }
    }

    fn turn_away_stranger(&mut self, entrant: Entrant) {
        self.turn_away_as(entrant, ErrorCode::NotAuthorised.into(), Notice::Stranger);
    }

    /// Tells an entrant whose lock key is not the vault's where the new one is.
    fn lock_out(&mut self, entrant: Entrant, copy: Option<LockCopy>) {
        let refusal = Refusal { lock_copy: copy.map(Box::new), ..Refusal::new(ErrorCode::LockTurned) };
        self.turn_away_as(entrant, refusal, Notice::LockTurned);
    }

    /// Judges an entrant against the open vault's sealed device list and lock key, and serves its first request.
    fn admit(&mut self, entrant: Entrant) {
        let (Phase::Idle(vault) | Phase::Committing { vault, .. }) = &self.phase else {
            unreachable!("entrants are admitted to open vaults only");
        };
        if vault.state.device(&entrant.device).is_none() {
            // While the first version is on its way its creator is not in the committed state yet, and may hold what another node made of the
            // same request: nobody is a stranger before there is a state to be judged by.
            if vault.version() == 0 {
                self.turn_away(entrant, Refusal::retry(ErrorCode::Busy, 50));
            } else {
                self.turn_away_stranger(entrant);
            }
            return;
        }
        if !vault.lock_matches(&entrant.lock_key) {
            let copy = vault.copy_for(&recipient_tag(self.vault, &entrant.device)).cloned();
            self.note(entrant.device, AuditEvent::Refused);
            return self.lock_out(entrant, copy);
        }
        self.note(entrant.device, AuditEvent::SessionOpened);
        self.sessions.establish(entrant.session, entrant.device, entrant.channel, self.clock.monotonic());
        match entrant.first {
            Some(mut request) => {
                // The head of message 3 counts when the request itself names none.
                request.head = request.head.or(entrant.head);
                self.request(Pending {
                    id: entrant.id,
                    session: entrant.session,
                    device: entrant.device,
                    expires_at: entrant.expires_at,
                    hash: entrant.hash,
                    request,
                    reloaded: false,
                });
            }
            None => self.answer(entrant.id, &entrant.session, [0; 32], Outcome::Done(Answer::Nothing)),
        }
    }

    /// Those who wait for the objects, and the open vault that is read anew; none when nothing is being loaded.
    fn take_loading(&mut self) -> Option<(Vec<Entrant>, Option<Box<OpenVault>>)> {
        if !matches!(self.phase, Phase::Loading { .. }) {
            return None;
        }
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Loading { waiting, open } => Some((waiting, open)),
            _ => None,
        }
    }

    // ---- opening ------------------------------------------------------------------------------------------------------------

    /// The supervisor has unsealed the vault key and read the objects.
    pub(super) fn opened(&mut self, vault_key: &Secret, generation: u32, versions: &[VersionObject]) {
        let Some((waiting, open)) = self.take_loading() else { return };
        let Some(vault_key) = vault_key.to_array::<32>() else {
            return self.fail_opening(waiting, ErrorCode::Internal);
        };
        if let Some(open) = open {
            return self.reloaded(open, waiting, versions);
        }
        self.take_up();
        if let Some(held) = self.held.take() {
            return self.open_with_parked(&held, waiting, &vault_key, versions);
        }
        if versions.is_empty() {
            return self.create(waiting, vault_key, generation);
        }
        self.open_with_each(waiting, &vault_key, versions);
    }

    /// Tries the lock keys of those who wait, one after the other: a device with an old key must not keep the others out.
    pub(super) fn open_with_each(
        &mut self,
        waiting: Vec<Entrant>,
        vault_key: &Zeroizing<[u8; 32]>,
        versions: &[VersionObject],
    ) {
        let mut locked_out = None;
        for entrant in &waiting {
            let root = RootKey::derive(self.vault, vault_key, &entrant.lock_key);
            match chain::open(self.vault, &root, versions) {
                Ok(chain) => {
                    let vault = OpenVault::from_chain(self.vault, vault_key.clone(), root, chain);
                    self.phase = Phase::Idle(Box::new(vault));
                    return self.enter_all(waiting);
                }
                Err(ChainError::OtherLockKey(header)) => locked_out = Some(header),
                Err(ChainError::Deleted) => {
                    self.phase = Phase::Deleted { head: None };
                    return self.turn_all_away(waiting, &ErrorCode::Deleted.into());
                }
                Err(ChainError::Corrupt) => {
                    self.out.push(FromManager::Noticed(Notice::StateCorrupt));
                    return self.fail_opening(waiting, ErrorCode::StateCorrupt);
                }
            }
        }
        let Some(header) = locked_out else { return self.fail_opening(waiting, ErrorCode::Internal) };
        for entrant in waiting {
            let copy = header.copy_for(&recipient_tag(self.vault, &entrant.device)).cloned();
            self.lock_out(entrant, copy);
        }
        self.phase = Phase::HalfOpen { newest: NewestHeader::Shown(header) };
    }

    pub(super) fn fail_opening(&mut self, waiting: Vec<Entrant>, code: ErrorCode) {
        self.turn_all_away(waiting, &code.into());
        self.fail_queue(&code.into());
        self.phase = Phase::Ended;
    }

    /// The vault was not opened: the key service, the store or the node's limits say no.
    pub(super) fn open_refused(&mut self, refusal: &Refusal) {
        let Some((waiting, open)) = self.take_loading() else { return };
        if let Some(open) = open {
            // The open vault stays open; those whose head is newer are told what is known: that it is.
            self.phase = Phase::Idle(open);
            self.enter_all(waiting);
            self.fail_queue(refusal);
        } else {
            // A handshake has asked, and what was parked is used up all the same.
            self.take_up();
            // Attack stopped: a store that shows nothing at all of a vault that was open here.
            if refusal.code == ErrorCode::NotFound && self.held.is_some() {
                self.out.push(FromManager::Noticed(Notice::Rollback));
                return self.fail_opening(waiting, ErrorCode::RollbackDetected);
            }
            self.turn_all_away(waiting, refusal);
            self.fail_queue(refusal);
            // The next handshake finds a process that has not looked at the store yet, the next frame of a parked session one that goes on.
            self.parks = true;
            self.end();
        }
    }

    /// There is no time to read an open vault anew: who waits for that comes again.
    pub(super) fn give_up_reload(&mut self) {
        if matches!(self.phase, Phase::Loading { open: Some(_), .. }) {
            self.open_refused(&Refusal::retry(ErrorCode::Draining, 200));
        }
    }

    /// An open vault was read anew, because a device holds a newer head.
    fn reloaded(&mut self, open: Box<OpenVault>, waiting: Vec<Entrant>, versions: &[VersionObject]) {
        let chain = chain::open(self.vault, open.root(), versions);
        self.phase = match chain {
            Ok(chain) if chain.header.version > open.version() => {
                let ours = open.head().expect("an open vault that is read anew has a version");
                let follows = chain.state.knows_hash(chain.header.version, ours.version, &ours.hash) == Some(true);
                if !follows {
                    // Another writer took another way from an older state: ours is not the vault's any more.
                    self.out.push(FromManager::Noticed(Notice::Fork));
                    return self.fail_opening(waiting, ErrorCode::Moved);
                }
                let (vault_key, root) = (open.vault_key().clone(), open.root().clone());
                Phase::Idle(Box::new(OpenVault::from_chain(self.vault, vault_key, root, chain)))
            }
            Err(ChainError::OtherLockKey(_) | ChainError::Deleted) => {
                return self.fail_opening(waiting, ErrorCode::Moved);
            }
            // Nothing newer, or nothing that authenticates: what is open stays.
            Ok(_) | Err(ChainError::Corrupt) => Phase::Idle(open),
        };
        self.enter_all(waiting);
        self.release_queue();
    }

    /// There is no object: the first valid creation makes version 1; the others wait for it.
    fn create(&mut self, waiting: Vec<Entrant>, vault_key: Zeroizing<[u8; 32]>, generation: u32) {
        let mut waiting = waiting;
        let Some(at) = waiting.iter().position(|entrant| entrant.creation(self.vault).is_some()) else {
            // The store showed a header before and shows nothing now.
            self.turn_all_away(waiting, &ErrorCode::NotFound.into());
            self.phase = Phase::HalfOpen { newest: NewestHeader::None };
            return;
        };
        let creator = waiting.swap_remove(at);
        match self.first_version(creator, vault_key, generation) {
            Ok(()) => self.enter_all(waiting),
            Err((creator, refusal)) => {
                self.turn_away(*creator, refusal);
                self.turn_all_away(waiting, &ErrorCode::NotFound.into());
                self.phase = Phase::HalfOpen { newest: NewestHeader::None };
            }
        }
    }

    fn first_version(
        &mut self,
        creator: Entrant,
        vault_key: Zeroizing<[u8; 32]>,
        generation: u32,
    ) -> Result<(), (Box<Entrant>, Refusal)> {
        let refused =
            |creator: Entrant, field| Err((Box::new(creator), Refusal::field(ErrorCode::InvalidArgument, field)));
        let (name, signing_key) = creator.creation(self.vault).expect("chosen because it is one");
        let name = name.to_owned();
        let Some(sequence) = creator.first.as_ref().and_then(|request| request.sequence) else {
            return refused(creator, "sequence");
        };
        let copy = lock::seal_copy(self.vault, 1, &creator.lock_key, &creator.device, self.randomness);
        let Ok(copy) = copy else { return refused(creator, "device") };
        let now = self.clock.unix_seconds();
        let vault = OpenVault::create(self.vault, vault_key, &creator.lock_key, generation, vec![copy], now);
        let context = Context { vault: self.vault, device: creator.device, now, randomness: self.randomness };
        let mut overlay: Overlay = vault.overlay();
        overlay.add_device(&Device::new(creator.device, signing_key, name, now));
        overlay.audit(&context, AuditEvent::VaultCreated, None);
        overlay.remember(creator.device, sequence, creator.hash, Some(&Answer::Nothing));
        let pending = Pending {
            id: creator.id,
            session: creator.session,
            device: creator.device,
            expires_at: creator.expires_at,
            hash: creator.hash,
            request: Request { sequence: None, head: None, operation: Operation::Status },
            reloaded: true,
        };
        self.sessions.establish(creator.session, creator.device, creator.channel, self.clock.monotonic());
        self.send_first_version(Box::new(vault), overlay, &pending);
        Ok(())
    }
}
