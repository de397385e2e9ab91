//! Every real SGX and TDX quote of the collection gets the verdict that is known of it, and no changed one is believed.

use std::collections::BTreeSet;

use casemate_attestation::intel::{CollateralError, Quote};
use casemate_attestation::{
    Bundle, ChainError, Claims, Collateral, DebugSign, Image, IntelError, IntelRules, Platform, Policy, Refusal,
    Register, Tcb, TcbStatus, TrustAnchor, Window, authenticate, verify,
};

use crate::vectors::{RealDocument, file, intel_quotes};

/// Both platforms under Intel's root; every status, so that only other rules refuse.
fn lenient() -> Policy {
    let rules = IntelRules { statuses: TcbStatus::ALL.into(), ..IntelRules::default() };
    Policy { sgx: Some(rules.clone()), tdx: Some(rules), any_image: true, ..Policy::nothing() }
}

/// Changes the rules of both platforms.
fn set(policy: &mut Policy, change: impl Fn(&mut IntelRules)) {
    change(policy.sgx.as_mut().unwrap());
    change(policy.tdx.as_mut().unwrap());
}

fn platform(quote: &RealDocument) -> Platform {
    Platform::from_id(quote.entry["kind"].as_str().unwrap()).unwrap()
}

/// Believes exactly what the quote says of itself.
fn believing(claims: &Claims) -> Policy {
    let mut policy = Policy { any_image: false, ..lenient() };
    policy.bound.report_data = claims.bound.report_data;
    policy.images = vec![Image {
        name: "itself".to_owned(),
        platform: claims.platform,
        registers: claims.measurements.iter().map(|(register, value)| (register, value.to_vec())).collect(),
        product: None,
        min_svn: None,
        window: Window::ALWAYS,
    }];
    policy
}

fn judged(quote: &RealDocument, policy: &Policy) -> Result<Claims, Refusal> {
    verify(&quote.evidence, &quote.collateral, quote.time, policy)
}

fn good(quotes: &[RealDocument]) -> impl Iterator<Item = &RealDocument> {
    quotes.iter().filter(|quote| quote.expected.starts_with("verify ok"))
}

#[test]
fn each_quote_gets_its_verdict() {
    let Some(quotes) = intel_quotes() else { return };
    for quote in &quotes {
        let RealDocument { file, evidence, time, expected, .. } = quote;
        let verdict = judged(quote, &lenient());
        if let Some(status) = expected.strip_prefix("verify ok, tcb=") {
            let claims = verdict.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
            let status = TcbStatus::from_name(status).expect("a status");
            assert_eq!(claims.tcb.as_ref().unwrap().status(), Some(status), "{file}");
            assert_eq!(judged(quote, &believing(&claims)).as_ref(), Ok(&claims), "{file}");
            agrees_with_manifest(quote, &claims);
            // What nobody asked to allow is refused for its status, and by no other rule.
            let strict = Policy { any_image: true, ..Policy::genuine() };
            let strict = judged(quote, &strict);
            if status == TcbStatus::UpToDate {
                assert_eq!(strict, Ok(claims), "{file}");
            } else {
                assert!(
                    matches!(strict, Err(Refusal::TcbStatus { found, .. }) if found == status),
                    "{file}: {strict:?}"
                );
            }
        } else if expected.starts_with("parse only") {
            assert!(Quote::parse(evidence).is_ok(), "{file}");
            assert_eq!(verdict, Err(Refusal::Collateral(CollateralError::Missing)), "{file}");
        } else {
            let refusal = verdict.expect_err(file);
            match expected.as_str() {
                "reject: debug" => {
                    let wanted = |sign: &DebugSign| match platform(quote) {
                        Platform::Sgx => matches!(sign, DebugSign::EnclaveAttributes(_)),
                        _ => matches!(sign, DebugSign::DomainAttributes(_)),
                    };
                    assert!(matches!(&refusal, Refusal::Debug { sign } if wanted(sign)), "{file}: {refusal}");
                    let allowed = Policy { allow_debug: true, ..lenient() };
                    assert!(judged(quote, &allowed).unwrap().debug.is_some(), "{file}");
                }
                "reject: no matching TCB level" => {
                    assert!(matches!(refusal, Refusal::Intel(IntelError::NoTcbLevel(_))), "{file}: {refusal}");
                }
                "reject: not Intel root (vendor sample with own root)" => {
                    assert!(matches!(refusal, Refusal::Chain(ChainError::ForeignRoot { .. })), "{file}: {refusal}");
                }
                "reject unless service TD allowed" => {
                    assert!(matches!(refusal, Refusal::ServiceTd { .. }), "{file}: {refusal}");
                    let mut policy = lenient();
                    set(&mut policy, |rules| rules.allow_service_td = true);
                    assert!(judged(quote, &policy).is_ok(), "{file}");
                }
                other if other.contains("TCB info v2 collateral unsupported") => {
                    let wanted =
                        |error: &CollateralError| matches!(error, CollateralError::Version { found: 2, wanted: 3, .. });
                    assert!(matches!(&refusal, Refusal::Collateral(error) if wanted(error)), "{file}: {refusal}");
                }
                other => panic!("{file}: the manifest expects \"{other}\", which this test does not know"),
            }
            assert!(authenticate(evidence, &Collateral::NONE, *time, &lenient()).is_err(), "{file}");
        }
    }
}

