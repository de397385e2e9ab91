//! Why `dcap-qvl` refused: it says so in a sentence, and each reason has an error of its own here.
//!
//! Nothing is accepted in this file. Certificates and lists are asked first, because the sentence does not say which of them it means;
//! for the rest the sentences of exactly the version that `Cargo.toml` names are known, and a test holds each to its forgery.

use serde_json::Value;
use x509_cert::Certificate;

use super::collateral::{CollateralError, MAX_CHAIN, Part, certificates};
use super::{IntelCollateral, Quote};
use crate::Refusal;
use crate::chain::{CertificateName, ChainError, judge_validity, read};
use crate::crl::RevocationList;
use crate::refusal::{IntelError, printable};

/// The oldest TCB info that `dcap-qvl` reads.
const TCB_INFO_VERSION: u64 = 3;
const ALGORITHM: &str = "ECDSA on P-256 and SHA-256";

/// Names the reason of a refusal.
pub(super) fn diagnose(
    error: &anyhow::Error,
    quote: &Quote<'_>,
    collateral: &IntelCollateral,
    now_unix: u64,
) -> Refusal {
    let sentence = printable(&format!("{error:#}"));
    of_certificates(quote, collateral, now_unix).err().unwrap_or_else(|| of_sentence(&sentence, collateral, now_unix))
}

/// The chain of the platform's key: from the collateral if that has one, as `dcap-qvl` takes it.
pub(super) fn platform_chain(quote: &Quote<'_>, collateral: &IntelCollateral) -> Vec<Vec<u8>> {
    match &collateral.parts.pck_certificate_chain {
        Some(chain) => certificates(chain.as_bytes(), MAX_CHAIN),
        None => quote.chain().map(|chain| certificates(chain, MAX_CHAIN)).unwrap_or_default(),
    }
}

fn named(chain: &[Vec<u8>], leaf: CertificateName) -> Result<Vec<(CertificateName, Certificate)>, ChainError> {
    let last = chain.len().saturating_sub(1);
    let name = |place: usize| match place {
        0 => leaf,
        place if place == last => CertificateName::Root,
        _ => CertificateName::Intermediate,
    };
    chain.iter().enumerate().map(|(place, der)| Ok((name(place), read(name(place), der)?))).collect()
}

fn of_certificates(quote: &Quote<'_>, collateral: &IntelCollateral, now_unix: u64) -> Result<(), Refusal> {
    let mut all = Vec::new();
    for (leaf, chain) in &collateral.signer_chains {
        all.extend(named(chain, *leaf)?);
    }
    all.extend(named(&platform_chain(quote, collateral), CertificateName::Leaf)?);
    for (name, certificate) in &all {
        judge_validity(*name, certificate, now_unix)?;
    }
    for crl in [&collateral.parts.root_ca_crl, &collateral.parts.pck_crl] {
        let list = RevocationList::parse(crl).map_err(ChainError::from)?;
        list.judge_time(now_unix).map_err(ChainError::from)?;
        for (name, certificate) in &all {
            list.judge(*name, certificate)?;
        }
    }
    Ok(())
}

