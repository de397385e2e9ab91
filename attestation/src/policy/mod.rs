//! What a verifier expects of evidence, and whether claims meet it.

mod file;
mod image;
mod judge;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub use file::PolicyError;
pub use image::{Image, ImageError, Window};
pub(crate) use judge::zero_pcr;

use crate::claims::{Bound, Platform, Product, SnpSigner, SnpTcb, TcbStatus};
use crate::{MeasurementSet, TrustAnchor};

/// What a verifier expects. It comes with the verifier, never with the evidence.
///
/// In a file it is TOML ([`parse`](Self::parse)), and it prints itself as such. A platform without rules is not allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Rules for AWS Nitro.
    pub nitro: Option<NitroRules>,
    /// Rules for AMD SEV-SNP.
    pub snp: Option<SnpRules>,
    /// Rules for Intel SGX.
    pub sgx: Option<IntelRules>,
    /// Rules for Intel TDX.
    pub tdx: Option<IntelRules>,
    /// The images that are believed; the guest must run one of its platform. Without one, every guest of that platform is refused.
    pub images: Vec<Image>,
    /// Believes any image. For those who look at what evidence says and trust nothing to it.
    pub any_image: bool,
    /// Ed25519 keys that may sign images in files of their own ([`add_images`](Self::add_images)).
    pub release_keys: Vec<[u8; 32]>,
    /// How old evidence may be that says when it was made, which Nitro's does. A chain holds for about three hours, far too long for most
    /// uses. Elsewhere a nonce in [`bound`](Self::bound) alone makes evidence fresh.
    pub max_age: Duration,
    /// By how much the security module's clock may be ahead of the verifier's.
    pub clock_skew: Duration,
    /// What the evidence must bind; what is `None` here may be anything.
    pub bound: Bound,
    /// Development only: takes evidence of debug guests, whose host can look into them. All other rules still hold, so that
    /// [`images`](Self::images) must list the zeros that such an enclave of Nitro measures as.
    pub allow_debug: bool,
}

/// Rules for AWS Nitro.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NitroRules {
    /// The roots that a chain may lead to.
    pub anchors: Vec<TrustAnchor>,
}

/// Rules for AMD SEV-SNP.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnpRules {
    /// The roots that a chain may lead to, each with its product.
    pub anchors: Vec<(Product, TrustAnchor)>,
    /// The kinds of keys that may sign.
    pub signers: BTreeSet<SnpSigner>,
    /// The lowest firmware of each product: reported, current, committed and launch version must all be at it or above.
    pub min_tcb: BTreeMap<Product, SnpTcb>,
    /// The privilege level that must have asked for the report.
    pub vmpl: u32,
    /// Takes guests that a migration agent may move.
    pub allow_migration_agent: bool,
    /// Takes reports that hide which chip they are from, though a chip's own key signed them.
    pub allow_masked_chip: bool,
    /// Refuses evidence that no revocation list came with.
    pub require_crl: bool,
}

/// Rules for Intel SGX or TDX.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntelRules {
    /// The roots that a chain may lead to.
    pub anchors: Vec<TrustAnchor>,
    /// Intel's verdicts that are accepted.
    pub statuses: BTreeSet<TcbStatus>,
    /// The advisories that are accepted, if not all are that go with an accepted status.
    pub allowed_advisories: Option<BTreeSet<String>>,
    /// The advisories that are not accepted, whatever the status.
    pub refused_advisories: BTreeSet<String>,
    /// The lowest number of Intel's evaluation.
    pub min_evaluation: u32,
    /// The lowest security versions of the processor, one a component.
    pub min_cpu_svn: [u8; 16],
    /// The lowest security version of the provisioning enclave.
    pub min_pce_svn: u16,
    /// TDX: the lowest security versions of the TDX module, one a component.
    pub min_tee_tcb_svn: [u8; 16],
    /// TDX: takes domains that a service domain may move.
    pub allow_service_td: bool,
}

impl Default for NitroRules {
    /// AWS's root.
    fn default() -> Self {
        Self { anchors: vec![TrustAnchor::aws_nitro()] }
    }
}

