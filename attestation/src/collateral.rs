//! What came beside the evidence, or was fetched for it: nothing of it is believed before it was verified.

use sha2::{Digest, Sha256};

use crate::intel::IntelCollateral;

/// Certificates, revocation lists and what Intel says of a platform. Nitro's evidence needs none of it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Collateral {
    certificates: Vec<Vec<u8>>,
    crls: Vec<Vec<u8>>,
    intel: Option<IntelCollateral>,
    /// What a cache knows it by: made once, because a collateral serves many pieces of evidence.
    digest: [u8; 32],
}

impl Collateral {
    /// None.
    pub const NONE: Self = Self { certificates: Vec::new(), crls: Vec::new(), intel: None, digest: [0; 32] };

    /// For SEV-SNP: certificates in DER, leaf first, and revocation lists in DER.
    pub fn snp(certificates: Vec<Vec<u8>>, crls: Vec<Vec<u8>>) -> Self {
        Self { certificates, crls, intel: None, digest: [0; 32] }.with_digest()
    }

    /// For SGX and TDX.
    pub fn intel(intel: IntelCollateral) -> Self {
        Self { intel: Some(intel), ..Self::NONE }.with_digest()
    }

    fn with_digest(mut self) -> Self {
        let mut hash = Sha256::new();
        let mut field = |bytes: &[u8]| {
            hash.update((bytes.len() as u64).to_be_bytes());
            hash.update(bytes);
        };
        for list in [&self.certificates, &self.crls] {
            field(&(list.len() as u64).to_be_bytes());
            for item in list {
                field(item);
            }
        }
        self.intel.iter().flat_map(IntelCollateral::parts).for_each(field);
        self.digest = hash.finalize().into();
        self
    }

    /// The certificates, leaf first, DER.
    pub fn certificates(&self) -> &[Vec<u8>] {
        &self.certificates
    }

    /// The revocation lists, DER.
    pub fn crls(&self) -> &[Vec<u8>] {
        &self.crls
    }

    pub(crate) fn of_intel(&self) -> Option<&IntelCollateral> {
        self.intel.as_ref()
    }

    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }
}
