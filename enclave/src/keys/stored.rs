//! Where shard keys stand: one create-only object each, made once for good.
//!
//! `v1/shards/<shard>/<generation>` holds the key service's ciphertext. Two nodes may race to make it; whoever loses uses the
//! winner's. So nothing is ever wrapped under a key that was just made: what the store gives back is unsealed and used, and the key
//! that came with the making is dropped. (That also proves, before any vault depends on it, that the key can be unsealed at all: a
//! key policy may allow the one call and not the other.)
//!
//! The store is the host's. It can show another object than it stored, or none; then a key is used that a later reader will not
//! find here. That is why each wrapped vault key carries a copy of its shard key's ciphertext (see [`super::wrap`]).

use std::fmt;
use std::sync::Arc;

use casemate_protocol::id::Shard;
use casemate_protocol::path;
use sha2::{Digest, Sha256};

use super::SHARD_BLOB_BYTES;
use crate::outside::{BlobStore, BoxFuture, KeyContext, KeyService, KeyServiceError, PutOutcome};

/// Names a shard key: its shard and generation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Slot {
    /// The shard.
    pub shard: Shard,
    /// The generation.
    pub generation: u32,
}

impl Slot {
    /// What the key service binds the key to.
    pub fn context(self, cluster_id: &str) -> KeyContext {
        KeyContext { cluster_id: cluster_id.to_owned(), shard: self.shard.to_string(), generation: self.generation }
    }
}

/// A shard key as the key service sealed it. Not a secret.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SealedShardKey {
    slot: Slot,
    sha256: [u8; 32],
    blob: Arc<[u8]>,
}

impl fmt::Debug for SealedShardKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SealedShardKey")
            .field("slot", &self.slot)
            .field("sha256", &hex::encode(self.sha256))
            .finish_non_exhaustive()
    }
}

/// A ciphertext that is empty or longer than any of the key service's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed shard key has 1 to 1,024 bytes; the object is damaged or not ours, restore it from backup")]
pub struct BlobLengthError;

impl SealedShardKey {
    /// Takes a ciphertext of 1 to [`SHARD_BLOB_BYTES`] bytes.
    ///
    /// # Errors
    /// When it has another length.
    pub fn new(slot: Slot, blob: &[u8]) -> Result<Self, BlobLengthError> {
        if blob.is_empty() || blob.len() > SHARD_BLOB_BYTES {
            return Err(BlobLengthError);
        }
        Ok(Self { slot, sha256: Sha256::digest(blob).into(), blob: blob.into() })
    }

    /// Which shard key it is.
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The ciphertext.
    pub fn blob(&self) -> &[u8] {
        &self.blob
    }

    /// SHA-256 of the ciphertext.
    pub fn sha256(&self) -> [u8; 32] {
        self.sha256
    }
}

/// Reads the shard key of `slot`; makes it if there is none. Returns what the store shows after that, and only that.
///
/// A put whose fate is unknown is settled by reading back: an object is the winner, whoever wrote it; none means that *the same
/// bytes* are put again after a pause. This goes on until the caller's deadline drops the future.
///
/// # Errors
/// When the store cannot be read, when the key service makes no key, or when the object cannot be a sealed shard key.
pub(super) async fn establish(
    slot: Slot,
    cluster_id: &str,
    service: &dyn KeyService,
    store: &dyn BlobStore,
    pause: impl Fn(u32) -> BoxFuture<'static, ()> + Sync,
) -> Result<SealedShardKey, KeyServiceError> {
    let path = path::shard_key(slot.shard, slot.generation);
    let read = async || match store.get(&path, SHARD_BLOB_BYTES).await {
        Ok(None) => Ok(None),
        Ok(Some(blob)) => SealedShardKey::new(slot, &blob)
            .map(Some)
            .map_err(|_| KeyServiceError::NotBelieved("the stored shard key is not 1 to 1,024 bytes long")),
        Err(error) => Err(KeyServiceError::Unavailable(error.to_string())),
    };
    if let Some(sealed) = read().await? {
        return Ok(sealed);
    }
    // Its plaintext is wiped right here: only what the store confirms is ever used.
    let candidate = service.generate(&slot.context(cluster_id)).await?.ciphertext;
    let mut attempt = 0_u32;
    loop {
        attempt = attempt.saturating_add(1);
        let put = store.create(&path, candidate.clone()).await;
        match read().await {
            Ok(Some(sealed)) => return Ok(sealed),
            // Neither ours nor another's is there: not yet, or the put was lost.
            Ok(None) => tracing::warn!(%path, attempt, ?put, "the shard key's object is not there after its put"),
            // A damaged object does not mend by waiting.
            Err(error @ KeyServiceError::NotBelieved(_)) => return Err(error),
            Err(error) => {
                let created = put == Ok(PutOutcome::Created);
                tracing::warn!(%path, attempt, created, %error, "the shard key's object cannot be read back");
            }
        }
        pause(attempt).await;
    }
}
