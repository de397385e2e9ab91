//! From bytes to authenticated claims: the report, its chain, its signature, and whether the two belong together.

use super::table::split;
use super::{CertificateTable, Chain, Report};
use crate::backend;
use crate::batch::Shared;
use crate::claims::{Bound, Claims, DebugSign, Guest, Identity, Measurements, Platform, Register, Tcb};
use crate::policy::SnpRules;
use crate::{Collateral, Refusal};

/// The bytes that say something, by which the cache knows a report.
pub(crate) fn signed_bytes(evidence: &[u8]) -> Result<&[u8], Refusal> {
    Ok(Report::parse(split(evidence).0)?.signed_bytes())
}

pub(crate) fn authenticate(
    evidence: &[u8],
    collateral: &Collateral,
    now_unix: u64,
    rules: &SnpRules,
    shared: &mut Shared,
) -> Result<Claims, Refusal> {
    let (report, table) = split(evidence);
    let report = Report::parse(report)?;
    // What the verifier was given goes before what the host put behind the report.
    let table = match table {
        Some(table) if collateral.certificates().is_empty() => CertificateTable::parse(table)?,
        _ => CertificateTable::default(),
    };
    let certificates: Vec<&[u8]> = if collateral.certificates().is_empty() {
        [table.leaf, table.intermediate, table.root].into_iter().flatten().collect()
    } else {
        collateral.certificates().iter().map(Vec::as_slice).collect()
    };
    let chain = shared.snp(&certificates, collateral.crls(), now_unix, rules)?;
    if !backend::es384_verifies(&chain.leaf_key, report.signed_bytes(), &report.signature()) {
        return Err(Refusal::Signature);
    }
    // After the signature, so that a changed report is told as one and not as another machine's.
    chain.judge_report(report)?;
    Ok(claims(report, &chain, !collateral.crls().is_empty()))
}

fn claims(report: Report<'_>, chain: &Chain, revocation_checked: bool) -> Claims {
    let product = chain.product;
    let policy = report.policy();
    let measurements: Measurements = [
        (Register::Measurement, &report.measurement()[..]),
        (Register::HostData, report.host_data()),
        (Register::IdKeyDigest, report.id_key_digest()),
        (Register::AuthorKeyDigest, report.author_key_digest()),
        (Register::FamilyId, report.family_id()),
        (Register::ImageId, report.image_id()),
    ]
    .into_iter()
    .collect();
    Claims {
        platform: Platform::SevSnp,
        measurements,
        bound: Bound { report_data: Some(*report.report_data()), ..Bound::default() },
        tcb: Some(Tcb::Snp {
            reported: report.reported_tcb(product),
            current: report.current_tcb(product),
            committed: report.committed_tcb(product),
            launch: report.launch_tcb(product),
        }),
        debug: policy.allows_debug().then_some(DebugSign::GuestPolicy(policy.0)),
        identity: Identity::Snp {
            product,
            signer: report.signer(),
            chip_id: report.chip_id().copied(),
            provider: chain.vek.provider.clone(),
        },
        guest: Guest::Snp { policy, vmpl: report.vmpl(), svn: report.guest_svn() },
        issued_at_unix_ms: None,
        valid_until_unix: chain.valid_until_unix,
        revocation_checked,
        anchor_subject: chain.anchor.subject().to_owned(),
        anchor_fingerprint: *chain.anchor.fingerprint(),
    }
}
