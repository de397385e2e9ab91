//! Certificate chains, whatever the platform: why one does not lead to its anchor, and the rules that all share.

use std::fmt;

use webpki::{ExtendedKeyUsageValidator, KeyPurposeIdIter};
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::KeyUsage;

/// id-ecPublicKey (RFC 5480).
const EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// secp384r1 (RFC 5480).
const SECP384R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.132.0.34");

/// Which certificate is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateName {
    /// Nitro: the one at this place of the cabundle; 0 is the root.
    Cabundle(usize),
    /// The one whose key signed the evidence.
    Leaf,
    /// The root.
    Root,
    /// The one between root and leaf: AMD's ASK or ASVK, Intel's PCK CA.
    Intermediate,
    /// Intel: the one whose key signed the TCB info.
    TcbSigner,
    /// Intel: the one whose key signed the quoting enclave's identity.
    QeSigner,
}

impl fmt::Display for CertificateName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cabundle(0) | Self::Root => f.write_str("root certificate"),
            Self::Cabundle(place) => write!(f, "cabundle certificate {place}"),
            Self::Leaf => f.write_str("leaf certificate"),
            Self::Intermediate => f.write_str("intermediate certificate"),
            Self::TcbSigner => f.write_str("TCB info's signing certificate"),
            Self::QeSigner => f.write_str("QE identity's signing certificate"),
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
        /// SHA-256 of the root that the evidence names, shortened hex; its name where it does not show it.
        found: String,
        /// The anchor's, shortened hex.
        wanted: String,
        /// The anchor's subject.
        subject: String,
    },
    /// No certificates where some are needed.
    #[error("no certificates lead from the evidence's key to a root: {wanted} must come with it")]
    Missing {
        /// What is needed.
        wanted: &'static str,
    },
    /// More certificates than a path of this PKI has.
    #[error("{found} certificates came with the evidence, wanted {wanted}: the path to this root is no longer")]
    TooLong {
        /// How many there are.
        found: usize,
        /// How many there may be.
        wanted: &'static str,
    },
    /// A certificate larger than any of this PKI.
    #[error("the {certificate} has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Which.
        certificate: CertificateName,
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
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
    /// A leaf key of another kind.
    #[error("the leaf certificate's key is not on curve {wanted}, as this platform's are")]
    LeafKey {
        /// The curve.
        wanted: &'static str,
    },
    /// A certificate with another signature algorithm.
    #[error("a certificate is not signed with {wanted}, the only algorithm of this PKI")]
    Algorithm {
        /// The algorithm.
        wanted: &'static str,
    },
    /// A name that leads nowhere.
    #[error("the leaf certificate does not lead to the root: an issuer is missing, or is not who the next one names")]
    UnknownIssuer,
    /// A forged certificate.
    #[error("a certificate's signature does not verify with its issuer's key")]
    Signature,
    /// The certificates lead to the root, but not as the vendor orders them.
    #[error("the certificates are not the path between root and leaf, in the platform's order and with nothing else")]
    Order,
    /// Withdrawn by its issuer.
    #[error("the {certificate} (serial number {serial}) was revoked by its issuer: do not use this machine")]
    Revoked {
        /// Which.
        certificate: CertificateName,
        /// Its serial number, shortened hex.
        serial: String,
    },
    /// A revocation list that is not to be used.
    #[error(transparent)]
    Crl(#[from] CrlError),
    /// Another of webpki's rules.
    #[error("the certificate chain breaks a rule of X.509 ({0})")]
    X509(String),
}

