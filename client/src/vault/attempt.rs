//! One attempt of one request: through the session that stands, or with a new one.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrame;
use casemate_protocol::reply::{Outcome, Reply};
use casemate_protocol::request::{Operation, Request};
use casemate_protocol::session::SessionError;

use super::{Connected, Vault};
use crate::error::VaultError;
use crate::judge::{Grounds, Image};
use crate::lock::LockKey;
use crate::outside;
use crate::record::Keep;
use crate::retry::{self, Verdict};
use crate::session::{Fault, Greeting, Pending};
use crate::transport::{Transport, TransportError};

/// Why an attempt has no authentic answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Problem {
    #[error(transparent)]
    Fault(#[from] Fault),
    #[error(transparent)]
    Transport(#[from] TransportError),
    #[error(transparent)]
    Final(VaultError),
}

/// An authentic reply, what it is bound to, and the lock key under which it came if that is not the record's.
type Answered = (Reply, Pending, Option<LockKey>);

impl<T: Transport + Sync, K: Keep> Vault<T, K> {
    /// Sends the request once. `exposed` tells afterwards whether it left this device.
    pub(super) async fn attempt(
        &self,
        sequence: Option<u64>,
        operation: &Operation,
        within: Duration,
        exposed: &mut bool,
    ) -> Result<Answered, Problem> {
        let until = self.now() + within;
        let connected = if let Some(connected) = self.connected() {
            connected
        } else {
            let guard = outside::until(&*self.options.outside, until, self.connecting.lock()).await;
            let _guard = guard.ok_or(TransportError::TimedOut)?;
            // Another request may have made a session while this one waited.
            if let Some(connected) = self.connected() {
                connected
            } else if let Some(answered) = self.connect(sequence, operation, until, exposed).await? {
                return Ok(answered);
            } else {
                self.connected().ok_or(Fault::OutOfPlace)?
            }
        };
        let head = self.state().record.head().filter(|_| shows_head(operation));
        let sealed = lock(&connected.session).seal(sequence, head, operation);
        let sealed = sealed.map_err(session_problem).inspect_err(|problem| {
            // A session may have numbers for a small request, and none for this one.
            if let Problem::Fault(fault) = problem {
                self.leave(&connected, fault);
            }
        });
        let (frame, pending) = sealed?;
        *exposed = true;
        let answer = self.send(&frame, until).await?;
        let opened = lock(&connected.session).open(&answer, &pending);
        let reply = opened.inspect_err(|fault| self.leave(&connected, fault))?;
        Ok((reply, pending, connected.candidate))
    }

    /// Leaves a session that a fault has ended, unless another one stands in its place already: answers come late, and each would cost a
    /// handshake. Who has no time or no room for a request says nothing of the session.
    fn leave(&self, used: &Connected, fault: &Fault) {
        if let Fault::Plain(refusal) = fault
            && matches!(retry::verdict(refusal), Verdict::Later(_))
        {
            return;
        }
        let connected = &mut self.state().connected;
        if connected.as_ref().is_some_and(|standing| Arc::ptr_eq(&standing.session, &used.session)) {
            *connected = None;
        }
    }

    fn connected(&self) -> Option<Connected> {
        let mut state = self.state();
        if state.connected.as_ref().is_some_and(|connected| lock(&connected.session).is_exhausted()) {
            state.connected = None;
        }
        state.connected.clone()
    }

    /// Makes a session; the request goes with it if it is small enough, and its answer comes back.
    async fn connect(
        &self,
        sequence: Option<u64>,
        operation: &Operation,
        until: Duration,
        exposed: &mut bool,
    ) -> Result<Option<Answered>, Problem> {
        let (greeting, hello) = Greeting::start(self.device.static_secret(), self.id);
        let judging = greeting.welcome(&self.send(&hello, until).await?)?;
        let believed = {
            let state = self.state();
            let grounds = Grounds { roots: &self.roots, trust: &state.trust, now: self.options.outside.unix_seconds() };
            let believed = judging.believe(&grounds, state.record.cluster());
            believed.map_err(|distrust| Problem::Final(distrust.into()))?
        };
        if let Image::Release(number) = believed.trusted().image {
            self.accept_release(number).map_err(Problem::Final)?;
        }
        let (lock_key, candidate, head) = {
            let mut state = self.state();
            state.trusted = Some(believed.trusted().clone());
            let candidate = state.candidate.clone();
            let held = candidate.clone().or_else(|| state.record.lock_key().cloned());
            (held.ok_or(Problem::Final(VaultError::Gone))?, candidate, state.record.head())
        };
        let head = head.filter(|_| shows_head(operation));
        let request = Request { sequence, head, operation: operation.clone() };
        let (finish, mut session, pending) =
            believed.finish(&lock_key, head, Some(&request)).map_err(session_problem)?;
        *exposed = pending.carries_request();
        let answer = self.send(&finish, until).await?;
        let reply = session.open(&answer, &pending)?;
        // A refusal without a head means that no vault stands behind the session.
        let stands = reply.head.is_some() || matches!(reply.outcome, Outcome::Done(_));
        self.state().connected =
            stands.then(|| Connected { session: Arc::new(Mutex::new(session)), candidate: candidate.clone() });
        let refused = matches!(reply.outcome, Outcome::Refused(_));
        Ok((pending.carries_request() || refused).then_some((reply, pending, candidate)))
    }

    fn accept_release(&self, number: u64) -> Result<(), VaultError> {
        let mut state = self.state();
        if state.trust.highest_release() < Some(number) {
            self.keeper.keep_release(number)?;
            state.trust.accept_release(number);
        }
        Ok(())
    }

    async fn send(&self, frame: &DeviceFrame, until: Duration) -> Result<Bytes, TransportError> {
        let within = until.saturating_sub(self.now());
        if within < Duration::from_millis(1) {
            return Err(TransportError::TimedOut);
        }
        self.transport.request(self.subject.clone(), frame.encode(within).into(), within).await
    }
}

/// Accepting another history is the one request that does not insist on the head: it names it inside, signed.
fn shows_head(operation: &Operation) -> bool {
    !matches!(operation, Operation::AcceptRollback { .. })
}

fn session_problem(error: SessionError) -> Problem {
    match error {
        SessionError::Exhausted | SessionError::Handshake | SessionError::Replayed | SessionError::Forged => {
            Problem::Fault(Fault::Session(error))
        }
        SessionError::TooLarge => Problem::Final(VaultError::Refused(ErrorCode::TooLarge.into())),
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
