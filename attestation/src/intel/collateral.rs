//! What Intel says of its platforms at a time: TCB info, the quoting enclave's identity, revocation lists, and who signed them.
//!
//! In a file it is one JSON object with the members of Intel's `sgx_ql_qve_collateral_t`: chains in PEM, TCB info and identity as the very
//! text that was signed, lists and signatures in hex or base64.

use std::sync::Arc;

use dcap_qvl::QuoteCollateralV3;
use serde::Deserialize;
use serde_json::Value;

use crate::chain::{CertificateName, read};
use crate::encoding::hex_or_base64;
use crate::signatures::Signatures;

/// The longest collateral; Intel's has about 25 KiB.
const MAX_BYTES: usize = 256 * 1024;
/// The most certificates of a chain that are looked at.
pub(super) const MAX_CHAIN: usize = 5;

/// A part of the collateral.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// TCB info: which security versions are good.
    TcbInfo,
    /// QE identity: which quoting enclaves are Intel's.
    QeIdentity,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::TcbInfo => "TCB info",
            Self::QeIdentity => "QE identity",
        })
    }
}

/// Why the collateral does not speak for a quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CollateralError {
    /// None came.
    #[error(
        "no collateral came with the quote: fetch TCB info, QE identity and revocation lists for its platform from Intel or a cache"
    )]
    Missing,
    /// More than Intel's has.
    #[error("the collateral has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not the JSON that was wanted.
    #[error("the collateral cannot be read ({0})")]
    Malformed(String),
    /// A version of the format that `dcap-qvl` does not read.
    #[error(
        "the collateral's {part} has version {found}, wanted {wanted} or newer: fetch it from version 4 of Intel's service"
    )]
    Version {
        /// Which part.
        part: Part,
        /// Its version.
        found: u64,
        /// The version wanted.
        wanted: u64,
    },
    /// Too old, or from the future.
    #[error(
        "the collateral's {part} holds from {issued} to {next_update} and it is {now_unix} (Unix seconds): fetch a newer one, and check this machine's clock"
    )]
    NotInTime {
        /// Which part.
        part: Part,
        /// When it was issued, as it says.
        issued: String,
        /// When the next one is due, as it says.
        next_update: String,
        /// The time asked for.
        now_unix: u64,
    },
    /// Forged.
    #[error("the collateral's {part} is not signed by its signing certificate's key")]
    Signature {
        /// Which part.
        part: Part,
    },
    /// Collateral of the other technology.
    #[error("the collateral is for the other of SGX and TDX than the quote ({0})")]
    OtherTechnology(String),
    /// Collateral of another platform.
    #[error("the collateral's TCB info is for platform (FMSPC) {collateral}, and the quote's platform is another")]
    OtherPlatform {
        /// The platform of the collateral, hex.
        collateral: String,
    },
}

/// Collateral that was read. Nothing in it is verified yet.
#[derive(Debug, Clone)]
pub struct IntelCollateral {
    /// As `dcap-qvl` takes it.
    pub(super) parts: Box<QuoteCollateralV3>,
    /// The chains of those who signed TCB info, QE identity and revocation lists: read once, because a collateral serves many quotes.
    pub(super) signer_chains: [(CertificateName, Vec<Vec<u8>>); 3],
    /// The version of the TCB info; none where that is not what it should be.
    pub(super) tcb_info_version: Option<u64>,
    /// What the signers of TCB info and QE identity signed, as far as it was asked; shared by copies.
    pub(super) signatures: Arc<Signatures>,
}

impl PartialEq for IntelCollateral {
    /// All else is read from the parts, or does not tell one collateral from another.
    fn eq(&self, other: &Self) -> bool {
        self.parts == other.parts
    }
}

impl Eq for IntelCollateral {}

/// The one member of the TCB info that is read here.
#[derive(Deserialize)]
struct TcbInfo {
    version: u64,
}

#[derive(Deserialize)]
struct File {
    pck_crl_issuer_chain: String,
    root_ca_crl: String,
    pck_crl: String,
    tcb_info_issuer_chain: String,
    tcb_info: String,
    tcb_info_signature: String,
    qe_identity_issuer_chain: String,
    qe_identity: String,
    qe_identity_signature: String,
    #[serde(default)]
    pck_certificate_chain: Option<String>,
}