impl Default for SnpRules {
    /// AMD's roots of all products, either kind of key, VMPL 0, no migration agent, no masked chip, no floor.
    fn default() -> Self {
        Self {
            anchors: Product::ALL.map(|product| (product, TrustAnchor::amd(product))).to_vec(),
            signers: [SnpSigner::Vcek, SnpSigner::Vlek].into(),
            min_tcb: BTreeMap::new(),
            vmpl: 0,
            allow_migration_agent: false,
            allow_masked_chip: false,
            require_crl: false,
        }
    }
}

impl Default for IntelRules {
    /// Intel's root, `UpToDate` and nothing else.
    fn default() -> Self {
        Self {
            anchors: vec![TrustAnchor::intel()],
            statuses: [TcbStatus::UpToDate].into(),
            allowed_advisories: None,
            refused_advisories: BTreeSet::new(),
            min_evaluation: 0,
            min_cpu_svn: [0; 16],
            min_pce_svn: 0,
            min_tee_tcb_svn: [0; 16],
            allow_service_td: false,
        }
    }
}

impl Policy {
    /// How old a document may be where nobody says otherwise.
    pub const MAX_AGE: Duration = Duration::from_mins(5);
    /// How far ahead the security module's clock may be where nobody says otherwise.
    pub const CLOCK_SKEW: Duration = Duration::from_mins(1);
    /// The most images that a policy lists.
    pub const MAX_IMAGES: usize = 256;

    /// Allows no platform: for those who then add what they allow.
    pub fn nothing() -> Self {
        Self {
            nitro: None,
            snp: None,
            sgx: None,
            tdx: None,
            images: Vec::new(),
            any_image: false,
            release_keys: Vec::new(),
            max_age: Self::MAX_AGE,
            clock_skew: Self::CLOCK_SKEW,
            bound: Bound::default(),
            allow_debug: false,
        }
    }

    /// Allows Nitro under this root, and these images of it.
    pub fn nitro(anchor: TrustAnchor, images: impl IntoIterator<Item = MeasurementSet>) -> Self {
        Self {
            nitro: Some(NitroRules { anchors: vec![anchor] }),
            images: images.into_iter().map(Image::from).collect(),
            ..Self::nothing()
        }
    }

    /// Allows every platform under its vendor's roots and believes any image: only to look at what evidence says.
    pub fn genuine() -> Self {
        Self {
            nitro: Some(NitroRules::default()),
            snp: Some(SnpRules::default()),
            sgx: Some(IntelRules::default()),
            tdx: Some(IntelRules::default()),
            any_image: true,
            ..Self::nothing()
        }
    }

    /// The platforms that are allowed.
    pub fn platforms(&self) -> Vec<Platform> {
        let allowed = [self.nitro.is_some(), self.snp.is_some(), self.sgx.is_some(), self.tdx.is_some()];
        Platform::ALL.into_iter().zip(allowed).filter(|(_, allowed)| *allowed).map(|(platform, _)| platform).collect()
    }

    /// The rules for one of Intel's two platforms.
    pub(crate) fn intel(&self, platform: Platform) -> Option<&IntelRules> {
        match platform {
            Platform::Sgx => self.sgx.as_ref(),
            Platform::Tdx => self.tdx.as_ref(),
            Platform::Nitro | Platform::SevSnp => None,
        }
    }

    /// Whether a chain may lead to the root with this fingerprint on this platform.
    pub(crate) fn trusts(&self, platform: Platform, fingerprint: &[u8; 32]) -> bool {
        let is_it = |anchor: &TrustAnchor| anchor.fingerprint() == fingerprint;
        match platform {
            Platform::Nitro => self.nitro.as_ref().is_some_and(|rules| rules.anchors.iter().any(is_it)),
            Platform::SevSnp => {
                self.snp.as_ref().is_some_and(|rules| rules.anchors.iter().any(|(_, anchor)| is_it(anchor)))
            }
            Platform::Sgx | Platform::Tdx => self.intel(platform).is_some_and(|rules| rules.anchors.iter().any(is_it)),
        }
    }
}
