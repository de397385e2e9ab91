//! What was seen of one vault: by its devices while it was used, and by them and in the store afterwards. No I/O.

use std::time::Duration;

/// A place in the one order in which the harness saw things begin and end.
pub type Moment = u64;

/// What became of a write, as the device was told in the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Done, as this revision. Revisions count the writes of the whole vault.
    Written(u64),
    /// Not done.
    NotDone,
    /// Nobody would say, however often the device asked.
    Unresolved,
}

/// A write, with all its asking again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Write {
    /// The secret.
    pub name: u64,
    /// The value; no two writes have the same.
    pub value: u64,
    /// Before it was asked for the first time.
    pub begun: Moment,
    /// After its last answer.
    pub ended: Moment,
    /// What became of it.
    pub outcome: Outcome,
}

/// A secret's newest revision, as it was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    /// The value; `None` when it is none that a device ever made.
    pub value: Option<u64>,
    /// Its revision.
    pub revision: u64,
}

/// A read that was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Read {
    /// The secret.
    pub name: u64,
    /// Before it was asked.
    pub begun: Moment,
    /// After its answer.
    pub ended: Moment,
    /// What was there.
    pub found: Option<Found>,
}

/// A head that a device holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// The version.
    pub version: u64,
    /// The hash of its object.
    pub hash: [u8; 32],
}

/// One call of the library.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// How long its caller waited.
    pub took: Duration,
    /// How long he was ready to.
    pub deadline: Duration,
}

/// All that was seen of a vault while it was used.
#[derive(Debug, Clone, Default)]
pub struct History {
    /// Its writes.
    pub writes: Vec<Write>,
    /// Its reads.
    pub reads: Vec<Read>,
    /// The heads that its devices held one after the other.
    pub heads: Vec<Held>,
    /// The call that was longest beyond its deadline.
    pub slowest: Option<Call>,
    /// Answers that a node may not give, however it is hurt.
    pub accusations: Vec<String>,
}

impl History {
    /// Notes a head, unless it was the last one noted.
    pub fn hold(&mut self, head: Held) {
        if self.heads.last() != Some(&head) {
            self.heads.push(head);
        }
    }

    /// Notes how long a call took.
    pub fn took(&mut self, call: Call) {
        let over = |call: &Call| {
            i128::try_from(call.took.as_nanos()).unwrap_or(i128::MAX)
                - i128::try_from(call.deadline.as_nanos()).unwrap_or(0)
        };
        if self.slowest.as_ref().is_none_or(|slowest| over(slowest) < over(&call)) {
            self.slowest = Some(call);
        }
    }
}

/// A version as it stands in the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    /// The version in its name.
    pub version: u64,
    /// The hash of the object.
    pub hash: [u8; 32],
    /// The hash of the object before it, as its header says.
    pub previous: [u8; 32],
}

/// What is there when everything runs again and nothing is under way.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// Each secret with the revisions that the vault has kept of it, newest first.
    pub secrets: Vec<(u64, Vec<u64>)>,
    /// The versions in the store, ascending.
    pub stored: Vec<Stored>,
}
