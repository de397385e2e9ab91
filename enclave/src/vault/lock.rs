//! Sealing the lock key to its recipients.

use casemate_protocol::id::VaultId;
use casemate_protocol::lock::{LockCopy, copy_info, recipient_tag};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::rand_core::{TryCryptoRng, TryRng};
use hpke::{Deserializable, Kem, OpModeS, Serializable, single_shot_seal_with_rng};

use crate::outside::Randomness;

/// A recipient's key that is not a usable X25519 point.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the device's key is not usable; make a new device identity")]
pub struct UnusableKey;

/// Our randomness in the form that `hpke` asks for.
struct Rng<'a>(&'a dyn Randomness);

impl TryRng for Rng<'_> {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        let mut bytes = [0; 4];
        self.0.fill(&mut bytes);
        Ok(u32::from_le_bytes(bytes))
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        Ok(u64::from_le_bytes(bytes))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        self.0.fill(out);
        Ok(())
    }
}

impl TryCryptoRng for Rng<'_> {}

/// Seals a lock key to one recipient.
///
/// # Errors
/// [`UnusableKey`] when the recipient's key is a point of small order.
pub fn seal_copy(
    vault: VaultId,
    lock_number: u32,
    lock_key: &[u8; 32],
    recipient: &[u8; 32],
    randomness: &dyn Randomness,
) -> Result<LockCopy, UnusableKey> {
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(recipient).map_err(|_| UnusableKey)?;
    let tag = recipient_tag(vault, recipient);
    let (encapsulated, ciphertext) = single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &copy_info(vault, lock_number, &tag),
        lock_key,
        &[],
        &mut Rng(randomness),
    )
    .map_err(|_| UnusableKey)?;
    Ok(LockCopy {
        lock_number,
        recipient: tag,
        encapsulated: encapsulated.to_bytes().into(),
        ciphertext: ciphertext.try_into().expect("32 bytes and a tag"),
    })
}
