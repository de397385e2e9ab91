//! `CiphertextBlob`: a data key under the master key, bound to the key's id and to the encryption context.
//!
//! Opaque to callers, as with the real service. Inside: format ‖ key id ‖ salt ‖ AES-256-GCM ciphertext and tag. Each blob
//! has a key of its own, derived from the master key and the salt, so the nonce is always zero.

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::hmac;
use zeroize::{Zeroize, Zeroizing};

use crate::wire::{EncryptionContext, MAX_BLOB_BYTES};

const FORMAT: u8 = 1;
const KEY_ID_BYTES: usize = 16;
const SALT_BYTES: usize = 32;
const TAG_BYTES: usize = 16;
const HEADER_BYTES: usize = 1 + KEY_ID_BYTES + SALT_BYTES;
const KEY_LABEL: &[u8] = b"casemate/standin-kms-blob-key/v1";
const AAD_LABEL: &[u8] = b"casemate/standin-kms-blob/v1";

/// Why a blob was not made or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BlobError {
    /// Not a blob, changed, or made in another encryption context.
    #[error("the blob is not one of this key in this encryption context")]
    Invalid,
    /// Made by another key.
    #[error("the blob belongs to another key")]
    OtherKey,
    /// The library refused to encrypt.
    #[error("the blob could not be encrypted")]
    Encryption,
}

/// The master key: what a KMS key is made of. Never leaves the stand-in.
pub struct MasterKey {
    id: [u8; KEY_ID_BYTES],
    key: Zeroizing<[u8; 32]>,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MasterKey").field("id", &hex::encode(self.id)).field("key", &"redacted").finish()
    }
}

impl MasterKey {
    /// A master key of this id.
    pub fn new(id: [u8; KEY_ID_BYTES], key: Zeroizing<[u8; 32]>) -> Self {
        Self { id, key }
    }

    /// Wraps `plaintext`, bound to `context`.
    ///
    /// # Errors
    /// [`BlobError::Encryption`] when there is no randomness or the library refuses.
    pub fn wrap(&self, plaintext: &[u8], context: &EncryptionContext) -> Result<Vec<u8>, BlobError> {
        let mut blob = Vec::with_capacity(HEADER_BYTES + plaintext.len() + TAG_BYTES);
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).map_err(|_| BlobError::Encryption)?;
        blob.push(FORMAT);
        blob.extend_from_slice(&self.id);
        blob.extend_from_slice(&salt);
        let mut body = Zeroizing::new(plaintext.to_vec());
        let tag = self
            .blob_key(&salt)?
            .seal_in_place_separate_tag(zero_nonce(), Aad::from(self.aad(context)), &mut body)
            .map_err(|_| BlobError::Encryption)?;
        blob.extend_from_slice(&body);
        blob.extend_from_slice(tag.as_ref());
        Ok(blob)
    }

    /// Opens a blob that `wrap` made in the same `context`.
    ///
    /// # Errors
    /// [`BlobError::OtherKey`] when it names another key, else [`BlobError::Invalid`] for anything that does not open.
    pub fn unwrap(&self, blob: &[u8], context: &EncryptionContext) -> Result<Zeroizing<Vec<u8>>, BlobError> {
        if blob.len() > MAX_BLOB_BYTES || blob.len() < HEADER_BYTES + TAG_BYTES || blob[0] != FORMAT {
            return Err(BlobError::Invalid);
        }
        let (header, body) = blob.split_at(HEADER_BYTES);
        let (id, salt) = header[1..].split_at(KEY_ID_BYTES);
        if id != self.id {
            return Err(BlobError::OtherKey);
        }
        let mut body = Zeroizing::new(body.to_vec());
        let length = self
            .blob_key(salt)?
            .open_in_place(zero_nonce(), Aad::from(self.aad(context)), &mut body)
            .map_err(|_| BlobError::Invalid)?
            .len();
        body.truncate(length);
        Ok(body)
    }

    fn blob_key(&self, salt: &[u8]) -> Result<LessSafeKey, BlobError> {
        let mut mac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, self.key.as_slice()));
        mac.update(KEY_LABEL);
        mac.update(salt);
        let mut derived = [0; 32];
        derived.copy_from_slice(mac.sign().as_ref());
        let key = UnboundKey::new(&AES_256_GCM, &derived).map_err(|_| BlobError::Encryption);
        derived.zeroize();
        key.map(LessSafeKey::new)
    }

    /// Every field length-prefixed, pairs in the order of their keys: two contexts never share bytes.
    fn aad(&self, context: &EncryptionContext) -> Vec<u8> {
        let mut aad = Vec::new();
        let mut field = |bytes: &[u8]| {
            let length = u32::try_from(bytes.len()).expect("the API limits a context to 8 KiB");
            aad.extend_from_slice(&length.to_be_bytes());
            aad.extend_from_slice(bytes);
        };
        field(AAD_LABEL);
        field(&self.id);
        for (key, value) in context {
            field(key.as_bytes());
            field(value.as_bytes());
        }
        aad
    }
}

fn zero_nonce() -> Nonce {
    Nonce::assume_unique_for_key([0; 12])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(id: u8) -> MasterKey {
        MasterKey::new([id; 16], Zeroizing::new([42; 32]))
    }

    fn context(pairs: &[(&str, &str)]) -> EncryptionContext {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn a_blob_opens_only_in_its_context() {
        let made_in = context(&[("casemate:cluster", "c"), ("casemate:shard", "0a")]);
        let blob = master(1).wrap(b"a data key", &made_in).unwrap();
        assert_eq!(master(1).unwrap(&blob, &made_in).unwrap().as_slice(), b"a data key");
        for other in [
            context(&[]),
            context(&[("casemate:cluster", "c")]),
            context(&[("casemate:cluster", "c"), ("casemate:shard", "0b")]),
            context(&[("casemate:cluster", "c"), ("casemate:shard", "0a"), ("casemate:generation", "1")]),
            // The same bytes, cut elsewhere.
            context(&[("casemate:cluste", "rc"), ("casemate:shard", "0a")]),
        ] {
            assert_eq!(master(1).unwrap(&blob, &other).err(), Some(BlobError::Invalid), "{other:?}");
        }
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let made_in = context(&[("k", "v")]);
        let blob = master(1).wrap(&[7; 32], &made_in).unwrap();
        for index in 0..blob.len() {
            let mut changed = blob.clone();
            changed[index] ^= 1;
            assert!(master(1).unwrap(&changed, &made_in).is_err(), "byte {index}");
        }
        for length in 0..blob.len() {
            assert!(master(1).unwrap(&blob[..length], &made_in).is_err(), "length {length}");
        }
        assert_eq!(master(2).unwrap(&blob, &made_in).err(), Some(BlobError::OtherKey));
    }

    #[test]
    fn two_wraps_differ() {
        let made_in = context(&[]);
        assert_ne!(master(1).wrap(b"x", &made_in).unwrap(), master(1).wrap(b"x", &made_in).unwrap());
    }
}
