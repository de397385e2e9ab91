//! Making certificates: the shape of AWS's, and whatever shape a test wants instead.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, date_time_ymd,
};

use crate::AuthorityError;

/// How long a leaf holds, as AWS's do.
pub const LEAF_LIFETIME_SECONDS: u64 = 3 * 60 * 60;
/// How much earlier than its first document a leaf begins, as AWS's do.
const LEAF_HEAD_START_SECONDS: u64 = 3;
/// 9999-12-31T23:59:59Z, the last second that X.509 can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// A certificate's first and last second, since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Validity {
    /// First second.
    pub not_before_unix: u64,
    /// Last second.
    pub not_after_unix: u64,
}

impl Validity {
    /// Long enough for any time that a test simulates: 2020 to 2099.
    pub const LONG: Self = Self { not_before_unix: 1_577_836_800, not_after_unix: 4_102_444_799 };

    /// A leaf's, around a document's time.
    pub fn of_leaf(document_unix: u64) -> Self {
        let not_before_unix = document_unix.saturating_sub(LEAF_HEAD_START_SECONDS);
        Self { not_before_unix, not_after_unix: not_before_unix.saturating_add(LEAF_LIFETIME_SECONDS) }
    }

    fn apply(self, params: &mut CertificateParams) {
        let at = |unix: u64| date_time_ymd(1970, 1, 1) + Duration::from_secs(unix.min(LAST_SECOND));
        params.not_before = at(self.not_before_unix);
        params.not_after = at(self.not_after_unix);
    }
}

/// What kind of key a certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Curve {
    /// P-384, signing with SHA-384: the only right one.
    P384,
    /// P-256, signing with SHA-256.
    P256,
}

impl Curve {
    pub(crate) fn generate(self) -> Result<KeyPair, AuthorityError> {
        Ok(KeyPair::generate_for(match self {
            Self::P384 => &PKCS_ECDSA_P384_SHA384,
            Self::P256 => &PKCS_ECDSA_P256_SHA256,
        })?)
    }
}

/// How an authority's certificates shall be, root to instance.
#[derive(Debug, Clone, Copy)]
pub struct ChainPlan {
    /// Of the root.
    pub root: Validity,
    /// Of the certificate that issues leaves.
    pub instance: Validity,
    /// Of the certificate that issues leaves.
    pub instance_curve: Curve,
}

impl Default for ChainPlan {
    fn default() -> Self {
        Self { root: Validity::LONG, instance: Validity::LONG, instance_curve: Curve::P384 }
    }
}

/// How a leaf shall be.
#[derive(Debug, Clone, Copy)]
pub struct LeafPlan {
    /// Its key.
    pub curve: Curve,
    /// Its time.
    pub validity: Validity,
    /// Whether it says that it is a CA.
    pub is_ca: bool,
    /// Whether its key usage allows to sign documents.
    pub may_sign: bool,
}

impl LeafPlan {
    /// As it should be, for a document made at `document_unix`.
    pub fn honest(document_unix: u64) -> Self {
        Self { curve: Curve::P384, validity: Validity::of_leaf(document_unix), is_ca: false, may_sign: true }
    }
}

/// A subject whose CN says that nobody is to trust it.
fn subject(role: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, "Casemate");
    name.push(DnType::OrganizationalUnitName, "DEV ONLY");
    name.push(DnType::CommonName, format!("Casemate DEV ONLY {role}"));
    name
}

/// An issuing certificate's contents. `path_length` counts the CA certificates that may stand below it.
pub(crate) fn issuer_params(role: &str, path_length: Option<u8>, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject(role);
    params.is_ca = IsCa::Ca(path_length.map_or(BasicConstraints::Unconstrained, BasicConstraints::Constrained));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.use_authority_key_identifier_extension = true;
    validity.apply(&mut params);
    params
}

/// Issues a leaf; returns its DER.
pub(crate) fn issue_leaf(
    plan: LeafPlan,
    key: &KeyPair,
    issuer: &Issuer<'static, KeyPair>,
) -> Result<Vec<u8>, AuthorityError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = subject("leaf");
    params.is_ca = if plan.is_ca { IsCa::Ca(BasicConstraints::Constrained(0)) } else { IsCa::ExplicitNoCa };
    params.key_usages = if plan.may_sign {
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment]
    } else {
        vec![KeyUsagePurpose::KeyAgreement]
    };
    plan.validity.apply(&mut params);
    Ok(params.signed_by(key, issuer)?.der().to_vec())
}
