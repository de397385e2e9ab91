//! A vault as its owner's program uses it: one method for each operation, sessions made and made again behind them.
//!
//! A [`Vault`] can be used from any task, by several at once, on a `current_thread` runtime too; many vaults share one transport.
//! What it does with a request is one loop: send, judge the answer, ask again as [`crate::retry`] says, until the deadline.

mod answer;
mod attempt;
mod operations;

use answer::Next;

pub use operations::{AuditPage, SecretValue};

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, Outcome};
use casemate_protocol::request::{Operation, accept_rollback_bytes};
use casemate_protocol::subject::Subjects;

use crate::device::Device;
use crate::error::VaultError;
use crate::judge::Trusted;
use crate::lock::LockKey;
use crate::outside::{Outside, System, until};
use crate::record::{Keep, Life, VaultRecord};
use crate::retry::{self, Backoff};
use crate::session::Session;
use crate::transport::Transport;
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
    /// Time and chance.
    pub outside: Arc<dyn Outside>,
}

impl Default for VaultOptions {
    fn default() -> Self {
        Self { subjects: Subjects::default(), deadline: limits::DEADLINE_DEFAULT, outside: Arc::new(System::default()) }
    }
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
    /// Sequence numbers in use by running changes.
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
    /// A sequence number is no longer in use.
    number_ended: tokio::sync::Notify,
}

/// Marks a sequence number as in use until the operation ends, also when its future is dropped.
struct Numbered<'a, T, K> {
    vault: &'a Vault<T, K>,
    sequence: Option<u64>,
    /// Whether an earlier call sent a request under this number without learning its outcome.
    reused: bool,
}

impl<T, K> Numbered<'_, T, K> {
    /// The number is in use no more.
    fn end(&mut self) {
        if let Some(sequence) = self.sequence.take() {
            self.vault.state().busy.retain(|busy| *busy != sequence);
            self.vault.number_ended.notify_waiters();
        }
    }
}

impl<T, K> Drop for Numbered<'_, T, K> {
    fn drop(&mut self) {
        self.end();
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
            number_ended: tokio::sync::Notify::new(),
        }
    }

    /// Monotonic time.
    fn now(&self) -> Duration {
        self.options.outside.monotonic()
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
        let deadline = self.now() + self.options.deadline.min(limits::DEADLINE_MAX);
        let _permit = if operation.is_mutation() {
            let permit = until(&*self.options.outside, deadline, self.mutations.acquire()).await;
            Some(permit.ok_or_else(too_many)?.expect("the semaphore is never closed"))
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
    async fn number(&self, operation: &Operation, deadline: Duration) -> Result<Numbered<'_, T, K>, VaultError> {
        loop {
            if let Some(numbered) = self.number_now(operation)? {
                return Ok(numbered);
            }
            let mut ended = std::pin::pin!(self.number_ended.notified());
            ended.as_mut().enable();
            // One may have ended since.
            if let Some(numbered) = self.number_now(operation)? {
                return Ok(numbered);
            }
            until(&*self.options.outside, deadline, ended).await.ok_or_else(too_many)?;
        }
    }

    /// The number, unless older ones must end first.
    fn number_now(&self, operation: &Operation) -> Result<Option<Numbered<'_, T, K>>, VaultError> {
        let mut state = self.state();
        let mut reused = false;
        let sequence = if !operation.is_mutation() && !operation.uses_key() {
            None
        } else if let Some(sequence) = state.record.find_unresolved(operation, &state.busy) {
            reused = true;
            Some(sequence)
        } else if state.record.is_at_window(&state.busy) {
            return Ok(None);
        } else {
            let mut sequence = 0;
            let busy = state.busy.clone();
            self.change(&mut state, |record| sequence = record.take_sequence(operation, &busy))?;
            Some(sequence)
        };
        // Nothing depends on what became of a use of a key: one that the vault has forgotten is done again.
        state.busy.extend(sequence.filter(|_| operation.is_mutation()));
        Ok(Some(Numbered { vault: self, sequence, reused }))
    }

    async fn drive(&self, operation: &Operation, deadline: Duration) -> Result<Answer, VaultError> {
        let mut numbered = self.number(operation, deadline).await?;
        let mut backoff = Backoff::default();
        let mut at_once = 0;
        // Whether the request may be executed, or have been, without our knowing. An earlier call counts: attack stopped, a host that
        // drops one call's answer and the next call's hello, so that the number is forgotten and the third call executes again.
        let mut open_ended = numbered.reused;
        let mut last = "nothing was tried".to_owned();
        loop {
            let remaining = deadline.saturating_sub(self.now());
            if remaining < Duration::from_millis(1) {
                return Err(self.give_up(operation, numbered.sequence, open_ended, last));
            }
            let mut exposed = false;
            let within = retry::attempt_time(remaining);
            let attempt = self.attempt(numbered.sequence, operation, within, &mut exposed).await;
            let next = match attempt {
                Ok((reply, pending, candidate)) => {
                    open_ended |= operation.is_mutation()
                        && match &reply.outcome {
                            // If it is not believed, it may have been done all the same.
                            Outcome::Done(_) => true,
                            Outcome::Refused(refusal) => match refusal.code {
                                // Said of a commit by a process that has ended. With a head: of a number, see `take`.
                                ErrorCode::OutcomeUnknown => reply.head.is_none(),
                                // The second rests on what the host showed of the store.
                                ErrorCode::Internal | ErrorCode::Moved => true,
                                _ => false,
                            },
                        };
                    if let Outcome::Refused(refusal) = &reply.outcome {
                        last = refusal.to_string();
                    }
                    self.take(operation, numbered.sequence, open_ended, reply, &pending, candidate)
                }
                Err(problem) => {
                    open_ended |= exposed && operation.is_mutation();
                    last = problem.to_string();
                    self.cope(operation, problem, open_ended)
                }
            };
            let is_renumbered = matches!(next, Next::Renumber);
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
                    self.renounce(numbered.sequence)?;
                    numbered.end();
                    None
                }
                Next::Later(after) => after,
            };
            let pause = backoff.pause(pause, self.options.outside.jitter());
            let remaining = deadline.saturating_sub(self.now());
            self.options.outside.sleep(pause.min(remaining)).await;
            if is_renumbered {
                // Not before the pause: what this device does meanwhile would overtake the new number as well, and again each time.
                numbered = self.number(operation, deadline).await?;
                open_ended = numbered.reused;
            }
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

    /// The vault will never execute the number.
    fn renounce(&self, sequence: Option<u64>) -> Result<(), VaultError> {
        let Some(sequence) = sequence else { return Ok(()) };
        self.change(&mut self.state(), |record| record.renounce(sequence))
    }

    /// Creates the vault, or learns that it was created.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn create(&self) -> Result<(), VaultError> {
        let creation = self.state().record.creation(&self.device);
        self.perform(&creation).await.map(drop)
    }

    /// Destroys the vault for good, and this device's lock key with it.
    ///
    /// # Errors
    /// See [`VaultError`].
    pub async fn delete(&self) -> Result<(), VaultError> {
        match self.perform(&Operation::DeleteVault).await {
            // A tombstone is marked in the clear, so a host could have set it. But its owner wants the vault gone, and what makes
            // it so is the end of the lock key.
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

fn too_many() -> VaultError {
    VaultError::TimedOut { last: "too many changes of this device are under way".to_owned() }
}
