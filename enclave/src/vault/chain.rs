//! Opening: from the objects that the store showed to the state that they hold.

use casemate_protocol::codec;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::object::{self, Header, Kind, Object};

use super::body::{Delta, Snapshot};
use super::cipher::RootKey;
use super::state::State;

/// A chain that opened.
#[derive(Debug)]
pub struct Chain {
    /// The state at its end.
    pub state: State,
    /// The newest header.
    pub header: Header,
    /// SHA-256 of the newest object.
    pub hash: [u8; 32],
    /// Bytes of the snapshot's object.
    pub snapshot_bytes: usize,
    /// Bytes of the deltas' objects.
    pub delta_bytes: usize,
    /// Deltas above the snapshot.
    pub deltas: usize,
}

/// Why a chain did not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// It was sealed under another lock key than the one presented.
    #[error("the vault's lock key is another one")]
    OtherLockKey(Box<Header>),
    /// It ends with a tombstone.
    #[error("the vault was deleted")]
    Deleted,
    /// It does not parse, does not chain, does not authenticate or does not make sense.
    #[error("the stored vault does not authenticate; restore the object store from its versions")]
    Corrupt,
}

/// The newest header of what the store showed, checked against names but not authenticated.
///
/// # Errors
/// [`ChainError::Corrupt`].
pub fn newest_header(vault: VaultId, newest: &VersionObject) -> Result<Header, ChainError> {
    let object = Object::parse(&newest.bytes).map_err(|_| ChainError::Corrupt)?;
    // Attack stopped: an object of another vault, or of another version, put under this name.
    if object.header.vault != vault || object.header.version != newest.version {
        return Err(ChainError::Corrupt);
    }
    Ok(object.header)
}

/// Opens a chain: a snapshot and every consecutive version above it. All of them must authenticate: a crash leaves whole objects
/// or none, so one that does not is damage or forgery.
///
/// # Errors
/// See [`ChainError`].
pub fn open(vault: VaultId, root: &RootKey, versions: &[VersionObject]) -> Result<Chain, ChainError> {
    let (first, last) = (versions.first().ok_or(ChainError::Corrupt)?, versions.last().ok_or(ChainError::Corrupt)?);
    let newest = newest_header(vault, last)?;
    if newest.kind == Kind::Tombstone {
        return Err(ChainError::Deleted);
    }
    if !root.matches(&newest) {
        return Err(ChainError::OtherLockKey(Box::new(newest)));
    }
    let mut chain = open_snapshot(vault, root, first)?;
    for version in &versions[1..] {
        extend(vault, root, &mut chain, version)?;
    }
    Ok(chain)
}

fn open_snapshot(vault: VaultId, root: &RootKey, version: &VersionObject) -> Result<Chain, ChainError> {
    let header = newest_header(vault, version)?;
    let first_fits = header.version != 1 || header.previous == [0; 32];
    if header.kind != Kind::Snapshot || !root.matches(&header) || !first_fits {
        return Err(ChainError::Corrupt);
    }
    let object = Object::parse(&version.bytes).map_err(|_| ChainError::Corrupt)?;
    let body = root.open(&object).map_err(|_| ChainError::Corrupt)?;
    let snapshot: Snapshot = codec::decode(&body, limits::OBJECT_BYTES).map_err(|_| ChainError::Corrupt)?;
    Ok(Chain {
        state: State::restore(snapshot).map_err(|_| ChainError::Corrupt)?,
        hash: object::hash(&version.bytes),
        header,
        snapshot_bytes: version.bytes.len(),
        delta_bytes: 0,
        deltas: 0,
    })
}

fn extend(vault: VaultId, root: &RootKey, chain: &mut Chain, version: &VersionObject) -> Result<(), ChainError> {
    let header = newest_header(vault, version)?;
    let follows = header.version == chain.header.version + 1
        && header.previous == chain.hash
        && header.kind == Kind::Delta
        && header.base == chain.header.base
        && header.key_generation == chain.header.key_generation
        && header.lock_number == chain.header.lock_number
        && root.matches(&header)
        && chain.deltas < limits::DELTAS_PER_SNAPSHOT;
    if !follows {
        return Err(ChainError::Corrupt);
    }
    let object = Object::parse(&version.bytes).map_err(|_| ChainError::Corrupt)?;
    let body = root.open(&object).map_err(|_| ChainError::Corrupt)?;
    let delta: Delta = codec::decode(&body, limits::OBJECT_BYTES).map_err(|_| ChainError::Corrupt)?;
    chain.state.push_version_hash(&chain.hash);
    for change in delta.changes {
        chain.state.apply(change).map_err(|_| ChainError::Corrupt)?;
    }
    chain.hash = object::hash(&version.bytes);
    chain.header = header;
    chain.delta_bytes += version.bytes.len();
    chain.deltas += 1;
    Ok(())
}