/// The manifest was written by other tools: a second opinion on every field.
fn agrees_with_manifest(quote: &RealDocument, claims: &Claims) {
    let RealDocument { file, entry, .. } = quote;
    assert_eq!(claims.platform, platform(quote), "{file}");
    let said = &entry["quote"];
    for (key, register) in [
        ("mrenclave", Register::MrEnclave),
        ("mrsigner", Register::MrSigner),
        ("mrtd", Register::MrTd),
        ("mrseam", Register::MrSeam),
    ] {
        assert_eq!(
            said[key].as_str().map(str::to_owned),
            claims.measurements.get(register).map(hex::encode),
            "{file}: {key}"
        );
    }
    if let Some(report_data) = said["report_data"].as_str() {
        assert_eq!(claims.bound.report_data.map(hex::encode).as_deref(), Some(report_data), "{file}");
    }
    assert_eq!(said["debug"], claims.debug.is_some(), "{file}");
    let fmspc = said["fmspc"].as_str().unwrap().to_lowercase();
    assert!(claims.identity.to_string().contains(&fmspc), "{file}: {}", claims.identity);
    let Some(Tcb::Intel { evaluation, .. }) = &claims.tcb else { panic!("{file}: a TCB") };
    // The lower number of TCB info, which the manifest names, and QE identity.
    let of_tcb_info = entry["tcb_info"]["evalnum"].as_u64().unwrap();
    assert!(u64::from(*evaluation) <= of_tcb_info && of_tcb_info - u64::from(*evaluation) <= 1, "{file}: {evaluation}");
}

#[test]
fn collateral_holds_only_in_its_window() {
    let Some(quotes) = intel_quotes() else { return };
    for quote in good(&quotes) {
        let (begin, end) = quote.window();
        let at = |time| authenticate(&quote.evidence, &quote.collateral, time, &lenient());
        // At a revocation list's `nextUpdate` the list has ended, while certificates hold to the end of their last second.
        let claims = at(end - 1).unwrap_or_else(|refusal| panic!("{} at its end: {refusal}", quote.file));
        assert!(at(begin).is_ok(), "{} at its begin", quote.file);
        assert_eq!(claims.valid_until_unix, end - 1, "{}", quote.file);
        for time in [end + 1, begin - 86_400 * 30, 0, u64::MAX] {
            let refusal = at(time).unwrap_err();
            let is_of_time = matches!(
                refusal,
                Refusal::Collateral(CollateralError::NotInTime { .. })
                    | Refusal::Chain(ChainError::Expired { .. } | ChainError::NotYetValid { .. } | ChainError::Crl(_))
            );
            assert!(is_of_time, "{} at {time}: {refusal}", quote.file);
        }
    }
}

