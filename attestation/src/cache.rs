//! Evidence that was authenticated before, so that the same bytes are not authenticated again.
//!
//! A node shows the same document to everybody until it renews it. Only the costly half is remembered, signature and chain, under the
//! hash of all bytes and of the anchor that they led to; a policy judges the claims anew each time, so that age, nonce and trusted images
//! are never a matter of memory.

use std::num::NonZeroUsize;
use std::sync::{Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::nitro::{MAX_EVIDENCE_BYTES, authenticate_with_skew, chain_time};
use crate::{Claims, Policy, Refusal};

/// Remembers the evidence that was authenticated last. It has a bound, and refused evidence takes no place in it.
#[derive(Debug)]
pub struct Cache(Mutex<LruCache<[u8; 32], Known>>);

#[derive(Debug)]
struct Known {
    /// The time that the chain was verified at, Unix seconds. Its end stands in the claims.
    from_unix: u64,
    claims: Claims,
}

impl Known {
    /// Attack stopped: a chain that has ended since, or had not begun then, believed because it was once good.
    fn holds_at(&self, now_unix: u64, policy: &Policy) -> bool {
        let time = chain_time(self.claims.issued_at_unix_ms, now_unix, policy.clock_skew);
        (self.from_unix..=self.claims.valid_until_unix).contains(&time)
    }
}

impl Cache {
    /// A cache for so many documents; each takes a few kilobytes.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(capacity)))
    }

    /// Does what [`verify`](crate::verify) does, with the same result for the same arguments.
    ///
    /// # Errors
    ///
    /// See there.
    pub fn verify(&self, evidence: &[u8], now_unix: u64, policy: &Policy) -> Result<Claims, Refusal> {
        // Too large to be genuine: refused without being hashed.
        if evidence.len() > MAX_EVIDENCE_BYTES {
            return crate::verify(evidence, now_unix, policy);
        }
        // Attack stopped: evidence that one anchor's chain leads to believed under another.
        let name: [u8; 32] =
            Sha256::new().chain_update(policy.anchor.fingerprint()).chain_update(evidence).finalize().into();
        if let Some(known) = self.entries().get(&name).filter(|known| known.holds_at(now_unix, policy)) {
            policy.judge(&known.claims, now_unix)?;
            return Ok(known.claims.clone());
        }
        let authenticated = authenticate_with_skew(evidence, now_unix, policy.clock_skew, &policy.anchor)?;
        let claims = authenticated.into_claims();
        // Attack stopped: genuine evidence of other people's enclaves that pushes out what is believed here.
        policy.judge(&claims, now_unix)?;
        let from_unix = chain_time(claims.issued_at_unix_ms, now_unix, policy.clock_skew);
        self.entries().put(name, Known { from_unix, claims: claims.clone() });
        Ok(claims)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, LruCache<[u8; 32], Known>> {
        // What is in it was put there whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
