//! The certificate chain of a report: leaf (VCEK or VLEK), AMD's intermediate of the product (ASK or ASVK), AMD's root (ARK).
//!
//! The root is pinned, one for each product, and what came with the evidence is only compared with it. Revocation is asked where lists
//! were given.

use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;
use x509_cert::Certificate;
use x509_cert::der::Encode;
use x509_cert::ext::pkix::KeyUsage;

use super::vek::{Vek, VekError};
use crate::anchor::amd_ask;
use crate::backend::AMD_CERTIFICATES;
use crate::chain::{
    AnyPurpose, CertificateName, ChainError, CrlError, judge_key_usage, judge_validity, p384_point, read, refused,
};
use crate::claims::Product;
use crate::crl::{Issuer, MAX_CRLS, RevocationList};
use crate::policy::SnpRules;
use crate::refusal::{Short, printable};
use crate::{Refusal, TrustAnchor};

/// The longest certificate; AMD's have at most 1,677 bytes.
const MAX_CERTIFICATE_BYTES: usize = 4096;
const ALGORITHM: &str = "RSASSA-PSS and SHA-384";

/// What is known of a chain that leads to an anchor.
#[derive(Debug, Clone)]
pub(crate) struct Chain {
    /// The product whose root it led to.
    pub(crate) product: Product,
    /// The root.
    pub(crate) anchor: TrustAnchor,
    /// What the leaf says.
    pub(crate) vek: Vek,
    /// The key that signed the report: an uncompressed point of P-384 (SEC 1).
    pub(crate) leaf_key: [u8; 97],
    /// The earliest end of all its certificates and lists, in seconds since the Unix epoch.
    pub(crate) valid_until_unix: u64,
}

/// The certificates of a chain, told apart.
struct Parts<'a> {
    leaf: &'a [u8],
    intermediate: &'a [u8],
    product: Product,
    anchor: &'a TrustAnchor,
}

impl Chain {
    /// Verifies that `certificates` (leaf first; intermediate and root may be left out) lead to one of the anchors at `now_unix`.
    pub(crate) fn verify(
        certificates: &[&[u8]],
        crls: &[Vec<u8>],
        now_unix: u64,
        rules: &SnpRules,
    ) -> Result<Self, Refusal> {
        let parts = Parts::tell_apart(certificates, rules)?;
        let root = read(CertificateName::Root, parts.anchor.der())?;
        let intermediate = read(CertificateName::Intermediate, parts.intermediate)?;
        let leaf = read(CertificateName::Leaf, parts.leaf)?;
        let named = [
            (CertificateName::Root, &root),
            (CertificateName::Intermediate, &intermediate),
            (CertificateName::Leaf, &leaf),
        ];
        let mut valid_until_unix = u64::MAX;
        for (name, certificate) in named {
            valid_until_unix = valid_until_unix.min(judge_validity(name, certificate, now_unix)?);
        }
        for (name, certificate) in &named[..2] {
            judge_key_usage(*name, certificate, KeyUsage::key_cert_sign, "signing certificates")?;
        }
        let leaf_key = p384_point(&leaf)?;
        judge_path(&parts, now_unix)?;
        valid_until_unix = valid_until_unix.min(judge_revocation(crls, &root, &intermediate, &leaf, now_unix)?);
        let vek = Vek::read(&leaf, parts.product)?;
        Ok(Self { product: parts.product, anchor: parts.anchor.clone(), vek, leaf_key, valid_until_unix })
    }
}

