//! What the stand-in is told to do wrong, and the count of what it did.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::cms::Shape;
use crate::wire::Operation;

/// Longest delay that can be asked for.
pub const MAX_DELAY: Duration = Duration::from_mins(10);

/// How requests are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// As the real service would.
    #[default]
    Healthy,
    /// `ThrottlingException`.
    Throttle,
    /// `KMSInternalException`, status 500.
    Fail,
    /// Status 200 and bytes that are no JSON.
    Garbage,
    /// A right answer that carries a `Plaintext` as well (of a random key: the real one is not given away even here).
    Plaintext,
    /// A right answer in the name of another key.
    WrongKeyId,
    /// An envelope encrypted to a key that is not the recipient's.
    SwapRecipient,
    /// Connections are closed, new ones as soon as they are made.
    Away,
}

/// How one request is to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Plan {
    /// The fault, if any.
    pub mode: Mode,
    /// How long to wait first.
    pub delay: Duration,
    /// How the envelope is encoded.
    pub shape: Shape,
}

/// What is in force and what has happened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// How requests are answered.
    pub mode: Mode,
    /// For how many more requests; absent is until told otherwise.
    pub times: Option<u32>,
    /// Delay before each answer, in milliseconds.
    pub delay_ms: u64,
    /// How envelopes are encoded.
    pub shape: Shape,
    /// Calls by operation and outcome: `ok`, the exception's name, or the fault's.
    pub counts: BTreeMap<String, BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct State {
    plan: Plan,
    times: Option<u32>,
    counts: BTreeMap<Operation, BTreeMap<&'static str, u64>>,
}

/// The faults in force, shared by the API and the control socket.
#[derive(Debug)]
pub struct Faults {
    state: Mutex<State>,
    away: watch::Sender<bool>,
}

impl Faults {
    /// No faults, envelopes in `shape`.
    pub fn new(shape: Shape) -> Self {
        let state = State { plan: Plan { shape, ..Plan::default() }, ..State::default() };
        Self { state: Mutex::new(state), away: watch::Sender::new(false) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing under this lock panics half-way through a change.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers in `mode` from now on, or for the next `times` requests.
    pub fn set_mode(&self, mode: Mode, times: Option<u32>) {
        {
            let mut state = self.state();
            (state.plan.mode, state.times) = if times == Some(0) { (Mode::Healthy, None) } else { (mode, times) };
            if mode == Mode::Healthy {
                state.plan.delay = Duration::ZERO;
            }
        }
        self.away.send_replace(mode == Mode::Away);
    }

    /// Waits `delay` before each answer, at most [`MAX_DELAY`].
    pub fn set_delay(&self, delay: Duration) {
        self.state().plan.delay = delay.min(MAX_DELAY);
    }

    /// Encodes envelopes in `shape`.
    pub fn set_shape(&self, shape: Shape) {
        self.state().plan.shape = shape;
    }

    /// Says whether connections are to be closed, and when that changes.
    pub fn away(&self) -> watch::Receiver<bool> {
        self.away.subscribe()
    }

    /// Takes the plan for one request.
    pub fn plan(&self) -> Plan {
        let mut state = self.state();
        let plan = state.plan;
        if let Some(times) = &mut state.times {
            *times -= 1;
            if *times == 0 {
                (state.plan.mode, state.times) = (Mode::Healthy, None);
            }
        }
        plan
    }

    /// Counts one answered request.
    pub fn count(&self, operation: Operation, outcome: &'static str) {
        *self.state().counts.entry(operation).or_default().entry(outcome).or_default() += 1;
    }

    /// What is in force and what has happened.
    pub fn status(&self) -> Status {
        let state = self.state();
        let counts = state.counts.iter().map(|(operation, outcomes)| {
            let outcomes = outcomes.iter().map(|(outcome, count)| ((*outcome).to_owned(), *count)).collect();
            (operation.to_string(), outcomes)
        });
        Status {
            mode: state.plan.mode,
            times: state.times,
            delay_ms: u64::try_from(state.plan.delay.as_millis()).unwrap_or(u64::MAX),
            shape: state.plan.shape,
            counts: counts.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_for_some_requests_ends_by_itself() {
        let faults = Faults::new(Shape::Ber);
        faults.set_mode(Mode::Throttle, Some(2));
        let modes: Vec<Mode> = (0..3).map(|_| faults.plan().mode).collect();
        assert_eq!(modes, [Mode::Throttle, Mode::Throttle, Mode::Healthy]);
        assert_eq!(faults.status().times, None);
        faults.set_mode(Mode::Fail, Some(0));
        assert_eq!(faults.plan().mode, Mode::Healthy);
    }

    #[test]
    fn healthy_ends_fault_delay_and_absence() {
        let faults = Faults::new(Shape::Der);
        let away = faults.away();
        faults.set_delay(Duration::from_secs(1));
        faults.set_mode(Mode::Away, None);
        assert!(*away.borrow());
        assert_eq!(faults.plan().delay, Duration::from_secs(1));
        faults.set_mode(Mode::Healthy, None);
        assert!(!*away.borrow());
        assert_eq!(faults.plan(), Plan { shape: Shape::Der, ..Plan::default() });
    }

    #[test]
    fn counts_are_by_operation_and_outcome() {
        let faults = Faults::new(Shape::Ber);
        faults.count(Operation::Decrypt, "ok");
        faults.count(Operation::Decrypt, "ok");
        faults.count(Operation::Decrypt, "AccessDeniedException");
        let counts = faults.status().counts;
        assert_eq!(counts["Decrypt"]["ok"], 2);
        assert_eq!(counts["Decrypt"]["AccessDeniedException"], 1);
        assert_eq!(counts.len(), 1);
    }
}
