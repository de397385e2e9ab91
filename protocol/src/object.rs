//! Sealed objects: the clear header of a vault's version and where the sealed body begins.
//!
//! An object is `"CMV1" ‖ u32 BE header length ‖ header (CBOR) ‖ sealed body`. Everything before the sealed body is its associated
//! data. Nothing here is secret and nothing here is believed: the vault-manager authenticates all of it with the body.

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::codec::{self, DecodeError};
use crate::id::VaultId;
use crate::limits;
use crate::lock::{LockCopy, RecipientTag};

/// The first bytes of every object.
pub const MAGIC: [u8; 4] = *b"CMV1";
/// The largest header: 32 devices and the recovery code, with room.
pub const HEADER_BYTES: usize = 16 * 1024;
/// AES-256-GCM's tag at the end of the sealed body.
pub const TAG_BYTES: usize = 16;
const PREFIX_BYTES: usize = 8;

/// What a version holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum Kind {
    /// The whole state.
    #[n(0)]
    Snapshot,
    /// What changed since the version before.
    #[n(1)]
    Delta,
    /// The end: the vault was deleted, and its name is never used again.
    #[n(2)]
    Tombstone,
}

/// The clear header.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Header {
    /// The object format, 1.
    #[n(0)]
    pub format: u8,
    /// The vault.
    #[n(1)]
    pub vault: VaultId,
    /// The version, from 1 without gaps.
    #[n(2)]
    pub version: u64,
    /// SHA-256 of the object of the version before; zeros in version 1.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub previous: [u8; 32],
    /// The salt of this object's key.
    #[cbor(n(4), with = "minicbor::bytes")]
    pub salt: [u8; 16],
    /// Commits to the root key, and so to the lock key: compared before anything is decrypted.
    #[cbor(n(5), with = "minicbor::bytes")]
    pub root_commitment: [u8; 32],
    /// The shard key generation that wraps the vault key.
    #[n(6)]
    pub key_generation: u32,
    /// How often the lock key was turned, from 1.
    #[n(7)]
    pub lock_number: u32,
    /// The lock key, sealed to each recipient; empty in a tombstone.
    #[cbor(n(8), with = "codec::AtMost::<{ limits::DEVICES + 1 }>")]
    pub copies: Vec<LockCopy>,
    /// What the body holds.
    #[n(9)]
    pub kind: Kind,
    /// The snapshot that this version builds on; a snapshot names itself.
    #[n(10)]
    pub base: u64,
}

impl Header {
    /// The prefix and header bytes: an object's associated data.
    pub fn encode_prefix(&self) -> Vec<u8> {
        let header = codec::encode(self);
        let length = u32::try_from(header.len()).expect("a header has at most 16 KiB");
        let mut out = Vec::with_capacity(PREFIX_BYTES + header.len());
        out.extend_from_slice(&MAGIC);
        out.extend_from_slice(&length.to_be_bytes());
        out.extend_from_slice(&header);
        out
    }

    /// The copy of the lock key for a recipient.
    pub fn copy_for(&self, recipient: &RecipientTag) -> Option<&LockCopy> {
        self.copies.iter().find(|copy| copy.recipient == *recipient)
    }
}

/// An object, parsed but not authenticated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object<'a> {
    /// The clear header.
    pub header: Header,
    /// The associated data: everything before the sealed body.
    pub associated: &'a [u8],
    /// The sealed body, tag included.
    pub sealed: &'a [u8],
}

impl<'a> Object<'a> {
    /// Parses an object.
    ///
    /// # Errors
    /// When it is over its limit, truncated, of another format, or encoded in another way than ours.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        if bytes.len() > limits::OBJECT_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let (magic, rest) = bytes.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
        let (length, rest) = rest.split_first_chunk::<4>().ok_or(DecodeError::Malformed)?;
        if *magic != MAGIC {
            return Err(DecodeError::Malformed);
        }
        let length = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| DecodeError::TooLarge)?;
        if length > HEADER_BYTES {
            return Err(DecodeError::TooLarge);
        }
        let (header_bytes, sealed) = rest.split_at_checked(length).ok_or(DecodeError::Malformed)?;
        let header: Header = codec::decode(header_bytes, HEADER_BYTES)?;
        let fits = header.format == 1
            && header.version >= 1
            && (1..=header.version).contains(&header.base)
            && (header.kind != Kind::Snapshot || header.base == header.version)
            && sealed.len() > TAG_BYTES;
        if fits {
            Ok(Self { header, associated: &bytes[..PREFIX_BYTES + length], sealed })
        } else {
            Err(DecodeError::Unexpected)
        }
    }
}

/// The hash that chains versions and names heads.
pub fn hash(object: &[u8]) -> [u8; 32] {
    Sha256::digest(object).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> Header {
        Header {
            format: 1,
            vault: VaultId::from_bytes([1; 20]),
            version: 3,
            previous: [2; 32],
            salt: [3; 16],
            root_commitment: [4; 32],
            key_generation: 1,
            lock_number: 1,
            copies: vec![LockCopy { lock_number: 1, recipient: [5; 16], encapsulated: [6; 32], ciphertext: [7; 48] }],
            kind: Kind::Delta,
            base: 1,
        }
    }

    #[test]
    fn parses_what_it_wrote_and_nothing_else() {
        let mut bytes = sample().encode_prefix();
        bytes.extend_from_slice(&[9; 40]);
        let object = Object::parse(&bytes).unwrap();
        assert_eq!((object.header.clone(), object.sealed), (sample(), &[9; 40][..]));
        assert_eq!(object.associated, sample().encode_prefix());
        for cut in 0..bytes.len() - 24 {
            assert!(Object::parse(&bytes[..cut]).is_err(), "{cut}");
        }
        let copies = |count| Header { copies: vec![sample().copies[0].clone(); count], ..sample() };
        let most = limits::DEVICES + 1;
        assert!(Object::parse(&[copies(most).encode_prefix(), vec![9; 40]].concat()).is_ok());
        for wrong in [
            copies(most + 1),
            Header { format: 2, ..sample() },
            Header { base: 4, ..sample() },
            Header { kind: Kind::Snapshot, ..sample() },
        ] {
            let mut bytes = wrong.encode_prefix();
            bytes.extend_from_slice(&[9; 40]);
            assert_eq!(Object::parse(&bytes), Err(DecodeError::Unexpected));
        }
    }
}
