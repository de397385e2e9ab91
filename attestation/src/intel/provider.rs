//! `dcap-qvl` with this crate's cryptography, and with signatures that are remembered.

use std::cell::RefCell;
use std::sync::Arc;

use dcap_qvl::config::{Config, CryptoProvider};
use dcap_qvl::signature::DerSigEncoder;
use dcap_qvl::x509::X509CertBackend;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256, Sha384};

use crate::backend::INTEL;
use crate::signatures::Signatures;

thread_local! {
    /// The memories of the verification that this thread is in: `dcap-qvl` takes its algorithm as a constant, which can hold none.
    static CURRENT: RefCell<Vec<Arc<Signatures>>> = const { RefCell::new(Vec::new()) };
}

/// Does `work`, whose signatures are looked up and kept in the first of `memories` that is for their key.
pub(super) fn remembering<T>(memories: &[&Arc<Signatures>], work: impl FnOnce() -> T) -> T {
    let before = CURRENT.replace(memories.iter().copied().map(Arc::clone).collect());
    let done = work();
    CURRENT.set(before);
    done
}

/// Intel's algorithm, with the memories of [`remembering`].
#[derive(Debug)]
struct EcdsaP256Sha256;

impl SignatureVerificationAlgorithm for EcdsaP256Sha256 {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        INTEL.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        INTEL.signature_alg_id()
    }

    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        CURRENT.with_borrow(|memories| match memories.iter().find(|memory| memory.are_of(public_key)) {
            Some(memory) => memory.verify(INTEL, public_key, message, signature),
            None => INTEL.verify_signature(public_key, message, signature),
        })
    }
}

/// What `dcap-qvl` is told to verify with.
pub(super) struct Ours;

impl Config for Ours {
    type X509 = X509CertBackend;
    type SigEncoder = DerSigEncoder;
    type Crypto = Ours;
}

impl CryptoProvider for Ours {
    fn sig_algo() -> &'static dyn SignatureVerificationAlgorithm {
        &EcdsaP256Sha256
    }

    fn sha256(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    fn sha384(data: &[u8]) -> [u8; 48] {
        Sha384::digest(data).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6979, appendix A.2.5: P-256, SHA-256, message "sample"; the signature as ASN.1 has it.
    const PUBLIC_KEY: &str = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                              7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
    const SIGNATURE: &str = "3046022100efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                             022100f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";

    fn verifies(message: &[u8]) -> bool {
        let (key, signature) = (hex::decode(PUBLIC_KEY).unwrap(), hex::decode(SIGNATURE).unwrap());
        Ours::sig_algo().verify_signature(&key, message, &signature).is_ok()
    }

    #[test]
    fn what_is_verified_within_is_remembered_there_and_nowhere_else() {
        let (outer, inner) = (Arc::new(Signatures::of_any_key()), Arc::new(Signatures::of_any_key()));
        assert!(verifies(b"sample"), "without a memory");
        remembering(&[&outer], || {
            assert!(!verifies(b"sampl"));
            assert_eq!(outer.count(), 0);
            remembering(&[&inner, &outer], || assert!(verifies(b"sample")));
            assert_eq!((outer.count(), inner.count()), (0, 1));
            assert!(verifies(b"sample"));
            assert!(!verifies(b"sampl"), "another message, although the key and the signature are known");
        });
        assert!(verifies(b"sample"));
        assert_eq!((outer.count(), inner.count()), (1, 1));
    }
}