impl<'a> Parts<'a> {
    fn tell_apart(certificates: &[&'a [u8]], rules: &'a SnpRules) -> Result<Self, ChainError> {
        let named = [CertificateName::Leaf, CertificateName::Intermediate, CertificateName::Root];
        for (certificate, name) in certificates.iter().zip(named) {
            if certificate.len() > MAX_CERTIFICATE_BYTES {
                let (found, limit) = (certificate.len(), MAX_CERTIFICATE_BYTES);
                return Err(ChainError::TooLarge { certificate: name, found, limit });
            }
        }
        let (leaf, intermediate, root) = match certificates {
            [] => return Err(ChainError::Missing { wanted: "the VCEK or VLEK certificate, leaf first," }),
            [leaf] => (*leaf, None, None),
            [leaf, second] if is_self_issued(second) => (*leaf, None, Some(*second)),
            [leaf, intermediate] => (*leaf, Some(*intermediate), None),
            [leaf, intermediate, root] => (*leaf, Some(*intermediate), Some(*root)),
            more => return Err(ChainError::TooLong { found: more.len(), wanted: "leaf, intermediate and root" }),
        };
        let (product, anchor) = if let Some(root) = root {
            // Attack stopped: a whole chain that is right in itself, below a root of the host's own.
            let shown = rules.anchors.iter().find(|(_, anchor)| anchor.der().as_ref() == root);
            shown.ok_or_else(|| foreign(Short::text(&Sha256::digest(root)), rules))?
        } else {
            let (name, der) = match intermediate {
                Some(der) => (CertificateName::Intermediate, der),
                None => (CertificateName::Leaf, leaf),
            };
            let certificate = read(name, der)?;
            let issuer = certificate.tbs_certificate().issuer();
            let issuer_der = issuer.to_der().unwrap_or_default();
            let leads = |(product, anchor): &&(Product, TrustAnchor)| match intermediate {
                Some(_) => anchor.name_der() == issuer_der,
                None => subject_of(amd_ask(*product)).is_some_and(|subject| subject == issuer_der),
            };
            let named = rules.anchors.iter().find(leads);
            named.ok_or_else(|| foreign(format!("unknown, issuer \"{}\"", printable(&issuer.to_string())), rules))?
        };
        let intermediate = intermediate.unwrap_or_else(|| amd_ask(*product));
        Ok(Self { leaf, intermediate, product: *product, anchor })
    }
}

fn foreign(found: String, rules: &SnpRules) -> ChainError {
    let wanted: Vec<String> = rules.anchors.iter().map(|(_, anchor)| Short::text(anchor.fingerprint())).collect();
    let subjects: Vec<&str> = rules.anchors.iter().map(|(_, anchor)| anchor.subject()).collect();
    ChainError::ForeignRoot { found, wanted: wanted.join(" or "), subject: subjects.join("; ") }
}

fn is_self_issued(der: &[u8]) -> bool {
    read(CertificateName::Root, der)
        .is_ok_and(|certificate| certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject())
}

fn subject_of(der: &[u8]) -> Option<Vec<u8>> {
    read(CertificateName::Intermediate, der).ok()?.tbs_certificate().subject().to_der().ok()
}

/// webpki's part: signatures, names, basic constraints, path length.
fn judge_path(parts: &Parts<'_>, now_unix: u64) -> Result<(), ChainError> {
    let refused = |error| refused(error, ALGORITHM);
    let anchors = [webpki::anchor_from_trusted_cert(parts.anchor.der()).map_err(refused)?];
    let intermediates = [CertificateDer::from(parts.intermediate)];
    let leaf = CertificateDer::from(parts.leaf);
    let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
    let time = UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix));
    let path = leaf
        .verify_for_usage(AMD_CERTIFICATES, &anchors, &intermediates, time, AnyPurpose, None, None)
        .map_err(refused)?;
    // Attack stopped: a leaf that the root itself signed, which only an intermediate may.
    if path.intermediate_certificates().count() == 1 { Ok(()) } else { Err(ChainError::Order) }
}

/// Asks the lists; returns their earliest end.
fn judge_revocation(
    crls: &[Vec<u8>],
    root: &Certificate,
    intermediate: &Certificate,
    leaf: &Certificate,
    now_unix: u64,
) -> Result<u64, ChainError> {
    if crls.len() > MAX_CRLS {
        return Err(CrlError::TooMany { found: crls.len(), limit: MAX_CRLS }.into());
    }
    let mut valid_until_unix = u64::MAX;
    let issuers = [root, intermediate].map(|certificate| {
        let tbs = certificate.tbs_certificate();
        let name = tbs.subject().to_der().unwrap_or_default();
        (name, tbs.subject_public_key_info().subject_public_key.raw_bytes())
    });
    let issuers = issuers.each_ref().map(|(name, key)| Issuer { name, key });
    for crl in crls {
        let list = RevocationList::parse(crl)?;
        list.judge_signature(&issuers, AMD_CERTIFICATES)?;
        valid_until_unix = valid_until_unix.min(list.judge_time(now_unix)?);
        for (name, certificate) in [(CertificateName::Intermediate, intermediate), (CertificateName::Leaf, leaf)] {
            list.judge(name, certificate)?;
        }
    }
    Ok(valid_until_unix)
}

impl Chain {
    /// Whether the certificate is the report's.
    pub(crate) fn judge_report(&self, report: super::Report<'_>) -> Result<(), VekError> {
        if self.vek.signer != report.signer() {
            return Err(VekError::Kind { report: report.signer(), certificate: self.vek.signer });
        }
        if let Some(found) = report.cpuid().and_then(|(family, model)| Product::of_cpuid(family, model))
            && found != self.product
        {
            return Err(VekError::Product { report: found, certificate: self.product });
        }
        self.vek.judge_tcb(report.reported_tcb(self.product))?;
        self.vek.judge_chip(report.chip_id())
    }
}
