//! A vault as its owner's program uses it: one method for each operation, sessions made and made again behind them.
//!
//! A [`Vault`] can be used from any task, by several at once, on a `current_thread` runtime too; many vaults share one transport.
//! What it does with a request is one loop: send, judge the answer, ask again as [`crate::retry`] says, until the deadline.

mod attempt;
mod operations;

pub use operations::{AuditPage, SecretValue};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, Outcome, Reply};
use casemate_protocol::request::{Operation, accept_rollback_bytes};
use casemate_protocol::subject::Subjects;
use tokio::time::Instant;

use crate::device::Device;
use crate::error::{Contradiction, VaultError};
use crate::judge::Trusted;
use crate::lock::LockKey;
use crate::random;
use crate::record::{Advance, Keep, Life, VaultRecord};
use crate::retry::{self, Backoff, Verdict};
use crate::session::{Fault, Pending, Session};
use crate::transport::{Transport, TransportError};
use crate::trust::{Roots, Trust};

/// How often one request may go on at once, without a pause: a lost session, then a turned lock key.
const AT_ONCE: u32 = 4;

/// How a vault is used.
#[derive(Debug, Clone)]
pub struct VaultOptions {
    /// The subjects' prefix.
    pub subjects: Subjects,
    /// How long one operation may take, all its attempts together: 1 ms to 60 s.
    pub deadline: Duration,
    /// Unix seconds, for judging evidence.
    pub now: fn() -> u64,
}

impl Default for VaultOptions {
    fn default() -> Self {
        Self { subjects: Subjects::default(), deadline: limits::DEADLINE_DEFAULT, now: unix_now }
    }
}

/// The system's time in Unix seconds.
pub fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// What a vault is put together from.
#[derive(Debug)]
pub struct VaultParts<T, K> {
    /// How frames travel.
    pub transport: T,
    /// Where the record is kept.
    pub keeper: K,
    /// This device.
    pub device: Device,
    /// What is compiled in.
    pub roots: Arc<Roots>,
    /// What this device trusts.
    pub trust: Trust,
    /// How the vault is used.
    pub options: VaultOptions,
}

#[derive(Debug, Clone)]
struct Connected {
    session: Arc<Mutex<Session>>,
    /// The lock key that was presented, if it is not the one that the record holds.
    candidate: Option<LockKey>,
}

#[derive(Debug)]
struct State {
    record: VaultRecord,
    trust: Trust,
    connected: Option<Connected>,
    /// A new lock key under which nothing has opened yet. The old one is kept until something has.
    candidate: Option<LockKey>,
    /// Sequence numbers in use by running operations.
    busy: Vec<u64>,
    trusted: Option<Trusted>,
}

/// A vault of this device.
#[derive(Debug)]
pub struct Vault<T, K> {
    transport: T,
    keeper: K,
    device: Device,
    roots: Arc<Roots>,
    options: VaultOptions,
    subject: String,
    id: VaultId,
    state: Mutex<State>,
    /// Held while a session is made, so that many waiting requests make one.
    connecting: tokio::sync::Mutex<()>,
    /// A device leaves at most 32 mutations unresolved.
    mutations: tokio::sync::Semaphore,
}

/// What follows from an answer.
enum Next {
    Done(Answer),
    /// The same request at once, in a new session.
    AtOnce,
    /// The same request after a pause.
    Later(Option<Duration>),
    /// The vault never executed it and never will under this number: the same operation under a new one.
    Renumber,
    Fail(VaultError),
}

/// Marks a sequence number as in use until the operation ends, also when its future is dropped.
struct Numbered<'a, T, K> {
    vault: &'a Vault<T, K>,
    sequence: Option<u64>,
}

impl<T, K> Drop for Numbered<'_, T, K> {
    fn drop(&mut self) {
        self.vault.state().busy.retain(|busy| Some(*busy) != self.sequence);
    }
}

impl<T, K> Vault<T, K> {
    fn state(&self) -> MutexGuard<'_, State> {
        // Every change of the state is made whole or not at all, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The vault's id.
    pub const fn id(&self) -> VaultId {
        self.id
    }

    /// What the device remembers of the vault now.
    pub fn record(&self) -> VaultRecord {
        self.state().record.clone()
    }

    /// What was believed when the newest session was made; none before the first.
    pub fn trusted(&self) -> Option<Trusted> {
        self.state().trusted.clone()
    }

    /// Forgets the session: the next request makes a new one.
    pub fn disconnect(&self) {
        self.state().connected = None;
    }
}

