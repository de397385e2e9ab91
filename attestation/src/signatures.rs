//! Signatures that were found good before, so that they are not computed again.
//!
//! That a key signed some bytes is true at any time and whoever asks: remembering it changes no verdict. What ages (dates, revocation, what
//! a key may sign) is judged anew each time. An anchor remembers what its own key signed, which nobody but its vendor can make more of;
//! Intel's collateral what the signers signed that it names; a batch all of its pieces until it ends. What does not verify is never
//! remembered.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use rustls_pki_types::{AlgorithmIdentifier, InvalidSignature, SignatureVerificationAlgorithm};
use sha2::{Digest, Sha256};

/// What an anchor remembers. AWS's root signs an intermediate for each of some forty regions, Intel's two of them, a signer and a list.
const OF_AN_ANCHOR: NonZeroUsize = NonZeroUsize::new(64).unwrap();
/// What a collateral remembers: it holds two texts, and two keys that sign nothing else.
const OF_A_COLLATERAL: NonZeroUsize = NonZeroUsize::new(4).unwrap();

/// The signatures that are remembered, by the hash of all that one says.
#[derive(Debug)]
pub(crate) struct Signatures {
    /// The keys whose signatures are remembered, as they stand in a certificate's bit string; `None` for any key's.
    signers: Option<Vec<Box<[u8]>>>,
    good: Mutex<LruCache<[u8; 32], ()>>,
}

impl Signatures {
    /// Of an anchor's key: the last of them.
    pub(crate) fn of_anchor(key: &[u8]) -> Self {
        Self { signers: Some(vec![key.into()]), good: Mutex::new(LruCache::new(OF_AN_ANCHOR)) }
    }

    /// Of the signers that a collateral names.
    pub(crate) fn of_collateral(keys: Vec<Box<[u8]>>) -> Self {
        Self { signers: Some(keys), good: Mutex::new(LruCache::new(OF_A_COLLATERAL)) }
    }

    /// Of any key, for as long as this lives: the caller bounds how many are asked for.
    pub(crate) fn of_any_key() -> Self {
        Self { signers: None, good: Mutex::new(LruCache::unbounded()) }
    }

    /// Whether this key's signatures are among them.
    pub(crate) fn are_of(&self, public_key: &[u8]) -> bool {
        self.signers.as_ref().is_none_or(|signers| signers.iter().any(|signer| **signer == *public_key))
    }

    /// Verifies a signature, or remembers that it was.
    pub(crate) fn verify(
        &self,
        algorithm: &dyn SignatureVerificationAlgorithm,
        public_key: &[u8],
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), InvalidSignature> {
        // Attack stopped: signatures of somebody's own keys, made by the thousand to push out the vendor's.
        if !self.are_of(public_key) {
            return algorithm.verify_signature(public_key, message, signature);
        }
        let name = name(algorithm, public_key, message, signature);
        if self.good().get(&name).is_some() {
            return Ok(());
        }
        algorithm.verify_signature(public_key, message, signature)?;
        self.good().put(name, ());
        Ok(())
    }

    /// How many are remembered.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.good().len()
    }

    fn good(&self) -> std::sync::MutexGuard<'_, LruCache<[u8; 32], ()>> {
        // What is in it was put there whole.
        self.good.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Attack stopped: bytes moved from one field into the next, for which each has its length before it.
fn name(
    algorithm: &dyn SignatureVerificationAlgorithm,
    public_key: &[u8],
    message: &[u8],
    signature: &[u8],
) -> [u8; 32] {
    let mut hash = Sha256::new();
    let (key_kind, kind) = (algorithm.public_key_alg_id(), algorithm.signature_alg_id());
    for field in [key_kind.as_ref(), kind.as_ref(), public_key, signature, message] {
        hash.update((field.len() as u64).to_be_bytes());
        hash.update(field);
    }
    hash.finalize().into()
}

/// An algorithm whose good signatures are remembered.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Remembered<'a> {
    pub(crate) algorithm: &'static dyn SignatureVerificationAlgorithm,
    pub(crate) signatures: &'a Signatures,
}

impl SignatureVerificationAlgorithm for Remembered<'_> {
    fn public_key_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.public_key_alg_id()
    }

    fn signature_alg_id(&self) -> AlgorithmIdentifier {
        self.algorithm.signature_alg_id()
    }

    fn verify_signature(&self, public_key: &[u8], message: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
        self.signatures.verify(self.algorithm, public_key, message, signature)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use rustls_pki_types::alg_id;

    use super::*;

    /// Takes the signature "good", and counts how often it is asked.
    #[derive(Debug, Default)]
    struct Counting {
        asked: AtomicU32,
    }

    impl SignatureVerificationAlgorithm for Counting {
        fn public_key_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_P256
        }

        fn signature_alg_id(&self) -> AlgorithmIdentifier {
            alg_id::ECDSA_SHA256
        }

        fn verify_signature(&self, _: &[u8], _: &[u8], signature: &[u8]) -> Result<(), InvalidSignature> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            if signature == b"good" { Ok(()) } else { Err(InvalidSignature) }
        }
    }

    impl Counting {
        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn a_good_signature_is_computed_once_and_a_bad_one_each_time() {
        let (algorithm, signatures) = (Counting::default(), Signatures::of_any_key());
        for _ in 0..3 {
            assert!(signatures.verify(&algorithm, b"key", b"message", b"good").is_ok());
        }
        assert_eq!(algorithm.asked(), 1);
        for _ in 0..3 {
            assert!(signatures.verify(&algorithm, b"key", b"message", b"bad").is_err());
        }
        assert_eq!(algorithm.asked(), 4);
    }

    #[test]
    fn a_signature_is_known_by_all_that_it_says() {
        let (algorithm, signatures) = (Counting::default(), Signatures::of_any_key());
        assert!(signatures.verify(&algorithm, b"key", b"message", b"good").is_ok());
        for (key, message) in [(&b"keys"[..], &b"message"[..]), (b"key", b"massage"), (b"ke", b"ymessage"), (b"", b"")]
        {
            let before = algorithm.asked();
            assert!(signatures.verify(&algorithm, key, message, b"good").is_ok());
            assert_eq!(algorithm.asked(), before + 1);
        }
    }

    #[test]
    fn an_anchor_remembers_what_its_own_key_signed_and_not_more_than_its_bound() {
        let (algorithm, signatures) = (Counting::default(), Signatures::of_anchor(b"root"));
        for _ in 0..3 {
            assert!(signatures.verify(&algorithm, b"other", b"message", b"good").is_ok());
        }
        assert_eq!(algorithm.asked(), 3);
        for number in 0..200_u32 {
            assert!(signatures.verify(&algorithm, b"root", &number.to_be_bytes(), b"good").is_ok());
        }
        assert_eq!(signatures.count(), OF_AN_ANCHOR.get());
        let before = algorithm.asked();
        assert!(signatures.verify(&algorithm, b"root", &199_u32.to_be_bytes(), b"good").is_ok());
        assert_eq!(algorithm.asked(), before, "the last is known");
    }
}
