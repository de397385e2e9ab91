//! The enclave's recipient key: an RSA-2048 key, fresh at boot, to which the key service encrypts its answers.
//!
//! Its public half goes into the evidence of every call; its private half never leaves this process and dies with it. It is made
//! with AWS-LC's own generator, in the supervisor only and after the zygote was forked off, so that no vault-manager holds a copy
//! of that generator's state.

use std::fmt;

use aws_lc_rs::cipher::{AES_256, DecryptingKey, DecryptionContext, UnboundCipherKey};
use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::cms::Envelope;

/// A shard key, in bytes.
const KEY: usize = 32;
/// A shard key with its PKCS #7 padding, which is one whole block.
const PADDED_KEY: usize = 48;
/// RSA-2048's modulus, in bytes.
const MODULUS: usize = 256;

/// The recipient key could not be made; without one no shard key can be had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the RSA-2048 recipient key could not be made; restart the enclave")]
pub struct RecipientKeyError;

/// The envelope did not open. One word for every reason: which step failed would be an oracle.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the envelope did not open with this enclave's recipient key")]
pub struct OpenError;

/// The recipient key of this boot.
pub struct RecipientKey {
    private: OaepPrivateDecryptingKey,
    public: Vec<u8>,
    identifier: [u8; 32],
}

impl fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RecipientKey")
            .field("private", &"redacted")
            .field("identifier", &hex::encode(self.identifier))
            .finish_non_exhaustive()
    }
}

impl RecipientKey {
    /// Makes a fresh key. Takes some hundred milliseconds of CPU.
    ///
    /// # Errors
    /// When the cryptographic library cannot make one.
    pub fn generate() -> Result<Self, RecipientKeyError> {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).map_err(|_| RecipientKeyError)?;
        let public = key.public_key().as_der().map_err(|_| RecipientKeyError)?.as_ref().to_vec();
        let identifier = Sha256::digest(&public).into();
        let private = OaepPrivateDecryptingKey::new(key).map_err(|_| RecipientKeyError)?;
        Ok(Self { private, public, identifier })
    }

    /// The public key as DER SubjectPublicKeyInfo: what evidence binds as `public_key`.
    pub fn public_key(&self) -> &[u8] {
        &self.public
    }

    /// SHA-256 of [`Self::public_key`]: how the key service names the recipient.
    pub fn identifier(&self) -> [u8; 32] {
        self.identifier
    }

    /// Opens an envelope that holds one 32-byte key.
    ///
    /// # Errors
    /// One error for every reason, see [`OpenError`].
    pub fn open(&self, envelope: &Envelope) -> Result<Zeroizing<[u8; KEY]>, OpenError> {
        if envelope.recipient != self.identifier || envelope.content.len() != PADDED_KEY {
            return Err(OpenError);
        }
        // AES key out of RSAES-OAEP. The output buffer is wiped whatever the library left in it.
        let mut block = Zeroizing::new([0; MODULUS]);
        let content_key = self
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, &envelope.wrapped_key, block.as_mut_slice(), None)
            .map_err(|_| OpenError)?;
        let content_key = UnboundCipherKey::new(&AES_256, content_key).map_err(|_| OpenError)?;
        let content_key = DecryptingKey::cbc(content_key).map_err(|_| OpenError)?;
        let mut content = Zeroizing::new([0; PADDED_KEY]);
        content.copy_from_slice(&envelope.content);
        let context = DecryptionContext::Iv128(FixedLength::from(envelope.iv));
        content_key.decrypt(content.as_mut_slice(), context).map_err(|_| OpenError)?;
        // A 32-byte key is padded by a whole block of sixteens, so the padding needs no parsing, only one comparison that takes
        // as long whatever it finds: no padding oracle.
        let (key, padding) = content.split_at(KEY);
        if !bool::from(padding.ct_eq(&[16; PADDED_KEY - KEY])) {
            return Err(OpenError);
        }
        let mut out = Zeroizing::new([0; KEY]);
        out.copy_from_slice(key);
        Ok(out)
    }
}
