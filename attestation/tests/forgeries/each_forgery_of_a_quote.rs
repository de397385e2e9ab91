//! SGX and TDX: each rule is tested by what breaks it alone.

use casemate_attestation::intel::{CollateralError, Part, QuoteError};
use casemate_attestation::{
    CertificateName, ChainError, Claims, Collateral, CrlError, DebugSign, IntelError, Refusal, TcbStatus, verify,
    verify_batch,
};

use crate::intel::{Built, CA_SERIAL, Forgery, LEAF_SERIAL, LONG, TCB_SERIAL};
use crate::{DAY, NOW_UNIX};

fn judged(built: &Built) -> Result<Claims, Refusal> {
    verify(&built.quote, &built.collateral(), NOW_UNIX, &built.policy)
}

fn refusal(forgery: &Forgery) -> Refusal {
    judged(&forgery.build()).expect_err("a forgery was believed")
}

fn chain(forgery: &Forgery) -> ChainError {
    match refusal(forgery) {
        Refusal::Chain(error) => error,
        other => panic!("refused for another reason: {other}"),
    }
}

const ENDED: (u64, u64) = (NOW_UNIX - 2 * DAY, NOW_UNIX - DAY);
const LATER: (u64, u64) = (NOW_UNIX + DAY, NOW_UNIX + 2 * DAY);

#[test]
fn honest_quotes_of_both_kinds() {
    for tdx in [false, true] {
        let claims = judged(&Forgery { tdx, ..Forgery::default() }.build()).unwrap();
        assert_eq!(claims.tcb.unwrap().status(), Some(TcbStatus::UpToDate));
        assert_eq!(claims.anchor_subject, "CN=DEV ONLY SGX Root CA");
        assert_eq!(claims.bound.report_data, Some([0xda; 64]));
    }
}

/// A batch remembers signatures of good quotes; none of them speaks for another quote, another collateral or another time.
#[test]
fn what_a_batch_remembers_makes_no_forgery_good() {
    let honest = Forgery::default().build();
    let revoking = Forgery { pck_crl: (LONG, vec![LEAF_SERIAL]), ..Forgery::default() }.build();
    let (good, revoked) = (honest.collateral(), revoking.collateral());
    // Header, report, signature, key, and the quoting enclave's report, signature and data; behind them is PEM, which nobody signs.
    let said = 48 + 384 + 4 + 64 + 64 + 384 + 64 + 2 + 32;
    let changed: Vec<_> = (0..said)
        .step_by(5)
        .map(|place| {
            let mut quote = honest.quote.clone();
            quote[place] ^= 1 << (place % 8);
            quote
        })
        .collect();
    let mut pieces = vec![(honest.quote.as_slice(), &good), (honest.quote.as_slice(), &revoked)];
    pieces.extend(changed.iter().map(|quote| (quote.as_slice(), &good)));
    pieces.push((honest.quote.as_slice(), &good));
    for now_unix in [NOW_UNIX, NOW_UNIX - 10_000 * DAY] {
        let verdicts = verify_batch(&pieces, now_unix, &honest.policy);
        for (verdict, (quote, collateral)) in verdicts.iter().zip(&pieces) {
            assert_eq!(*verdict, verify(quote, collateral, now_unix, &honest.policy));
        }
        let believed: Vec<_> = (0..pieces.len()).filter(|place| verdicts[*place].is_ok()).collect();
        let wanted = if now_unix == NOW_UNIX { vec![0, pieces.len() - 1] } else { vec![] };
        assert_eq!(believed, wanted);
    }
}

#[test]
fn certificates_out_of_their_time() {
    type Forge = fn((u64, u64)) -> Forgery;
    let each: [(CertificateName, Forge); 3] = [
        (CertificateName::Leaf, |leaf| Forgery { leaf, ..Forgery::default() }),
        (CertificateName::Intermediate, |ca| Forgery { ca, ..Forgery::default() }),
        (CertificateName::TcbSigner, |tcb_signer| Forgery { tcb_signer, ..Forgery::default() }),
    ];
    for (name, forge) in each {
        let expired = chain(&forge(ENDED));
        assert!(matches!(expired, ChainError::Expired { certificate, .. } if certificate == name), "{name}: {expired}");
        let early = chain(&forge(LATER));
        assert!(matches!(early, ChainError::NotYetValid { certificate, .. } if certificate == name), "{name}: {early}");
    }
}