#[test]
fn policies_are_enforced_on_real_quotes() {
    let Some(quotes) = intel_quotes() else { return };
    for quote in good(&quotes) {
        let claims = judged(quote, &lenient()).unwrap();
        let Some(Tcb::Intel { evaluation, pce_svn, ref advisories, .. }) = claims.tcb else { panic!("a TCB") };
        let policy = believing(&claims);
        let refusal = |change: &dyn Fn(&mut Policy)| {
            let mut policy = policy.clone();
            change(&mut policy);
            judged(quote, &policy).unwrap_err()
        };
        let naming = if claims.platform == Platform::Sgx { Register::MrEnclave } else { Register::MrTd };
        let other = refusal(&|policy| policy.images[0].registers.get_mut(&naming).unwrap()[0] ^= 1);
        assert!(matches!(other, Refusal::Measurement { register, .. } if register == naming), "{other}");
        let data = refusal(&|policy| policy.bound.report_data = Some([9; 64]));
        assert!(matches!(data, Refusal::ReportData { .. }), "{data}");
        let old = refusal(&|policy| set(policy, |rules| rules.min_evaluation = evaluation + 1));
        assert_eq!(old, Refusal::Evaluation { found: evaluation, wanted: evaluation + 1 });
        let pce = refusal(&|policy| set(policy, |rules| rules.min_pce_svn = pce_svn + 1));
        assert!(matches!(pce, Refusal::SvnFloor { .. }), "{pce}");
        let cpu = refusal(&|policy| set(policy, |rules| rules.min_cpu_svn = [0xff; 16]));
        assert!(matches!(cpu, Refusal::SvnFloor { .. }), "{cpu}");
        for advisory in advisories {
            let refused = refusal(&|policy| set(policy, |rules| rules.refused_advisories = [advisory.clone()].into()));
            assert!(matches!(&refused, Refusal::Advisory { found, .. } if found == advisory), "{refused}");
            let unknown = refusal(&|policy| set(policy, |rules| rules.allowed_advisories = Some(BTreeSet::new())));
            assert!(matches!(unknown, Refusal::Advisory { .. }), "{unknown}");
        }
        if claims.platform == Platform::Sgx {
            let product = refusal(&|policy| policy.images[0].product = Some(9));
            assert!(matches!(product, Refusal::Product { found: 0, wanted: 9, .. }), "{product}");
            let svn = refusal(&|policy| policy.images[0].min_svn = Some(9));
            assert!(matches!(svn, Refusal::GuestSvn { found: 0, wanted: 9, .. }), "{svn}");
        } else {
            let module = refusal(&|policy| set(policy, |rules| rules.min_tee_tcb_svn = [0xff; 16]));
            assert!(matches!(module, Refusal::SvnFloor { .. }), "{module}");
        }
        let other_root = vec![TrustAnchor::aws_nitro()];
        let root = refusal(&|policy| set(policy, |rules| rules.anchors.clone_from(&other_root)));
        assert!(matches!(root, Refusal::Chain(ChainError::ForeignRoot { .. })), "{root}");
    }
}

#[test]
fn collateral_of_one_platform_speaks_for_no_other() {
    let Some(quotes) = intel_quotes() else { return };
    let (mut technology, mut machine) = (0, 0);
    for quote in good(&quotes) {
        for other in good(&quotes) {
            let verdict = authenticate(&quote.evidence, &other.collateral, other.time, &lenient());
            match verdict {
                Err(Refusal::Collateral(CollateralError::OtherTechnology(_))) => technology += 1,
                Err(Refusal::Collateral(CollateralError::OtherPlatform { .. })) => machine += 1,
                _ => {}
            }
            if platform(quote) != platform(other) {
                assert!(verdict.is_err(), "{} with {}'s collateral", quote.file, other.file);
            }
        }
    }
    assert!(technology > 0 && machine > 0, "{technology} {machine}");
}

