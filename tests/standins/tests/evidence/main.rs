//! What the stand-ins promise, and what the verifier promises against an authority that lies; one promise a file.

mod development_evidence_is_real;
mod each_forgery_has_its_refusal;
mod module_is_as_strict_as_the_real_one;
mod no_changed_bit_is_believed;

use std::time::Duration;

use casemate_attestation::{Bound, Claims, Collateral, MeasurementSet, Policy, Refusal};
use casemate_standins::{DevelopmentAuthority, SimulatedDocument};

/// Some time in 2026.
const NOW_UNIX: u64 = 1_780_000_000;
const PCRS: [[u8; 48]; 3] = [[0xa0; 48], [0xa1; 48], [0xa2; 48]];

/// An honest document that binds all three fields.
fn document() -> SimulatedDocument {
    SimulatedDocument {
        user_data: Some(b"user data".to_vec()),
        nonce: Some(b"nonce".to_vec()),
        public_key: Some(b"public key".to_vec()),
        ..SimulatedDocument::measuring(PCRS, NOW_UNIX * 1000 + 500)
    }
}

/// Expects exactly that document.
fn policy(authority: &DevelopmentAuthority) -> Policy {
    let [pcr0, pcr1, pcr2] = PCRS;
    Policy {
        max_age: Duration::from_mins(5),
        clock_skew: Duration::from_secs(10),
        bound: Bound {
            nonce: Some(b"nonce".to_vec()),
            user_data: Some(b"user data".to_vec()),
            public_key: Some(b"public key".to_vec()),
            report_data: None,
        },
        ..Policy::nitro(authority.anchor(), [MeasurementSet { pcr0, pcr1, pcr2 }])
    }
}

/// Nitro's evidence needs no collateral.
fn verify(evidence: &[u8], now_unix: u64, policy: &Policy) -> Result<Claims, Refusal> {
    casemate_attestation::verify(evidence, &Collateral::NONE, now_unix, policy)
}
