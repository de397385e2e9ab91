//! What was seen: the trace, and what must not be.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use sha2::{Digest, Sha256};

use crate::time::Time;

/// Something that must never happen, and when it did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Simulated milliseconds since the beginning.
    pub at_ms: u128,
    /// What.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at {} ms: {}", self.at_ms, self.what)
    }
}

/// Who hears the trace as it comes.
pub type Listener = Box<dyn FnMut(&str) + Send>;

struct Inner {
    time: Time,
    trace: Sha256,
    lines: u64,
    listener: Option<Listener>,
    violations: Vec<Violation>,
}

/// Trace and violations of one schedule. Clones share it.
#[derive(Clone)]
pub struct Findings(Arc<Mutex<Inner>>);

impl fmt::Debug for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Findings").field("violations", &self.inner().violations).finish_non_exhaustive()
    }
}

impl Findings {
    /// An empty trace.
    pub fn new(time: Time, listener: Option<Listener>) -> Self {
        Self(Arc::new(Mutex::new(Inner { time, trace: Sha256::new(), lines: 0, listener, violations: Vec::new() })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a line to the trace.
    pub fn trace(&self, what: fmt::Arguments<'_>) {
        let mut inner = self.inner();
        let line = format!("{:>12} {what}\n", inner.time.now().as_micros());
        inner.trace.update(&line);
        inner.lines += 1;
        if let Some(listener) = &mut inner.listener {
            listener(&line);
        }
    }

    /// Something happened that must not.
    pub fn violation(&self, what: fmt::Arguments<'_>) {
        self.trace(format_args!("VIOLATION {what}"));
        let mut inner = self.inner();
        let at_ms = inner.time.now().as_millis();
        inner.violations.push(Violation { at_ms, what: what.to_string() });
    }

    /// Whether anything happened that must not.
    pub fn is_violated(&self) -> bool {
        !self.inner().violations.is_empty()
    }

    /// Violations, and the trace's length and hash.
    pub fn close(&self) -> (Vec<Violation>, u64, [u8; 32]) {
        let mut inner = self.inner();
        (std::mem::take(&mut inner.violations), inner.lines, inner.trace.clone().finalize().into())
    }
}
