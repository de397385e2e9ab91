//! An open vault: its committed state, its head, and how the next version is sealed.

use std::fmt;

use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::head::{Head, HeadKey};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::lock::LockCopy;
use casemate_protocol::object::{self, Header, Kind};
use casemate_protocol::secret::Secret;

use super::body::Delta;
use super::chain::Chain;
use super::cipher::{RootKey, VaultKey};
use super::execute::{Overlay, Standpoint};
use super::parking::{WHOLE_BYTES, Whole};
use super::state::{Inconsistent, State};
use crate::ipc::Notice;
use crate::outside::Randomness;

/// An open vault. All of it is committed.
pub struct OpenVault {
    vault: VaultId,
    vault_key: VaultKey,
    root: RootKey,
    head_key: HeadKey,
    /// The committed state.
    pub state: State,
    generation: u32,
    lock_number: u32,
    copies: Vec<LockCopy>,
    /// The newest version's; none while the first is on its way. Made once a version: every reply carries it.
    head: Option<Head>,
    base: u64,
    snapshot_bytes: usize,
    delta_bytes: usize,
    deltas: usize,
}

impl fmt::Debug for OpenVault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenVault")
            .field("vault", &self.vault)
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}

/// A sealed version on its way to the store, and the vault that it makes when it is durable.
#[derive(Debug)]
pub struct Next {
    /// The version.
    pub version: u64,
    /// The sealed object.
    pub object: Vec<u8>,
    state: State,
    hash: [u8; 32],
    kind: Kind,
}

impl Next {
    /// Whether this version ends the vault.
    pub const fn is_tombstone(&self) -> bool {
        matches!(self.kind, Kind::Tombstone)
    }
}

impl HeadStanding {
    /// What a head that is refused is counted as.
    pub const fn notice(self) -> Option<Notice> {
        match self {
            Self::Refused(ErrorCode::ForkDetected) => Some(Notice::Fork),
            Self::Refused(ErrorCode::HistoryUnknown) => Some(Notice::HistoryUnknown),
            Self::Refused(ErrorCode::HeadInvalid) => Some(Notice::HeadInvalid),
            Self::Known | Self::Newer | Self::Refused(_) => None,
        }
    }
}

/// What a device's head means for a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeadStanding {
    /// The same history, at this point or before.
    Known,
    /// Made by this vault, but newer than what the store showed.
    Newer,
    /// Not to be served.
    Refused(ErrorCode),
}

impl OpenVault {
    /// A vault that is being created: version 0, an empty state, no object yet.
    pub fn create(
        vault: VaultId,
        vault_key: VaultKey,
        lock_key: &[u8; 32],
        generation: u32,
        copies: Vec<LockCopy>,
        now: u64,
    ) -> Self {
        let root = RootKey::derive(vault, &vault_key, lock_key);
        let head_key = HeadKey::derive(&vault_key);
        Self {
            vault,
            vault_key,
            root,
            head_key,
            state: State::new(now),
            generation,
            lock_number: 1,
            copies,
            head: None,
            base: 0,
            snapshot_bytes: 0,
            delta_bytes: 0,
            deltas: 0,
        }
    }

    /// The vault at the end of a chain.
    pub fn from_chain(vault: VaultId, vault_key: VaultKey, root: RootKey, chain: Chain) -> Self {
        let head_key = HeadKey::derive(&vault_key);
        Self {
            vault,
            vault_key,
            root,
            head: Some(head_key.tag(vault, chain.header.version, chain.hash)),
            head_key,
            state: chain.state,
            generation: chain.header.key_generation,
            lock_number: chain.header.lock_number,
            copies: chain.header.copies,
            base: chain.header.base,
            snapshot_bytes: chain.snapshot_bytes,
            delta_bytes: chain.delta_bytes,
            deltas: chain.deltas,
        }
    }

    /// The vault that another process of it has left.
    ///
    /// # Errors
    /// [`Inconsistent`] when it is not one that this code has left.
    pub(super) fn resume(vault: VaultId, root: RootKey, head: Head, whole: Whole) -> Result<Self, Inconsistent> {
        let vault_key: VaultKey = whole.vault_key.to_array().ok_or(Inconsistent)?;
        Ok(Self {
            vault,
            head_key: HeadKey::derive(&vault_key),
            vault_key,
            root,
            state: State::resume(whole.state)?,
            generation: whole.generation,
            lock_number: whole.lock_number,
            copies: whole.copies,
            head: Some(head),
            base: whole.base,
            snapshot_bytes: whole.snapshot_bytes,
            delta_bytes: whole.delta_bytes,
            deltas: whole.deltas,
        })
    }

    /// What the process that comes next needs beside root key and head; none when that would be too much to keep.
    pub(super) fn to_whole(&self) -> Option<Whole> {
        (self.state.used_bytes() <= WHOLE_BYTES).then(|| Whole {
            vault_key: Secret::from(&self.vault_key[..]),
            state: self.state.snapshot(),
            generation: self.generation,
            lock_number: self.lock_number,
            copies: self.copies.clone(),
            base: self.base,
            snapshot_bytes: self.snapshot_bytes,
            delta_bytes: self.delta_bytes,
            deltas: self.deltas,
        })
    }

    /// The committed head; none before the first version is durable.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// The committed version; 0 before the first is durable.
    pub fn version(&self) -> u64 {
        self.head.map_or(0, |head| head.version)
    }

