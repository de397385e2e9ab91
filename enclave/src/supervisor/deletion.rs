//! Deleting what is no longer needed: old versions, oldest first, and after a tombstone the key objects, last.
//!
//! Best effort by design: what stays behind is sealed, costs space only, and is asked for again with the next collection.

use casemate_protocol::id::VaultId;
use casemate_protocol::link::{DELETE_PATHS, LogEvent, LogLevel, TOLD_VERSIONS};
use casemate_protocol::path;
use tokio::sync::mpsc;

use super::backoff;
use super::log::Log;
use super::router::GENERATION;
use super::store::LinkStore;
use crate::outside::StoreError;

/// Deletions that wait. Beyond, a collection is left to the next one.
pub const QUEUE: usize = 256;
/// Tries of one deletion.
const ATTEMPTS: u32 = 5;
/// Lists that one try reads. A parent could go on for ever inventing versions.
const LISTS: usize = 16;

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Of this vault.
    pub vault: VaultId,
    /// The versions below this one.
    pub below: u64,
    /// And its key objects, once those versions are gone.
    pub keys: bool,
}

/// Works the queue off, one deletion after the other: it must never stand in the way of a commit.
pub async fn run(store: LinkStore, mut queue: mpsc::Receiver<Deletion>, log: Log) {
    while let Some(deletion) = queue.recv().await {
        for attempt in 0..ATTEMPTS {
            match delete(&store, deletion).await {
                Ok(()) => break,
                Err(_) => log.tell(LogLevel::Warn, LogEvent::StoreFailed, None),
            }
            tokio::time::sleep(backoff::wait(attempt + 3, deletion.below)).await;
        }
    }
}

async fn delete(store: &LinkStore, deletion: Deletion) -> Result<(), StoreError> {
    let Deletion { vault, below, keys } = deletion;
    for _ in 0..LISTS {
        let mut versions = store.versions(vault).await?;
        let was_all = versions.len() < TOLD_VERSIONS;
        // The parent may list what it likes, in any order. Only what the vault gave up is deleted.
        versions.retain(|version| *version < below);
        versions.sort_unstable();
        for chunk in versions.chunks(DELETE_PATHS) {
            store.delete(chunk.iter().map(|version| path::vault_version(vault, *version)).collect()).await?;
        }
        if was_all {
            break;
        }
    }
    if keys {
        store.delete((1..=GENERATION).map(|generation| path::vault_key(vault, generation)).collect()).await?;
    }
    Ok(())
}