impl IntelCollateral {
    /// Reads collateral in JSON.
    ///
    /// # Errors
    ///
    /// [`CollateralError::TooLarge`] and [`CollateralError::Malformed`].
    pub fn parse(json: &[u8]) -> Result<Self, CollateralError> {
        if json.len() > MAX_BYTES {
            return Err(CollateralError::TooLarge { found: json.len(), limit: MAX_BYTES });
        }
        Self::take(serde_json::from_slice(json).map_err(|error| CollateralError::Malformed(error.to_string()))?)
    }

    /// Takes collateral that was read as JSON already; its bounds were the reader's.
    pub(crate) fn from_value(value: Value) -> Result<Self, CollateralError> {
        Self::take(serde_json::from_value(value).map_err(|error| CollateralError::Malformed(error.to_string()))?)
    }

    fn take(file: File) -> Result<Self, CollateralError> {
        let bytes = |name: &str, text: &str| {
            hex_or_base64(text).ok_or_else(|| CollateralError::Malformed(format!("{name} is neither hex nor base64")))
        };
        let parts = QuoteCollateralV3 {
            root_ca_crl: bytes("root_ca_crl", &file.root_ca_crl)?,
            pck_crl: bytes("pck_crl", &file.pck_crl)?,
            tcb_info_signature: bytes("tcb_info_signature", &file.tcb_info_signature)?,
            qe_identity_signature: bytes("qe_identity_signature", &file.qe_identity_signature)?,
            pck_crl_issuer_chain: file.pck_crl_issuer_chain,
            tcb_info_issuer_chain: file.tcb_info_issuer_chain,
            tcb_info: file.tcb_info,
            qe_identity_issuer_chain: file.qe_identity_issuer_chain,
            qe_identity: file.qe_identity,
            pck_certificate_chain: file.pck_certificate_chain,
        };
        let signer_chains = [
            (CertificateName::TcbSigner, &parts.tcb_info_issuer_chain),
            (CertificateName::QeSigner, &parts.qe_identity_issuer_chain),
            (CertificateName::Intermediate, &parts.pck_crl_issuer_chain),
        ]
        .map(|(name, chain)| (name, certificates(chain.as_bytes(), MAX_CHAIN)));
        let tcb_info_version = serde_json::from_str::<TcbInfo>(&parts.tcb_info).ok().map(|info| info.version);
        // What is no certificate is refused when a quote is verified.
        let signers = signer_chains[..2].iter().filter_map(|(name, chain)| {
            let certificate = read(*name, chain.first()?).ok()?;
            Some(certificate.tbs_certificate().subject_public_key_info().subject_public_key.raw_bytes().into())
        });
        let signatures = Arc::new(Signatures::of_collateral(signers.collect()));
        Ok(Self { parts: Box::new(parts), signer_chains, tcb_info_version, signatures })
    }

    /// All of it, in an order of its own: what the cache knows it by.
    pub(crate) fn parts(&self) -> [&[u8]; 10] {
        let QuoteCollateralV3 {
            pck_crl_issuer_chain,
            root_ca_crl,
            pck_crl,
            tcb_info_issuer_chain,
            tcb_info,
            tcb_info_signature,
            qe_identity_issuer_chain,
            qe_identity,
            qe_identity_signature,
            pck_certificate_chain,
        } = &*self.parts;
        [
            pck_crl_issuer_chain.as_bytes(),
            root_ca_crl,
            pck_crl,
            tcb_info_issuer_chain.as_bytes(),
            tcb_info.as_bytes(),
            tcb_info_signature,
            qe_identity_issuer_chain.as_bytes(),
            qe_identity.as_bytes(),
            qe_identity_signature,
            pck_certificate_chain.as_deref().unwrap_or_default().as_bytes(),
        ]
    }
}

/// Bytes of the DER certificates in a text of PEM, at most `limit` of them. More lenient than RFC 7468 about lines, as Intel's are.
pub(super) fn certificates(pem: &[u8], limit: usize) -> Vec<Vec<u8>> {
    const BEGIN: &str = "-----BEGIN CERTIFICATE-----";
    const END: &str = "-----END CERTIFICATE-----";
    let Ok(text) = std::str::from_utf8(pem) else { return Vec::new() };
    let blocks = text.split(BEGIN).skip(1).take(limit);
    let bodies = blocks.map_while(|block| block.split_once(END).map(|(body, _)| body));
    bodies.map_while(crate::encoding::base64).collect()
}
