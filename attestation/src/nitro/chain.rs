//! The certificate chain from the document's key up to the trust anchor.
//!
//! `rustls-webpki` builds and verifies the path: signatures, names, validity, basic constraints and path length. Around it stand
//! AWS's further rules (attestation_process.md, section 3.2.3): the bundle is root first and has nothing but the path, CA
//! certificates may sign certificates, the leaf may sign documents. Revocation is not asked: it would need a network, and leaves
//! live for three hours.
//!
//! Extended key usage is not judged. AWS's certificates carry none, and the PKI below the pinned root has the one purpose of
//! signing these documents; a usage that webpki knows (TLS server, TLS client) would be the wrong question.

use std::fmt;

use rustls_pki_types::{CertificateDer, UnixTime};
use sha2::{Digest, Sha256};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsage;

use super::Document;
use crate::TrustAnchor;
use crate::backend::CERTIFICATE_ALGORITHMS;
use crate::refusal::Short;

/// id-ecPublicKey (RFC 5480).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp384r1 (RFC 5480).
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Which certificate of a document is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// The one at this place of the cabundle; 0 is the root.
    Cabundle(usize),
    /// The one whose key signed the document.
    Leaf,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cabundle(0) => f.write_str("root certificate"),
            Self::Cabundle(place) => write!(f, "cabundle certificate {place}"),
            Self::Leaf => f.write_str("leaf certificate"),
        }
    }
}

/// Why the certificates do not lead to the anchor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChainError {
    /// Another root.
    #[error(
        "the evidence's root has SHA-256 {found}, wanted {wanted} ({subject}): it was made by another platform, or by a \
         development or forged authority"
    )]
    ForeignRoot {
        /// SHA-256 of the first certificate of the cabundle, shortened hex.
        found: String,
        /// The anchor's, shortened hex.
        wanted: String,
        /// The anchor's subject.
        subject: String,
    },
    /// Not an X.509 certificate.
    #[error("the {certificate} cannot be read as X.509 ({reason})")]
    Malformed {
        /// Which.
        certificate: CertificateName,
        /// The parser's word for it.
        reason: String,
    },
    /// Too late.
    #[error(
        "the {certificate} ended at {not_after_unix} and it is {now_unix} (Unix seconds): ask for fresh evidence, and check this machine's clock"
    )]
    Expired {
        /// Which.
        certificate: CertificateName,
        /// Its last second.
        not_after_unix: u64,
        /// The time asked for.
        now_unix: u64,
    },
    /// Too early.
    #[error(
        "the {certificate} begins at {not_before_unix} and it is {now_unix} (Unix seconds): check this machine's clock"
    )]
    NotYetValid {
        /// Which.
        certificate: CertificateName,
        /// Its first second.
        not_before_unix: u64,
        /// The time asked for.
        now_unix: u64,
    },
    /// A key that may not do what it did.
    #[error("the {certificate}'s key usage does not allow {wanted}")]
    KeyUsage {
        /// Which.
        certificate: CertificateName,
        /// What it would have to allow.
        wanted: &'static str,
    },
    /// A leaf key that cannot make ES384 signatures.
    #[error("the leaf certificate's key is not on curve P-384, as ES384 needs it")]
    LeafKey,
    /// A certificate with another signature algorithm.
    #[error("a certificate is not signed with ECDSA on P-384 and SHA-384, the only algorithm of this PKI")]
    Algorithm,
    /// A name that leads nowhere.
    #[error(
        "the leaf certificate does not lead to the root: an issuer is missing from the cabundle, or is not who the next one names"
    )]
    UnknownIssuer,
    /// A forged certificate.
    #[error("a certificate's signature does not verify with its issuer's key")]
    Signature,
    /// The certificates lead to the root, but not as AWS orders them.
    #[error("the cabundle is not the path from the root to the leaf, in this order and with nothing else")]
    Order,
    /// Another of webpki's rules.
    #[error("the certificate chain breaks a rule of X.509 ({0})")]
    X509(String),
}

/// What is known of a chain that leads to the anchor.
#[derive(Debug)]
pub(super) struct Chain {
    /// The key that signed the document: an uncompressed point of P-384 (SEC 1).
    pub(super) leaf_key: [u8; 97],
    /// The earliest end of all its certificates, in seconds since the Unix epoch.
    pub(super) valid_until_unix: u64,
}

/// Every purpose, or none stated, will do: see the module's page.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, mut purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        purposes.try_for_each(|purpose| purpose.map(drop))
    }
}

impl Chain {
    /// Verifies that the document's certificates lead to `anchor` at `now_unix`.
    pub(super) fn verify(document: &Document<'_>, now_unix: u64, anchor: &TrustAnchor) -> Result<Self, ChainError> {
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

fn read(name: CertificateName, der: &[u8]) -> Result<Certificate, ChainError> {
    Certificate::from_der(der).map_err(|reason| ChainError::Malformed { certificate: name, reason: reason.to_string() })
}

/// Returns the certificate's last second. webpki judges validity too, but not the anchor's, and does not say whose.
fn judge_validity(name: CertificateName, certificate: &Certificate, now_unix: u64) -> Result<u64, ChainError> {
    let validity = certificate.tbs_certificate().validity();
    let not_before_unix = validity.not_before.to_unix_duration().as_secs();
    let not_after_unix = validity.not_after.to_unix_duration().as_secs();
    if now_unix < not_before_unix {
        return Err(ChainError::NotYetValid { certificate: name, not_before_unix, now_unix });
    }
    if now_unix > not_after_unix {
        return Err(ChainError::Expired { certificate: name, not_after_unix, now_unix });
    }
    Ok(not_after_unix)
}

fn judge_key_usage(
    name: CertificateName,
    certificate: &Certificate,
    allows: impl Fn(&KeyUsage) -> bool,
    wanted: &'static str,
) -> Result<(), ChainError> {
    let usage = certificate
        .tbs_certificate()
        .get_extension::<KeyUsage>()
        .map_err(|reason| ChainError::Malformed { certificate: name, reason: reason.to_string() })?;
    match usage {
        Some((_, usage)) if allows(&usage) => Ok(()),
        _ => Err(ChainError::KeyUsage { certificate: name, wanted }),
    }
}

fn p384_point(leaf: &Certificate) -> Result<[u8; 97], ChainError> {
    let key = leaf.tbs_certificate().subject_public_key_info();
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(SECP384R1) {
        return Err(ChainError::LeafKey);
    }
    key.subject_public_key.as_bytes().and_then(|point| point.try_into().ok()).ok_or(ChainError::LeafKey)
}

/// webpki's part.
fn judge_path(document: &Document<'_>, now_unix: u64, anchor: &TrustAnchor) -> Result<(), ChainError> {
    let intermediates: Vec<CertificateDer<'_>> =
        document.cabundle.iter().skip(1).map(|der| CertificateDer::from(*der)).collect();
    let anchors = [webpki::anchor_from_trusted_cert(anchor.der()).map_err(refused)?];
    let leaf = CertificateDer::from(document.certificate);
    let leaf = EndEntityCert::try_from(&leaf).map_err(refused)?;
    let path = leaf
        .verify_for_usage(
            CERTIFICATE_ALGORITHMS,
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
    use webpki::Error as E;
    match error {
        E::UnknownIssuer => ChainError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => ChainError::Signature,
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            ChainError::Algorithm
        }
        other => ChainError::X509(other.to_string()),
    }
}
