//! The same evidence, judged by the verifier that phones build: pure Rust, without a C compiler.

use std::time::{Duration, Instant};

use casemate_attestation_portable::intel::IntelCollateral;
use casemate_attestation_portable::{Collateral, IntelRules, Policy, TcbStatus, verify};

use super::super::Result;
use super::collection::{Entry, first_good};

/// A piece of evidence with what came with it.
#[derive(Debug)]
pub(super) struct Portable {
    entry: Entry,
    collateral: Collateral,
    policy: Policy,
}

impl Portable {
    /// The first good piece of a kind; none without the collection.
    pub(super) fn find(kind: &str) -> Result<Option<Self>> {
        let Some(entry) = first_good(kind)? else { return Ok(None) };
        let collateral = match &entry.collateral {
            Some(json) => Collateral::intel(IntelCollateral::parse(json)?),
            None => Collateral::snp(entry.certificates.clone(), Vec::new()),
        };
        let intel = IntelRules { statuses: TcbStatus::ALL.into(), ..IntelRules::default() };
        let policy = Policy {
            sgx: Some(intel.clone()),
            tdx: Some(intel),
            max_age: Duration::from_hours(1),
            ..Policy::genuine()
        };
        Ok(Some(Self { entry, collateral, policy }))
    }

    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        verify(&self.entry.evidence, &self.collateral, self.entry.time, &self.policy)?;
        Ok(start.elapsed())
    }
}
