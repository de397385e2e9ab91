//! What opening a vault needs, in as few round trips as it takes.

use std::collections::BTreeSet;

use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::{KeyObject, VersionObject};
use casemate_protocol::object::Object;
use casemate_protocol::path;
use futures_util::{StreamExt, TryStreamExt};

use super::{Loaded, StoreError};

/// Objects of one vault read at the same time.
const PARALLEL_READS: usize = 8;

/// Where objects are read from.
pub(super) trait Reads: Sync {
    /// An object of at most `limit` bytes; `None` when there is none.
    fn read(&self, path: &str, limit: usize) -> impl Future<Output = Result<Option<Vec<u8>>, StoreError>> + Send;

    /// A vault's versions and their sizes, ascending.
    fn list(&self, vault: VaultId) -> impl Future<Output = Result<Vec<(u64, u64)>, StoreError>> + Send;
}

/// Everything that opening a vault needs.
pub(super) async fn load(from: &impl Reads, vault: VaultId) -> Result<Loaded, StoreError> {
    // Garbage collection may delete between list and read; it never reaches the newest snapshot, so once more is enough.
    match load_once(from, vault).await? {
        Some(loaded) => Ok(loaded),
        None => Ok(load_once(from, vault).await?.unwrap_or(Loaded { versions: vec![], keys: vec![] })),
    }
}

/// The newest version alone.
pub(super) async fn newest(from: &impl Reads, vault: VaultId) -> Result<Option<VersionObject>, StoreError> {
    let Some((version, _)) = from.list(vault).await?.last().copied() else { return Ok(None) };
    let bytes = from.read(&path::vault_version(vault, version), limits::OBJECT_BYTES).await?;
    Ok(bytes.map(|bytes| VersionObject { version, bytes }))
}

/// `None` when an object went away between list and read.
async fn load_once(from: &impl Reads, vault: VaultId) -> Result<Option<Loaded>, StoreError> {
    // Nearly every vault is wrapped under its shard's first key: ask for it at once, not after the headers.
    let first_key = path::vault_key(vault, 1);
    let (listed, first_key) =
        futures_util::try_join!(from.list(vault), from.read(&first_key, limits::WRAPPED_KEY_BYTES))?;
    let mut keys: Vec<_> = first_key.map(|bytes| KeyObject { generation: 1, bytes }).into_iter().collect();
    let Some((newest, _)) = listed.last().copied() else {
        return Ok(Some(Loaded { versions: Vec::new(), keys }));
    };
    let Some(newest_bytes) = from.read(&path::vault_version(vault, newest), limits::OBJECT_BYTES).await? else {
        return Ok(None);
    };
    let longest = newest.saturating_sub(limits::DELTAS_PER_SNAPSHOT as u64);
    // An unreadable header is for the enclave to judge: it gets as much as any chain has.
    let base = Object::parse(&newest_bytes).map_or(longest, |object| object.header.base).max(longest);
    let below: Vec<(u64, u64)> =
        listed.iter().copied().filter(|(version, _)| (base..newest).contains(version)).collect();
    let total = below.iter().map(|(_, size)| size).sum::<u64>() + newest_bytes.len() as u64;
    if total > limits::LOAD_BYTES as u64 {
        return Err(StoreError::TooLarge { found: total, limit: limits::LOAD_BYTES });
    }
    let read: Vec<Option<VersionObject>> = futures_util::stream::iter(below)
        .map(|(version, _)| async move {
            let bytes = from.read(&path::vault_version(vault, version), limits::OBJECT_BYTES).await?;
            Ok::<_, StoreError>(bytes.map(|bytes| VersionObject { version, bytes }))
        })
        .buffered(PARALLEL_READS)
        .try_collect()
        .await?;
    let Some(mut versions) = read.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
    versions.push(VersionObject { version: newest, bytes: newest_bytes });

    let generations: BTreeSet<u32> = versions
        .iter()
        .filter_map(|version| Object::parse(&version.bytes).ok())
        .map(|object| object.header.key_generation)
        .filter(|generation| *generation != 1)
        .collect();
    for generation in generations {
        let found = from.read(&path::vault_key(vault, generation), limits::WRAPPED_KEY_BYTES).await?;
        keys.extend(found.map(|bytes| KeyObject { generation, bytes }));
    }
    Ok(Some(Loaded { versions, keys }))
}