#[test]
fn revoked_stale_and_forged_lists() {
    let revoked = |forgery: &Forgery, name: CertificateName| {
        let error = chain(forgery);
        assert!(matches!(error, ChainError::Revoked { certificate, .. } if certificate == name), "{name}: {error}");
    };
    let pck = |list: ((u64, u64), Vec<u64>)| Forgery { pck_crl: list, ..Forgery::default() };
    let root = |list: ((u64, u64), Vec<u64>)| Forgery { root_crl: list, ..Forgery::default() };
    revoked(&pck((LONG, vec![9, LEAF_SERIAL])), CertificateName::Leaf);
    revoked(&root((LONG, vec![TCB_SERIAL])), CertificateName::TcbSigner);
    revoked(&root((LONG, vec![CA_SERIAL])), CertificateName::Intermediate);
    for stale in [pck((ENDED, vec![])), root((ENDED, vec![]))] {
        let error = chain(&stale);
        assert!(matches!(error, ChainError::Crl(CrlError::Stale { .. })), "{error}");
    }
    let forged = chain(&Forgery { pck_crl_by_stranger: true, ..Forgery::default() });
    assert!(matches!(forged, ChainError::Crl(CrlError::Signature { .. })), "{forged}");
}

#[test]
fn issuers_that_are_not() {
    assert_eq!(chain(&Forgery { leaf_by_stranger: true, ..Forgery::default() }), ChainError::Signature);
    let other = Forgery { leaf_issuer: "DEV ONLY SGX PCK Processor CA".to_owned(), ..Forgery::default() };
    assert_eq!(chain(&other), ChainError::UnknownIssuer);
    let curve = chain(&Forgery { ca_on_p384: true, ..Forgery::default() });
    assert!(matches!(curve, ChainError::Algorithm { .. }), "{curve}");
    let long = chain(&Forgery { chain_extra: 5, ..Forgery::default() });
    assert!(matches!(long, ChainError::TooLong { .. }), "{long}");
    // Intel's own root does not believe it.
    let mut built = Forgery::default().build();
    built.policy.sgx = Some(casemate_attestation::IntelRules::default());
    let foreign = judged(&built).unwrap_err();
    assert!(matches!(foreign, Refusal::Chain(ChainError::ForeignRoot { .. })), "{foreign}");
}

#[test]
fn keys_that_are_another_machines() {
    let swapped = Forgery { swapped_leaf: true, ..Forgery::default() };
    assert_eq!(refusal(&swapped), Refusal::Intel(IntelError::QeSignature));
    let key = Forgery { swapped_attestation_key: true, ..Forgery::default() };
    assert_eq!(refusal(&key), Refusal::Intel(IntelError::AttestationKey));
    type Edit = fn(&mut Vec<u8>);
    // Another signer, another product, another bit of its attributes, debug, and an old version.
    let edits: [Edit; 4] = [|qe| qe[128] ^= 1, |qe| qe[256] ^= 1, |qe| qe[49] ^= 1, |qe| qe[48] |= 2];
    for (number, edit) in edits.into_iter().enumerate() {
        let forged = refusal(&Forgery { edit_qe_report: Box::new(edit), ..Forgery::default() });
        assert!(matches!(forged, Refusal::Intel(IntelError::QuotingEnclave(_))), "{number}: {forged}");
    }
    let old = refusal(&Forgery { edit_qe_report: Box::new(|qe| qe[258] = 7), ..Forgery::default() });
    assert!(matches!(old, Refusal::Intel(IntelError::NoTcbLevel(_) | IntelError::QuotingEnclave(_))), "{old}");
}