impl<T: Transport + Sync, K: Keep> Vault<T, K> {
    /// Puts a vault together. Nothing is sent.
    pub fn new(parts: VaultParts<T, K>, record: VaultRecord) -> Self {
        let VaultParts { transport, keeper, device, roots, trust, options } = parts;
        let id = record.vault();
        let subject = options.subjects.vault(id);
        let state = State { record, trust, connected: None, candidate: None, busy: Vec::new(), trusted: None };
        Self {
            transport,
            keeper,
            device,
            roots,
            options,
            subject,
            id,
            state: Mutex::new(state),
            connecting: tokio::sync::Mutex::new(()),
            mutations: tokio::sync::Semaphore::new(limits::UNRESOLVED_PER_DEVICE),
        }
    }

    /// Changes the record: written down first, believed then.
    fn change(&self, state: &mut State, change: impl FnOnce(&mut VaultRecord)) -> Result<(), VaultError> {
        let mut record = state.record.clone();
        change(&mut record);
        self.keeper.keep_vault(&record)?;
        state.record = record;
        Ok(())
    }

    /// Performs an operation: the one way in which anything is asked of a vault.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn perform(&self, operation: &Operation) -> Result<Answer, VaultError> {
        operation.validate().map_err(VaultError::Refused)?;
        self.check_life(operation)?;
        let deadline = Instant::now() + self.options.deadline.min(limits::DEADLINE_MAX);
        let _permit = if operation.is_mutation() {
            let permit = tokio::time::timeout_at(deadline, self.mutations.acquire()).await;
            let timed_out =
                |_| VaultError::TimedOut { last: "too many changes of this device are under way".to_owned() };
            Some(permit.map_err(timed_out)?.expect("the semaphore is never closed"))
        } else {
            None
        };
        self.drive(operation, deadline).await
    }

    fn check_life(&self, operation: &Operation) -> Result<(), VaultError> {
        match (self.state().record.life(), operation) {
            (Life::Deleted, _) => Err(VaultError::Gone),
            (Life::Live, _) | (Life::Creating, Operation::CreateVault { .. }) => Ok(()),
            (Life::Creating, _) => Err(VaultError::NotCreated),
        }
    }

    /// A number for an operation that carries one, written down before it is used. A mutation that was sent before without its
    /// outcome becoming known gets its old number: asking again is not doing again.
    fn number(&self, operation: &Operation) -> Result<Numbered<'_, T, K>, VaultError> {
        let mut state = self.state();
        let sequence = if !operation.is_mutation() && !operation.uses_key() {
            None
        } else if let Some(sequence) = state.record.find_unresolved(operation, &state.busy) {
            Some(sequence)
        } else {
            let mut sequence = 0;
            let busy = state.busy.clone();
            self.change(&mut state, |record| sequence = record.take_sequence(operation, &busy))?;
            Some(sequence)
        };
        state.busy.extend(sequence);
        Ok(Numbered { vault: self, sequence })
    }

    async fn drive(&self, operation: &Operation, deadline: Instant) -> Result<Answer, VaultError> {
        let mut numbered = self.number(operation)?;
        let mut backoff = Backoff::default();
        let mut at_once = 0;
        // Whether the request may be executed, or have been, without our knowing.
        let mut open_ended = false;
        let mut last = "nothing was tried".to_owned();
        loop {
            let remaining = deadline.saturating_duration_since(Instant::now());
            if remaining < Duration::from_millis(1) {
                return Err(self.give_up(operation, numbered.sequence, open_ended, last));
            }
            let mut exposed = false;
            let within = retry::attempt_time(remaining);
            let attempt = self.attempt(numbered.sequence, operation, within, &mut exposed).await;
            let next = match attempt {
                Ok((reply, pending, candidate)) => {
                    if let Outcome::Refused(refusal) = &reply.outcome {
                        last = refusal.to_string();
                        // These two say so themselves.
                        open_ended |= operation.is_mutation()
                            && matches!(refusal.code, ErrorCode::OutcomeUnknown | ErrorCode::Internal);
                    }
                    self.take(operation, numbered.sequence, reply, &pending, candidate)
                }
                Err(problem) => {
                    open_ended |= exposed && operation.is_mutation();
                    last = problem.to_string();
                    self.cope(operation, problem, open_ended)
                }
            };
            let pause = match next {
                Next::Done(answer) => return Ok(answer),
                Next::Fail(error) => {
                    if !open_ended {
                        self.forget(numbered.sequence)?;
                    }
                    return Err(error);
                }
                Next::AtOnce if at_once < AT_ONCE => {
                    at_once += 1;
                    continue;
                }
                Next::AtOnce => None,
                Next::Renumber => {
                    self.forget(numbered.sequence)?;
                    drop(numbered);
                    numbered = self.number(operation)?;
                    open_ended = false;
                    None
                }
                Next::Later(after) => after,
            };
            let pause = backoff.pause(pause, random::jitter());
            let remaining = deadline.saturating_duration_since(Instant::now());
            tokio::time::sleep(pause.min(remaining)).await;
        }
    }

    fn give_up(&self, operation: &Operation, sequence: Option<u64>, open_ended: bool, last: String) -> VaultError {
        self.state().candidate = None;
        if open_ended && operation.is_mutation() {
            return VaultError::OutcomeUnknown;
        }
        // It was never sent, so there is nothing to learn about it later.
        match self.forget(sequence) {
            Ok(()) => VaultError::TimedOut { last },
            Err(error) => error,
        }
    }

    /// The number's outcome is known, or it was never sent.
    fn forget(&self, sequence: Option<u64>) -> Result<(), VaultError> {
        let mut state = self.state();
        match sequence.filter(|sequence| state.record.unresolved().iter().any(|entry| entry.sequence == *sequence)) {
            Some(sequence) => self.change(&mut state, |record| record.resolve(sequence)),
            None => Ok(()),
        }
    }

    /// Judges an authentic answer.
    fn take(
        &self,
        operation: &Operation,
        sequence: Option<u64>,
        reply: Reply,
        pending: &Pending,
        candidate: Option<LockKey>,
    ) -> Next {
        let mut state = self.state();
        if let Outcome::Refused(refusal) = &reply.outcome
            && let Some(next) = self.take_refusal(&mut state, refusal, reply.head, pending)
        {
            return next;
        }
        if let Some(error) = contradiction(&state.record, operation, &reply, pending) {
            return Next::Fail(error);
        }
        let accepted =
            matches!(operation, Operation::AcceptRollback { .. }) && matches!(reply.outcome, Outcome::Done(_));
        let newer = reply.head.filter(|head| accepted || state.record.compare(pending.head(), head) == Advance::Newer);
        let verdict = match &reply.outcome {
            Outcome::Done(_) => Verdict::Final,
            Outcome::Refused(refusal) => retry::verdict(refusal),
        };
        let renumber = matches!(&reply.outcome, Outcome::Refused(refusal) if refusal.code == ErrorCode::Superseded);
        let resolved = sequence.filter(|sequence| {
            verdict == Verdict::Final && state.record.unresolved().iter().any(|entry| entry.sequence == *sequence)
        });
        // A version has opened under the new lock key: only now the old one goes.
        let turned = candidate.filter(|_| reply.head.is_some());
        if newer.is_some() || resolved.is_some() || turned.is_some() {
            let was_turned = turned.is_some();
            let changed = self.change(&mut state, |record| {
                if let Some(head) = newer {
                    record.hold(head);
                }
                if let Some(sequence) = resolved {
                    record.resolve(sequence);
                }
                if let Some(key) = turned {
                    record.hold_lock_key(key);
                }
            });
            if let Err(error) = changed {
                return Next::Fail(error);
            }
            if was_turned {
                state.candidate = None;
                if let Some(connected) = &mut state.connected {
                    connected.candidate = None;
                }
            }
        }
        match reply.outcome {
            Outcome::Done(answer) => Next::Done(answer),
            Outcome::Refused(_) if renumber => Next::Renumber,
            Outcome::Refused(refusal) => match verdict {
                Verdict::NewSession => {
                    state.connected = None;
                    Next::AtOnce
                }
                Verdict::Later(after) => Next::Later(after),
                Verdict::Final => Next::Fail(VaultError::Refused(refusal)),
            },
        }
    }

    /// The refusals that say something about the session or the history, not about the request.
    fn take_refusal(
        &self,
        state: &mut State,
        refusal: &Refusal,
        found: Option<Head>,
        pending: &Pending,
    ) -> Option<Next> {
        let held = pending.head().or(state.record.head());
        let contradiction = |held| Box::new(Contradiction { held, found });
        let error = match (refusal.code, held, found) {
            (ErrorCode::LockTurned, _, _) => {
                state.connected = None;
                let copy = refusal.lock_copy.as_deref();
                let key = copy.and_then(|copy| LockKey::open_copy(&self.device, self.id, copy).ok());
                // The same key again would be refused again: this device was revoked, or the copy is false.
                return Some(match key.filter(|key| state.candidate.as_ref() != Some(key)) {
                    Some(key) if state.record.lock_key() != Some(&key) => {
                        state.candidate = Some(key);
                        Next::AtOnce
                    }
                    _ => {
                        state.candidate = None;
                        Next::Fail(VaultError::LockedOut)
                    }
                });
            }
            // Without a head there is no vault: a name that is not found comes with one.
            (ErrorCode::RollbackDetected, Some(held), _) | (ErrorCode::NotFound, Some(held), None) => {
                VaultError::Rollback(contradiction(held))
            }
            (ErrorCode::ForkDetected, Some(held), Some(_)) => VaultError::Fork(contradiction(held)),
            (ErrorCode::HistoryUnknown, Some(held), Some(_)) => VaultError::HistoryUnknown(contradiction(held)),
            _ => return None,
        };
        Some(Next::Fail(error))
    }

    /// What to do when no authentic answer came.
    fn cope(&self, operation: &Operation, problem: Problem, open_ended: bool) -> Next {
        let next = match problem {
            Problem::Final(error) => return Next::Fail(error),
            Problem::Transport(error) if error.is_transient() => Next::Later(None),
            Problem::Transport(error) => Next::Fail(VaultError::Transport(error)),
            Problem::Fault(fault) => {
                self.state().connected = None;
                self.cope_with_fault(operation, fault)
            }
        };
        match next {
            // A refusal that anybody could have written does not settle what became of a request that was sent.
            Next::Fail(VaultError::RefusedOutside(_)) if open_ended => Next::Later(None),
            next => next,
        }
    }

    fn cope_with_fault(&self, operation: &Operation, fault: Fault) -> Next {
        let Fault::Plain(refusal) = fault else { return Next::Later(None) };
        let held = self.state().record.head();
        match (refusal.code, held) {
            // A vault that this device has seen does not vanish by itself.
            (ErrorCode::NotFound, Some(held)) => {
                Next::Fail(VaultError::Rollback(Box::new(Contradiction { held, found: None })))
            }
            // Said of the vault that is about to be created.
            (ErrorCode::NotFound, None) if matches!(operation, Operation::CreateVault { .. }) => Next::Later(None),
            _ => match retry::verdict(&refusal) {
                Verdict::NewSession => Next::AtOnce,
                Verdict::Later(after) => Next::Later(after),
                Verdict::Final => Next::Fail(VaultError::from_fault(Fault::Plain(refusal))),
            },
        }
    }

    /// Creates the vault, or learns that it was created.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn create(&self) -> Result<(), VaultError> {
        let creation = self.state().record.creation(&self.device);
        self.perform(&creation).await?;
        let mut state = self.state();
        self.change(&mut state, VaultRecord::created)
    }

    /// Destroys the vault for good, and this device's lock key with it.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn delete(&self) -> Result<(), VaultError> {
        match self.perform(&Operation::DeleteVault).await {
            // Said inside the session: it is true, whoever did it.
            Ok(_) | Err(VaultError::Refused(Refusal { code: ErrorCode::Deleted, .. })) => {}
            Err(error) => return Err(error),
        }
        let mut state = self.state();
        state.connected = None;
        self.change(&mut state, VaultRecord::deleted)
    }

    /// Compares this device's head with the vault's: `None` when they agree, else what is held and what was found.
    ///
    /// # Errors
    /// Every other error than a contradiction of histories; a vault that is denied altogether cannot be accepted.
    pub async fn find_contradiction(&self) -> Result<Option<(Head, Head)>, VaultError> {
        match self.perform(&Operation::Status).await {
            Ok(_) => Ok(None),
            Err(VaultError::Rollback(heads) | VaultError::Fork(heads) | VaultError::HistoryUnknown(heads))
                if heads.found.is_some() =>
            {
                Ok(heads.found.map(|found| (heads.held, found)))
            }
            Err(error) => Err(error),
        }
    }

    /// Signs that another history is the vault's own from now on. A person must have decided this.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn accept_rollback(&self, held: Head, found: Head) -> Result<(), VaultError> {
        let signature = self.device.sign(&accept_rollback_bytes(self.id, &held, &found));
        self.perform(&Operation::AcceptRollback { held, found, signature }).await.map(drop)
    }
}

/// The device's own check of the head. Attack stopped: a vault-manager that was opened over old objects and does not say so.
fn contradiction(record: &VaultRecord, operation: &Operation, reply: &Reply, pending: &Pending) -> Option<VaultError> {
    if let Operation::AcceptRollback { found: accepted, .. } = operation {
        // Its very point is another head; when it was done, that must be above the one that was accepted.
        let done = matches!(reply.outcome, Outcome::Done(_));
        let moved_on = reply.head.is_some_and(|head| head.version > accepted.version);
        let heads = Contradiction { held: *accepted, found: reply.head };
        return (done && !moved_on).then(|| VaultError::Rollback(Box::new(heads)));
    }
    let Some(found) = reply.head else {
        return matches!(reply.outcome, Outcome::Done(_)).then_some(VaultError::Unexpected);
    };
    let heads = || pending.head().or(record.head()).map(|held| Box::new(Contradiction { held, found: Some(found) }));
    match record.compare(pending.head(), &found) {
        Advance::Same | Advance::Newer => None,
        Advance::Rollback => heads().map(VaultError::Rollback),
        Advance::Fork => heads().map(VaultError::Fork),
    }
}

/// Why an attempt has no authentic answer.
#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Final(VaultError),
}
