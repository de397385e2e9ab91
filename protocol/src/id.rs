//! Vault ids and shards.

use std::fmt;
use std::str::FromStr;
use std::sync::LazyLock;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use minicbor::{Decode, Decoder, Encode, Encoder, decode, encode};

use crate::label;

/// A vault's name: the first 20 bytes of SHA-256(label `casemate/vault-id/v1`, owner device's static key, salt).
///
/// Checked against owner key and salt at creation, in the owner's own session; afterwards authority is the sealed device list.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VaultId([u8; VaultId::BYTES]);

impl VaultId {
    /// Length in bytes.
    pub const BYTES: usize = 20;
    /// Length in characters: lower-case base32 (RFC 4648) without padding.
    pub const CHARS: usize = 32;

    /// Derives the id that belongs to an owner device's static key and a salt.
    pub fn derive(owner_static_key: &[u8; 32], salt: &[u8; 16]) -> Self {
        let hash = label::hash("casemate/vault-id/v1", &[owner_static_key, salt]);
        let mut id = [0; Self::BYTES];
        id.copy_from_slice(&hash[..Self::BYTES]);
        Self(id)
    }

    /// Takes 20 bytes as they are.
    pub const fn from_bytes(bytes: [u8; Self::BYTES]) -> Self {
        Self(bytes)
    }

    /// The 20 bytes.
    pub const fn as_bytes(&self) -> &[u8; Self::BYTES] {
        &self.0
    }

    /// The shard that this vault belongs to: its first byte.
    pub const fn shard(&self) -> Shard {
        Shard(self.0[0])
    }
}

static BASE32: LazyLock<Encoding> = LazyLock::new(|| {
    let mut specification: Specification = BASE32_NOPAD.specification();
    "abcdefghijklmnopqrstuvwxyz234567".clone_into(&mut specification.symbols);
    specification.encoding().expect("a fixed, valid alphabet")
});

impl fmt::Display for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&BASE32.encode(&self.0))
    }
}

impl fmt::Debug for VaultId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// A text that is no vault id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a vault id is 32 characters of a–z and 2–7, as `casemate vault create` printed it")]
pub struct InvalidVaultId;

impl FromStr for VaultId {
    type Err = InvalidVaultId;

    fn from_str(text: &str) -> Result<Self, InvalidVaultId> {
        if text.len() != Self::CHARS {
            return Err(InvalidVaultId);
        }
        let bytes = BASE32.decode(text.as_bytes()).map_err(|_| InvalidVaultId)?;
        Ok(Self(bytes.try_into().map_err(|_| InvalidVaultId)?))
    }
}

impl<C> Encode<C> for VaultId {
    fn encode<W: encode::Write>(&self, e: &mut Encoder<W>, _: &mut C) -> Result<(), encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

impl<'b, C> Decode<'b, C> for VaultId {
    fn decode(d: &mut Decoder<'b>, _: &mut C) -> Result<Self, decode::Error> {
        let bytes = d.bytes()?;
        Ok(Self(bytes.try_into().map_err(|_| decode::Error::message("a vault id has 20 bytes"))?))
    }
}

/// One of 256 shards, the unit of ownership, of key caching, of hand-over and of backup.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Shard(pub u8);

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02x}", self.0)
    }
}

impl FromStr for Shard {
    type Err = InvalidShard;

    fn from_str(text: &str) -> Result<Self, InvalidShard> {
        let lower_hex = text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        if text.len() != 2 || !lower_hex {
            return Err(InvalidShard);
        }
        u8::from_str_radix(text, 16).map(Self).map_err(|_| InvalidShard)
    }
}

/// A text that is no shard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a shard is two lower-case hex digits, 00 to ff")]
pub struct InvalidShard;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_id() {
        let id = VaultId::derive(&[7; 32], &[9; 16]);
        assert_eq!(id.to_string(), "iiiyskhs5pcn67iob5qhr6kwxflpyezm");
        assert_eq!(id.to_string().parse::<VaultId>(), Ok(id));
        assert_eq!(id.shard().to_string(), format!("{:02x}", id.as_bytes()[0]));
    }

    #[test]
    fn refuses_other_texts() {
        for text in
            ["", "a", &"A".repeat(32), &"1".repeat(32), &"a".repeat(31), &"a".repeat(33), "ä".repeat(16).as_str()]
        {
            assert_eq!(text.parse::<VaultId>(), Err(InvalidVaultId), "{text}");
        }
        for text in ["0", "0g", "FF", "+1", "000"] {
            assert!(text.parse::<Shard>().is_err(), "{text}");
        }
    }
}
