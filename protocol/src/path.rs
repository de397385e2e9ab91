//! Names of objects in the blob store.

use crate::id::{Shard, VaultId};

/// Digits of a version in an object's name; names then sort as versions do.
pub const VERSION_DIGITS: usize = 20;

/// The folder of a vault's versions, with its trailing slash.
pub fn vault_folder(vault: VaultId) -> String {
    format!("v1/vaults/{}/{vault}/", vault.shard())
}

/// One version of a vault.
pub fn vault_version(vault: VaultId, version: u64) -> String {
    format!("{}{version:020}", vault_folder(vault))
}

/// A shard key as KMS sealed it.
pub fn shard_key(shard: Shard, generation: u32) -> String {
    format!("v1/shards/{shard}/{generation}")
}

/// A vault key wrapped under a shard key.
pub fn vault_key(vault: VaultId, generation: u32) -> String {
    format!("v1/keys/{}/{vault}.{generation}", vault.shard())
}

/// The version in the last segment of a vault version's name; `None` for anything else.
pub fn parse_version(segment: &str) -> Option<u64> {
    let digits = segment.len() == VERSION_DIGITS && segment.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| segment.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        let vault = VaultId::from_bytes([0xab; 20]);
        assert_eq!(vault_version(vault, 7), "v1/vaults/ab/vov2xk5lvov2xk5lvov2xk5lvov2xk5l/00000000000000000007");
        assert_eq!(shard_key(Shard(0xab), 1), "v1/shards/ab/1");
        assert_eq!(vault_key(vault, 1), "v1/keys/ab/vov2xk5lvov2xk5lvov2xk5lvov2xk5l.1");
        assert_eq!(parse_version("00000000000000000007"), Some(7));
        for wrong in ["", "7", "0000000000000000000x", "+0000000000000000007", "99999999999999999999"] {
            assert_eq!(parse_version(wrong), None, "{wrong}");
        }
    }
}
