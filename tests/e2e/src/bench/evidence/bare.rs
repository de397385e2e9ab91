//! The bare limit of judging evidence: the signatures alone that the server's back end has to compute for it.

use std::time::{Duration, Instant};

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
    EcdsaKeyPair, EcdsaSigningAlgorithm, EcdsaVerificationAlgorithm, KeyPair, UnparsedPublicKey,
};

use super::super::Result;

/// About what a certificate and a report have.
const MESSAGE: [u8; 600] = [7; 600];

/// A signature, and how many of its kind a piece of evidence has.
#[derive(Debug)]
pub(super) struct Bare {
    algorithm: &'static EcdsaVerificationAlgorithm,
    public_key: Vec<u8>,
    signature: Vec<u8>,
    count: usize,
}

impl Bare {
    /// Of a Nitro document: three intermediates' and the leaf's. A fifth one is the root's, which its anchor remembers.
    pub(super) fn nitro() -> Result<Self> {
        Self::new(&ECDSA_P384_SHA384_ASN1_SIGNING, &ECDSA_P384_SHA384_ASN1, 4)
    }

    /// Of a quote: a revocation list, the platform's certificate, the quoting enclave's report, the quote. Three more are the root's,
    /// which its anchor remembers, and two the TCB info's and the QE identity's, which the collateral does.
    pub(super) fn intel() -> Result<Self> {
        Self::new(&ECDSA_P256_SHA256_ASN1_SIGNING, &ECDSA_P256_SHA256_ASN1, 4)
    }

    fn new(
        signing: &'static EcdsaSigningAlgorithm,
        algorithm: &'static EcdsaVerificationAlgorithm,
        count: usize,
    ) -> Result<Self> {
        let random = SystemRandom::new();
        let pair = EcdsaKeyPair::generate_pkcs8(signing, &random)?;
        let pair = EcdsaKeyPair::from_pkcs8(signing, pair.as_ref())?;
        let signature = pair.sign(&random, &MESSAGE)?.as_ref().to_vec();
        Ok(Self { algorithm, public_key: pair.public_key().as_ref().to_vec(), signature, count })
    }

    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..self.count {
            UnparsedPublicKey::new(self.algorithm, &self.public_key).verify(&MESSAGE, &self.signature)?;
        }
        Ok(start.elapsed())
    }
}
