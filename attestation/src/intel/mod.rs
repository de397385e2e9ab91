//! Intel's quotes of SGX enclaves and TDX domains, and the collateral without which they say nothing.
//!
//! `dcap-qvl` verifies: the collateral's signatures, the certificates and their revocation, the quoting enclave's report, the quote's own
//! signature, and which TCB level the platform has. Around it stand what it leaves to others: a quote's framing before anything is
//! allocated for it ([`Quote`]), the pinned root, one error for each reason, and all policy. Its signatures are computed by this crate's
//! back-end, so that it brings no cryptography of its own.

mod collateral;
mod diagnosis;
mod provider;
mod quote;
mod verify;

pub use collateral::{CollateralError, IntelCollateral, Part};
pub use quote::{MAX_CERTIFICATION_BYTES, Quote, QuoteError, TeeKind};

pub(crate) use verify::{authenticate, signed_bytes};
