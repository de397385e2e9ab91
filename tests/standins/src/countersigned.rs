//! A security module whose documents a development authority signs anew.
//!
//! An emulated machine's module measures, extends, locks and tells the time as a real one, but signs nothing. What it says is kept word for
//! word; the signature, which it lacks, is the development authority's.

use std::sync::Arc;

use casemate_enclave::outside::{EvidenceRequest, Measurements, ModuleError, SecurityModule};
use ciborium::Value;

use crate::{DevelopmentAuthority, SimulatedDocument};

/// Another module, and who signs for it.
#[derive(Debug)]
pub struct CountersignedModule {
    module: Arc<dyn SecurityModule>,
    authority: Arc<DevelopmentAuthority>,
}

impl CountersignedModule {
    /// Signs with `authority` what `module` says.
    pub fn new(module: Arc<dyn SecurityModule>, authority: Arc<DevelopmentAuthority>) -> Self {
        Self { module, authority }
    }
}

impl SecurityModule for CountersignedModule {
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        self.module.measurements()
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        let unsigned = self.module.attest(request)?;
        let said = said(&unsigned)
            .ok_or_else(|| ModuleError { operation: "Attestation", reason: "no document".to_owned() })?;
        Ok(self.authority.sign(said))
    }

    fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, ModuleError> {
        self.module.extend(index, data)
    }

    fn lock(&self, index: u16) -> Result<(), ModuleError> {
        self.module.lock(index)
    }

    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        self.module.unix_ms()
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        self.module.random(out)
    }
}

/// What an unsigned document says. An emulator's is no evidence: its algorithm, certificates and signature are none, so that nothing of
/// ours reads it.
fn said(evidence: &[u8]) -> Option<SimulatedDocument> {
    let mut envelope: Value = ciborium::from_reader(evidence).ok()?;
    if let Value::Tag(_, tagged) = envelope {
        envelope = *tagged;
    }
    let payload: Value = ciborium::from_reader(envelope.as_array()?.get(2)?.as_bytes()?.as_slice()).ok()?;
    let fields = payload.into_map().ok()?;
    let field = |name: &str| fields.iter().find(|(key, _)| key.as_text() == Some(name)).map(|(_, value)| value);
    let bound = |name: &str| field(name).and_then(Value::as_bytes).cloned();
    let pcr = |(index, value): &(Value, Value)| {
        Some((u8::try_from(index.as_integer()?).ok()?, value.as_bytes()?.as_slice().try_into().ok()?))
    };
    Some(SimulatedDocument {
        pcrs: field("pcrs")?.as_map()?.iter().map(pcr).collect::<Option<_>>()?,
        user_data: bound("user_data"),
        nonce: bound("nonce"),
        public_key: bound("public_key"),
        module_id: field("module_id")?.as_text()?.to_owned(),
        timestamp_unix_ms: field("timestamp")?.as_integer()?.try_into().ok()?,
    })
}
