//! What can happen at a point in time.

use casemate_enclave::ipc::{FromManager, ToManager};
use casemate_enclave::supervisor::router::{self, Op, SlotId};
use casemate_protocol::id::VaultId;

/// A node and its boot. What belongs to an earlier boot is heard by nobody.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// The node.
    pub node: usize,
    /// Its boot.
    pub boot: u64,
}

/// The number of one frame that a device sent and waits for.
pub type CallId = u64;

/// What happens.
#[derive(Debug)]
pub enum Event {
    /// A copy of a device's frame reaches a node's bridge.
    Frame {
        /// Whose answer is waited for, if anybody's.
        call: CallId,
        /// The node.
        node: usize,
        /// The vault that the subject names.
        vault: VaultId,
        /// The frame.
        frame: Vec<u8>,
    },
    /// An answer reaches a device.
    Answer {
        /// To which frame.
        call: CallId,
        /// The answer.
        frame: Vec<u8>,
    },
    /// Something for a router.
    Router(Place, router::Event),
    /// A message reaches a vault-manager.
    Hear {
        /// Where.
        place: Place,
        /// Its slot.
        slot: SlotId,
        /// Which process it is.
        process: u64,
        /// The message.
        message: ToManager,
    },
    /// A message of a vault-manager reaches the router.
    Said {
        /// Where.
        place: Place,
        /// Its slot.
        slot: SlotId,
        /// Which process it is.
        process: u64,
        /// The message.
        message: FromManager,
    },
    /// A vault-manager's process is gone and reaped.
    Gone {
        /// Where.
        place: Place,
        /// Its slot.
        slot: SlotId,
        /// Which process it was.
        process: u64,
        /// How it ended.
        exit: router::ManagerExit,
    },
    /// A put reaches the store, whoever waits for it.
    Arrives {
        /// The path.
        path: String,
        /// The object.
        bytes: Vec<u8>,
        /// Whom to tell, how long after, and whether truly.
        tell: Option<Tell>,
    },
    /// A put ends for who made it, without the store's answer.
    PutEnds {
        /// Where.
        place: Place,
        /// Its slot.
        slot: SlotId,
        /// The call.
        op: Op,
        /// What it is said to be.
        put: router::Put,
    },
    /// A read reaches the store.
    Reads {
        /// Where its answer goes.
        place: Place,
        /// Its slot.
        slot: SlotId,
        /// The call.
        op: Op,
        /// What is read.
        read: Read,
        /// Whether it fails.
        fails: bool,
    },
    /// Versions are deleted.
    Collects {
        /// Of this vault.
        vault: VaultId,
        /// Those below this one.
        below: u64,
    },
    /// A part has trouble.
    Trouble(Trouble),
    /// A killed program is started again.
    Restart(usize),
    /// A crashed enclave is started again.
    Boot(usize),
    /// All trouble is over.
    Calm,
}

/// Whom a put's end is told.
#[derive(Debug, Clone, Copy)]
pub struct Tell {
    /// Where.
    pub place: Place,
    /// Its slot.
    pub slot: SlotId,
    /// The call.
    pub op: Op,
    /// How long after the put has reached the store.
    pub after: std::time::Duration,
    /// Whether the answer gets through.
    pub answered: bool,
}

/// What is read.
#[derive(Debug, Clone)]
pub enum Read {
    /// The newest version.
    Newest(VaultId),
    /// All that opening needs.
    Load(VaultId),
    /// One object.
    Object(String),
}

/// Trouble.
#[derive(Debug, Clone, Copy)]
pub enum Trouble {
    /// kill -9 of one vault-manager.
    ManagerDies(usize),
    /// One vault-manager stops answering.
    ManagerHangs(usize),
    /// The whole enclave ends and is started again.
    EnclaveDies(usize),
    /// The link between parent and enclave is cut: whatever was under way on it gets no answer.
    LinkCut(usize),
    /// A device's program is killed and started again.
    ProgramDies(usize),
    /// Memory is short for a moment.
    MemoryShort(usize),
    /// An operator closes a vault.
    OperatorEvicts(usize),
}