    fn hash(&self) -> [u8; 32] {
        self.head.map_or([0; 32], |head| head.hash)
    }

    /// The root key.
    pub const fn root(&self) -> &RootKey {
        &self.root
    }

    /// The vault key.
    pub const fn vault_key(&self) -> &VaultKey {
        &self.vault_key
    }

    /// Numbers for a status.
    pub const fn standpoint(&self) -> Standpoint {
        Standpoint { lock_number: self.lock_number, key_generation: self.generation }
    }

    /// Whether a presented lock key is this vault's, in constant time.
    pub fn lock_matches(&self, lock_key: &[u8; 32]) -> bool {
        use subtle::ConstantTimeEq;
        let presented = RootKey::derive(self.vault, &self.vault_key, lock_key);
        presented.commitment().ct_eq(&self.root.commitment()).into()
    }

    /// The copy of the lock key for a recipient.
    pub fn copy_for(&self, recipient: &[u8; 16]) -> Option<&LockCopy> {
        self.copies.iter().find(|copy| copy.recipient == *recipient)
    }

    /// Judges the head that a device holds. Attacks stopped: an older state served as the newest (rollback), and two devices
    /// served two histories (fork).
    pub fn judge(&self, held: &Head) -> HeadStanding {
        let (version, hash) = (self.version(), self.hash());
        // The usual case, without making a tag anew.
        if self.head.is_some_and(|head| head.matches(held)) {
            return HeadStanding::Known;
        }
        if !self.head_key.verify(self.vault, held) {
            return HeadStanding::Refused(ErrorCode::HeadInvalid);
        }
        match held.version.cmp(&version) {
            std::cmp::Ordering::Greater => HeadStanding::Newer,
            std::cmp::Ordering::Equal if held.hash == hash => HeadStanding::Known,
            std::cmp::Ordering::Equal => HeadStanding::Refused(ErrorCode::ForkDetected),
            std::cmp::Ordering::Less => match self.state.knows_hash(version, held.version, &held.hash) {
                Some(true) => HeadStanding::Known,
                Some(false) => HeadStanding::Refused(ErrorCode::ForkDetected),
                None => HeadStanding::Refused(ErrorCode::HistoryUnknown),
            },
        }
    }

    /// Whether this vault made `head`, wherever it stands.
    pub fn made(&self, head: &Head) -> bool {
        self.head_key.verify(self.vault, head)
    }

    /// An overlay of the committed state for the next version.
    pub fn overlay(&self) -> Overlay {
        let mut state = self.state.clone();
        if let Some(head) = &self.head {
            state.push_version_hash(&head.hash);
        }
        Overlay { state, version: self.version() + 1, changes: Vec::new() }
    }

    /// Seals an overlay as the next version: a delta, or a snapshot when the deltas would outweigh the last one.
    pub fn seal(&self, overlay: Overlay, tombstone: bool, randomness: &dyn Randomness) -> Next {
        let (state, version) = (overlay.state, overlay.version);
        if !tombstone && self.head.is_some() && self.deltas < limits::DELTAS_PER_SNAPSHOT {
            let body = codec::encode_secret(&Delta { changes: overlay.changes });
            if self.delta_bytes + body.len() <= self.snapshot_bytes {
                return self.seal_body(state, version, Kind::Delta, &body, randomness);
            }
        } else if tombstone {
            let body = codec::encode_secret(&Delta { changes: overlay.changes });
            return self.seal_body(state, version, Kind::Tombstone, &body, randomness);
        }
        let body = codec::encode_secret(&state.snapshot());
        self.seal_body(state, version, Kind::Snapshot, &body, randomness)
    }

    fn seal_body(&self, state: State, version: u64, kind: Kind, body: &[u8], randomness: &dyn Randomness) -> Next {
        let mut salt = [0; 16];
        randomness.fill(&mut salt);
        let header = Header {
            format: 1,
            vault: self.vault,
            version,
            previous: self.hash(),
            salt,
            root_commitment: self.root.commitment(),
            key_generation: self.generation,
            lock_number: self.lock_number,
            copies: if kind == Kind::Tombstone { Vec::new() } else { self.copies.clone() },
            kind,
            base: if kind == Kind::Snapshot { version } else { self.base },
        };
        let object = self.root.seal(&header, body);
        Next { version, hash: object::hash(&object), object, state, kind }
    }

    /// Takes the next version as committed. `object_bytes` is its object's size.
    pub fn commit(&mut self, next: Next, object_bytes: usize) {
        self.state = next.state;
        self.head = Some(self.head_key.tag(self.vault, next.version, next.hash));
        match next.kind {
            Kind::Snapshot => {
                self.base = next.version;
                self.snapshot_bytes = object_bytes;
                self.delta_bytes = 0;
                self.deltas = 0;
            }
            Kind::Delta => {
                self.delta_bytes += object_bytes;
                self.deltas += 1;
            }
            Kind::Tombstone => {}
        }
    }

    /// The oldest version to keep when `kept` stay behind the newest: never past the newest snapshot.
    pub fn collectable_below(&self, kept: u32) -> u64 {
        self.base.min(self.version().saturating_sub(u64::from(kept)))
    }

    /// Whether the newest version is a snapshot.
    pub fn at_snapshot(&self) -> bool {
        self.base == self.version()
    }
}
