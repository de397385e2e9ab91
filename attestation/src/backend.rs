//! Who computes signatures: aws-lc where there is a C compiler, RustCrypto where there is none.
//!
//! Each vendor's PKI uses one algorithm, and a chain of it may use no other, so nothing weaker can be negotiated by whoever makes one:
//!
//! | PKI | certificates | evidence |
//! |---|---|---|
//! | AWS Nitro | ECDSA on P-384 with SHA-384, ASN.1 | the same, `r ‖ s` (RFC 9053 section 2.1) |
//! | AMD | RSASSA-PSS with SHA-384, in two encodings of the same parameters | ECDSA on P-384 with SHA-384 |
//! | Intel | ECDSA on P-256 with SHA-256, ASN.1 | the same |

use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

#[cfg(not(any(feature = "aws-lc", feature = "rust-crypto")))]
compile_error!("casemate-attestation needs a signature back-end: switch on the feature `aws-lc` or `rust-crypto`");

/// What Nitro's certificates may be signed with.
#[cfg(feature = "aws-lc")]
pub(crate) const NITRO: &dyn SignatureVerificationAlgorithm = webpki::aws_lc_rs::ECDSA_P384_SHA384;
/// What Nitro's certificates may be signed with.
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(crate) const NITRO: &dyn SignatureVerificationAlgorithm = pure_rust::ECDSA_P384_SHA384;

/// What Intel's certificates, lists and quotes may be signed with.
#[cfg(feature = "aws-lc")]
pub(crate) const INTEL: &dyn SignatureVerificationAlgorithm = webpki::aws_lc_rs::ECDSA_P256_SHA256;
/// What Intel's certificates, lists and quotes may be signed with.
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(crate) const INTEL: &dyn SignatureVerificationAlgorithm = pure_rust::ECDSA_P256_SHA256;

/// What AMD's certificates and lists may be signed with.
pub(crate) const AMD_CERTIFICATES: &[&dyn SignatureVerificationAlgorithm] =
    &[&RsaPssSha384 { signature: PSS_EXPLICIT_TRAILER }, &RsaPssSha384 { signature: PSS_DEFAULT_TRAILER }];

/// RSASSA-PSS with SHA-384, MGF1 with SHA-384 and 48 bytes of salt (RFC 4055), the trailer field written out though it is the default:
/// AMD's roots and intermediates.
const PSS_EXPLICIT_TRAILER: AlgorithmIdentifier = AlgorithmIdentifier::from_slice(&[
    0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x0a, 0x30, 0x39, 0xa0, 0x0f, 0x30, 0x0d, 0x06, 0x09,
    0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x02, 0x05, 0x00, 0xa1, 0x1c, 0x30, 0x1a, 0x06, 0x09, 0x2a, 0x86,
    0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02,
    0x02, 0x05, 0x00, 0xa2, 0x03, 0x02, 0x01, 0x30, 0xa3, 0x03, 0x02, 0x01, 0x01,
]);
/// The same without it, as DER wants a default: AMD's leaves.
const PSS_DEFAULT_TRAILER: AlgorithmIdentifier = alg_id::RSA_PSS_SHA384;

/// RSASSA-PSS with SHA-384, by keys of 2,048 to 8,192 bits.
#[derive(Debug)]
struct RsaPssSha384 {
    /// How a certificate writes the algorithm.
    signature: AlgorithmIdentifier,
}

impl SignatureVerificationAlgorithm for RsaPssSha384 {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        alg_id::RSA_ENCRYPTION
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.signature
    }

    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        if rsa_pss_sha384_verifies(public_key, message, signature) { Ok(()) } else { Err(InvalidSignature) }
    }
}

/// Whether `signature` is `public_key`'s (PKCS #1 RSAPublicKey) RSASSA-PSS signature with SHA-384 over `message`.
fn rsa_pss_sha384_verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    #[cfg(feature = "aws-lc")]
    return aws_lc::rsa_pss_sha384_verifies(public_key, message, signature);
    #[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
    return rsa_pss::verifies(public_key, message, signature);
}

/// Whether `signature` (`r ‖ s`, 96 bytes) is `public_key`'s (SEC 1, uncompressed) ES384 signature over `message`.
pub(crate) fn es384_verifies(public_key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
    #[cfg(feature = "aws-lc")]
    return aws_lc::es384_verifies(public_key, message, signature);
    #[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
    return pure_rust::es384_verifies(public_key, message, signature);
}

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, RSA_PSS_2048_8192_SHA384, UnparsedPublicKey};

    pub(super) fn rsa_pss_sha384_verifies(public_key: &[u8], message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&RSA_PSS_2048_8192_SHA384, public_key).verify(message, signature).is_ok()
    }

    pub(super) fn es384_verifies(public_key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, public_key).verify(message, signature).is_ok()
    }
}

