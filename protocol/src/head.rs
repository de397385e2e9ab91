//! Heads: what a device remembers of a vault's newest state.

use std::fmt;

use minicbor::{Decode, Encode};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::id::VaultId;
use crate::label;

/// The newest state of a vault: its version, the hash of that version's object, and a tag that only the vault can make.
#[derive(Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Head {
    /// The version; 1 is the first.
    #[n(0)]
    pub version: u64,
    /// SHA-256 of the version's object.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub hash: [u8; 32],
    /// HMAC-SHA256 under [`HeadKey`]. It survives restarts, nodes and turns of the lock key, because the vault key does.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub tag: [u8; 32],
}

impl Head {
    /// Whether both are the same, in constant time.
    pub fn matches(&self, other: &Self) -> bool {
        self.version == other.version && bool::from(self.hash.ct_eq(&other.hash) & self.tag.ct_eq(&other.tag))
    }
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Head {{ version: {}, hash: ", self.version)?;
        self.hash[..4].iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("… }")
    }
}

/// The key that tags heads: HKDF(vault key, label `casemate/head/v1`).
pub struct HeadKey(Zeroizing<[u8; 32]>);

impl fmt::Debug for HeadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("HeadKey(redacted)")
    }
}

impl HeadKey {
    const LABEL: &'static str = "casemate/head/v1";

    /// Derives the key from the vault key.
    pub fn derive(vault_key: &[u8; 32]) -> Self {
        Self(label::derive(vault_key, &[], Self::LABEL, &[]))
    }

    /// Makes the head of a version.
    pub fn tag(&self, vault: VaultId, version: u64, hash: [u8; 32]) -> Head {
        let tag = label::mac(self.0.as_slice(), Self::LABEL, &[vault.as_bytes(), &version.to_be_bytes(), &hash]);
        Head { version, hash, tag }
    }

    /// Whether `head` was made by this vault, in constant time.
    pub fn verify(&self, vault: VaultId, head: &Head) -> bool {
        self.tag(vault, head.version, head.hash).tag.ct_eq(&head.tag).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_bound_to_vault_version_and_hash() {
        let key = HeadKey::derive(&[1; 32]);
        let vault = VaultId::from_bytes([2; 20]);
        let head = key.tag(vault, 3, [4; 32]);
        assert!(key.verify(vault, &head));
        assert!(!key.verify(VaultId::from_bytes([3; 20]), &head));
        assert!(!key.verify(vault, &Head { version: 4, ..head }));
        assert!(!key.verify(vault, &Head { hash: [5; 32], ..head }));
        assert!(!HeadKey::derive(&[2; 32]).verify(vault, &head));
    }
}
