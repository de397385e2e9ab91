//! Evidence says which program runs in a trusted execution environment; this crate decides whether to believe it, whatever the
//! platform: AWS Nitro, AMD SEV-SNP, Intel SGX and TDX.
//!
//! Evidence goes through three steps that know nothing of each other:
//!
//! 1. **Parsing** ([`nitro::Envelope`], [`nitro::Document`], [`snp::Report`], [`intel::Quote`]) takes bytes and limits and returns a
//!    type. It judges nothing.
//! 2. **Authentication** ([`authenticate`]) checks the evidence's signature and the certificate chain up to a [`TrustAnchor`] at a given
//!    time, with the [`Collateral`] that came along. Afterwards the [`Claims`] are known to be the platform's own words.
//! 3. **Judging** ([`Policy::judge`]) compares the claims with what the caller expects: platform, images, age, versions of the platform's
//!    software, what the evidence shall bind, and that nobody can look into the guest.
//!
//! [`verify`] does all three and is what nearly everybody wants. Nothing here performs I/O, reads a clock or knows a trust
//! anchor by itself: the time and the anchors are parameters, so that the same code judges real, forged, expired and
//! development evidence. There is no async; the crate builds for phones (feature `rust-crypto`).
//!
//! Evidence is public. Nothing here is secret, so nothing is zeroized and comparisons need not take constant time.

mod anchor;
mod backend;
mod batch;
mod bundle;
mod cache;
mod chain;
mod claims;
mod collateral;
mod crl;
mod describe;
mod encoding;
mod evidence;
mod policy;
mod refusal;
mod report_data;
mod signatures;

pub mod fuzz;
pub mod intel;
pub mod nitro;
pub mod snp;

pub use anchor::{AnchorError, TrustAnchor};
pub use batch::verify_batch;
pub use bundle::{Bundle, BundleError, MAX_BUNDLE_BYTES};
pub use cache::Cache;
pub use chain::{CertificateName, ChainError, CrlError};
pub use claims::{
    Bound, Claims, DebugSign, Guest, GuestPolicy, Identity, Measurement, MeasurementSet, Measurements, Pcrs, Platform,
    Product, Register, SnpSigner, SnpTcb, Tcb, TcbStatus,
};
pub use collateral::Collateral;
pub use policy::{Image, ImageError, IntelRules, NitroRules, Policy, PolicyError, SnpRules, Window};
pub use refusal::{IntelError, Refusal};
pub use report_data::report_data;

use batch::Shared;

/// The largest evidence that is looked at, but for SEV-SNP's, which a table of certificates may follow. Nitro's is at most about 5 KiB,
/// Intel's 8 KiB with the padding of some clouds.
pub const MAX_EVIDENCE_BYTES: usize = 16 * 1024;

/// Verifies `evidence` with what came along at `now_unix` (seconds since the Unix epoch) and judges it by `policy`.
///
/// The platform is told by the evidence itself. Who sees the same evidence again and again has a [`Cache`], who sees much of it at once
/// [`verify_batch`].
///
/// # Errors
///
/// The first rule that the evidence breaks, as a [`Refusal`]. Refused evidence must not be used for anything.
pub fn verify(evidence: &[u8], collateral: &Collateral, now_unix: u64, policy: &Policy) -> Result<Claims, Refusal> {
    let claims = authenticate(evidence, collateral, now_unix, policy)?;
    policy.judge(&claims, now_unix)?;
    Ok(claims)
}

/// Checks signature and chain of `evidence`, under the anchors of `policy` and for the platforms that it allows, and nothing else of it:
/// for those who judge by rules of their own. Everybody else wants [`verify`].
///
/// # Errors
///
/// The first rule of the format, the chain or the signature that the evidence breaks.
pub fn authenticate(
    evidence: &[u8],
    collateral: &Collateral,
    now_unix: u64,
    policy: &Policy,
) -> Result<Claims, Refusal> {
    authenticate_with(evidence, collateral, now_unix, policy, &mut Shared::default())
}

/// Tells the platform, and refuses what is larger than its evidence.
fn within_bounds(evidence: &[u8]) -> Result<Platform, Refusal> {
    let platform = Platform::of(&evidence[..evidence.len().min(MAX_EVIDENCE_BYTES)]).ok_or(Refusal::UnknownKind)?;
    let limit = match platform {
        Platform::SevSnp => snp::MAX_BYTES,
        Platform::Nitro | Platform::Sgx | Platform::Tdx => MAX_EVIDENCE_BYTES,
    };
    if evidence.len() > limit {
        return Err(Refusal::TooLarge { found: evidence.len(), limit });
    }
    Ok(platform)
}

fn authenticate_with(
    evidence: &[u8],
    collateral: &Collateral,
    now_unix: u64,
    policy: &Policy,
    shared: &mut Shared,
) -> Result<Claims, Refusal> {
    let platform = within_bounds(evidence)?;
    policy.judge_platform(platform)?;
    match (platform, &policy.nitro, &policy.snp, policy.intel(platform)) {
        (Platform::Nitro, Some(rules), ..) => {
            nitro::authenticate_under(evidence, now_unix, policy.clock_skew, &rules.anchors, shared)
        }
        (Platform::SevSnp, _, Some(rules), _) => snp::authenticate(evidence, collateral, now_unix, rules, shared),
        (Platform::Sgx | Platform::Tdx, _, _, Some(rules)) => {
            intel::authenticate(evidence, collateral.of_intel(), now_unix, &rules.anchors, shared)
        }
        _ => unreachable!("a platform without rules was refused above"),
    }
}
