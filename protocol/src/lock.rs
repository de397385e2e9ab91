//! Copies of the lock key: sealed to each recipient with HPKE, in the clear header of each object.
//!
//! HPKE base mode (RFC 9180), DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM; `info` as [`copy_info`]; no associated data.

use minicbor::{Decode, Encode};

use crate::id::VaultId;
use crate::label;

/// A recipient's name in a vault's clear header: it tells a host nothing but that it is the same recipient again.
pub type RecipientTag = [u8; 16];

/// The first 16 bytes of SHA-256(label `casemate/recipient/v1`, vault, X25519 public key).
pub fn recipient_tag(vault: VaultId, public_key: &[u8; 32]) -> RecipientTag {
    let hash = label::hash("casemate/recipient/v1", &[vault.as_bytes(), public_key]);
    let mut tag = [0; 16];
    tag.copy_from_slice(&hash[..16]);
    tag
}

/// HPKE's `info`: a copy is bound to its vault, its lock number and its recipient.
pub fn copy_info(vault: VaultId, lock_number: u32, recipient: &RecipientTag) -> Vec<u8> {
    label::info("casemate/lock-copy/v1", &[vault.as_bytes(), &lock_number.to_be_bytes(), recipient])
}

/// The lock key sealed to one recipient.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LockCopy {
    /// The lock number of the sealed key.
    #[n(0)]
    pub lock_number: u32,
    /// The recipient's tag.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub recipient: RecipientTag,
    /// HPKE's encapsulated key.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub encapsulated: [u8; 32],
    /// The sealed lock key: 32 bytes and a 16-byte tag.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub ciphertext: [u8; 48],
}
