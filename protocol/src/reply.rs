//! What a vault answers.

use minicbor::{Decode, Encode};

use crate::codec;
use crate::error::Refusal;
use crate::head::Head;
use crate::limits;
use crate::request::{KeyAlgorithm, KeyPolicy};
use crate::secret::Secret;

/// One reply, as sealed into a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Reply {
    /// The request's hash. Attack stopped: a host that exchanges the replies of two requests.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub request_hash: [u8; 32],
    /// The vault's head; absent only when the vault could not be opened.
    #[n(1)]
    pub head: Option<Head>,
    /// What became of the request.
    #[n(2)]
    pub outcome: Outcome,
}

/// What became of a request.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum Outcome {
    /// It was done.
    #[n(0)]
    Done(#[n(0)] Answer),
    /// It was refused, and nothing was changed unless the code says otherwise.
    #[n(1)]
    Refused(#[n(0)] Refusal),
}

/// The answers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Answer {
    /// Done; there is nothing to tell.
    #[n(0)]
    Nothing,
    /// The vault's state in numbers.
    #[n(1)]
    Status(#[n(0)] VaultStatus),
    /// The secret is written.
    #[n(2)]
    Written {
        /// Its new revision.
        #[n(0)]
        revision: u64,
    },
    /// A secret.
    #[n(3)]
    Secret {
        /// Its value.
        #[n(0)]
        value: Secret,
        /// Its revision.
        #[n(1)]
        revision: u64,
        /// When that revision was written, Unix seconds.
        #[n(2)]
        written_at: u64,
    },
    /// A page of secrets.
    #[n(4)]
    Secrets {
        /// The entries, by name.
        #[cbor(n(0), with = "codec::AtMost::<{ limits::PAGE_ENTRIES }>")]
        entries: Vec<SecretEntry>,
        /// Whether more follow after the last one.
        #[n(1)]
        more: bool,
    },
    /// The revisions of a secret, newest first.
    #[n(5)]
    History {
        /// The entries.
        #[cbor(n(0), with = "codec::AtMost::<{ limits::PAGE_ENTRIES }>")]
        entries: Vec<SecretEntry>,
    },
    /// A key was made, taken in, or looked up.
    #[n(6)]
    Key(#[n(0)] KeyEntry),
    /// A page of keys.
    #[n(7)]
    Keys {
        /// The entries, by name.
        #[cbor(n(0), with = "codec::AtMost::<{ limits::PAGE_ENTRIES }>")]
        entries: Vec<KeyEntry>,
        /// Whether more follow after the last one.
        #[n(1)]
        more: bool,
    },
    /// A signature: Ed25519 64 bytes, ECDSA DER. Or a MAC: 32 bytes.
    #[n(8)]
    Signature(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Whether a signature or MAC verifies.
    #[n(9)]
    Verified(#[n(0)] bool),
    /// A shared secret (32 bytes, raw: feed it to a KDF) or exported key material or a decrypted plaintext.
    #[n(10)]
    Bytes(#[n(0)] Secret),
    /// Nonce (12 bytes), ciphertext, tag (16 bytes).
    #[n(11)]
    Ciphertext(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A page of the audit chain, oldest first.
    #[n(12)]
    Audit {
        /// The entries.
        #[cbor(n(0), with = "codec::AtMost::<{ limits::PAGE_ENTRIES }>")]
        entries: Vec<AuditEntry>,
        /// Whether more follow after the last one.
        #[n(1)]
        more: bool,
        /// The chain's hash before the first entry that the vault still has.
        #[cbor(n(2), with = "minicbor::bytes")]
        before: [u8; 32],
    },
}

/// A vault in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VaultStatus {
    /// When it was created, Unix seconds.
    #[n(0)]
    pub created_at: u64,
    /// Secrets.
    #[n(1)]
    pub secrets: u64,
    /// Keys.
    #[n(2)]
    pub keys: u64,
    /// Devices.
    #[n(3)]
    pub devices: u64,
    /// Bytes of state.
    #[n(4)]
    pub used_bytes: u64,
    /// Bytes of state that there may be.
    #[n(5)]
    pub limit_bytes: u64,
    /// How often the lock key was turned, from 1.
    #[n(6)]
    pub lock_number: u32,
    /// The shard key's generation.
    #[n(7)]
    pub key_generation: u32,
    /// Entries ever made in the audit chain.
    #[n(8)]
    pub audit_entries: u64,
}

/// One revision of a secret, without its value.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SecretEntry {
    /// The secret's name.
    #[n(0)]
    pub name: String,
    /// The revision.
    #[n(1)]
    pub revision: u64,
    /// The value's size in bytes.
    #[n(2)]
    pub bytes: u64,
    /// When it was written, Unix seconds.
    #[n(3)]
    pub written_at: u64,
}

/// A key, without its material.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyEntry {
    /// The key's name.
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
    /// The public half: Ed25519 and X25519 32 bytes, P-256 and secp256k1 an uncompressed SEC1 point; none for symmetric keys.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub public: Option<Vec<u8>>,
}

/// One entry of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AuditEntry {
    /// Its number, from 1 without gaps.
    #[n(0)]
    pub number: u64,
    /// When, Unix seconds by the enclave's clock.
    #[n(1)]
    pub at: u64,
    /// The version that made it.
    #[n(2)]
    pub version: u64,
    /// The device's tag: the first 16 bytes of SHA-256(label `casemate/recipient/v1`, vault, device's static key).
    #[cbor(n(3), with = "minicbor::bytes")]
    pub device: [u8; 16],
    /// What was done.
    #[n(4)]
    pub event: AuditEvent,
    /// The name it was done to, where there is one.
    #[n(5)]
    pub subject: Option<String>,
    /// SHA-256 over the hash before and this entry: see [`AuditEntry::chain`].
    #[cbor(n(6), with = "minicbor::bytes")]
    pub hash: [u8; 32],
}

/// What the audit chain tells of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum AuditEvent {
    /// The vault was created.
    #[n(0)]
    VaultCreated,
    /// A secret was written.
    #[n(1)]
    SecretWritten,
    /// A secret was deleted.
    #[n(2)]
    SecretDeleted,
    /// A key was made.
    #[n(3)]
    KeyGenerated,
    /// A key was taken in.
    #[n(4)]
    KeyImported,
    /// A key was deleted.
    #[n(5)]
    KeyDeleted,
    /// A key was used whose policy asks for this entry.
    #[n(6)]
    KeyUsed,
    /// Key material was taken out.
    #[n(7)]
    KeyExported,
    /// A device accepted another history.
    #[n(8)]
    RollbackAccepted,
    /// A session was established.
    #[n(9)]
    SessionOpened,
    /// A request was refused for a reason that its owner should know (rollback, fork, foreign head, lock key).
    #[n(10)]
    Refused,
    /// The vault was deleted.
    #[n(11)]
    VaultDeleted,
}

impl AuditEvent {
    /// The event as people and programs read it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::VaultCreated => "vault_created",
            Self::SecretWritten => "secret_written",
            Self::SecretDeleted => "secret_deleted",
            Self::KeyGenerated => "key_generated",
            Self::KeyImported => "key_imported",
            Self::KeyDeleted => "key_deleted",
            Self::KeyUsed => "key_used",
            Self::KeyExported => "key_exported",
            Self::RollbackAccepted => "rollback_accepted",
            Self::SessionOpened => "session_opened",
            Self::Refused => "refused",
            Self::VaultDeleted => "vault_deleted",
        }
    }
}

impl AuditEntry {
    /// The hash that this entry must have after `before`.
    pub fn chain(&self, before: &[u8; 32]) -> [u8; 32] {
        crate::label::hash(
            "casemate/audit/v1",
            &[
                before,
                &self.number.to_be_bytes(),
                &self.at.to_be_bytes(),
                &self.version.to_be_bytes(),
                &self.device,
                &[self.event as u8],
                // Absent and empty are told apart; a name is never empty.
                self.subject.as_deref().unwrap_or("").as_bytes(),
            ],
        )
    }
}
