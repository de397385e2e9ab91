//! The node's identity: an Ed25519 key made at boot that never leaves this process, and what is signed with it.

use std::fmt;

use casemate_protocol::id::VaultId;
use casemate_protocol::statement::Statement;
use ed25519_dalek::{Signer, SigningKey};
use zeroize::Zeroizing;

use crate::outside::Randomness;

/// How long a statement holds, seconds. A session lives no longer.
pub const STATEMENT_LIFE_S: u64 = 24 * 3600;

/// The identity key. Evidence binds its public half, so whoever can sign with it is this enclave, since its boot.
pub struct Identity {
    key: SigningKey,
    public: [u8; 32],
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", hex::encode(self.public))
    }
}

impl Identity {
    /// Makes a fresh key.
    pub fn generate(randomness: &dyn Randomness) -> Self {
        let mut seed = Zeroizing::new([0; 32]);
        randomness.fill(seed.as_mut_slice());
        let key = SigningKey::from_bytes(&seed);
        let public = key.verifying_key().to_bytes();
        Self { key, public }
    }

    /// The public key.
    pub fn public(&self) -> [u8; 32] {
        self.public
    }

    /// States that `static_key` speaks for `vault`, for [`STATEMENT_LIFE_S`] from `now` (Unix seconds).
    pub fn state(&self, vault: VaultId, static_key: [u8; 32], now: u64) -> Statement {
        let not_after = now.saturating_add(STATEMENT_LIFE_S);
        let signature = self.key.sign(&Statement::signed_bytes(vault, &static_key, not_after)).to_bytes();
        Statement { vault, static_key, not_after, signature }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::OsRandomness;
    use ed25519_dalek::{Signature, VerifyingKey};

    #[test]
    fn a_statement_verifies_for_what_it_names_and_nothing_else() {
        let identity = Identity::generate(&OsRandomness);
        let vault = VaultId::from_bytes([7; 20]);
        let statement = identity.state(vault, [8; 32], 1000);
        assert_eq!(statement.not_after, 1000 + STATEMENT_LIFE_S);
        let key = VerifyingKey::from_bytes(&identity.public()).unwrap();
        let signature = Signature::from_bytes(&statement.signature);
        let signed = |vault, static_key, not_after| Statement::signed_bytes(vault, &static_key, not_after);
        assert!(key.verify_strict(&signed(vault, [8; 32], statement.not_after), &signature).is_ok());
        assert!(key.verify_strict(&signed(vault, [9; 32], statement.not_after), &signature).is_err());
        let other = VaultId::from_bytes([6; 20]);
        assert!(key.verify_strict(&signed(other, [8; 32], statement.not_after), &signature).is_err());
        assert_ne!(identity.public(), Identity::generate(&OsRandomness).public());
    }
}
