//! The certificate that a chain must lead to, and those that are compiled in.
//!
//! AMD publishes its roots at its key distribution service, one for each product; Intel its own at its provisioning service. Tests
//! hold each file here to the vendor's fingerprint, and where the collection of real evidence lies, to the chains in it.

use std::fmt;
use std::sync::{Arc, LazyLock};

use rustls_pki_types::CertificateDer;
use sha2::{Digest, Sha256};
use x509_cert::Certificate;
use x509_cert::der::{Decode, Encode};

use crate::claims::Product;
use crate::signatures::Signatures;

const AMD_ARK_MILAN: &[u8] = include_bytes!("anchors/amd-ark-milan.der");
const AMD_ARK_GENOA: &[u8] = include_bytes!("anchors/amd-ark-genoa.der");
const AMD_ARK_TURIN: &[u8] = include_bytes!("anchors/amd-ark-turin.der");
const AMD_ASK_MILAN: &[u8] = include_bytes!("anchors/amd-ask-milan.der");
const AMD_ASK_GENOA: &[u8] = include_bytes!("anchors/amd-ask-genoa.der");
const AMD_ASK_TURIN: &[u8] = include_bytes!("anchors/amd-ask-turin.der");
const INTEL_SGX_ROOT: &[u8] = include_bytes!("anchors/intel-sgx-root.der");

/// AMD's intermediate certificate of a product, for evidence that came with its leaf alone. Believed for nothing: it must verify.
pub(crate) const fn amd_ask(product: Product) -> &'static [u8] {
    match product {
        Product::Milan => AMD_ASK_MILAN,
        Product::Genoa => AMD_ASK_GENOA,
        Product::Turin => AMD_ASK_TURIN,
    }
}

/// The key of AMD's root of Milan, as it stands in the certificate's bit string; for fuzzing.
pub(crate) fn amd_key() -> Vec<u8> {
    let certificate = Certificate::from_der(AMD_ARK_MILAN).expect("a compiled-in root is a root; a test reads it");
    certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().to_vec()
}

/// A root certificate that the caller trusts. Never taken from evidence, a node or an operator.
#[derive(Clone)]
pub struct TrustAnchor {
    der: CertificateDer<'static>,
    subject: String,
    /// The subject's DER, by which issuers are compared.
    name: Vec<u8>,
    /// The DER of its subject public key info: with the name, all that a path ends at.
    key: Vec<u8>,
    fingerprint: [u8; 32],
    /// What its key signed, as far as it was asked; shared by its copies.
    signatures: Arc<Signatures>,
}

impl PartialEq for TrustAnchor {
    /// All else is read from the certificate, or does not tell one anchor from another.
    fn eq(&self, other: &Self) -> bool {
        self.der == other.der
    }
}

impl Eq for TrustAnchor {}

/// Why a certificate cannot be an anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnchorError {
    /// Longer than a certificate of this PKI may be.
    #[error("the root certificate has {found} bytes, at most {limit} are allowed: is it one certificate in DER form?")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not an X.509 certificate.
    #[error("the root certificate cannot be read ({0}): give one X.509 certificate in DER form, not PEM")]
    Malformed(String),
    /// Subject and issuer differ.
    #[error("the root certificate was issued by \"{issuer}\" and not by itself: give the root, not an intermediate")]
    NotSelfIssued {
        /// Who issued it.
        issuer: String,
    },
}

impl TrustAnchor {
    /// The longest root certificate that is taken; AMD's, with RSA keys of 4,096 bits, have 1,639 bytes.
    pub const MAX_BYTES: usize = 4096;

    /// AWS's root of the Nitro attestation PKI (G1), compiled in. The only anchor that release programs name.
    pub fn aws_nitro() -> Self {
        static ANCHOR: LazyLock<TrustAnchor> = LazyLock::new(|| {
            TrustAnchor::from_der(crate::nitro::ROOT_G1.to_vec())
                .expect("the compiled-in root is a root; a test reads it")
        });
        ANCHOR.clone()
    }

    /// AMD's root key certificate (ARK) of one product, compiled in.
    pub fn amd(product: Product) -> Self {
        let der = match product {
            Product::Milan => AMD_ARK_MILAN,
            Product::Genoa => AMD_ARK_GENOA,
            Product::Turin => AMD_ARK_TURIN,
        };
        Self::from_der(der.to_vec()).expect("a compiled-in root is a root; a test reads it")
    }

    /// Intel's root of the SGX and TDX provisioning PKI, compiled in.
    pub fn intel() -> Self {
        static ANCHOR: LazyLock<TrustAnchor> = LazyLock::new(|| {
            TrustAnchor::from_der(INTEL_SGX_ROOT.to_vec()).expect("the compiled-in root is a root; a test reads it")
        });
        ANCHOR.clone()
    }

