//! From bytes to authenticated claims: the framing, the pinned root, then `dcap-qvl`.

use dcap_qvl::quote::{Report, TDReport10};
use dcap_qvl::verify::QuoteVerifier;
use dcap_qvl::{Policy as TheirPolicy, QuoteClaims};
use sha2::{Digest, Sha256};
use x509_cert::der::Encode;

use super::collateral::CollateralError;
use super::diagnosis::{diagnose, judge_version, platform_chain};
use super::provider::{Ours, remembering};
use super::{IntelCollateral, Quote, TeeKind};
use crate::batch::Shared;
use crate::chain::{CertificateName, ChainError, read};
use crate::claims::{Bound, Claims, DebugSign, Guest, Identity, Measurements, Platform, Register, Tcb, TcbStatus};
use crate::refusal::{IntelError, Short};
use crate::{Refusal, TrustAnchor};

/// Bit 1 of ATTRIBUTES.
const SGX_DEBUG: u8 = 0x02;

/// Judging is [`Policy`](crate::Policy)'s part, over claims in this crate's own words.
struct Everything;

impl TheirPolicy for Everything {
    fn validate(&self, _: &QuoteClaims) -> anyhow::Result<()> {
        Ok(())
    }
}

/// The bytes that say something, by which the cache knows a quote.
pub(crate) fn signed_bytes(evidence: &[u8]) -> Result<&[u8], Refusal> {
    Ok(Quote::parse(evidence)?.signed_bytes())
}

pub(crate) fn authenticate(
    evidence: &[u8],
    collateral: Option<&IntelCollateral>,
    now_unix: u64,
    anchors: &[TrustAnchor],
    shared: &Shared,
) -> Result<Claims, Refusal> {
    let quote = Quote::parse(evidence)?;
    let collateral = collateral.ok_or(CollateralError::Missing)?;
    let anchor = choose_anchor(&quote, collateral, anchors)?;
    judge_version(collateral)?;
    let verifier = QuoteVerifier::<Ours>::new_with_config(anchor.der().to_vec())
        // Both are for the policy to say, which has the claims; see `Claims::debug` and `Register::MrServiceTd`.
        .allow_debug(true)
        .allow_service_td(true);
    let verified = remembering(&[shared.signatures(anchor), &collateral.signatures], || {
        verifier.verify_with_policy(quote.bytes(), (*collateral.parts).clone(), now_unix, &Everything)
    })
    .map_err(|error| diagnose(&error, &quote, collateral, now_unix))?;
    claims(&verified, anchor)
}

/// The anchor that every chain of quote and collateral names as its root. They still have to lead there.
fn choose_anchor<'a>(
    quote: &Quote<'_>,
    collateral: &IntelCollateral,
    anchors: &'a [TrustAnchor],
) -> Result<&'a TrustAnchor, Refusal> {
    let mut chosen: Option<&TrustAnchor> = None;
    let of_platform = (CertificateName::Leaf, platform_chain(quote, collateral));
    for (place, chain) in collateral.signer_chains.iter().chain([&of_platform]) {
        let shown = anchors.iter().find(|anchor| chain.iter().any(|der| anchor.der().as_ref() == der.as_slice()));
        let anchor = match shown {
            // Byte for byte: nothing needs to be read.
            Some(anchor) => anchor,
            None => match root_of(*place, chain)? {
                Some(root) => named(&root, anchors).ok_or_else(|| foreign(&root, anchors))?,
                None => continue,
            },
        };
        // Attack stopped: a quote of one PKI with the collateral of another.
        if *chosen.get_or_insert(anchor) != anchor {
            return Err(ChainError::UnknownIssuer.into());
        }
    }
    // A chain without its root is led to the first anchor, or refused there.
    chosen.or(anchors.first()).ok_or_else(|| ChainError::UnknownIssuer.into())
}

/// The self-issued certificate of a chain, wherever in it it stands.
fn root_of(place: CertificateName, chain: &[Vec<u8>]) -> Result<Option<Vec<u8>>, ChainError> {
    for der in chain {
        let certificate = read(place, der)?;
        if certificate.tbs_certificate().issuer() == certificate.tbs_certificate().subject() {
            return Ok(Some(der.clone()));
        }
    }
    Ok(None)
}

/// The anchor of the same name and key, which is all that a path ends at.
fn named<'a>(root: &[u8], anchors: &'a [TrustAnchor]) -> Option<&'a TrustAnchor> {
    // Attack stopped: a whole PKI that is right in itself, below a root of the host's own.
    let certificate = read(CertificateName::Root, root).ok()?;
    let tbs = certificate.tbs_certificate();
    let name = tbs.subject().to_der().ok()?;
    let key = tbs.subject_public_key_info().to_der().ok()?;
    anchors.iter().find(|anchor| anchor.name_der() == name && anchor.key_der() == key)
}

