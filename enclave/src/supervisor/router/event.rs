//! What the router hears and what it wants done: plain values, so that a simulation can play everything that surrounds it.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use casemate_protocol::error::Refusal;
use casemate_protocol::frame::{DeviceFrameKind, SessionId};
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::link::{KeyObject, LogEvent, LogLevel, Tuning, VersionObject};
use casemate_protocol::secret::Secret;

use crate::ipc::{FromManager, ToManager};

/// The number of a slot: the place of one vault-manager. Given anew only after its process is gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SlotId(pub u32);

/// The number of one call to the outside. Never given twice, so that a late result cannot be taken for another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Op(pub u64);

/// The number of one device request, given by whoever owns the link.
pub type RequestId = u64;

/// What the router hears.
#[derive(Debug)]
pub enum Event {
    /// A device's frame has come.
    Request {
        /// Its number.
        id: RequestId,
        /// The vault that the subject names.
        vault: VaultId,
        /// Time that is left for it.
        remaining: Duration,
        /// The frame's kind.
        kind: DeviceFrameKind,
        /// The session that it names.
        session: Option<SessionId>,
        /// The frame.
        frame: Vec<u8>,
    },
    /// The zygote has made the process.
    Spawned {
        /// Whose.
        slot: SlotId,
        /// Its process id, as operators see it.
        pid: u32,
    },
    /// The zygote could not make the process.
    SpawnFailed {
        /// Whose.
        slot: SlotId,
    },
    /// The process is gone and was reaped.
    Exited {
        /// Whose.
        slot: SlotId,
        /// How it ended.
        exit: ManagerExit,
    },
    /// A vault-manager has said something.
    FromManager {
        /// Which.
        slot: SlotId,
        /// What.
        message: FromManager,
    },
    /// A vault-manager has said something that is no message, or its socket is broken.
    Broken {
        /// Which.
        slot: SlotId,
    },
    /// Answers [`Action::LoadNewest`].
    Newest {
        /// Whose.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The newest version; none when the store has none.
        result: Result<Option<VersionObject>, StoreFailed>,
    },
    /// Answers [`Action::Load`].
    Loaded {
        /// Whose.
        slot: SlotId,
        /// The call.
        op: Op,
        /// What the store holds of the vault.
        result: Result<Loaded, StoreFailed>,
    },
    /// Answers [`Action::VaultKey`].
    VaultKey {
        /// Whose.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The key, or what its devices are told.
        result: Result<VaultKey, Refusal>,
    },
    /// Answers [`Action::Put`]; the call has ended.
    PutDone {
        /// Whose.
        slot: SlotId,
        /// The call.
        op: Op,
        /// What is known of it.
        put: Put,
    },
    /// Answers [`Action::ReadBack`].
    ReadBack {
        /// Whose.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The object; none when the store says that it is absent.
        result: Result<Option<Vec<u8>>, StoreFailed>,
    },
    /// Time has passed; see [`super::Router::next_wake`].
    Tick,
    /// The machine's memory, in bytes.
    Memory {
        /// All of it.
        total: u64,
        /// What could be had without swapping.
        available: u64,
    },
    /// Other limits.
    Tuning(Tuning),
    /// An operator wants a vault closed.
    Evict(VaultId),
    /// Finish what is in flight, refuse new work, close all vaults.
    Drain,
}

/// The store did not answer, or answered that it failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoreFailed;

/// What a load brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Loaded {
    /// The newest snapshot and every version above it, ascending.
    pub versions: Vec<VersionObject>,
    /// Wrapped keys, by generation.
    pub keys: Vec<KeyObject>,
}

/// A vault's key, unwrapped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultKey {
    /// 32 bytes.
    pub key: Secret,
    /// The shard key generation that wraps it.
    pub generation: u32,
}

/// What became of one put call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Put {
    /// Durable and ours.
    Created,
    /// The store says that an object is there; its bytes decide.
    Exists,
    /// Failed, or cut off: it may be there or not.
    Unclear,
    /// Never left this enclave.
    NotSent,
}

/// How a vault-manager ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManagerExit {
    /// By itself, with this status.
    Status(i32),
    /// By a signal.
    Signal(i32),
    /// It made a forbidden system call.
    SandboxKilled,
    /// It could not put up a layer of its sandbox, of this number.
    LayerFailed(u8),
}

/// What a caller is told.
#[derive(Clone, PartialEq, Eq)]
pub enum Answer {
    /// The vault's frame.
    Frame(Vec<u8>),
    /// The supervisor's refusal.
    Refused(Refusal),
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Frame(frame) => write!(f, "Frame({} bytes)", frame.len()),
            Self::Refused(refusal) => write!(f, "Refused({})", refusal.code),
        }
    }
}

/// What the router wants done.
#[derive(Debug)]
pub enum Action {
    /// Tell a caller. Exactly one for each request.
    Answer {
        /// Whom.
        id: RequestId,
        /// What.
        answer: Answer,
    },
    /// Make a process. [`Event::Spawned`] or [`Event::SpawnFailed`] answers, and [`Event::Exited`] once it is gone.
    Spawn {
        /// For whom.
        slot: SlotId,
        /// Memory that it may have for data.
        memory_bytes: u64,
    },
    /// Send a message to a vault-manager.
    Send {
        /// Which.
        slot: SlotId,
        /// What.
        message: ToManager,
    },
    /// Send a `Hello` frame to a vault-manager, together with the credentials that name it.
    SendHello {
        /// Which.
        slot: SlotId,
        /// The vault that the statement names.
        vault: VaultId,
        /// The static key that the statement names.
        static_key: [u8; 32],
        /// The request's number.
        id: RequestId,
        /// Milliseconds that are left.
        deadline_ms: u32,
        /// The frame.
        frame: Vec<u8>,
    },
    /// Kill the process.
    Kill {
        /// Whose.
        slot: SlotId,
    },
    /// The slot is empty: its socket can be closed.
    Release {
        /// Which.
        slot: SlotId,
    },
    /// Read the newest version of a vault.
    LoadNewest {
        /// For whom.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The vault.
        vault: VaultId,
    },
    /// Read everything that opening a vault needs.
    Load {
        /// For whom.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The vault.
        vault: VaultId,
    },
    /// Have this shard key unsealed; it is going to be needed.
    WarmShardKey {
        /// The shard.
        shard: Shard,
        /// Its generation.
        generation: u32,
    },
    /// Unwrap a vault's key, or make one.
    VaultKey {
        /// For whom.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The vault.
        vault: VaultId,
        /// The wrapped keys that the store showed. None: make one.
        wrapped: Vec<KeyObject>,
    },
    /// Create an object, if none has this path.
    Put {
        /// For whom.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The path, built from the slot's own vault.
        path: String,
        /// The object.
        bytes: Bytes,
    },
    /// Read an object back.
    ReadBack {
        /// For whom.
        slot: SlotId,
        /// The call.
        op: Op,
        /// The path.
        path: String,
    },
    /// Delete a vault's versions below this one, oldest first. Not answered.
    Collect {
        /// The vault.
        vault: VaultId,
        /// The oldest version to keep.
        below: u64,
    },
    /// Delete a vault's versions below its tombstone, oldest first, then its key objects. Not answered.
    Purge {
        /// The vault.
        vault: VaultId,
        /// The tombstone's version.
        tombstone: u64,
    },
    /// Tell the parent.
    Log {
        /// How bad.
        level: LogLevel,
        /// What.
        event: LogEvent,
        /// The number that belongs to it.
        value: Option<u64>,
    },
    /// Draining has ended: no vault is left.
    Drained,
}
