//! RSASSA-PSS with SHA-384 in pure Rust (RFC 8017, sections 8.1.2 and 9.1.2), verification only: nothing here is secret, and there is no
//! private key whose timing could be read.

use crypto_bigint::modular::{BoxedMontyForm, BoxedMontyParams};
use crypto_bigint::{BoxedUint, Odd};
use sha2::{Digest, Sha384};
use x509_cert::der::asn1::UintRef;
use x509_cert::der::{Decode, Reader, SliceReader};

/// Bytes of a SHA-384 value, and of the salt.
const HASH_BYTES: usize = 48;
/// The last byte of an encoded message.
const TRAILER: u8 = 0xbc;
/// Key lengths in bytes: 2,048 to 8,192 bits.
const KEY_BYTES: std::ops::RangeInclusive<usize> = 256..=1024;
/// Bytes of the public exponent, so that nobody can make a verification slow; AMD's is 65,537.
const EXPONENT_BYTES: usize = 4;

/// Whether `signature` is `public_key`'s (PKCS #1 RSAPublicKey, DER) signature over `message`.
pub(super) fn verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    encoded_message(public_key, signature).is_some_and(|(encoded, bits)| is_encoding_of(&encoded, bits, message))
}

/// RSAVP1: `signature` to the power of the public exponent; with the length of an encoded message in bits.
fn encoded_message(public_key: &[u8], signature: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut reader = SliceReader::new(public_key).ok()?;
    let (modulus, exponent) = reader
        .sequence(|reader| Ok::<_, x509_cert::der::Error>((UintRef::decode(reader)?, UintRef::decode(reader)?)))
        .ok()?;
    reader.finish().ok()?;
    let (modulus, exponent) = (modulus.as_bytes(), exponent.as_bytes());
    if !KEY_BYTES.contains(&modulus.len()) || exponent.len() > EXPONENT_BYTES || signature.len() != modulus.len() {
        return None;
    }
    let is_odd = exponent.last().is_some_and(|byte| byte & 1 == 1);
    let precision = u32::try_from(modulus.len() * 8).ok()?;
    let exponent = BoxedUint::from_be_slice(exponent, 32).ok()?;
    let base = BoxedUint::from_be_slice(signature, precision).ok()?;
    let modulus = BoxedUint::from_be_slice(modulus, precision).ok()?;
    let bits = usize::try_from(modulus.bits_vartime()).ok()?;
    // An exponent of 1, or an even one, is no exponent of RSA.
    if base >= modulus || exponent < BoxedUint::from(3_u32) || !is_odd {
        return None;
    }
    let odd: Option<Odd<BoxedUint>> = Odd::new(modulus).into();
    let params = BoxedMontyParams::new_vartime(odd?);
    let encoded = BoxedMontyForm::new(base, &params).pow_bounded_exp(&exponent, 32).retrieve();
    Some((encoded.to_be_bytes().to_vec(), bits - 1))
}

/// EMSA-PSS-VERIFY.
fn is_encoding_of(encoded: &[u8], bits: usize, message: &[u8]) -> bool {
    let length = bits.div_ceil(8);
    // With a modulus of 8n + 1 bits the encoded message is a byte shorter than the key.
    let Some((head, encoded)) = encoded.split_at_checked(encoded.len() - length) else { return false };
    if head.iter().any(|byte| *byte != 0) || length < 2 * HASH_BYTES + 2 || encoded[length - 1] != TRAILER {
        return false;
    }
    let (masked, rest) = encoded.split_at(length - HASH_BYTES - 1);
    let hash = &rest[..HASH_BYTES];
    let unused = 8 * length - bits;
    let first_mask = 0xff_u8 >> unused;
    if masked[0] & !first_mask != 0 {
        return false;
    }
    let mut block: Vec<u8> = masked.iter().zip(mgf1(hash, masked.len())).map(|(byte, mask)| byte ^ mask).collect();
    block[0] &= first_mask;
    let (padding, salt) = block.split_at(block.len() - HASH_BYTES);
    let Some((one, zeros)) = padding.split_last() else { return false };
    if *one != 1 || zeros.iter().any(|byte| *byte != 0) {
        return false;
    }
    let expected =
        Sha384::new().chain_update([0; 8]).chain_update(Sha384::digest(message)).chain_update(salt).finalize();
    expected.as_slice() == hash
}

/// The mask generation function (RFC 8017, appendix B.2.1).
fn mgf1(seed: &[u8], length: usize) -> Vec<u8> {
    let mut mask = Vec::with_capacity(length + HASH_BYTES);
    for counter in 0_u32.. {
        if mask.len() >= length {
            break;
        }
        mask.extend_from_slice(&Sha384::new().chain_update(seed).chain_update(counter.to_be_bytes()).finalize());
    }
    mask.truncate(length);
    mask
}

#[cfg(test)]
mod tests {
    use super::*;
    use x509_cert::Certificate;
    use x509_cert::der::Encode;

    /// AMD's root of Milan signed itself: 4,096 bits.
    #[test]
    fn a_root_of_amd_verifies_itself_and_nothing_else() {
        let certificate = Certificate::from_der(include_bytes!("../anchors/amd-ark-milan.der")).unwrap();
        let tbs = certificate.tbs_certificate();
        let key = tbs.subject_public_key_info().subject_public_key.raw_bytes().to_vec();
        let message = tbs.to_der().unwrap();
        let signature = certificate.signature().raw_bytes().to_vec();
        assert!(verifies(&key, &message, &signature));
        assert!(!verifies(&key, &message[1..], &signature));
        for place in (0..signature.len()).step_by(17) {
            let mut flipped = signature.clone();
            flipped[place] ^= 1;
            assert!(!verifies(&key, &message, &flipped), "byte {place}");
        }
        assert!(!verifies(&key, &message, &signature[1..]));
        assert!(!verifies(&key[1..], &message, &signature));
        assert!(!verifies(&[], &message, &[]));
    }
}