/// Padding and a signature's other form apart, which say nothing, no bit can be another.
#[test]
fn no_flipped_bit_is_believed() {
    let Some(quotes) = intel_quotes() else { return };
    for (number, quote) in good(&quotes).enumerate() {
        let signed = Quote::parse(&quote.evidence).unwrap().signed_bytes().len();
        let genuine = authenticate(&quote.evidence, &quote.collateral, quote.time, &lenient()).unwrap();
        let mut evidence = quote.evidence.clone();
        // Every byte of the statement and of the signatures and keys behind it; every seventh of the certificates, which are text.
        let dense = signed + 4 + 128 + 6 + 448 + 34 + 6;
        let positions = (0..dense).chain((dense..evidence.len()).step_by(7));
        for position in positions {
            let bit = 1 << ((position + number) % 8);
            evidence[position] ^= bit;
            let verdict = authenticate(&evidence, &quote.collateral, quote.time, &lenient());
            if position < signed {
                assert!(verdict.is_err(), "{}: byte {position}, bit {bit:#04x}", quote.file);
            } else {
                // Certificates are text, some of whose bits mean nothing (white space): then it says what it said.
                assert!(verdict.is_err() || verdict.as_ref() == Ok(&genuine), "{}: byte {position}", quote.file);
            }
            evidence[position] ^= bit;
        }
    }
}

#[test]
fn no_changed_collateral_is_believed() {
    let Some(quotes) = intel_quotes() else { return };
    let quote = good(&quotes).find(|quote| platform(quote) == Platform::Tdx).expect("a good quote");
    let json = file(quote.entry["collateral"].as_str().unwrap());
    let genuine: serde_json::Value = serde_json::from_slice(&json).unwrap();
    let verdict = |value: &serde_json::Value| {
        let bundle = serde_json::json!({
            "evidence": data_encoding::BASE64.encode(&quote.evidence),
            "collateral": value,
        });
        let bundle = Bundle::from_value(bundle).unwrap();
        authenticate(&bundle.evidence, &bundle.collateral, quote.time, &lenient())
    };
    assert!(verdict(&genuine).is_ok());
    let changed = |key: &str, from: &str, to: &str| {
        let mut value = genuine.clone();
        let text = value[key].as_str().unwrap();
        assert!(text.contains(from), "{key} has {from}");
        value[key] = text.replacen(from, to, 1).into();
        verdict(&value).unwrap_err()
    };
    let tcb = changed("tcb_info", "\"tcbStatus\":\"OutOfDate\"", "\"tcbStatus\":\"UpToDate\"");
    assert!(matches!(&tcb, Refusal::Collateral(CollateralError::Signature { .. })), "{tcb}");
    let qe = changed("qe_identity", "\"tcbStatus\":\"UpToDate\"", "\"tcbStatus\":\"OutOfDate\"");
    assert!(matches!(&qe, Refusal::Collateral(CollateralError::Signature { .. })), "{qe}");
    for key in ["tcb_info_signature", "qe_identity_signature", "root_ca_crl", "pck_crl"] {
        let text = genuine[key].as_str().unwrap();
        // The last digits are a signature's.
        let last = if text.ends_with('0') { "1" } else { "0" };
        let mut value = genuine.clone();
        value[key] = format!("{}{last}", &text[..text.len() - 1]).into();
        let refusal = verdict(&value).unwrap_err();
        assert!(
            matches!(refusal, Refusal::Collateral(CollateralError::Signature { .. }) | Refusal::Chain(_)),
            "{key}: {refusal}"
        );
    }
    for key in ["tcb_info_issuer_chain", "qe_identity_issuer_chain"] {
        let mut value = genuine.clone();
        value[key] = "".into();
        assert!(verdict(&value).is_err(), "{key}");
    }
}

#[test]
fn what_follows_a_quote_says_nothing() {
    let Some(quotes) = intel_quotes() else { return };
    for quote in good(&quotes).take(3) {
        let genuine = authenticate(&quote.evidence, &quote.collateral, quote.time, &lenient());
        for padding in [vec![0; 64], b"further bytes".to_vec()] {
            let evidence = [quote.evidence.clone(), padding].concat();
            assert_eq!(
                Quote::parse(&evidence).unwrap().signed_bytes(),
                Quote::parse(&quote.evidence).unwrap().signed_bytes()
            );
            assert_eq!(authenticate(&evidence, &quote.collateral, quote.time, &lenient()), genuine, "{}", quote.file);
        }
    }
}
