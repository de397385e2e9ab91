//! A device: the two keys that make it this device and no other.

use std::fmt;

use casemate_protocol::session;
use ed25519_dalek::{Signer, SigningKey};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use crate::encoding;
use crate::random::{self, RandomError};

/// A device's keys. The X25519 key is its identity in every session; the Ed25519 key signs what a person decided.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Device {
    format: u8,
    #[serde(with = "encoding::secret")]
    static_secret: Zeroizing<[u8; 32]>,
    #[serde(with = "encoding::secret")]
    signing_seed: Zeroizing<[u8; 32]>,
}

impl fmt::Debug for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Device(redacted)")
    }
}

impl Device {
    /// The format of [`Device`] in a file.
    pub const FORMAT: u8 = 1;

    /// Makes a new device.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        Ok(Self { format: Self::FORMAT, static_secret: random::secret()?, signing_seed: random::secret()? })
    }

    /// The format that the file named.
    pub const fn format(&self) -> u8 {
        self.format
    }

    /// The X25519 secret, for the handshake and for opening copies of the lock key.
    pub fn static_secret(&self) -> &[u8; 32] {
        &self.static_secret
    }

    /// The X25519 public key: the device's name in its vaults.
    pub fn public_key(&self) -> [u8; 32] {
        session::public_key(&self.static_secret)
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&self.signing_seed)
    }

    /// The Ed25519 public key.
    pub fn signing_public_key(&self) -> [u8; 32] {
        self.signing_key().verifying_key().to_bytes()
    }

    /// Signs with the Ed25519 key.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing_key().sign(message).to_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn survives_its_file_and_prints_nothing() {
        let device = Device::generate().unwrap();
        let text = serde_json::to_string(&device).unwrap();
        let again: Device = serde_json::from_str(&text).unwrap();
        assert_eq!(again.static_secret(), device.static_secret());
        assert_eq!(again.sign(b"x"), device.sign(b"x"));
        assert_eq!(format!("{device:?}"), "Device(redacted)");
        assert_ne!(Device::generate().unwrap().static_secret(), device.static_secret());
    }

    #[test]
    fn a_damaged_key_is_refused() {
        for secret in ["AAAA", "not base64!", ""] {
            let text = format!(r#"{{"format":1,"static_secret":"{secret}","signing_seed":"{secret}"}}"#);
            assert!(serde_json::from_str::<Device>(&text).is_err());
        }
    }
}
