//! Who computes signatures: aws-lc where there is a C compiler, RustCrypto where there is none.
//!
//! Nitro's PKI uses one algorithm only, ECDSA on P-384 with SHA-384, for certificates (ASN.1 signatures) and for documents
//! (`r ‖ s`, RFC 9053 section 2.1). Nothing else is offered, so nothing weaker can be negotiated by whoever makes a chain.

use rustls_pki_types::SignatureVerificationAlgorithm;

#[cfg(not(any(feature = "aws-lc", feature = "rust-crypto")))]
compile_error!("casemate-attestation needs a signature back-end: switch on the feature `aws-lc` or `rust-crypto`");

/// What certificates may be signed with.
#[cfg(feature = "aws-lc")]
pub(crate) const CERTIFICATE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] =
    &[webpki::aws_lc_rs::ECDSA_P384_SHA384];
/// What certificates may be signed with.
#[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
pub(crate) const CERTIFICATE_ALGORITHMS: &[&dyn SignatureVerificationAlgorithm] = &[pure_rust::ECDSA_P384_SHA384];

/// Whether `signature` (`r ‖ s`, 96 bytes) is `public_key`'s (SEC 1, uncompressed) ES384 signature over `message`.
pub(crate) fn es384_verifies(public_key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
    #[cfg(feature = "aws-lc")]
    return aws_lc::es384_verifies(public_key, message, signature);
    #[cfg(all(feature = "rust-crypto", not(feature = "aws-lc")))]
    return pure_rust::es384_verifies(public_key, message, signature);
}

#[cfg(feature = "aws-lc")]
mod aws_lc {
    use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED, UnparsedPublicKey};

    pub(super) fn es384_verifies(public_key: &[u8; 97], message: &[u8], signature: &[u8; 96]) -> bool {
        UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, public_key).verify(message, signature).is_ok()
    }
}

#[cfg(all(feature = "rust-crypto", any(not(feature = "aws-lc"), test)))]
mod pure_rust {
    use p384::ecdsa::signature::Verifier;
    use p384::ecdsa::{DerSignature, Signature, VerifyingKey};
    use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm, alg_id};

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
        let (ours, theirs) = (pure_rust::ECDSA_P384_SHA384, CERTIFICATE_ALGORITHMS[0]);
        assert_eq!(ours.public_key_alg_id(), theirs.public_key_alg_id());
        assert_eq!(ours.signature_alg_id(), theirs.signature_alg_id());
    }
}
