//! Wrapped vault keys: a vault's own key under a key derived from its shard's.
//!
//! Object `v1/keys/<shard>/<vault>.<generation>`, a CBOR map with these keys:
//!
//! | key | field | bytes |
//! |---|---|---|
//! | 0 | format, 1 | |
//! | 1 | vault id | 20 |
//! | 2 | generation of the shard key | |
//! | 3 | salt, fresh | 32 |
//! | 4 | the shard key as the key service sealed it (a copy) | 1–1,024 |
//! | 5 | the vault key under AES-256-GCM, tag at the end | 48 |
//!
//! ```text
//! wrapping key = HKDF-SHA256(shard key, salt = field 3, info("casemate/vault-key-wrap/v1", vault id, generation))
//! AAD          = info("casemate/vault-key-wrap-aad/v1", format, vault id, generation, SHA-256(field 4))
//! ```
//!
//! with `info` of [`casemate_protocol::label`], format one byte, generation four bytes big-endian, the nonce zero (each salt makes
//! a key of its own, which seals once). The copy in field 4 keeps the vault openable when the shard's object is lost or when a
//! race put another in its place; its hash in the AAD keeps the host from exchanging it.

use std::fmt;

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use casemate_protocol::id::VaultId;
use casemate_protocol::{codec, label, limits};
use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::SHARD_BLOB_BYTES;
use super::shards::ShardKey;
use super::stored::Slot;
use crate::outside::Randomness;

/// The format that is written and read.
const FORMAT: u8 = 1;
/// A vault key and its tag.
const CIPHERTEXT: usize = 48;
/// Label of the wrapping key.
const LABEL_KEY: &str = "casemate/vault-key-wrap/v1";
/// Label of the AAD.
const LABEL_AAD: &str = "casemate/vault-key-wrap-aad/v1";

/// Why a wrapped vault key was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum WrapError {
    /// Not the one encoding of a wrapped vault key.
    #[error(
        "the wrapped vault key is damaged or of another format; restore the object from backup or use a newer release"
    )]
    Malformed,
    /// It belongs to another vault or generation than asked for: the host exchanged objects.
    #[error("the wrapped vault key belongs to another vault or generation; restore the object from backup")]
    OtherVault,
    /// It was wrapped under another shard key than the one at hand: unseal the copy that it carries.
    #[error("the vault key is wrapped under another shard key; unseal the copy that the object carries")]
    OtherShardKey,
    /// It does not open: it was changed.
    #[error("the wrapped vault key does not open; it was changed, restore the object from backup")]
    Forged,
}

/// A wrapped vault key as it stands in the store.
#[derive(Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct WrappedVaultKey {
    #[n(0)]
    format: u8,
    #[n(1)]
    vault: VaultId,
    #[n(2)]
    generation: u32,
    #[cbor(n(3), with = "minicbor::bytes")]
    salt: [u8; 32],
    #[cbor(n(4), with = "minicbor::bytes")]
    shard_blob: Vec<u8>,
    #[cbor(n(5), with = "minicbor::bytes")]
    ciphertext: [u8; CIPHERTEXT],
}

impl fmt::Debug for WrappedVaultKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WrappedVaultKey")
            .field("vault", &self.vault)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

impl WrappedVaultKey {
    /// Wraps `vault_key` of `vault` under `shard_key`, with a fresh salt. The generation is the shard key's.
    pub fn seal(shard_key: &ShardKey, vault: VaultId, vault_key: &[u8; 32], randomness: &dyn Randomness) -> Self {
        let mut salt = [0; 32];
        randomness.fill(&mut salt);
        let mut wrapped = Self {
            format: FORMAT,
            vault,
            generation: shard_key.slot().generation,
            salt,
            shard_blob: shard_key.sealed().blob().to_vec(),
            ciphertext: [0; CIPHERTEXT],
        };
        let payload = Payload { msg: vault_key, aad: &wrapped.aad() };
        let sealed = wrapped
            .cipher(shard_key)
            .encrypt(&Nonce::default(), payload)
            .expect("AES-GCM seals anything shorter than 64 GiB");
        wrapped.ciphertext.copy_from_slice(&sealed);
        wrapped
    }

    /// Opens the vault key of `vault`.
    ///
    /// # Errors
    /// When it is another vault's or generation's, when `shard_key` is not the one it was wrapped under, or when it was changed.
    pub fn open(
        &self,
        shard_key: &ShardKey,
        vault: VaultId,
        generation: u32,
    ) -> Result<Zeroizing<[u8; 32]>, WrapError> {
        if self.vault != vault || self.generation != generation {
            return Err(WrapError::OtherVault);
        }
        let slot = Slot { shard: vault.shard(), generation };
        if shard_key.slot() != slot || shard_key.sealed().blob() != self.shard_blob {
            return Err(WrapError::OtherShardKey);
        }
        let payload = Payload { msg: &self.ciphertext, aad: &self.aad() };
        let opened = self
            .cipher(shard_key)
            .decrypt(&Nonce::default(), payload)
            .map(Zeroizing::new)
            .map_err(|_| WrapError::Forged)?;
        let mut vault_key = Zeroizing::new([0; 32]);
        vault_key.copy_from_slice(&opened);
        Ok(vault_key)
    }

    /// The object's bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(self)
    }

    /// Reads an object: exactly the bytes that [`Self::to_bytes`] makes, nothing else.
    ///
    /// # Errors
    /// When the bytes are anything else.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, WrapError> {
        let wrapped: Self = codec::decode(bytes, limits::WRAPPED_KEY_BYTES).map_err(|_| WrapError::Malformed)?;
        let one_encoding = wrapped.format == FORMAT
            && (1..=SHARD_BLOB_BYTES).contains(&wrapped.shard_blob.len())
            // Fields that are not known are no part of the AAD: an object that has some is not ours.
            && wrapped.to_bytes() == bytes;
        if one_encoding { Ok(wrapped) } else { Err(WrapError::Malformed) }
    }

    /// The vault it belongs to. Not authenticated until it opens.
    pub fn vault(&self) -> VaultId {
        self.vault
    }

    /// The generation of the shard key it is wrapped under. Not authenticated until it opens.
    pub fn generation(&self) -> u32 {
        self.generation
    }

    /// The sealed shard key that it carries. Not authenticated until it opens.
    pub fn shard_blob(&self) -> &[u8] {
        &self.shard_blob
    }

    fn cipher(&self, shard_key: &ShardKey) -> Aes256Gcm {
        let fields: [&[u8]; 2] = [self.vault.as_bytes(), &self.generation.to_be_bytes()];
        let key = label::derive(shard_key.key(), &self.salt, LABEL_KEY, &fields);
        Aes256Gcm::new((&*key).into())
    }

    fn aad(&self) -> Vec<u8> {
        let blob_hash: [u8; 32] = Sha256::digest(&self.shard_blob).into();
        label::info(LABEL_AAD, &[&[self.format], self.vault.as_bytes(), &self.generation.to_be_bytes(), &blob_hash])
    }
}

#[cfg(test)]
#[path = "wrap_tests.rs"]
mod tests;
