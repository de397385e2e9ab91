//! The vault-manager's machine: one message in, some messages out.
//!
//! Reads are answered from committed state only. A mutation is executed in an overlay, sealed, sent to be stored, and answered
//! when the supervisor reports it durable; what arrives meanwhile goes together into the next version.

use std::collections::VecDeque;
use std::mem;
use std::time::Duration;

use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, SealedRun, SessionId, VaultFrame};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::object::{Header, Kind};
use casemate_protocol::reply::{Answer, AuditEvent, Outcome, Reply};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::session::{Responder, SessionError, public_key};
use casemate_protocol::statement::Credentials;
use zeroize::Zeroizing;

use super::audit::Noted;
use super::chain;
use super::device::Standing;
use super::entrant::Entrant;
use super::execute::{self, Context};
use super::open::{HeadStanding, Next, OpenVault};
use super::parking::{ParkingKey, ParkingSecret};
use super::resume::Held;
use super::sessions::Sessions;
use crate::ipc::{CommitResult, FromManager, Newest, Notice, ToManager};
use crate::outside::{Clock, Randomness};

/// Mutations that wait while a version is on its way.
const QUEUE: usize = 64;
/// Devices that wait while the vault is loaded.
const WAITING: usize = 16;
/// Audit entries that wait for the next version.
const PENDING_AUDIT: usize = 32;
/// When to try again after `busy` or a store that was not reached, milliseconds.
const RETRY_MS: u32 = 200;

/// A request out of a session, on its way to an answer.
#[derive(Debug)]
pub(super) struct Pending {
    pub(super) id: u64,
    pub(super) session: SessionId,
    pub(super) device: [u8; 32],
    pub(super) expires_at: Duration,
    pub(super) hash: [u8; 32],
    pub(super) request: Request,
    /// Whether the vault was read anew for this request's head already.
    pub(super) reloaded: bool,
}

/// A mutation in the version that is on its way.
#[derive(Debug)]
pub(super) struct Caller {
    id: u64,
    session: SessionId,
    hash: [u8; 32],
    answer: Answer,
}

/// Where a vault-manager stands.
#[derive(Debug)]
pub(super) enum Phase {
    /// No device has shown a key of the header yet, and no frame of a parked session has opened. `newest` is what the store showed,
    /// unauthenticated.
    HalfOpen { newest: NewestHeader },
    /// The objects were asked for; those who wait are known by their static key. With `open`, an open vault is being read anew.
    Loading { waiting: Vec<Entrant>, open: Option<Box<OpenVault>> },
    /// Open, and nothing on its way to the store.
    Idle(Box<OpenVault>),
    /// Open, and the next version on its way to the store.
    Committing { vault: Box<OpenVault>, next: Box<Next>, object_bytes: usize, callers: Vec<Caller> },
    /// The vault was deleted: everything is answered so.
    Deleted { head: Option<Head> },
    /// The newest object is not this vault's, or no object at all: damage or forgery.
    Corrupt,
    /// Nothing more will be done; the process ends.
    Ended,
}

/// The header of what the store showed.
#[derive(Debug)]
pub(super) enum NewestHeader {
    Shown(Box<Header>),
    None,
    NotAsked,
}

/// The machine. `handle` is its only input.
#[derive(Debug)]
pub struct Manager<'a> {
    pub(super) clock: &'a dyn Clock,
    pub(super) randomness: &'a dyn Randomness,
    static_secret: Zeroizing<[u8; 32]>,
    pub(super) vault: VaultId,
    versions_kept: u32,
    pub(super) generation: u32,
    pub(super) phase: Phase,
    pub(super) sessions: Sessions,
    /// The zygote's secret, until this process knows its vault.
    parking_secret: ParkingSecret,
    pub(super) parking_key: Option<ParkingKey>,
    /// What the process before this one left, sealed.
    pub(super) parked: Option<Vec<u8>>,
    /// The same, taken up.
    pub(super) held: Option<Held>,
    pub(super) queue: VecDeque<Pending>,
    pub(super) pending_audit: Vec<Noted>,
    /// Of these, the ones in the version that is on its way.
    audit_in_flight: Vec<Noted>,
    stopping: bool,
    pub(super) parks: bool,
    pub(super) out: Vec<FromManager>,
}