/// Why a revocation list is not to be used. Evidence that came with one is then refused: whoever shows an old list may hide something.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CrlError {
    /// More than a list of this PKI has.
    #[error("the revocation list has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Too many lists.
    #[error("{found} revocation lists came with the evidence, at most {limit} are allowed")]
    TooMany {
        /// How many there are.
        found: usize,
        /// How many there may be.
        limit: usize,
    },
    /// Not a certificate revocation list.
    #[error("the revocation list cannot be read as X.509 ({0})")]
    Malformed(String),
    /// Another issuer than those of the path.
    #[error("the revocation list was issued by \"{found}\", wanted an issuer of this chain")]
    Issuer {
        /// Who issued it.
        found: String,
    },
    /// Forged.
    #[error("the revocation list of \"{issuer}\" is not signed by its issuer's key")]
    Signature {
        /// Who is said to have issued it.
        issuer: String,
    },
    /// Too old.
    #[error(
        "the revocation list of \"{issuer}\" ended at {next_update_unix} and it is {now_unix} (Unix seconds): fetch a newer one"
    )]
    Stale {
        /// Who issued it.
        issuer: String,
        /// Its last second.
        next_update_unix: u64,
        /// The time asked for.
        now_unix: u64,
    },
    /// A list without an end, or one that has not begun.
    #[error(
        "the revocation list of \"{issuer}\" does not hold at {now_unix} (Unix seconds): it has no end, or has not begun"
    )]
    NotYetValid {
        /// Who issued it.
        issuer: String,
        /// The time asked for.
        now_unix: u64,
    },
    /// The policy wants lists and none came.
    #[error("no revocation list came with the evidence, and the policy wants one")]
    Missing,
}

/// Every purpose, or none stated, will do. Neither AWS's certificates nor AMD's carry one, and below a pinned root there is one purpose; a
/// usage that webpki knows (TLS server, TLS client) would be the wrong question.
pub(crate) struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, mut purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        purposes.try_for_each(|purpose| purpose.map(drop))
    }
}

pub(crate) fn read(name: CertificateName, der: &[u8]) -> Result<Certificate, ChainError> {
    Certificate::from_der(der).map_err(|reason| ChainError::Malformed { certificate: name, reason: reason.to_string() })
}

/// First and last second.
pub(crate) fn validity(certificate: &Certificate) -> (u64, u64) {
    let validity = certificate.tbs_certificate().validity();
    (validity.not_before.to_unix_duration().as_secs(), validity.not_after.to_unix_duration().as_secs())
}

/// Returns the certificate's last second. webpki judges validity too, but not the anchor's, and does not say whose.
pub(crate) fn judge_validity(
    name: CertificateName,
    certificate: &Certificate,
    now_unix: u64,
) -> Result<u64, ChainError> {
    let (not_before_unix, not_after_unix) = validity(certificate);
    if now_unix < not_before_unix {
        return Err(ChainError::NotYetValid { certificate: name, not_before_unix, now_unix });
    }
    if now_unix > not_after_unix {
        return Err(ChainError::Expired { certificate: name, not_after_unix, now_unix });
    }
    Ok(not_after_unix)
}

pub(crate) fn judge_key_usage(
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

/// The leaf's key as an uncompressed point of P-384 (SEC 1).
pub(crate) fn p384_point(leaf: &Certificate) -> Result<[u8; 97], ChainError> {
    const REFUSED: ChainError = ChainError::LeafKey { wanted: "P-384" };
    let key = leaf.tbs_certificate().subject_public_key_info();
    let curve = key.algorithm.parameters.as_ref().and_then(|curve| curve.decode_as::<ObjectIdentifier>().ok());
    if key.algorithm.oid != EC_PUBLIC_KEY || curve != Some(SECP384R1) {
        return Err(REFUSED);
    }
    key.subject_public_key.as_bytes().and_then(|point| point.try_into().ok()).ok_or(REFUSED)
}

/// webpki's refusal, where `algorithm` is the PKI's only one.
pub(crate) fn refused(error: webpki::Error, algorithm: &'static str) -> ChainError {
    use webpki::Error as E;
    match error {
        E::UnknownIssuer => ChainError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => ChainError::Signature,
        E::UnsupportedSignatureAlgorithmContext(_) | E::UnsupportedSignatureAlgorithmForPublicKeyContext(_) => {
            ChainError::Algorithm { wanted: algorithm }
        }
        other => ChainError::X509(other.to_string()),
    }
}
