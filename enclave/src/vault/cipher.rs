//! From vault key and lock key to sealed objects.
//!
//! `root = HKDF(vault key ‖ lock key, salt = vault id)`; one object key per object from the root, the version and a fresh salt;
//! AES-256-GCM with nonce zero, because no key is ever used twice.

use std::fmt;

use aes_gcm::aead::{AeadInOut, KeyInit};
use aes_gcm::{Aes256Gcm, Nonce, Tag};
use casemate_protocol::id::VaultId;
use casemate_protocol::label;
use casemate_protocol::object::{Header, Object, TAG_BYTES};
use casemate_protocol::padding::size_class;
use casemate_protocol::secret::Secret;
use casemate_protocol::wipe::ZeroizingVec;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

const LENGTH_BYTES: usize = 4;

/// The vault key: random, made once, wrapped under the shard key.
pub type VaultKey = Zeroizing<[u8; 32]>;

/// The root key of a vault: needs both the vault key, which only an attested enclave gets, and the lock key, which only the
/// owner's devices hold.
#[derive(Clone)]
pub struct RootKey {
    vault: VaultId,
    key: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for RootKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("RootKey(redacted)")
    }
}

/// A body that does not authenticate or is not padded as ours are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a sealed object does not authenticate; the store was damaged or tampered with")]
pub struct NotAuthentic;

impl RootKey {
    /// Derives the root key.
    pub fn derive(vault: VaultId, vault_key: &[u8; 32], lock_key: &[u8; 32]) -> Self {
        let mut both = Zeroizing::new([0; 64]);
        both[..32].copy_from_slice(vault_key);
        both[32..].copy_from_slice(lock_key);
        Self { vault, key: label::derive(both.as_slice(), vault.as_bytes(), "casemate/root/v1", &[]) }
    }

    /// The root key that [`Self::to_secret`] gave.
    pub fn from_secret(vault: VaultId, secret: &Secret) -> Option<Self> {
        Some(Self { vault, key: secret.to_array()? })
    }

    /// The key itself, to be parked.
    pub fn to_secret(&self) -> Secret {
        Secret::from(&self.key[..])
    }

    /// What each header commits to.
    pub fn commitment(&self) -> [u8; 32] {
        *label::derive(self.key.as_slice(), &[], "casemate/root-commitment/v1", &[self.vault.as_bytes()])
    }

    /// Whether a header was sealed under this root, in constant time and before anything is decrypted. Attack stopped: AES-GCM
    /// does not commit to its key, so one ciphertext may decrypt under two.
    pub fn matches(&self, header: &Header) -> bool {
        self.commitment().ct_eq(&header.root_commitment).into()
    }

    fn cipher(&self, header: &Header) -> Aes256Gcm {
        let fields: [&[u8]; 2] = [&header.version.to_be_bytes(), &header.salt];
        let key = label::derive(self.key.as_slice(), &[], "casemate/object/v1", &fields);
        Aes256Gcm::new_from_slice(key.as_slice()).expect("32 bytes")
    }

    /// Seals `body` under `header`: length, body, zeros up to its size class.
    pub fn seal(&self, header: &Header, body: &[u8]) -> Vec<u8> {
        let mut object = header.encode_prefix();
        let start = object.len();
        let padded = size_class(LENGTH_BYTES + body.len());
        // One allocation: growing would leave plaintext behind.
        let mut sealed = ZeroizingVec::with_capacity(padded);
        let length = u32::try_from(body.len()).expect("a body has at most 4 MiB");
        sealed.extend_from_slice(&length.to_be_bytes());
        sealed.extend_from_slice(body);
        sealed.resize(padded, 0);
        let tag = self
            .cipher(header)
            .encrypt_inout_detached(&Nonce::default(), &object[..start], sealed.as_mut_slice().into())
            .expect("a body is far below AES-GCM's 64 GiB");
        object.reserve_exact(padded + TAG_BYTES);
        object.extend_from_slice(&sealed);
        object.extend_from_slice(&tag);
        object
    }

    /// Opens an object whose commitment was compared before.
    ///
    /// # Errors
    /// [`NotAuthentic`].
    pub fn open(&self, object: &Object<'_>) -> Result<ZeroizingVec, NotAuthentic> {
        let (sealed, tag) = object.sealed.split_last_chunk::<TAG_BYTES>().ok_or(NotAuthentic)?;
        let mut body = ZeroizingVec::from(sealed.to_vec());
        self.cipher(&object.header)
            .decrypt_inout_detached(&Nonce::default(), object.associated, body.as_mut_slice().into(), &Tag::from(*tag))
            .map_err(|_| NotAuthentic)?;
        let (length, rest) = body.split_first_chunk::<LENGTH_BYTES>().ok_or(NotAuthentic)?;
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| NotAuthentic)?;
        if length > rest.len() || size_class(LENGTH_BYTES + length) != body.len() {
            return Err(NotAuthentic);
        }
        body.drain(..LENGTH_BYTES);
        body.truncate(length);
        Ok(body)
    }
}