#[test]
fn collateral_that_does_not_hold() {
    use serde_json::Value;
    type Edit = fn(&mut Value);
    let tcb_info = |edit: Edit| refusal(&Forgery { edit_tcb_info: Box::new(edit), ..Forgery::default() });
    let identity = |edit: Edit| refusal(&Forgery { edit_identity: Box::new(edit), ..Forgery::default() });
    let signed = |edit: Edit| refusal(&Forgery { edit_collateral: Box::new(edit), ..Forgery::default() });
    for (part, stale, early) in [
        (
            Part::TcbInfo,
            tcb_info(|info| info["nextUpdate"] = "2026-01-01T00:00:00Z".into()),
            tcb_info(|info| info["issueDate"] = "2027-01-01T00:00:00Z".into()),
        ),
        (
            Part::QeIdentity,
            identity(|info| info["nextUpdate"] = "2026-01-01T00:00:00Z".into()),
            identity(|info| info["issueDate"] = "2027-01-01T00:00:00Z".into()),
        ),
    ] {
        for refused in [stale, early] {
            assert!(
                matches!(&refused, Refusal::Collateral(CollateralError::NotInTime { part: found, .. }) if *found == part),
                "{refused}"
            );
        }
    }
    let version = tcb_info(|info| info["version"] = 2.into());
    assert!(matches!(version, Refusal::Collateral(CollateralError::Version { found: 2, .. })), "{version}");
    let platform = tcb_info(|info| info["fmspc"] = "000000000000".into());
    assert!(matches!(platform, Refusal::Collateral(CollateralError::OtherPlatform { .. })), "{platform}");
    for other in [tcb_info(|info| info["id"] = "TDX".into()), identity(|info| info["id"] = "TD_QE".into())] {
        assert!(matches!(other, Refusal::Collateral(CollateralError::OtherTechnology(_))), "{other}");
    }
    let malformed = tcb_info(|info| info["tcbLevels"] = 1.into());
    assert!(matches!(malformed, Refusal::Collateral(CollateralError::Malformed(_))), "{malformed}");
    let changed = signed(|all| {
        all["tcb_info"] = all["tcb_info"].as_str().unwrap().replace("\"tcbType\":0", "\"tcbType\":1").into();
    });
    assert_eq!(changed, Refusal::Collateral(CollateralError::Signature { part: Part::TcbInfo }));
    let changed = signed(|all| {
        all["qe_identity"] = all["qe_identity"].as_str().unwrap().replace("\"isvsvn\":8", "\"isvsvn\":1").into();
    });
    assert_eq!(changed, Refusal::Collateral(CollateralError::Signature { part: Part::QeIdentity }));
    let built = Forgery::default().build();
    let missing = verify(&built.quote, &Collateral::NONE, NOW_UNIX, &built.policy);
    assert_eq!(missing, Err(Refusal::Collateral(CollateralError::Missing)));
}

#[test]
fn platforms_that_are_behind() {
    let one_below = |tdx| Forgery {
        tdx,
        edit_tcb_info: Box::new(|info| info["tcbLevels"][0]["tcb"]["pcesvn"] = 12.into()),
        ..Forgery::default()
    };
    for tdx in [false, true] {
        let behind = refusal(&one_below(tdx));
        assert!(
            matches!(&behind, Refusal::TcbStatus { found: TcbStatus::OutOfDate, advisories, .. } if advisories == "INTEL-SA-00001"),
            "{behind}"
        );
        let mut built = one_below(tdx).build();
        for rules in [&mut built.policy.sgx, &mut built.policy.tdx] {
            rules.as_mut().unwrap().statuses.insert(TcbStatus::OutOfDate);
        }
        assert!(judged(&built).is_ok());
        for rules in [&mut built.policy.sgx, &mut built.policy.tdx] {
            rules.as_mut().unwrap().min_pce_svn = 12;
        }
        assert!(matches!(judged(&built), Err(Refusal::SvnFloor { found: 11, wanted: 12, .. })));
    }
    let none = refusal(&Forgery {
        edit_tcb_info: Box::new(|info| {
            for level in info["tcbLevels"].as_array_mut().unwrap() {
                level["tcb"]["pcesvn"] = 12.into();
            }
        }),
        ..Forgery::default()
    });
    assert!(matches!(none, Refusal::Intel(IntelError::NoTcbLevel(_))), "{none}");
    let revoked = Forgery {
        edit_tcb_info: Box::new(|info| info["tcbLevels"][0]["tcbStatus"] = "Revoked".into()),
        ..Forgery::default()
    };
    assert_eq!(refusal(&revoked), Refusal::Intel(IntelError::TcbRevoked));
    let old = Forgery {
        edit_identity: Box::new(|identity| identity["tcbEvaluationDataNumber"] = 16.into()),
        ..Forgery::default()
    };
    let mut built = old.build();
    built.policy.sgx.as_mut().unwrap().min_evaluation = 17;
    assert_eq!(judged(&built), Err(Refusal::Evaluation { found: 16, wanted: 17 }));
}

