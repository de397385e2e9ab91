//! What can happen. Where the code has a name for it, this is the name.

use casemate_enclave::supervisor::router::{ManagerExit, Op, Put, StoreFailed};

use crate::device::{Frame, Reply};
use crate::world::Adrift;

/// One thing that happens. Numbers are those of devices and nodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A device asks, for the first time, or because nothing is left of its last attempt.
    Ask(usize),
    /// A device's time is up, at its supervisor or its own, and it asks again. Its last attempt goes on without it: that request may be
    /// executed still, come to another node, or never be heard of again; a reply to it is dropped.
    Deadline(usize),
    /// A request comes to a node.
    Request(usize, Frame),
    /// A reply comes to its device.
    Reply(Reply),
    /// The store has read what opening needs, or failed.
    Loaded(usize, Result<(), StoreFailed>),
    /// The key is unwrapped.
    VaultKey(usize),
    /// A vault-manager takes its next message, and what it says is heard: `FromManager`.
    FromManager(usize),
    /// A put arrives at the store.
    Arrival(usize, Op),
    /// A put arrives for which nobody waits any more.
    LateArrival(Adrift),
    /// A put call has ended.
    PutDone(usize, Op, Put),
    /// A read-back has ended.
    ReadBack(usize, Result<(), StoreFailed>),
    /// Time passes until the write in flight wants to hear of it.
    Tick(usize),
    /// A process is called stuck, or did not stop in time.
    Kill(usize),
    /// A process is gone and was reaped.
    Exited(usize, ManagerExit),
    /// An idle vault makes room for another, or nobody used it for long.
    MakeRoom(usize),
    /// A process that goes on from what was parked finds no place: it leaves again once it has answered.
    NoPlace(usize),
    /// An operator closes a vault. What it would have left is not there: as if it had been forgotten, or been too much. A vault that stays half-open or opening for too long ends in the same way.
    Evict(usize),
    /// A supervisor ends with all that it has, and another one starts in its place.
    Restart(usize),
}

/// A step of the model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// What happens by itself, sooner or later.
    GoesOn(Event),
    /// What may happen at any time, though nothing is wrong.
    MayHappen(Event),
    /// What goes wrong; only so often.
    GoesWrong(Event),
}
