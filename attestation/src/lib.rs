//! Evidence says which program runs in a trusted execution environment; this crate decides whether to believe it.
//!
//! Evidence goes through three steps that know nothing of each other:
//!
//! 1. **Parsing** ([`nitro::Envelope`], [`nitro::Document`]) takes bytes and limits and returns a type. It judges nothing.
//! 2. **Authentication** ([`authenticate`]) checks the document's signature and its certificate chain up to a
//!    [`TrustAnchor`] at a given time. Afterwards the document is known to be the platform's own words.
//! 3. **Judging** ([`Policy::judge`]) compares the [`Claims`] with what the caller expects: measurements, age, nonce, what the
//!    evidence shall bind, and that the enclave is not a debug one.
//!
//! [`verify`] does all three and is what nearly everybody wants. Nothing here performs I/O, reads a clock or knows a trust
//! anchor by itself: the time and the anchor are parameters, so that the same code judges real, forged, expired and
//! development evidence. There is no async; the crate builds for phones (feature `rust-crypto`).
//!
//! Evidence is public. Nothing here is secret, so nothing is zeroized and comparisons need not take constant time.

mod anchor;
mod backend;
mod cache;
mod claims;
mod policy;
mod refusal;

pub mod fuzz;
pub mod nitro;

pub use anchor::{AnchorError, TrustAnchor};
pub use cache::Cache;
pub use claims::{Claims, Measurement, MeasurementSet, Pcrs, Platform};
pub use nitro::{Authenticated, MAX_EVIDENCE_BYTES, authenticate};
pub use policy::Policy;
pub use refusal::Refusal;

/// Verifies `evidence` at `now_unix` (seconds since the Unix epoch) and judges it by `policy`.
///
/// Who sees the same evidence again and again has a [`Cache`].
///
/// # Errors
///
/// The first rule that the evidence breaks, as a [`Refusal`]. Refused evidence must not be used for anything.
pub fn verify(evidence: &[u8], now_unix: u64, policy: &Policy) -> Result<Claims, Refusal> {
    let claims = nitro::authenticate_with_skew(evidence, now_unix, policy.clock_skew, &policy.anchor)?.into_claims();
    policy.judge(&claims, now_unix)?;
    Ok(claims)
}
