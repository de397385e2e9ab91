//! What supervisor and vault-manager say to each other over their socketpair.
//!
//! The supervisor knows which vault a socket belongs to; nothing that a vault-manager sends can name another one. Messages are
//! CBOR, cut into records of at most 64 KiB (`casemate_protocol::record`), one record a SEQPACKET datagram.

use std::fmt;

use casemate_protocol::error::Refusal;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::secret::Secret;
use casemate_protocol::statement::Credentials;
use minicbor::{Decode, Encode};

/// The largest message to a vault-manager: everything that opening a vault reads.
pub const TO_MANAGER_BYTES: usize = limits::LOAD_BYTES + 64 * 1024;
/// The largest message from a vault-manager: one sealed object.
pub const FROM_MANAGER_BYTES: usize = limits::OBJECT_BYTES + 64 * 1024;
/// Records in flight on one socket; the rest waits in the supervisor's bounded queue.
pub const OUTSTANDING_RECORDS: usize = 4;

/// Supervisor to vault-manager.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum ToManager {
    /// The first message: which vault this process is, and the newest object that the store showed.
    #[n(0)]
    Start {
        /// The vault.
        #[n(0)]
        vault: VaultId,
        /// What the store showed.
        #[n(1)]
        newest: Newest,
        /// Old versions kept behind the newest.
        #[n(2)]
        versions_kept: u32,
        /// The shard key generation to create under.
        #[n(3)]
        generation: u32,
        /// What the process before this one parked ([`FromManager::Parked`]).
        #[cbor(n(4), with = "minicbor::bytes")]
        parked: Option<Vec<u8>>,
    },
    /// A device's frame.
    #[n(1)]
    Request {
        /// The supervisor's number for it; the reply repeats it.
        #[n(0)]
        id: u64,
        /// Milliseconds that are left.
        #[n(1)]
        deadline_ms: u32,
        /// The frame as it came.
        #[cbor(n(2), with = "minicbor::bytes")]
        frame: Vec<u8>,
        /// With a `Hello` frame: what message 2 carries. The statement names this manager's static key.
        #[n(3)]
        credentials: Option<Box<Credentials>>,
    },
    /// Answers [`FromManager::Open`].
    #[n(2)]
    Opened {
        /// The vault key, 32 bytes.
        #[n(0)]
        vault_key: Secret,
        /// The shard key generation under which the vault key is wrapped.
        #[n(1)]
        generation: u32,
        /// The newest snapshot and every version above it, ascending; empty when the vault does not exist.
        #[n(2)]
        versions: Vec<VersionObject>,
    },
    /// Answers [`FromManager::Open`] when it did not work; the waiting requests are answered so.
    #[n(3)]
    OpenRefused(#[n(0)] Refusal),
    /// Answers [`FromManager::Commit`].
    #[n(4)]
    CommitResult(#[n(0)] CommitResult),
    /// Answer what is in flight and exit.
    #[n(5)]
    Stop {
        /// Whether to park sessions and vault first: the place is needed, the vault is not unwanted.
        #[n(0)]
        park: bool,
    },
}

/// The newest object of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Newest {
    /// Clear header and sealed body.
    #[n(0)]
    Shown(#[n(0)] VersionObject),
    /// The store has none.
    #[n(1)]
    None,
    /// The store was not asked: a parked session brings the process into being, and needs all objects or none.
    #[n(2)]
    NotAsked,
}

/// What became of a commit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum CommitResult {
    /// These bytes are durable under this version.
    #[n(0)]
    Committed,
    /// Other bytes are there: another writer owns the vault. The state must be dropped.
    #[n(1)]
    OtherWriter,
    /// It could not be learnt by the deadline. The state must be dropped.
    #[n(2)]
    Unknown,
    /// The store was never asked; nothing was written.
    #[n(3)]
    NotSent,
}

