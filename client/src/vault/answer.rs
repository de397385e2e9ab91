//! What follows from an answer: whether it may be believed, and whether to ask again.

use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::head::Head;
use casemate_protocol::reply::{Answer, Outcome, Reply};
use casemate_protocol::request::Operation;

use super::attempt::Problem;
use super::{State, Vault};
use crate::error::{Contradiction, VaultError};
use crate::lock::LockKey;
use crate::record::{Advance, Keep, Life, VaultRecord};
use crate::retry::{self, Verdict};
use crate::session::{Fault, Pending};
use crate::transport::Transport;

/// What follows from an answer.
#[derive(Debug)]
pub(super) enum Next {
    Done(Answer),
    /// The same request at once, in a new session.
    AtOnce,
    /// The same request after a pause.
    Later(Option<Duration>),
    /// The vault did not execute it under this number and never will: the same operation under a new one.
    Renumber,
    Fail(VaultError),
}

impl<T: Transport + Sync, K: Keep> Vault<T, K> {
    /// Judges an authentic answer.
    pub(super) fn take(
        &self,
        operation: &Operation,
        sequence: Option<u64>,
        open_ended: bool,
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
        // Attack stopped: a change that is acknowledged on a branch which the newest head does not follow, by a process that was opened
        // over older objects. The request may have left before that head was seen; asked again under it, it gets the same answer from a
        // vault whose history holds both.
        let is_behind =
            reply.head.is_some_and(|head| state.record.head().is_some_and(|held| head.version < held.version));
        if is_behind && !accepted && operation.is_mutation() && matches!(reply.outcome, Outcome::Done(_)) {
            return Next::AtOnce;
        }
        let newer = reply.head.filter(|head| accepted || state.record.compare(pending.head(), head) == Advance::Newer);
        let verdict = match &reply.outcome {
            Outcome::Done(_) => Verdict::Final,
            Outcome::Refused(refusal) => retry::verdict(refusal),
        };
        let spent = match &reply.outcome {
            Outcome::Refused(refusal) => of_spent_number(refusal, reply.head, open_ended),
            Outcome::Done(_) => None,
        };
        // What an earlier attempt may have done is settled by an answer, or by a refusal of a vault that stands open: without a
        // head it speaks of objects that the host chose to show.
        let settles = matches!(reply.outcome, Outcome::Done(_)) || !open_ended || reply.head.is_some();
        // Asked again, the vault would say the same.
        let is_forgotten = matches!(spent, Some(Next::Fail(_)));
        let resolved = sequence.filter(|sequence| {
            (settles && verdict == Verdict::Final || is_forgotten)
                && state.record.unresolved().iter().any(|entry| entry.sequence == *sequence)
        });
        // A version has opened under the new lock key: only now the old one goes.
        let turned = candidate.filter(|_| reply.head.is_some() && matches!(reply.outcome, Outcome::Done(_)));
        let created = matches!((operation, &reply.outcome), (Operation::CreateVault { .. }, Outcome::Done(_)));
        if newer.is_some() || resolved.is_some() || turned.is_some() || created {
            let was_turned = turned.is_some();
            // At once: a device that forgot the number and not yet knew the vault for created could neither create nor use it.
            let changed = self.change(&mut state, |record| {
                if created {
                    record.created();
                }
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
        if let Some(next) = spent {
            return next;
        }
        match reply.outcome {
            Outcome::Done(answer) => Next::Done(answer),
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
                // Attack stopped: a host that plants a header with a copy of a key of its own, so that the vault which is being
                // created is sealed under it. A vault that this device has not seen open has no other lock key than the device's.
                if state.record.life() == Life::Creating || state.record.head().is_none() {
                    return Some(Next::Fail(VaultError::LockedOut));
                }
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
    pub(super) fn cope(&self, operation: &Operation, problem: Problem, open_ended: bool) -> Next {
        let next = match problem {
            Problem::Final(error) => return Next::Fail(error),
            Problem::Transport(error) if error.is_transient() => Next::Later(None),
            Problem::Transport(error) => Next::Fail(VaultError::Transport(error)),
            Problem::Fault(fault) => self.cope_with_fault(operation, fault),
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
}

/// What follows from a refusal that is about the request's number: the vault did not execute it now, and never will under that number.
/// `open_ended`: it may have executed it before, and forgotten.
fn of_spent_number(refusal: &Refusal, head: Option<Head>, open_ended: bool) -> Option<Next> {
    let is_forgotten = match refusal.code {
        // It remembers all since then.
        ErrorCode::Superseded => return Some(Next::Renumber),
        // The number was another request's: this record was restored from a copy.
        ErrorCode::InvalidArgument => refusal.field.as_deref() == Some("sequence"),
        // Below all that it remembers. Without a head it speaks of a commit.
        ErrorCode::OutcomeUnknown => head.is_some(),
        _ => false,
    };
    let next = if open_ended { Next::Fail(VaultError::OutcomeUnknown) } else { Next::Renumber };
    is_forgotten.then_some(next)
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
