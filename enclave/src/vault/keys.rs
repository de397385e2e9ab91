//! Vault-held keys: making, using, checking. Material never leaves this module but through `export`, and results are as the
//! algorithms' standards say, so that other tools verify them.

use aes_gcm::aead::{Aead, KeyInit, Payload};
use aes_gcm::{Aes256Gcm, Nonce};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::request::KeyAlgorithm;
use casemate_protocol::secret::Secret;
use ed25519_dalek::{Signer, SigningKey, Verifier};
use hmac::{Hmac, Mac};
use p256::elliptic_curve::sec1::ToSec1Point;
use sha2::Sha256;
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use crate::outside::Randomness;

const NONCE_BYTES: usize = 12;

/// Makes material for an algorithm. Scalars out of range (a chance of 2^-32 on P-256) are drawn again.
pub fn generate(algorithm: KeyAlgorithm, randomness: &dyn Randomness) -> Secret {
    loop {
        let mut bytes = Zeroizing::new([0; 32]);
        randomness.fill(bytes.as_mut_slice());
        let material = Secret::from(bytes.as_slice());
        if check(algorithm, &material).is_ok() {
            return material;
        }
    }
}

/// Checks imported material.
///
/// # Errors
/// `invalid_argument` on the field `material`.
pub fn check(algorithm: KeyAlgorithm, material: &Secret) -> Result<(), Refusal> {
    let fits = match algorithm {
        KeyAlgorithm::Ed25519 | KeyAlgorithm::X25519 | KeyAlgorithm::Aes256Gcm => material.len() == 32,
        KeyAlgorithm::P256 => material.len() == 32 && p256::SecretKey::from_slice(material).is_ok(),
        KeyAlgorithm::Secp256k1 => material.len() == 32 && k256::SecretKey::from_slice(material).is_ok(),
        KeyAlgorithm::HmacSha256 => (16..=64).contains(&material.len()),
    };
    if fits { Ok(()) } else { Err(Refusal::field(ErrorCode::InvalidArgument, "material")) }
}

fn array(material: &Secret) -> Zeroizing<[u8; 32]> {
    material.to_array().expect("checked when the key was made or taken in")
}

fn p256_key(material: &Secret) -> p256::SecretKey {
    p256::SecretKey::from_slice(material).expect("checked when the key was made or taken in")
}

fn k256_key(material: &Secret) -> k256::SecretKey {
    k256::SecretKey::from_slice(material).expect("checked when the key was made or taken in")
}

fn wrong() -> Refusal {
    ErrorCode::WrongAlgorithm.into()
}

/// The public half; none for symmetric keys.
pub fn public(algorithm: KeyAlgorithm, material: &Secret) -> Option<Vec<u8>> {
    match algorithm {
        KeyAlgorithm::Ed25519 => Some(SigningKey::from_bytes(&array(material)).verifying_key().to_bytes().to_vec()),
        KeyAlgorithm::P256 => Some(p256_key(material).public_key().to_sec1_point(false).as_bytes().to_vec()),
        KeyAlgorithm::Secp256k1 => Some(k256_key(material).public_key().to_sec1_point(false).as_bytes().to_vec()),
        KeyAlgorithm::X25519 => Some(PublicKey::from(&StaticSecret::from(*array(material))).to_bytes().to_vec()),
        KeyAlgorithm::Aes256Gcm | KeyAlgorithm::HmacSha256 => None,
    }
}

/// Signs: Ed25519 gives 64 bytes, ECDSA (SHA-256, RFC 6979, low-s) gives DER.
///
/// # Errors
/// `wrong_algorithm`.
pub fn sign(algorithm: KeyAlgorithm, material: &Secret, message: &[u8]) -> Result<Vec<u8>, Refusal> {
    match algorithm {
        KeyAlgorithm::Ed25519 => Ok(SigningKey::from_bytes(&array(material)).sign(message).to_bytes().to_vec()),
        KeyAlgorithm::P256 => {
            let signature: p256::ecdsa::Signature = p256::ecdsa::SigningKey::from(p256_key(material)).sign(message);
            Ok(signature.normalize_s().to_der().as_bytes().to_vec())
        }
        KeyAlgorithm::Secp256k1 => {
            let signature: k256::ecdsa::Signature = k256::ecdsa::SigningKey::from(k256_key(material)).sign(message);
            Ok(signature.normalize_s().to_der().as_bytes().to_vec())
        }
        KeyAlgorithm::X25519 | KeyAlgorithm::Aes256Gcm | KeyAlgorithm::HmacSha256 => Err(wrong()),
    }
}