fn foreign(root: &[u8], anchors: &[TrustAnchor]) -> ChainError {
    let wanted: Vec<String> = anchors.iter().map(|anchor| Short::text(anchor.fingerprint())).collect();
    let subjects: Vec<&str> = anchors.iter().map(TrustAnchor::subject).collect();
    let found = Short::text(&Sha256::digest(root));
    ChainError::ForeignRoot { found, wanted: wanted.join(" or "), subject: subjects.join("; ") }
}

fn claims(verified: &QuoteClaims, anchor: &TrustAnchor) -> Result<Claims, Refusal> {
    let pck = &verified.platform.pck;
    let (kind, measurements, report_data, debug, guest, tee_tcb_svn) = match &verified.report {
        Report::SgxEnclave(report) => {
            let debug = report.attributes[0] & SGX_DEBUG != 0;
            let guest = Guest::Sgx { attributes: report.attributes, product: report.isv_prod_id, svn: report.isv_svn };
            let measurements: Measurements =
                [(Register::MrEnclave, report.mr_enclave), (Register::MrSigner, report.mr_signer)]
                    .into_iter()
                    .collect();
            let sign = debug.then_some(DebugSign::EnclaveAttributes(report.attributes));
            (TeeKind::Sgx, measurements, report.report_data, sign, guest, None)
        }
        Report::TD10(report) => domain(report, None),
        Report::TD15(report) => domain(&report.base, Some(&report.mr_service_td)),
        Report::TD15Ex(report) => domain(&report.base.base, Some(&report.base.mr_service_td)),
    };
    Ok(Claims {
        platform: match kind {
            TeeKind::Sgx => Platform::Sgx,
            TeeKind::Tdx => Platform::Tdx,
        },
        measurements,
        bound: Bound { report_data: Some(report_data), ..Bound::default() },
        tcb: Some(Tcb::Intel {
            status: status(verified.tcb.status)?,
            advisories: verified.tcb.advisory_ids.clone(),
            evaluation: verified.tcb.eval_data_number,
            level_date_unix: verified.platform.tcb_date_tag,
            cpu_svn: pck.cpu_svn,
            pce_svn: pck.pce_svn,
            tee_tcb_svn,
        }),
        debug,
        identity: Identity::Intel { fmspc: pck.fmspc, ppid: pck.ppid.clone() },
        guest,
        issued_at_unix_ms: None,
        // A revocation list holds until before its `nextUpdate`, everything else until its end: the earlier reading is safe for both.
        valid_until_unix: verified.earliest_expiration_date.saturating_sub(1),
        revocation_checked: true,
        anchor_subject: anchor.subject().to_owned(),
        anchor_fingerprint: *anchor.fingerprint(),
    })
}

type Said = (TeeKind, Measurements, [u8; 64], Option<DebugSign>, Guest, Option<[u8; 16]>);

fn domain(report: &TDReport10, service_td: Option<&[u8; 48]>) -> Said {
    let mut registers = vec![
        (Register::MrTd, report.mr_td),
        (Register::Rtmr(0), report.rt_mr0),
        (Register::Rtmr(1), report.rt_mr1),
        (Register::Rtmr(2), report.rt_mr2),
        (Register::Rtmr(3), report.rt_mr3),
        (Register::MrSeam, report.mr_seam),
        (Register::MrSignerSeam, report.mr_signer_seam),
        (Register::MrConfigId, report.mr_config_id),
        (Register::MrOwner, report.mr_owner),
        (Register::MrOwnerConfig, report.mr_owner_config),
    ];
    registers.extend(service_td.map(|hash| (Register::MrServiceTd, *hash)));
    // The eight bits of TD Under Debug: debugging proper, and profiling that shows what the domain does.
    let debug = (report.td_attributes[0] != 0).then_some(DebugSign::DomainAttributes(report.td_attributes));
    let guest = Guest::Tdx { attributes: report.td_attributes };
    let measurements = registers.into_iter().collect();
    (TeeKind::Tdx, measurements, report.report_data, debug, guest, Some(report.tee_tcb_svn))
}

fn status(status: dcap_qvl::TcbStatus) -> Result<TcbStatus, Refusal> {
    use dcap_qvl::TcbStatus as S;
    Ok(match status {
        S::UpToDate => TcbStatus::UpToDate,
        S::SWHardeningNeeded => TcbStatus::SwHardeningNeeded,
        S::ConfigurationNeeded => TcbStatus::ConfigurationNeeded,
        S::ConfigurationAndSWHardeningNeeded => TcbStatus::ConfigurationAndSwHardeningNeeded,
        S::TDRelaunchAdvised => TcbStatus::TdRelaunchAdvised,
        S::TDRelaunchAdvisedConfigurationNeeded => TcbStatus::TdRelaunchAdvisedConfigurationNeeded,
        S::OutOfDate => TcbStatus::OutOfDate,
        S::OutOfDateConfigurationNeeded => TcbStatus::OutOfDateConfigurationNeeded,
        S::Revoked => return Err(IntelError::TcbRevoked.into()),
    })
}