    /// Takes a root certificate, in DER form, as an anchor.
    ///
    /// # Errors
    ///
    /// When the bytes are no certificate, or one that another issued.
    pub fn from_der(der: Vec<u8>) -> Result<Self, AnchorError> {
        if der.len() > Self::MAX_BYTES {
            return Err(AnchorError::TooLarge { found: der.len(), limit: Self::MAX_BYTES });
        }
        let malformed = |reason: &dyn fmt::Display| AnchorError::Malformed(reason.to_string());
        let certificate = Certificate::from_der(&der).map_err(|reason| malformed(&reason))?;
        let tbs = certificate.tbs_certificate();
        if tbs.issuer() != tbs.subject() {
            return Err(AnchorError::NotSelfIssued { issuer: tbs.issuer().to_string() });
        }
        let subject = tbs.subject().to_string();
        let name = tbs.subject().to_der().map_err(|reason| malformed(&reason))?;
        let key = tbs.subject_public_key_info();
        let signatures = Arc::new(Signatures::of_anchor(key.subject_public_key.raw_bytes()));
        let key = key.to_der().map_err(|reason| malformed(&reason))?;
        let fingerprint = Sha256::digest(&der).into();
        let der = CertificateDer::from(der);
        // Asked now, so that a bad anchor is reported where it was configured and not with the first evidence.
        webpki::anchor_from_trusted_cert(&der).map_err(|reason| malformed(&reason))?;
        Ok(Self { der, subject, name, key, fingerprint, signatures })
    }

    /// The certificate.
    pub fn der(&self) -> &CertificateDer<'static> {
        &self.der
    }

    /// Its subject, as in RFC 4514.
    pub fn subject(&self) -> &str {
        &self.subject
    }

    pub(crate) fn name_der(&self) -> &[u8] {
        &self.name
    }

    pub(crate) fn key_der(&self) -> &[u8] {
        &self.key
    }

    pub(crate) fn signatures(&self) -> &Arc<Signatures> {
        &self.signatures
    }

    /// SHA-256 of its DER.
    pub fn fingerprint(&self) -> &[u8; 32] {
        &self.fingerprint
    }
}

impl fmt::Debug for TrustAnchor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustAnchor")
            .field("subject", &self.subject)
            .field("fingerprint", &format_args!("{}", crate::refusal::Short(&self.fingerprint)))
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_pinned_root_reads_as_published() {
        let anchor = TrustAnchor::aws_nitro();
        assert_eq!(anchor.subject(), "CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US");
        assert!(anchor.fingerprint().starts_with(&[0x64, 0x1a, 0x03, 0x21]));
        assert_eq!(
            format!("{anchor:?}"),
            "TrustAnchor { subject: \"CN=aws.nitro-enclaves,OU=AWS,O=Amazon,C=US\", fingerprint: 641a0321a3e244ef…, .. }"
        );
    }

    /// The vendors' fingerprints, SHA-256 of the DER.
    #[test]
    fn the_other_pinned_roots_are_the_published_ones() {
        let amd = Product::ALL.map(TrustAnchor::amd);
        assert_eq!(
            amd.each_ref().map(|anchor| hex::encode(anchor.fingerprint())),
            [
                "69d063b45344d26a2e94e1f4210de49ef555308287d4c174445c95639a540bcd",
                "4c6598d19c18719c5dfd4a7d335f674e5bfe1d8f800cea2cf270c10d103db2f1",
                "1f084161a44bb6d93778a904877d4819cafa5d05ef4193b2ded9dd9c73dd3f6a",
            ]
        );
        for (anchor, product) in amd.iter().zip(Product::ALL) {
            assert!(anchor.subject().contains(&format!("CN=ARK-{product}")), "{}", anchor.subject());
        }
        let intel = TrustAnchor::intel();
        assert_eq!(
            hex::encode(intel.fingerprint()),
            "44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3"
        );
        assert!(intel.subject().contains("CN=Intel SGX Root CA"), "{}", intel.subject());
    }

    #[test]
    fn what_is_no_root_is_no_anchor() {
        assert!(matches!(
            TrustAnchor::from_der(vec![0; 5000]),
            Err(AnchorError::TooLarge { found: 5000, limit: 4096 })
        ));
        assert!(matches!(TrustAnchor::from_der(Vec::new()), Err(AnchorError::Malformed(_))));
        let mut truncated = TrustAnchor::aws_nitro().der().to_vec();
        truncated.pop();
        assert!(matches!(TrustAnchor::from_der(truncated), Err(AnchorError::Malformed(_))));
        let mut trailing = TrustAnchor::aws_nitro().der().to_vec();
        trailing.push(0);
        assert!(matches!(TrustAnchor::from_der(trailing), Err(AnchorError::Malformed(_))));
    }
}
