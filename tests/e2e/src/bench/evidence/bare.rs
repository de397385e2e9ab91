//! The bare limit of judging evidence: the signatures alone that the server's back end has to compute for it.

use std::time::{Duration, Instant};

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, EcdsaVerificationAlgorithm, UnparsedPublicKey,
};

use super::super::Result;

/// RFC 6979, appendices A.2.5 and A.2.6: this message, signed by the keys below.
const MESSAGE: &[u8] = b"sample";
const P256_KEY: &str = "0460fed4ba255a9d31c961eb74c6356d68c049b8923b61fa6ce669622e60f29fb6\
                        7903fe1008b8bc99a41ae9e95628bc64f2f1b20c2d7e9f5177a3c294d4462299";
const P256_SIGNATURE: &str = "efd48b2aacb6a8fd1140dd9cd45e81d69d2c877b56aaf991c34d0ea84eaf3716\
                              f7cb1c942d657c41d436c7a1b6e29f65f3e900dbb9aff4064dc4ab2f843acda8";
const P384_KEY: &str = "04ec3a4e415b4e19a4568618029f427fa5da9a8bc4ae92e02e06aae5286b300c64def8f0ea9055866064a254515480bc13\
                        8015d9b72d7d57244ea8ef9ac0c621896708a59367f9dfb9f54ca84b3f1c9db1288b231c3ae0d4fe7344fd2533264720";
const P384_SIGNATURE: &str = "94edbb92a5ecb8aad4736e56c691916b3f88140666ce9fa73d64c4ea95ad133c81a648152e44acf96e36dd1e80fabe46\
                              99ef4aeb15f178cea1fe40db2603138f130e740a19624526203b6351d0a3a94fa329c145786e679e7b82c71a38628ac8";

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
        Self::new(&ECDSA_P384_SHA384_FIXED, P384_KEY, P384_SIGNATURE, 4)
    }

    /// Of a quote: a revocation list, the platform's certificate, the quoting enclave's report, the quote. Three more are the root's,
    /// which its anchor remembers, and two the TCB info's and the QE identity's, which the collateral does.
    pub(super) fn intel() -> Result<Self> {
        Self::new(&ECDSA_P256_SHA256_FIXED, P256_KEY, P256_SIGNATURE, 4)
    }

    fn new(
        algorithm: &'static EcdsaVerificationAlgorithm,
        public_key: &str,
        signature: &str,
        count: usize,
    ) -> Result<Self> {
        Ok(Self { algorithm, public_key: hex::decode(public_key)?, signature: hex::decode(signature)?, count })
    }

    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        for _ in 0..self.count {
            UnparsedPublicKey::new(self.algorithm, &self.public_key).verify(MESSAGE, &self.signature)?;
        }
        Ok(start.elapsed())
    }
}