#[test]
fn guests_of_other_rights() {
    let sgx = refusal(&Forgery { edit_report: Box::new(|report| report[48] |= 2), ..Forgery::default() });
    assert!(matches!(sgx, Refusal::Debug { sign: DebugSign::EnclaveAttributes(_) }), "{sgx}");
    let domain =
        |edit: fn(&mut Vec<u8>)| refusal(&Forgery { tdx: true, edit_report: Box::new(edit), ..Forgery::default() });
    for debug in [domain(|report| report[120] = 1), domain(|report| report[120] = 0x10)] {
        assert!(matches!(debug, Refusal::Debug { sign: DebugSign::DomainAttributes(_) }), "{debug}");
    }
    let service = domain(|report| report[122] |= 2);
    assert!(matches!(service, Refusal::ServiceTd { .. }), "{service}");
    // Migratable, without SEPT_VE_DISABLE, and with a reserved bit.
    for rights in
        [domain(|report| report[123] |= 0x20), domain(|report| report[123] = 0), domain(|report| report[121] = 0x80)]
    {
        assert!(matches!(rights, Refusal::Intel(IntelError::DomainAttributes(_))), "{rights}");
    }
    for module in [domain(|report| report[64] = 1), domain(|report| report[112] = 1)] {
        assert!(matches!(module, Refusal::Intel(IntelError::Module(_))), "{module}");
    }
    let mut built = Forgery::default().build();
    built.policy.bound.report_data = Some([0xdb; 64]);
    assert!(matches!(judged(&built), Err(Refusal::ReportData { .. })));
}

#[test]
fn framing_that_lies() {
    let built = Forgery { tdx: true, ..Forgery::default() }.build();
    let with = |place: usize, value: u8| {
        let mut quote = built.quote.clone();
        quote[place] = value;
        verify(&quote, &built.collateral(), NOW_UNIX, &built.policy).unwrap_err()
    };
    let framing = |refusal: Refusal| match refusal {
        Refusal::Quote(error) => error,
        other => panic!("refused for another reason: {other}"),
    };
    assert_eq!(framing(with(0, 6)), QuoteError::Version { found: 6 });
    assert_eq!(framing(with(2, 3)), QuoteError::KeyType { found: 3 });
    assert_eq!(framing(with(4, 0)), QuoteError::TeeType { found: 0 });
    assert_eq!(framing(with(12, 0)), QuoteError::Vendor);
    let signature = 48 + 584;
    assert!(matches!(framing(with(signature + 2, 0xff)), QuoteError::Truncated { .. }));
    assert!(matches!(framing(with(signature + 4 + 128, 5)), QuoteError::CertificationKind { found: 5 }));
    for length in 0..built.quote.len() {
        let refused = verify(&built.quote[..length], &built.collateral(), NOW_UNIX, &built.policy).unwrap_err();
        assert!(matches!(refused, Refusal::Quote(_) | Refusal::UnknownKind), "{length} bytes: {refused}");
    }
}

#[test]
fn no_flipped_bit() {
    for tdx in [false, true] {
        let built = Forgery { tdx, ..Forgery::default() }.build();
        let (collateral, mut quote) = (built.collateral(), built.quote.clone());
        let signed = 48 + if tdx { 584 } else { 384 };
        for place in 0..signed + 4 + 128 {
            for bit in 0..8 {
                quote[place] ^= 1 << bit;
                assert!(verify(&quote, &collateral, NOW_UNIX, &built.policy).is_err(), "byte {place:#x}, bit {bit}");
                quote[place] ^= 1 << bit;
            }
        }
    }
}