/// Verifies a signature or a MAC (the latter in constant time).
///
/// # Errors
/// `wrong_algorithm`.
pub fn verify(algorithm: KeyAlgorithm, material: &Secret, message: &[u8], signature: &[u8]) -> Result<bool, Refusal> {
    match algorithm {
        KeyAlgorithm::Ed25519 => {
            let Ok(signature) = ed25519_dalek::Signature::from_slice(signature) else { return Ok(false) };
            Ok(SigningKey::from_bytes(&array(material)).verifying_key().verify_strict(message, &signature).is_ok())
        }
        KeyAlgorithm::P256 => {
            let Ok(signature) = p256::ecdsa::Signature::from_der(signature) else { return Ok(false) };
            let key = p256::ecdsa::VerifyingKey::from(p256_key(material).public_key());
            Ok(key.verify(message, &signature).is_ok())
        }
        KeyAlgorithm::Secp256k1 => {
            let Ok(signature) = k256::ecdsa::Signature::from_der(signature) else { return Ok(false) };
            let key = k256::ecdsa::VerifyingKey::from(k256_key(material).public_key());
            Ok(key.verify(message, &signature).is_ok())
        }
        KeyAlgorithm::HmacSha256 => {
            let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(material).expect("HMAC takes keys of any length");
            mac.update(message);
            Ok(mac.verify_slice(signature).is_ok())
        }
        KeyAlgorithm::X25519 | KeyAlgorithm::Aes256Gcm => Err(wrong()),
    }
}

/// Agrees on a shared secret: 32 raw bytes.
///
/// # Errors
/// `wrong_algorithm`, or `verification_failed` for a peer key that is no point or that gives no contribution.
pub fn agree(algorithm: KeyAlgorithm, material: &Secret, peer: &[u8]) -> Result<Secret, Refusal> {
    let refused = || Refusal::from(ErrorCode::VerificationFailed);
    match algorithm {
        KeyAlgorithm::X25519 => {
            let peer: [u8; 32] = peer.try_into().map_err(|_| refused())?;
            let shared = StaticSecret::from(*array(material)).diffie_hellman(&PublicKey::from(peer));
            // Attack stopped: a peer key of small order makes the secret known to everybody.
            if shared.was_contributory() { Ok(Secret::from(shared.as_bytes().as_slice())) } else { Err(refused()) }
        }
        KeyAlgorithm::P256 => {
            let peer = p256::PublicKey::from_sec1_bytes(peer).map_err(|_| refused())?;
            Ok(Secret::from(p256_key(material).diffie_hellman(&peer).raw_secret_bytes().as_slice()))
        }
        KeyAlgorithm::Secp256k1 => {
            let peer = k256::PublicKey::from_sec1_bytes(peer).map_err(|_| refused())?;
            Ok(Secret::from(k256_key(material).diffie_hellman(&peer).raw_secret_bytes().as_slice()))
        }
        KeyAlgorithm::Ed25519 | KeyAlgorithm::Aes256Gcm | KeyAlgorithm::HmacSha256 => Err(wrong()),
    }
}

/// Encrypts with AES-256-GCM under a random nonce: nonce ‖ ciphertext ‖ tag.
///
/// # Errors
/// `wrong_algorithm`.
pub fn encrypt(
    algorithm: KeyAlgorithm,
    material: &Secret,
    plaintext: &[u8],
    associated: &[u8],
    randomness: &dyn Randomness,
) -> Result<Vec<u8>, Refusal> {
    if algorithm != KeyAlgorithm::Aes256Gcm {
        return Err(wrong());
    }
    let mut nonce = [0; NONCE_BYTES];
    randomness.fill(&mut nonce);
    let cipher = Aes256Gcm::new_from_slice(material).expect("checked when the key was made or taken in");
    let sealed = cipher
        .encrypt(&Nonce::from(nonce), Payload { msg: plaintext, aad: associated })
        .expect("inputs are far below AES-GCM's 64 GiB");
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Decrypts what [`encrypt`] gave.
///
/// # Errors
/// `wrong_algorithm` or `verification_failed`.
pub fn decrypt(
    algorithm: KeyAlgorithm,
    material: &Secret,
    ciphertext: &[u8],
    associated: &[u8],
) -> Result<Secret, Refusal> {
    if algorithm != KeyAlgorithm::Aes256Gcm {
        return Err(wrong());
    }
    let refused = || Refusal::from(ErrorCode::VerificationFailed);
    let (nonce, sealed) = ciphertext.split_first_chunk::<NONCE_BYTES>().ok_or_else(refused)?;
    let cipher = Aes256Gcm::new_from_slice(material).expect("checked when the key was made or taken in");
    let plaintext =
        cipher.decrypt(&Nonce::from(*nonce), Payload { msg: sealed, aad: associated }).map_err(|_| refused())?;
    Ok(Secret::new(plaintext))
}

/// Computes HMAC-SHA-256.
///
/// # Errors
/// `wrong_algorithm`.
pub fn mac(algorithm: KeyAlgorithm, material: &Secret, message: &[u8]) -> Result<Vec<u8>, Refusal> {
    if algorithm != KeyAlgorithm::HmacSha256 {
        return Err(wrong());
    }
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(material).expect("HMAC takes keys of any length");
    mac.update(message);
    Ok(mac.finalize().into_bytes().to_vec())
}
