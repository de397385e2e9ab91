//! A security module whose documents a development authority signs anew.
//!
//! An emulated machine's module measures, extends, locks and tells the time as a real one, but signs nothing. What it says is kept word for
//! word; the signature, which it lacks, is the development authority's.

use std::sync::Arc;

use casemate_attestation::nitro::{Document, Envelope};
use casemate_enclave::outside::{EvidenceRequest, Measurements, ModuleError, SecurityModule};

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
        let unreadable = |reason: String| ModuleError { operation: "Attestation", reason };
        let envelope = Envelope::parse(&unsigned).map_err(|error| unreadable(error.to_string()))?;
        let said = Document::parse(envelope.payload()).map_err(|error| unreadable(error.to_string()))?;
        let owned = |bytes: Option<&[u8]>| bytes.map(<[u8]>::to_vec);
        Ok(self.authority.sign(SimulatedDocument {
            pcrs: said.pcrs,
            user_data: owned(said.user_data),
            nonce: owned(said.nonce),
            public_key: owned(said.public_key),
            module_id: said.module_id.to_owned(),
            timestamp_unix_ms: said.timestamp_unix_ms,
        }))
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
