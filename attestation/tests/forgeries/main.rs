//! A false PKI for each vendor: the same verifier, another root. Evidence that is false in one respect is refused for that respect.
//!
//! AWS's is in `tests/standins`, because development evidence is made by it. AMD's and Intel's are written byte by byte here, so that
//! a forgery may be anything.

#![allow(clippy::unwrap_used, reason = "a PKI of constants: what cannot be made is a broken test")]
#![allow(
    clippy::type_complexity,
    clippy::items_after_statements,
    reason = "forgeries are closures, and stand where they are used"
)]

mod amd;
mod der;
mod each_forgery_of_a_quote;
mod each_forgery_of_a_report;
mod intel;
mod seeds;

/// Some time in 2026.
const NOW_UNIX: u64 = 1_780_000_000;
const DAY: u64 = 86_400;