/// Vault-manager to supervisor.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum FromManager {
    /// The first message: this process is ready and made this static key.
    #[n(0)]
    Ready {
        /// X25519 public key.
        #[cbor(n(0), with = "minicbor::bytes")]
        static_key: [u8; 32],
    },
    /// The answer to a request.
    #[n(1)]
    Reply {
        /// The supervisor's number for the request.
        #[n(0)]
        id: u64,
        /// The frame to send back.
        #[cbor(n(1), with = "minicbor::bytes")]
        frame: Vec<u8>,
    },
    /// A device has shown a key of the vault's header, or a valid creation, or a frame of a parked session has opened: from here on this
    /// vault counts as resident, and what was parked is used up. Asks for the vault key and the objects. Sent again to reload.
    #[n(2)]
    Open {
        /// Whether the vault key is to be made when there is none.
        #[n(0)]
        create: bool,
    },
    /// Store this object under this vault's name. One at a time.
    #[n(3)]
    Commit {
        /// The version.
        #[n(0)]
        version: u64,
        /// The sealed object.
        #[cbor(n(1), with = "minicbor::bytes")]
        object: Vec<u8>,
    },
    /// Delete this vault's versions below this one, oldest first. Not answered.
    #[n(4)]
    Collect {
        /// The oldest version to keep.
        #[n(0)]
        below: u64,
    },
    /// The vault has ended with a tombstone at this version: delete the versions below it, oldest first, then the key objects.
    /// Not answered.
    #[n(5)]
    Purge {
        /// The tombstone's version.
        #[n(0)]
        tombstone: u64,
    },
    /// Something to be counted.
    #[n(6)]
    Noticed(#[n(0)] Notice),
    /// Sessions, and the vault, for the process that comes after this one, which ends now ([`crate::vault::parking`]).
    #[n(7)]
    Parked {
        /// Sealed; the supervisor cannot open it.
        #[cbor(n(0), with = "minicbor::bytes")]
        sealed: Vec<u8>,
        /// Whether the vault's state is in there as well, so that the next process needs nothing else.
        #[n(1)]
        is_whole: bool,
    },
    /// A frame of a parked session has opened, and the process was handed the whole vault: like [`Self::Open`], but it asks for nothing, and
    /// is told to stop if there is no place. Not answered.
    #[n(8)]
    Resume,
}

impl fmt::Debug for FromManager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ready { .. } => f.write_str("Ready"),
            Self::Reply { id, frame } => write!(f, "Reply {{ id: {id}, {} bytes }}", frame.len()),
            Self::Open { create } => write!(f, "Open {{ create: {create} }}"),
            Self::Commit { version, object } => write!(f, "Commit {{ version: {version}, {} bytes }}", object.len()),
            Self::Collect { below } => write!(f, "Collect {{ below: {below} }}"),
            Self::Purge { tombstone } => write!(f, "Purge {{ tombstone: {tombstone} }}"),
            Self::Noticed(notice) => write!(f, "Noticed({notice:?})"),
            Self::Parked { sealed, is_whole } => {
                write!(f, "Parked {{ {} bytes, is_whole: {is_whole} }}", sealed.len())
            }
            Self::Resume => f.write_str("Resume"),
        }
    }
}

/// What a vault-manager noticed; the supervisor counts it and logs the first of a burst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Notice {
    /// A device holds a newer head than the store showed.
    #[n(0)]
    Rollback,
    /// A device holds another history than the store showed.
    #[n(1)]
    Fork,
    /// A stored object does not authenticate or does not chain.
    #[n(2)]
    StateCorrupt,
    /// A frame was forged, replayed or malformed.
    #[n(3)]
    BadFrame,
    /// A device without a place in the header asked.
    #[n(4)]
    Stranger,
    /// A device holds a head that is older than the kept history.
    #[n(5)]
    HistoryUnknown,
    /// A head was presented that this vault did not make.
    #[n(6)]
    HeadInvalid,
    /// A device that says it holds a head of this vault asked, and the store shows none of it. Nobody has authenticated that head.
    #[n(7)]
    Vanished,
    /// A lock key was presented that is not the newest version's.
    #[n(8)]
    LockTurned,
    /// A frame was for a session that is not there.
    #[n(9)]
    SessionUnknown,
    /// A handshake ended with a refusal; nothing of its session is kept.
    #[n(10)]
    TurnedAway,
}
