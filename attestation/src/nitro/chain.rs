//! The certificate chain from the document's key up to the trust anchor.
//!
//! `rustls-webpki` builds and verifies the path: signatures, names, validity, basic constraints and path length. Around it stand
//! AWS's further rules (attestation_process.md, section 3.2.3): the bundle is root first and has nothing but the path, CA
//! certificates may sign certificates, the leaf may sign documents. Revocation is not asked: it would need a network, and leaves
//! live for three hours.

use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::EndEntityCert;
use x509_cert::ext::pkix::KeyUsage;

use super::Document;
use crate::TrustAnchor;
use crate::backend::NITRO;
use crate::chain::{
    AnyPurpose, CertificateName, ChainError, judge_key_usage, judge_validity, p384_point, read, refused as refused_by,
};
use crate::refusal::Short;
use crate::signatures::Remembered;

const ALGORITHM: &str = "ECDSA on P-384 and SHA-384";

/// What is known of a chain that leads to the anchor.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chain {
    /// The key that signed the document: an uncompressed point of P-384 (SEC 1).
    pub(crate) leaf_key: [u8; 97],
    /// The earliest end of all its certificates, in seconds since the Unix epoch.
    pub(crate) valid_until_unix: u64,
}

impl Chain {
    /// Verifies that the document's certificates lead to `anchor` at `now_unix`.
    pub(crate) fn verify(document: &Document<'_>, now_unix: u64, anchor: &TrustAnchor) -> Result<Self, ChainError> {
        // The trust is in the anchor that the caller gave; the document's copy of it is only compared.
        let root = document.cabundle.first().copied().unwrap_or_default();
        if root != anchor.der().as_ref() {
            return Err(ChainError::ForeignRoot {
                found: Short::text(&Sha256::digest(root)),
                wanted: Short::text(anchor.fingerprint()),
                subject: anchor.subject().to_owned(),
            });
        }
        let mut valid_until_unix = u64::MAX;
        for (place, der) in document.cabundle.iter().enumerate() {
            let name = CertificateName::Cabundle(place);
            let certificate = read(name, der)?;
            valid_until_unix = valid_until_unix.min(judge_validity(name, &certificate, now_unix)?);
            judge_key_usage(name, &certificate, KeyUsage::key_cert_sign, "signing certificates")?;
        }
        let leaf = read(CertificateName::Leaf, document.certificate)?;
        valid_until_unix = valid_until_unix.min(judge_validity(CertificateName::Leaf, &leaf, now_unix)?);
        judge_key_usage(CertificateName::Leaf, &leaf, KeyUsage::digital_signature, "signing documents")?;
        let leaf_key = p384_point(&leaf)?;
        judge_path(document, now_unix, anchor)?;
        Ok(Self { leaf_key, valid_until_unix })
    }
}

/// webpki's part.
fn judge_path(document: &Document<'_>, now_unix: u64, anchor: &TrustAnchor) -> Result<(), ChainError> {
    let intermediates: Vec<CertificateDer<'_>> =
        document.cabundle.iter().skip(1).map(|der| CertificateDer::from(*der)).collect();
    let anchors = [webpki::anchor_from_trusted_cert(anchor.der()).map_err(refused)?];
    let leaf = CertificateDer::from(document.certificate);
    let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
    // A document's chain begins with what the root signed for its region, the same for weeks.
    let algorithm = Remembered { algorithm: NITRO, signatures: anchor.signatures() };
    let path = leaf
        .verify_for_usage(
            &[&algorithm],
            &anchors,
            &intermediates,
            UnixTime::since_unix_epoch(std::time::Duration::from_secs(now_unix)),
            AnyPurpose,
            None,
            None,
        )
        .map_err(refused)?;
    // webpki finds a path whatever the order and ignores what it does not need. AWS's bundle is exactly the path; anything else
    // is somebody's construction.
    if path.intermediate_certificates().rev().map(webpki::Cert::der).eq(intermediates.iter().cloned()) {
        Ok(())
    } else {
        Err(ChainError::Order)
    }
}

fn refused(error: webpki::Error) -> ChainError {
    refused_by(error, ALGORITHM)
}
