//! The lock key L: the half of a vault's root that only its owner's devices hold.

use std::fmt;

use casemate_protocol::id::VaultId;
use casemate_protocol::lock::{LockCopy, copy_info, recipient_tag};
use casemate_protocol::secret::Secret;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR};
use serde::{Deserialize, Serialize};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use crate::device::Device;
use crate::encoding;
use crate::random::{self, RandomError};

/// 32 random bytes made by the first device. Without it a vault at rest cannot be opened, not even with the key service's help.
#[derive(Clone, Serialize, Deserialize)]
#[serde(transparent)]
pub struct LockKey(#[serde(with = "encoding::secret")] Zeroizing<[u8; 32]>);

impl fmt::Debug for LockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LockKey(redacted)")
    }
}

impl PartialEq for LockKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(other.0.as_slice()).into()
    }
}

impl Eq for LockKey {}

/// A copy of the lock key that does not open with this device's key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the vault's copy of the new lock key was not sealed to this device")]
pub struct NotForUs;

impl LockKey {
    /// Makes a new lock key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn generate() -> Result<Self, RandomError> {
        random::secret().map(Self)
    }

    /// The key as the opening carries it.
    pub fn to_secret(&self) -> Secret {
        Secret::from(self.0.as_slice())
    }

    /// Opens the copy that the vault sealed to this device. Base mode does not say who sealed it: a hostile host can put a false
    /// copy into a header that was never opened. So the result is a candidate until a version has opened under it.
    ///
    /// # Errors
    /// [`NotForUs`].
    pub fn open_copy(device: &Device, vault: VaultId, copy: &LockCopy) -> Result<Self, NotForUs> {
        type Suite = X25519HkdfSha256;
        let recipient = recipient_tag(vault, &device.public_key());
        if copy.recipient != recipient {
            return Err(NotForUs);
        }
        let secret = <Suite as Kem>::PrivateKey::from_bytes(device.static_secret()).map_err(|_| NotForUs)?;
        let encapsulated = <Suite as Kem>::EncappedKey::from_bytes(&copy.encapsulated).map_err(|_| NotForUs)?;
        let info = copy_info(vault, copy.lock_number, &recipient);
        let opened = hpke::single_shot_open::<AesGcm256, HkdfSha256, Suite>(
            &OpModeR::Base,
            &secret,
            &encapsulated,
            &info,
            &copy.ciphertext,
            &[],
        );
        let opened = Zeroizing::new(opened.map_err(|_| NotForUs)?);
        let mut key = Zeroizing::new([0; 32]);
        if opened.len() != key.len() {
            return Err(NotForUs);
        }
        key.copy_from_slice(&opened);
        Ok(Self(key))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use getrandom::SysRng;
    use getrandom::rand_core::UnwrapErr;
    use hpke::{OpModeS, Serializable};

    pub(crate) fn seal(key: &LockKey, recipient: &[u8; 32], vault: VaultId, lock_number: u32) -> LockCopy {
        let tag = recipient_tag(vault, recipient);
        let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient).unwrap();
        let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
            &OpModeS::Base,
            &public,
            &copy_info(vault, lock_number, &tag),
            key.0.as_slice(),
            &[],
            &mut UnwrapErr(SysRng),
        )
        .unwrap();
        LockCopy {
            lock_number,
            recipient: tag,
            encapsulated: encapsulated.to_bytes().as_slice().try_into().unwrap(),
            ciphertext: ciphertext.try_into().unwrap(),
        }
    }

    #[test]
    fn a_copy_opens_for_its_device_vault_and_number_only() {
        let (device, other) = (Device::generate().unwrap(), Device::generate().unwrap());
        let (vault, key) = (VaultId::from_bytes([5; 20]), LockKey::generate().unwrap());
        let copy = seal(&key, &device.public_key(), vault, 2);
        assert_eq!(LockKey::open_copy(&device, vault, &copy), Ok(key));
        assert_eq!(LockKey::open_copy(&other, vault, &copy), Err(NotForUs));
        assert_eq!(LockKey::open_copy(&device, VaultId::from_bytes([6; 20]), &copy), Err(NotForUs));
        assert_eq!(LockKey::open_copy(&device, vault, &LockCopy { lock_number: 3, ..copy.clone() }), Err(NotForUs));
        let mut ciphertext = copy.ciphertext;
        ciphertext[0] ^= 1;
        assert_eq!(LockKey::open_copy(&device, vault, &LockCopy { ciphertext, ..copy }), Err(NotForUs));
    }
}
