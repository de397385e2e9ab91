//! Evidence that was authenticated before, so that the same statement is not authenticated again.
//!
//! A node shows the same document to everybody until it renews it. Only the costly half is remembered, signature and chain; a policy judges
//! the claims anew each time, so that age, nonce, floors and trusted images are never a matter of memory. A statement is known by the
//! bytes that are signed and by what came with it. Its unsigned bytes are compared as well: they could be written otherwise by anybody,
//! which then costs a verification and takes no second place here.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;
use sha2::{Digest, Sha256};

use crate::nitro::chain_time;
use crate::{Claims, Collateral, Platform, Policy, Refusal, nitro, within_bounds};

/// Remembers the evidence that was authenticated last. It has a bound, and refused evidence takes no place in it.
#[derive(Debug)]
pub struct Cache(Mutex<LruCache<[u8; 32], Known>>);

#[derive(Debug)]
struct Known {
    /// All of the evidence.
    evidence: Box<[u8]>,
    /// The time that it was verified at, Unix seconds. Its end stands in the claims.
    from_unix: u64,
    claims: Arc<Claims>,
}

impl Known {
    /// Attack stopped: a chain that has ended since, or had not begun then, believed because it was once good; evidence that one anchor's
    /// chain leads to, believed by a policy of another.
    fn holds(&self, evidence: &[u8], now_unix: u64, policy: &Policy) -> bool {
        *self.evidence == *evidence
            && (self.from_unix..=self.claims.valid_until_unix).contains(&time_of(&self.claims, now_unix, policy))
            && policy.trusts(self.claims.platform, &self.claims.anchor_fingerprint)
    }
}

/// The time that a chain is verified at.
fn time_of(claims: &Claims, now_unix: u64, policy: &Policy) -> u64 {
    claims.issued_at_unix_ms.map_or(now_unix, |issued| chain_time(issued, now_unix, policy.clock_skew))
}

impl Cache {
    /// A cache for so many pieces of evidence; each takes about twice its own size.
    pub fn new(capacity: NonZeroUsize) -> Self {
        Self(Mutex::new(LruCache::new(capacity)))
    }

    /// Does what [`verify`](crate::verify) does, with the same result for the same arguments.
    ///
    /// # Errors
    ///
    /// See there.
    pub fn verify(
        &self,
        evidence: &[u8],
        collateral: &Collateral,
        now_unix: u64,
        policy: &Policy,
    ) -> Result<Arc<Claims>, Refusal> {
        let platform = within_bounds(evidence)?;
        policy.judge_platform(platform)?;
        let name = name(platform, evidence, collateral)?;
        let known = self
            .entries()
            .get(&name)
            .filter(|known| known.holds(evidence, now_unix, policy))
            .map(|known| Arc::clone(&known.claims));
        if let Some(claims) = known {
            policy.judge(&claims, now_unix)?;
            return Ok(claims);
        }
        let claims = Arc::new(crate::authenticate(evidence, collateral, now_unix, policy)?);
        // Attack stopped: genuine evidence of other people's guests that pushes out what is believed here.
        policy.judge(&claims, now_unix)?;
        let from_unix = time_of(&claims, now_unix, policy);
        let known = Known { evidence: evidence.into(), from_unix, claims: Arc::clone(&claims) };
        self.entries().put(name, known);
        Ok(claims)
    }

    fn entries(&self) -> std::sync::MutexGuard<'_, LruCache<[u8; 32], Known>> {
        // What is in it was put there whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(platform: Platform, evidence: &[u8], collateral: &Collateral) -> Result<[u8; 32], Refusal> {
    let signed = match platform {
        Platform::Nitro => nitro::Envelope::parse(evidence)?.payload(),
        Platform::SevSnp => crate::snp::signed_bytes(evidence)?,
        Platform::Sgx | Platform::Tdx => crate::intel::signed_bytes(evidence)?,
    };
    // The platform is among it because two of them could sign the same bytes, the collateral because another one may know more.
    let hash = Sha256::new().chain_update(platform.id()).chain_update([0]).chain_update(collateral.digest());
    Ok(hash.chain_update(signed).finalize().into())
}