#[cfg(all(feature = "rust-crypto", any(not(feature = "aws-lc"), test)))]
mod rsa_pss;

#[cfg(all(feature = "rust-crypto", any(not(feature = "aws-lc"), test)))]
mod pure_rust {
    use p384::ecdsa::signature::Verifier;
    use p384::ecdsa::{DerSignature, Signature, VerifyingKey};
    use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

    /// ECDSA on P-256 with SHA-256, as certificates use it.
    #[derive(Debug)]
    struct EcdsaP256Sha256;

    pub(super) const ECDSA_P256_SHA256: &dyn SignatureVerificationAlgorithm = &EcdsaP256Sha256;

    impl SignatureVerificationAlgorithm for EcdsaP256Sha256 {
        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }

        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            let key = p256::ecdsa::VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
            let signature = p256::ecdsa::DerSignature::try_from(signature).map_err(|_| InvalidSignature)?;
            key.verify(message, &signature).map_err(|_| InvalidSignature)
        }
    }

    /// ECDSA on P-384 with SHA-384, as certificates use it.
    #[derive(Debug)]
    struct EcdsaP384Sha384;

    pub(super) const ECDSA_P384_SHA384: &dyn SignatureVerificationAlgorithm = &EcdsaP384Sha384;

    impl SignatureVerificationAlgorithm for EcdsaP384Sha384 {
        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P384
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA384
        }

        fn verify_signature(
            &self,
            public_key: &[u8],
            message: &[u8],
            signature: &[u8],
        ) -> Result<(), InvalidSignature> {
            let key = VerifyingKey::from_sec1_bytes(public_key).map_err(|_| InvalidSignature)?;
            let signature = DerSignature::try_from(signature).map_err(|_| InvalidSignature)?;
            key.verify(message, &signature).map_err(|_| InvalidSignature)
        }
    }

    pub(super) fn es384_verifies(public_key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
        let Ok(key) = VerifyingKey::from_sec1_bytes(public_key) else { return false };
        let Ok(signature) = Signature::from_slice(signature) else { return false };
        key.verify(message, &signature).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6979, appendix A.2.6: P-384, SHA-384, message "sample".
    const PUBLIC_KEY: &str = "04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13\
                              8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720";
    const SIGNATURE: &str = "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46\
                             99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8";

    type Es384 = fn(&[u8; 97], &[u8], &[u8; 96]) -> bool;

    fn holds_to_the_rfc(verifies: Es384) {
        let key: [u8; 97] = hex::decode(PUBLIC_KEY).unwrap().try_into().unwrap();
        let signature: [u8; 96] = hex::decode(SIGNATURE).unwrap().try_into().unwrap();
        assert!(verifies(&key, b"sample", &signature));
        assert!(!verifies(&key, b"sampl", &signature));
        for position in 0..96 {
            let mut flipped = signature;
            flipped[position] ^= 1;
            assert!(!verifies(&key, b"sample", &flipped), "signature byte {position}");
        }
        assert!(!verifies(&key, b"sample", &[0; 96]), "r = s = 0 verifies nothing");
        let mut off_curve = key;
        off_curve[96] ^= 1;
        assert!(!verifies(&off_curve, b"sample", &signature));
    }

    #[test]
    fn the_chosen_back_end_holds_to_the_rfc() {
        holds_to_the_rfc(es384_verifies);
    }

    #[cfg(all(feature = "rust-crypto", feature = "aws-lc"))]
    #[test]
    fn the_other_back_end_holds_to_the_rfc_too() {
        holds_to_the_rfc(pure_rust::es384_verifies);
        let (ours, theirs) = (pure_rust::ECDSA_P384_SHA384, NITRO);
        assert_eq!(ours.public_key_alg_id(), theirs.public_key_alg_id());
        assert_eq!(ours.signature_alg_id(), theirs.signature_alg_id());
        assert_eq!(pure_rust::ECDSA_P256_SHA256.public_key_alg_id(), INTEL.public_key_alg_id());
        assert_eq!(pure_rust::ECDSA_P256_SHA256.signature_alg_id(), INTEL.signature_alg_id());
    }
}