fn of_sentence(sentence: &str, collateral: &IntelCollateral, now_unix: u64) -> Refusal {
    let says = |words: &str| sentence.contains(words);
    let not_in_time = |part: Part| {
        let value = part_of(collateral, part);
        let text = |name: &str| printable(value[name].as_str().unwrap_or("an unknown time"));
        CollateralError::NotInTime { part, issued: text("issueDate"), next_update: text("nextUpdate"), now_unix }.into()
    };
    let other = || Refusal::Intel(IntelError::Other(sentence.to_owned()));
    if says("TCBInfo expired") || says("TCBInfo issue date is in the future") {
        not_in_time(Part::TcbInfo)
    } else if says("QE Identity expired") || says("QE Identity issue date is in the future") {
        not_in_time(Part::QeIdentity)
    } else if says("Signature is invalid for tcb_info") {
        CollateralError::Signature { part: Part::TcbInfo }.into()
    } else if says("Signature is invalid for qe_identity") {
        CollateralError::Signature { part: Part::QeIdentity }.into()
    } else if says("non-TDX TCB info") || says("non-SGX TCB info") || says("Unsupported QE Identity id/version") {
        CollateralError::OtherTechnology(sentence.to_owned()).into()
    } else if says("Fmspc mismatch") {
        let fmspc = part_of(collateral, Part::TcbInfo)["fmspc"].as_str().map_or("unknown".to_owned(), printable);
        CollateralError::OtherPlatform { collateral: fmspc }.into()
    } else if says("Failed to decode TcbInfo") || says("Failed to decode QeIdentity") {
        CollateralError::Malformed(sentence.to_owned()).into()
    } else if says("No matching TCB level")
        || says("below minimum required")
        || says("No TDX module identity")
        || says("No matching QE TCB level")
    {
        IntelError::NoTcbLevel(sentence.to_owned()).into()
    } else if says("TCB status is invalid: Revoked") {
        IntelError::TcbRevoked.into()
    } else if says("ISV enclave report signature is invalid") {
        Refusal::Signature
    } else if says("Signature is invalid for qe_report") {
        IntelError::QeSignature.into()
    } else if says("QE report hash mismatch") || says("Invalid QE auth data length") {
        IntelError::AttestationKey.into()
    } else if says("QE MRSIGNER")
        || says("QE ISVPRODID")
        || says("QE MISCSELECT")
        || says("QE ATTRIBUTES")
        || says("QE report")
    {
        IntelError::QuotingEnclave(sentence.to_owned()).into()
    } else if says("TDX module") {
        IntelError::Module(sentence.to_owned()).into()
    } else if says("SERVTD_EXT") {
        Refusal::ServiceTd { found: "attribute SERVTD_EXT".to_owned() }
    } else if says("Reserved bits") || says("TD migration") || says("SEPT_VE_DISABLE") {
        IntelError::DomainAttributes(sentence.to_owned()).into()
    } else if says("Unsupported DCAP PCK cert format") || says("Certificate chain is too short") {
        ChainError::Missing { wanted: "the PCK certificate chain, in the quote or its collateral," }.into()
    } else if says("Too many intermediate certificates")
        || says("issued directly by the root CA")
        || says("PathLenConstraintViolated")
    {
        ChainError::TooLong { found: MAX_CHAIN, wanted: "leaf, intermediate and root" }.into()
    } else if says("InvalidCrlSignatureForPublicKey") || says("root CA CRL") {
        let issuer = "the platform's certificates".to_owned();
        ChainError::Crl(crate::chain::CrlError::Signature { issuer }).into()
    } else if says("InvalidSignatureForPublicKey") {
        ChainError::Signature.into()
    } else if says("UnsupportedSignatureAlgorithm") || says("UnsupportedCrlSignatureAlgorithm") {
        ChainError::Algorithm { wanted: ALGORITHM }.into()
    } else if says("UnknownIssuer") {
        ChainError::UnknownIssuer.into()
    } else if says("Failed to verify certificate chain") {
        ChainError::X509(sentence.to_owned()).into()
    } else {
        other()
    }
}

/// Refuses TCB info that is older than what all of `dcap-qvl` reads.
pub(super) fn judge_version(collateral: &IntelCollateral) -> Result<(), CollateralError> {
    match collateral.tcb_info_version {
        Some(found) if found < TCB_INFO_VERSION => {
            Err(CollateralError::Version { part: Part::TcbInfo, found, wanted: TCB_INFO_VERSION })
        }
        // What is no TCB info is refused when it is read.
        _ => Ok(()),
    }
}

/// TCB info or QE identity as JSON; null if it is none.
fn part_of(collateral: &IntelCollateral, part: Part) -> Value {
    let text = match part {
        Part::TcbInfo => &collateral.parts.tcb_info,
        Part::QeIdentity => &collateral.parts.qe_identity,
    };
    serde_json::from_str(text).unwrap_or_default()
}
