//! What sealed bodies hold: the whole state, or what changed.
//!
//! Two developers who read this page must write the same bytes: maps with ascending unsigned keys, shortest forms, entries in the
//! order that each field names.

use casemate_protocol::reply::AuditEntry;
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy};
use casemate_protocol::secret::Secret;
use minicbor::{Decode, Encode};

/// A snapshot's body.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Snapshot {
    /// When the vault was created, Unix seconds.
    #[n(0)]
    pub created_at: u64,
    /// The highest secret revision given so far; revisions count through the whole vault and are never used twice.
    #[n(1)]
    pub last_revision: u64,
    /// Secrets, by name.
    #[n(2)]
    pub secrets: Vec<SecretRecord>,
    /// Keys, by name.
    #[n(3)]
    pub keys: Vec<KeyRecord>,
    /// Devices, in the order of their enrolment.
    #[n(4)]
    pub devices: Vec<DeviceRecord>,
    /// The audit chain's hash before the first entry kept.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub audit_before: [u8; 32],
    /// The audit entries kept, oldest first.
    #[n(6)]
    pub audit: Vec<AuditEntry>,
    /// The first 16 bytes of the hashes of the versions before this one, newest last; at most 1,024, one after the other.
    #[cbor(n(7), with = "minicbor::bytes")]
    pub version_hashes: Vec<u8>,
}

/// A secret and its kept revisions.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SecretRecord {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its revisions, newest first; at least one.
    #[n(1)]
    pub revisions: Vec<Revision>,
}

/// One revision of a secret.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revision {
    /// Its number.
    #[n(0)]
    pub number: u64,
    /// When it was written, Unix seconds.
    #[n(1)]
    pub written_at: u64,
    /// The value.
    #[n(2)]
    pub value: Secret,
}

/// A key.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyRecord {
    /// Its name.
    #[n(0)]
    pub name: String,
    /// Its algorithm.
    #[n(1)]
    pub algorithm: KeyAlgorithm,
    /// What may be done with it.
    #[n(2)]
    pub policy: KeyPolicy,
    /// When it was made or taken in, Unix seconds.
    #[n(3)]
    pub created_at: u64,
    /// The material.
    #[n(4)]
    pub material: Secret,
}

/// A device and what became of its last mutations.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct DeviceRecord {
    /// X25519 static key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub static_key: [u8; 32],
    /// Ed25519 key that signs `accept-rollback`.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub signing_key: [u8; 32],
    /// The name.
    #[n(2)]
    pub name: String,
    /// When it was enrolled, Unix seconds.
    #[n(3)]
    pub enrolled_at: u64,
    /// Outcomes by ascending sequence number; at most 64.
    #[n(4)]
    pub outcomes: Vec<OutcomeRecord>,
}

/// What became of one mutation.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct OutcomeRecord {
    /// The device's sequence number.
    #[n(0)]
    pub sequence: u64,
    /// The request's hash.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub request_hash: [u8; 32],
    /// The encoded answer; none when it is over 512 bytes and is computed again instead (uses of keys only).
    #[n(2)]
    pub answer: Option<Secret>,
}

/// A delta's and a tombstone's body: the changes in their order.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Delta {
    /// The changes.
    #[n(0)]
    pub changes: Vec<Change>,
}

/// One change of the state.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Change {
    /// A secret got a new revision; revisions beyond the eight former ones fall off.
    #[n(0)]
    SecretWritten {
        /// The secret.
        #[n(0)]
        name: String,
        /// The revision.
        #[n(1)]
        revision: Revision,
    },
    /// A secret and its history are gone.
    #[n(1)]
    SecretDeleted {
        /// The secret.
        #[n(0)]
        name: String,
    },
    /// A key was added.
    #[n(2)]
    KeyAdded(#[n(0)] KeyRecord),
    /// A key is gone.
    #[n(3)]
    KeyDeleted {
        /// The key.
        #[n(0)]
        name: String,
    },
    /// A device's mutation has this outcome; outcomes beyond the last 64 fall off.
    #[n(4)]
    Outcome {
        /// The device's static key.
        #[cbor(n(0), with = "minicbor::bytes")]
        device: [u8; 32],
        /// The outcome.
        #[n(1)]
        record: OutcomeRecord,
    },
    /// An entry of the audit chain; entries beyond the last 1,024 fall off.
    #[n(5)]
    Audited(#[n(0)] AuditEntry),
    /// A device was enrolled.
    #[n(6)]
    DeviceAdded(#[n(0)] DeviceRecord),
}
