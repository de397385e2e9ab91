//! Vault keys: unwrapped with their shard's key, or made for a new vault.

use std::sync::Arc;
use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::limits::WRAPPED_KEY_BYTES;
use casemate_protocol::link::{KeyObject, LogEvent, LogLevel};
use casemate_protocol::path;
use casemate_protocol::secret::Secret;
use zeroize::Zeroizing;

use super::backoff;
use super::log::Log;
use super::router::{GENERATION, VaultKey};
use crate::keys::shards::{ShardKeyError, ShardKeyring};
use crate::keys::wrap::WrappedVaultKey;
use crate::outside::{BlobStore, PutOutcome, Randomness, speaks_of_the_ciphertext};

/// How long one shard key is waited for.
const SHARD_KEY_DEADLINE: Duration = Duration::from_secs(8);
/// Tries to store a new vault's key.
const CREATE_ATTEMPTS: u32 = 6;

/// A stored key does not authenticate. The router counts it and tells.
const CORRUPT: Refusal = Refusal::new(ErrorCode::StateCorrupt);

/// Gives vault keys.
#[derive(Debug, Clone)]
pub struct VaultKeys {
    /// Shard keys.
    pub keyring: ShardKeyring,
    /// Where wrapped keys stand.
    pub store: Arc<dyn BlobStore>,
    /// For new keys and salts.
    pub randomness: Arc<dyn Randomness>,
    /// Where failures are told.
    pub log: Log,
}

impl VaultKeys {
    /// Has a shard key ready; whether that works shows when it is needed.
    pub async fn warm(&self, shard: Shard, generation: u32) {
        drop(self.keyring.shard_key(shard, generation, SHARD_KEY_DEADLINE).await);
    }

    /// The key of `vault`: out of the wrapped keys that the store showed, or, when it showed none, a new one.
    ///
    /// # Errors
    /// What the vault's devices are told.
    pub async fn vault_key(&self, vault: VaultId, wrapped: &[KeyObject]) -> Result<VaultKey, Refusal> {
        match wrapped.iter().max_by_key(|object| object.generation) {
            Some(newest) => self.unwrap(vault, newest.generation, &newest.bytes).await,
            None => self.create(vault).await,
        }
    }

    /// Unwraps a key object. The shard key comes from the copy that the object carries: it opens whatever the store shows as the
    /// shard's own object, and shares its place in memory with that when both are the same.
    async fn unwrap(&self, vault: VaultId, generation: u32, object: &[u8]) -> Result<VaultKey, Refusal> {
        let wrapped = WrappedVaultKey::from_bytes(object).map_err(|_| CORRUPT)?;
        let blob = wrapped.shard_blob();
        let shard_key = self.keyring.shard_key_from_blob(vault.shard(), generation, blob, SHARD_KEY_DEADLINE).await;
        let shard_key = shard_key.map_err(|error| self.refusal(&error))?;
        let key = wrapped.open(&shard_key, vault, generation).map_err(|_| CORRUPT)?;
        Ok(VaultKey { key: Secret::from(key.as_slice()), generation })
    }

    /// Makes a key for a new vault and stores it, wrapped. Of several that try, the first one's stands: it is read back and used, so
    /// that no vault is ever sealed under a key that is stored nowhere.
    async fn create(&self, vault: VaultId) -> Result<VaultKey, Refusal> {
        let shard_key = self.keyring.shard_key(vault.shard(), GENERATION, SHARD_KEY_DEADLINE).await;
        let shard_key = shard_key.map_err(|error| self.refusal(&error))?;
        let mut key = Zeroizing::new([0; 32]);
        self.randomness.fill(key.as_mut_slice());
        let object = WrappedVaultKey::seal(&shard_key, vault, &key, &*self.randomness).to_bytes();
        let path = path::vault_key(vault, GENERATION);
        for attempt in 0..CREATE_ATTEMPTS {
            if let Ok(PutOutcome::Created) = self.store.create(&path, object.clone()).await {
                return Ok(VaultKey { key: Secret::from(key.as_slice()), generation: GENERATION });
            }
            // "It exists", or nobody knows: what stands there decides, ours or another's.
            if let Ok(Some(found)) = self.store.get(&path, WRAPPED_KEY_BYTES).await {
                return self.unwrap(vault, GENERATION, &found).await;
            }
            let mut salt = [0; 8];
            self.randomness.fill(&mut salt);
            self.keyring.clock().sleep(backoff::wait(attempt, u64::from_ne_bytes(salt))).await;
        }
        self.log.tell(LogLevel::Warn, LogEvent::StoreFailed, None);
        Err(Refusal::retry(ErrorCode::Unavailable, 1000))
    }

    fn refusal(&self, error: &ShardKeyError) -> Refusal {
        let retry = |after: &Duration| u32::try_from(after.as_millis()).unwrap_or(u32::MAX).max(1);
        tracing::warn!(%error, "no shard key");
        match error {
            ShardKeyError::Unavailable { retry_after, .. } | ShardKeyError::HardLimit { retry_after, .. } => {
                let throttled = self.keyring.status().throttled;
                self.log.tell(LogLevel::Warn, LogEvent::KeyServiceFailed, Some(throttled));
                Refusal::retry(ErrorCode::Unavailable, retry(retry_after))
            }
            // Attack stopped: a planted ciphertext, of another shard, cluster or account. It says nothing of this enclave.
            ShardKeyError::Refused { code, .. } if speaks_of_the_ciphertext(code) => CORRUPT,
            ShardKeyError::Refused { retry_after, .. } => {
                self.log.tell(LogLevel::Error, LogEvent::KeyServiceRefused, None);
                Refusal::retry(ErrorCode::AccessRefused, retry(retry_after))
            }
            ShardKeyError::NotBelieved { retry_after, .. } => {
                self.log.tell(LogLevel::Error, LogEvent::KeyServiceForged, None);
                Refusal::retry(ErrorCode::Unavailable, retry(retry_after))
            }
            ShardKeyError::BlobLength(_) => CORRUPT,
            ShardKeyError::DeadlineExceeded => {
                self.log.tell(LogLevel::Warn, LogEvent::KeyServiceFailed, None);
                Refusal::retry(ErrorCode::Unavailable, 1000)
            }
        }
    }
}

#[cfg(test)]
#[path = "vault_keys_tests.rs"]
mod tests;
