//! Devices: each asks for one thing after the other, and asks again until it is told.

use casemate_protocol::error::ErrorCode;

use crate::store::{Head, Writes};

/// What a device asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Write, under the next sequence number.
    Put,
    /// Read everything.
    Get,
}

/// A request, sealed by its device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Request {
    /// Whose.
    pub device: usize,
    /// Which of its operations.
    pub number: usize,
    /// What.
    pub operation: Operation,
    /// The newest head that the device held when it asked.
    pub head: Head,
}

impl Request {
    /// What it writes. A retry is the same write: its sequence number is the same.
    pub fn write(&self) -> Option<Writes> {
        (self.operation == Operation::Put).then(|| Writes::one(self.device, self.number))
    }
}

/// A request on its way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Frame {
    /// The request.
    pub request: Request,
    /// Whether its device waits for another attempt by now, and would drop the reply to this one.
    pub given_up: bool,
}

/// What a vault-manager says to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Outcome {
    /// A write is done.
    Done,
    /// Everything that was ever written.
    Value(Writes),
    /// It is not done, or not known to be.
    Refused(ErrorCode),
}

/// A sealed reply. It is bound to its request and carries the vault's head, if there is a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Reply {
    /// The request.
    pub request: Request,
    /// What became of it.
    pub outcome: Outcome,
    /// The committed head.
    pub head: Option<Head>,
}

/// A device.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Device {
    /// What it does, in order.
    pub script: &'static [Operation],
    /// Operations that were answered.
    pub answered: usize,
    /// The newest head that it has seen.
    pub head: Head,
}

impl Device {
    /// The operation that it wants answered now.
    pub fn wants(&self) -> Option<Operation> {
        self.script.get(self.answered).copied()
    }

    /// The writes that it was told are done.
    pub fn told(&self, device: usize) -> Writes {
        let answered = self.script.iter().enumerate().take(self.answered);
        let puts = answered.filter(|(_, operation)| **operation == Operation::Put);
        puts.fold(Writes::default(), |all, (number, _)| all.and(Writes::one(device, number)))
    }
}