impl<'a> Manager<'a> {
    /// A machine with a fresh static key. Its first message is `Ready`. Those that get the same secret can take up each other's sessions,
    /// if they serve the same vault.
    pub fn new(clock: &'a dyn Clock, randomness: &'a dyn Randomness, parking_secret: ParkingSecret) -> Self {
        let mut static_secret = Zeroizing::new([0; 32]);
        randomness.fill(static_secret.as_mut_slice());
        let ready = FromManager::Ready { static_key: public_key(&static_secret) };
        Self {
            clock,
            randomness,
            static_secret,
            vault: VaultId::from_bytes([0; VaultId::BYTES]),
            versions_kept: 10,
            generation: 1,
            phase: Phase::HalfOpen { newest: NewestHeader::None },
            sessions: Sessions::default(),
            parking_secret,
            parking_key: None,
            parked: None,
            held: None,
            queue: VecDeque::new(),
            pending_audit: Vec::new(),
            audit_in_flight: Vec::new(),
            stopping: false,
            parks: false,
            out: vec![ready],
        }
    }

    /// What is to be sent to the supervisor, in order.
    pub fn take_output(&mut self) -> Vec<FromManager> {
        mem::take(&mut self.out)
    }

    /// Whether the process is to end once the output is sent.
    pub const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended)
    }

    /// Takes one message.
    pub fn handle(&mut self, message: ToManager) {
        match message {
            ToManager::Start { vault, newest, versions_kept, generation, parked } => {
                self.vault = vault;
                self.versions_kept = versions_kept;
                self.generation = generation;
                self.start(&newest, parked);
            }
            ToManager::Request { id, deadline_ms, frame, credentials } => {
                let expires_at = self.clock.monotonic() + Duration::from_millis(deadline_ms.into());
                self.frame(id, expires_at, &frame, credentials.map(|credentials| *credentials));
            }
            ToManager::Opened { vault_key, generation, versions } => self.opened(&vault_key, generation, &versions),
            ToManager::OpenRefused(refusal) => self.open_refused(&refusal),
            ToManager::CommitResult(result) => self.commit_result(result),
            ToManager::Stop { park } => {
                self.stopping = true;
                self.parks = park;
                self.give_up_reload();
                if !matches!(self.phase, Phase::Committing { .. }) {
                    self.end();
                }
            }
        }
    }

    fn start(&mut self, newest: &Newest, parked: Option<Vec<u8>>) {
        let key = self.parking_secret.take().key(self.vault);
        let newest = match newest {
            Newest::None => NewestHeader::None,
            Newest::NotAsked => NewestHeader::NotAsked,
            Newest::Shown(newest) => match chain::newest_header(self.vault, newest) {
                Ok(header) if header.kind == Kind::Tombstone => {
                    // A crash may have left versions behind the tombstone.
                    self.out.push(FromManager::Purge { tombstone: header.version });
                    self.phase = Phase::Deleted { head: None };
                    return;
                }
                Ok(header) => NewestHeader::Shown(Box::new(header)),
                Err(_) => {
                    self.out.push(FromManager::Noticed(Notice::StateCorrupt));
                    self.phase = Phase::Corrupt;
                    return;
                }
            },
        };
        self.phase = Phase::HalfOpen { newest };
        self.parking_key = Some(key);
        self.parked = parked;
    }

    // ---- frames -------------------------------------------------------------------------------------------------------------

    fn frame(&mut self, id: u64, expires_at: Duration, frame: &[u8], credentials: Option<Credentials>) {
        match DeviceFrame::decode(frame) {
            Ok(DeviceFrame::Hello { noise }) => self.hello(id, &noise, credentials),
            Ok(DeviceFrame::Finish { session, noise }) => self.finish(id, expires_at, session, &noise),
            Ok(DeviceFrame::Sealed { session, run }) => self.sealed(id, expires_at, session, &run),
            Err(code) => self.bad_frame(id, code),
        }
    }

    fn hello(&mut self, id: u64, noise: &[u8], credentials: Option<Credentials>) {
        let Some(credentials) = credentials else {
            return self.refuse(id, Refusal::retry(ErrorCode::Unavailable, RETRY_MS));
        };
        match Responder::welcome(&self.static_secret, self.vault, noise, &credentials) {
            Ok((responder, noise)) => {
                let mut session = [0; 16];
                self.randomness.fill(&mut session);
                self.sessions.begin(session, responder, self.clock.monotonic());
                self.reply(id, &VaultFrame::Welcome { session, noise });
            }
            Err(_) => self.bad_frame(id, ErrorCode::Malformed),
        }
    }

    fn finish(&mut self, id: u64, expires_at: Duration, session: SessionId, noise: &[u8]) {
        let Some(responder) = self.sessions.take_handshake(&session, self.clock.monotonic()) else {
            return self.session_unknown(id);
        };
        match responder.finish(noise) {
            Ok((device, opening, channel)) => match Entrant::new(id, session, expires_at, device, &opening, channel) {
                Ok(entrant) => self.enter(entrant),
                Err(code) => self.bad_frame(id, code),
            },
            Err(_) => self.bad_frame(id, ErrorCode::Malformed),
        }
    }

    fn sealed(&mut self, id: u64, expires_at: Duration, session_id: SessionId, run: &SealedRun) {
        let now = self.clock.monotonic();
        // Attack stopped: a stranger who names the handshake that he has begun, and has keys brought into memory.
        let is_begun = self.sessions.has_begun(&session_id);
        // Also while a handshake has asked for the vault: its devices are not to notice that somebody came before them.
        let may_go_on = matches!(self.phase, Phase::HalfOpen { .. } | Phase::Loading { open: None, .. });
        if may_go_on && !is_begun && self.sessions.get(&session_id, now).is_none() {
            self.take_up();
        }
        let Some(session) = self.sessions.get(&session_id, now) else {
            return self.session_unknown(id);
        };
        let device = session.device;
        let plaintext = match session.channel.open(run) {
            Ok(plaintext) => plaintext,
            Err(SessionError::Exhausted) => return self.session_unknown(id),
            Err(_) => return self.bad_frame(id, ErrorCode::Malformed),
        };
        // Before anything is sealed: from here on nobody else may go on from what was parked.
        self.go_on();
        let Ok(request) = codec::decode::<Request>(&plaintext, limits::FRAME_BYTES) else {
            self.out.push(FromManager::Noticed(Notice::BadFrame));
            return self.answer(id, &session_id, [0; 32], Outcome::Refused(ErrorCode::Malformed.into()));
        };
        let hash = request_hash(request.sequence, &request.operation);
        self.request(Pending { id, session: session_id, device, expires_at, hash, request, reloaded: false });
    }

    fn bad_frame(&mut self, id: u64, code: ErrorCode) {
        self.out.push(FromManager::Noticed(Notice::BadFrame));
        self.refuse(id, code.into());
    }

    fn session_unknown(&mut self, id: u64) {
        self.out.push(FromManager::Noticed(Notice::SessionUnknown));
        self.refuse(id, ErrorCode::SessionUnknown.into());
    }

    pub(super) fn refuse(&mut self, id: u64, refusal: Refusal) {
        self.reply(id, &VaultFrame::Refused(refusal));
    }

    pub(super) fn reply(&mut self, id: u64, frame: &VaultFrame) {
        self.out.push(FromManager::Reply { id, frame: frame.encode().into() });
    }

    pub(super) fn head(&self) -> Option<Head> {
        match &self.phase {
            Phase::Idle(vault) | Phase::Committing { vault, .. } | Phase::Loading { open: Some(vault), .. } => {
                vault.head()
            }
            Phase::Deleted { head } => *head,
            Phase::Loading { open: None, .. } | Phase::HalfOpen { .. } | Phase::Corrupt | Phase::Ended => None,
        }
    }

    /// Seals an answer into a session; when the session is gone, says that.
    pub(super) fn answer(&mut self, id: u64, session: &SessionId, hash: [u8; 32], outcome: Outcome) {
        let reply = Reply { request_hash: hash, head: self.head(), outcome };
        let plaintext = codec::encode_secret(&reply);
        let sealed = self.sessions.get(session, self.clock.monotonic()).map(|session| session.channel.seal(&plaintext));
        match sealed {
            Some(Ok(run)) => self.reply(id, &VaultFrame::Sealed { run }),
            Some(Err(SessionError::TooLarge)) => self.refuse(id, ErrorCode::TooLarge.into()),
            Some(Err(_)) | None => self.refuse(id, ErrorCode::SessionUnknown.into()),
        }
    }

    // ---- requests -----------------------------------------------------------------------------------------------------------

    /// Judges a request and answers it, queues it, or makes it the first of a new version.
    pub(super) fn request(&mut self, mut pending: Pending) {
        if let Err(refusal) = pending.request.operation.validate() {
            return self.refused(&pending, refusal);
        }
        let vault = match &self.phase {
            // Before its first version is durable a vault has nothing to read.
            Phase::Committing { vault, .. } if vault.version() == 0 => return self.enqueue(pending),
            Phase::Idle(vault) | Phase::Committing { vault, .. } => vault,
            Phase::Loading { .. } => return self.enqueue(pending),
            Phase::Deleted { .. } => return self.refused(&pending, ErrorCode::Deleted.into()),
            Phase::HalfOpen { .. } | Phase::Corrupt | Phase::Ended => {
                return self.refuse(pending.id, ErrorCode::SessionUnknown.into());
            }
        };
        let standing = judge(vault, &pending);
        match standing {
            HeadStanding::Known => {}
            HeadStanding::Newer if pending.reloaded => {
                self.out.push(FromManager::Noticed(Notice::Rollback));
                self.note(pending.device, AuditEvent::Refused);
                return self.refused(&pending, ErrorCode::RollbackDetected.into());
            }
            HeadStanding::Newer => {
                pending.reloaded = true;
                return self.reload(pending);
            }
            HeadStanding::Refused(code) => {
                self.out.extend(standing.notice().map(FromManager::Noticed));
                self.note(pending.device, AuditEvent::Refused);
                return self.refused(&pending, code.into());
            }
        }
        if execute::is_durable(&vault.state, &pending.request.operation) {
            self.enqueue(pending);
            if matches!(self.phase, Phase::Idle(_)) {
                self.start_version();
            }
            return;
        }
        let context = self.context(pending.device);
        let outcome = match execute::read(&vault.state, vault.standpoint(), &context, &pending.request.operation) {
            Ok(answer) => Outcome::Done(answer),
            Err(refusal) => Outcome::Refused(refusal),
        };
        self.answer(pending.id, &pending.session, pending.hash, outcome);
    }

    fn context(&self, device: [u8; 32]) -> Context<'a> {
        Context { vault: self.vault, device, now: self.clock.unix_seconds(), randomness: self.randomness }
    }

    fn refused(&mut self, pending: &Pending, refusal: Refusal) {
        self.answer(pending.id, &pending.session, pending.hash, Outcome::Refused(refusal));
    }

    fn enqueue(&mut self, pending: Pending) {
        if self.queue.len() >= QUEUE {
            return self.refused(&pending, Refusal::retry(ErrorCode::Busy, RETRY_MS));
        }
        self.queue.push_back(pending);
    }

    /// Remembers an audit entry for the next version. A flood of refusals cannot make memory grow.
    pub(super) fn note(&mut self, device: [u8; 32], event: AuditEvent) {
        if self.pending_audit.len() < PENDING_AUDIT {
            self.pending_audit.push(Noted { device, event });
        }
    }

    /// A device has seen a newer version than this process: perhaps another node wrote it. Read the store anew, once.
    fn reload(&mut self, pending: Pending) {
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Idle(vault) => {
                self.phase = Phase::Loading { waiting: Vec::new(), open: Some(vault) };
                self.out.push(FromManager::Open { create: false });
                self.queue.push_front(pending);
            }
            // The version on its way will tell: if another writer was first, it fails.
            phase => {
                self.phase = phase;
                self.enqueue(pending);
            }
        }
    }

    // ---- versions -----------------------------------------------------------------------------------------------------------

    /// Executes what is queued, in order, into the next version.
    pub(super) fn start_version(&mut self) {
        let Phase::Idle(vault) = mem::replace(&mut self.phase, Phase::Ended) else {
            unreachable!("only an idle vault starts a version");
        };
        let now = self.clock.monotonic();
        let mut overlay = vault.overlay();
        let mut callers = Vec::new();
        let mut refused = Vec::new();
        let mut tombstone = false;
        while !tombstone && let Some(pending) = self.queue.pop_front() {
            if now >= pending.expires_at {
                refused.push((pending, ErrorCode::DeadlineExceeded.into()));
                continue;
            }
            // What was queued while a version was on its way has not been judged against it.
            let standing = judge(&vault, &pending);
            match standing {
                HeadStanding::Known => {}
                // The retry finds an idle vault, and makes it read the store anew.
                HeadStanding::Newer => {
                    refused.push((pending, ErrorCode::Moved.into()));
                    continue;
                }
                HeadStanding::Refused(code) => {
                    self.out.extend(standing.notice().map(FromManager::Noticed));
                    refused.push((pending, code.into()));
                    continue;
                }
            }
            let context = self.context(pending.device);
            let operation = &pending.request.operation;
            if execute::is_durable(&overlay.state, operation) {
                match execute::mutate(&mut overlay, &context, pending.request.sequence, &pending.hash, operation) {
                    Ok(answer) => {
                        tombstone = *operation == Operation::DeleteVault;
                        callers.push(Caller { id: pending.id, session: pending.session, hash: pending.hash, answer });
                    }
                    Err(refusal) => refused.push((pending, refusal)),
                }
            } else {
                match execute::read(&overlay.state, vault.standpoint(), &context, operation) {
                    Ok(answer) => {
                        callers.push(Caller { id: pending.id, session: pending.session, hash: pending.hash, answer });
                    }
                    Err(refusal) => refused.push((pending, refusal)),
                }
            }
        }
        if overlay.changes.is_empty() {
            self.phase = Phase::Idle(vault);
            self.answer_callers(callers);
        } else {
            self.audit_in_flight = mem::take(&mut self.pending_audit);
            for Noted { device, event } in &self.audit_in_flight {
                overlay.audit(&self.context(*device), *event, None);
            }
            self.send_version(vault, overlay, tombstone, callers);
        }
        for (pending, refusal) in refused {
            self.refused(&pending, refusal);
        }
    }

    fn send_version(
        &mut self,
        vault: Box<OpenVault>,
        overlay: execute::Overlay,
        tombstone: bool,
        callers: Vec<Caller>,
    ) {
        let mut next = Box::new(vault.seal(overlay, tombstone, self.randomness));
        let object = mem::take(&mut next.object);
        let object_bytes = object.len();
        self.out.push(FromManager::Commit { version: next.version, object });
        self.phase = Phase::Committing { vault, next, object_bytes, callers };
    }

    /// Sends the first version of a vault that is being created.
    pub(super) fn send_first_version(&mut self, vault: Box<OpenVault>, overlay: execute::Overlay, creator: &Pending) {
        let caller = Caller { id: creator.id, session: creator.session, hash: creator.hash, answer: Answer::Nothing };
        self.send_version(vault, overlay, false, vec![caller]);
    }

    fn answer_callers(&mut self, callers: Vec<Caller>) {
        for caller in callers {
            self.answer(caller.id, &caller.session, caller.hash, Outcome::Done(caller.answer));
        }
    }

    fn commit_result(&mut self, result: CommitResult) {
        let (mut vault, next, object_bytes, callers) = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Committing { vault, next, object_bytes, callers } => (vault, next, object_bytes, callers),
            phase => {
                self.phase = phase;
                return;
            }
        };
        match result {
            CommitResult::Committed => {
                let tombstone = next.is_tombstone();
                vault.commit(*next, object_bytes);
                self.committed(vault, tombstone, callers);
            }
            CommitResult::NotSent => {
                // The version is not made after all; what it was to tell waits for the next.
                let later = mem::replace(&mut self.pending_audit, mem::take(&mut self.audit_in_flight));
                for Noted { device, event } in later {
                    self.note(device, event);
                }
                let created = vault.version() > 0;
                self.phase = if created { Phase::Idle(vault) } else { Phase::Ended };
                self.fail_callers(callers, &Refusal::retry(ErrorCode::Unavailable, RETRY_MS));
                self.fail_queue(&Refusal::retry(ErrorCode::Unavailable, RETRY_MS));
            }
            // Fail closed: the state that this process holds may not be the vault's any more. It ends; the next request opens anew.
            CommitResult::OtherWriter => {
                self.fail_callers(callers, &ErrorCode::Moved.into());
                self.fail_queue(&ErrorCode::Moved.into());
            }
            CommitResult::Unknown => {
                self.fail_callers(callers, &ErrorCode::OutcomeUnknown.into());
                self.fail_queue(&Refusal::retry(ErrorCode::Unavailable, RETRY_MS));
            }
        }
        if self.stopping {
            self.end();
        }
    }

    fn committed(&mut self, vault: Box<OpenVault>, tombstone: bool, callers: Vec<Caller>) {
        if tombstone {
            let head = vault.head();
            self.out.push(FromManager::Purge { tombstone: vault.version() });
            self.phase = Phase::Deleted { head };
            self.answer_callers(callers);
            self.fail_queue(&ErrorCode::Deleted.into());
            return;
        }
        let below = vault.collectable_below(self.versions_kept);
        if vault.at_snapshot() && below > 1 {
            self.out.push(FromManager::Collect { below });
        }
        self.phase = Phase::Idle(vault);
        self.answer_callers(callers);
        if !self.queue.is_empty() {
            if self.stopping {
                return self.fail_queue(&Refusal::retry(ErrorCode::Draining, RETRY_MS));
            }
            self.start_version();
        }
    }

    fn fail_callers(&mut self, callers: Vec<Caller>, refusal: &Refusal) {
        for caller in callers {
            self.answer(caller.id, &caller.session, caller.hash, Outcome::Refused(refusal.clone()));
        }
    }

    pub(super) fn fail_queue(&mut self, refusal: &Refusal) {
        for pending in mem::take(&mut self.queue) {
            self.refused(&pending, refusal.clone());
        }
    }

    /// Judges again what waited for a reload. Only the request that asked for it has been read for: what came while it was under way may
    /// carry a head that is newer than what had been read by then, and an honest store would be called a liar.
    pub(super) fn release_queue(&mut self) {
        for pending in mem::take(&mut self.queue) {
            self.request(pending);
        }
    }

    pub(super) const fn waiting_limit() -> usize {
        WAITING
    }
}

/// Judges the head of a request. `accept-rollback` names both heads itself.
fn judge(vault: &OpenVault, pending: &Pending) -> HeadStanding {
    let request = &pending.request;
    if let Operation::AcceptRollback { held, found, .. } = &request.operation {
        // Asked again, it has an outcome, and by its own doing what it found is the vault's head no more.
        let device = vault.state.device(&pending.device);
        let standing = device.zip(request.sequence).map(|(device, sequence)| device.standing(sequence, &pending.hash));
        if matches!(standing, Some(Standing::Known(_))) {
            return HeadStanding::Known;
        }
        return match vault.made(held) {
            true if vault.head() == Some(*found) => HeadStanding::Known,
            true => HeadStanding::Refused(ErrorCode::Conflict),
            false => HeadStanding::Refused(ErrorCode::HeadInvalid),
        };
    }
    request.head.as_ref().map_or(HeadStanding::Known, |held| vault.judge(held))
}
