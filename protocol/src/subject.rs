//! NATS subjects.

use crate::id::{Shard, VaultId};

/// The default first token of every subject.
pub const DEFAULT_PREFIX: &str = "casemate";

/// Builds and parses subjects under one prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subjects {
    prefix: String,
}

/// A prefix that is not one NATS token.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a subject prefix is 1–32 characters of a–z, 0–9, `-` and `_`, found {0:?}")]
pub struct InvalidPrefix(pub String);

impl Default for Subjects {
    fn default() -> Self {
        Self { prefix: DEFAULT_PREFIX.to_owned() }
    }
}

impl Subjects {
    /// Takes a prefix of one token.
    ///
    /// # Errors
    /// When it has other characters: a wildcard or a dot would make one deployment answer another's subjects.
    pub fn new(prefix: &str) -> Result<Self, InvalidPrefix> {
        let fits = (1..=32).contains(&prefix.len())
            && prefix.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"-_".contains(&byte));
        if fits {
            Ok(Self { prefix: prefix.to_owned() })
        } else {
            Err(InvalidPrefix(prefix.chars().take(64).collect()))
        }
    }

    /// Where a vault's devices send.
    pub fn vault(&self, vault: VaultId) -> String {
        format!("{}.v1.vault.{}.{vault}", self.prefix, vault.shard())
    }

    /// What a node subscribes to for a shard that it owns.
    pub fn shard(&self, shard: Shard) -> String {
        format!("{}.v1.vault.{shard}.>", self.prefix)
    }

    /// Where a vault's devices listen.
    pub fn event(&self, vault: VaultId) -> String {
        format!("{}.v1.event.{}.{vault}", self.prefix, vault.shard())
    }

    /// Where anyone asks any node for fresh evidence.
    pub fn attest(&self) -> String {
        format!("{}.v1.attest", self.prefix)
    }

    /// The queue group that shares `attest`.
    pub fn attest_queue(&self) -> String {
        format!("{}-attest", self.prefix)
    }

    /// The vault that a subject names; `None` for any other subject, and when the shard is not the vault's own.
    pub fn parse_vault(&self, subject: &str) -> Option<VaultId> {
        let rest = subject.strip_prefix(self.prefix.as_str())?.strip_prefix(".v1.vault.")?;
        let (shard, vault) = rest.split_once('.')?;
        let (shard, vault) = (shard.parse::<Shard>().ok()?, vault.parse::<VaultId>().ok()?);
        (vault.shard() == shard).then_some(vault)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn round_trip_and_refusals() {
        let subjects = Subjects::default();
        let vault = VaultId::from_bytes([0xab; 20]);
        let subject = subjects.vault(vault);
        assert_eq!(subject, "casemate.v1.vault.ab.vov2xk5lvov2xk5lvov2xk5lvov2xk5l");
        assert_eq!(subjects.parse_vault(&subject), Some(vault));
        for wrong in [
            "",
            "casemate.v1.vault.ab",
            "other.v1.vault.ab.x",
            &subject.replace(".ab.", ".ac."),
            &format!("{subject}.x"),
        ] {
            assert_eq!(subjects.parse_vault(wrong), None, "{wrong}");
        }
        assert!(Subjects::new("a.b").is_err() && Subjects::new("*").is_err() && Subjects::new("").is_err());
    }
}
