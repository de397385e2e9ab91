//! Every real SEV-SNP report of the collection gets the verdict that is known of it, and no changed one is believed.

use casemate_attestation::snp::Report;
use casemate_attestation::{
    ChainError, Claims, Collateral, DebugSign, Guest, Image, Platform, Policy, Product, Refusal, Register, SnpRules,
    SnpTcb, Tcb, TrustAnchor, Window, authenticate, verify,
};

use crate::vectors::{RealDocument, file, lone_certificates, snp_reports};

fn rules(change: impl FnOnce(&mut SnpRules)) -> Policy {
    let mut rules = SnpRules::default();
    change(&mut rules);
    Policy { snp: Some(rules), ..Policy::nothing() }
}

/// Believes exactly what the report says of itself.
fn believing(claims: &Claims) -> Policy {
    let mut policy = rules(|_| ());
    policy.bound.report_data = claims.bound.report_data;
    policy.images = vec![Image {
        name: "itself".to_owned(),
        platform: Platform::SevSnp,
        registers: claims.measurements.iter().map(|(register, value)| (register, value.to_vec())).collect(),
        product: None,
        min_svn: None,
        window: Window::ALWAYS,
    }];
    policy
}

fn claims(report: &RealDocument) -> Result<Claims, Refusal> {
    authenticate(&report.evidence, &report.collateral, report.time, &rules(|_| ()))
}

fn good(reports: &[RealDocument]) -> impl Iterator<Item = &RealDocument> {
    reports.iter().filter(|report| report.expected == "ok")
}

#[test]
fn each_report_gets_its_verdict() {
    let Some(reports) = snp_reports() else { return };
    for report in &reports {
        let RealDocument { file, evidence, collateral, time, expected, .. } = report;
        let claims = claims(report);
        match expected.as_str() {
            "ok" => {
                let claims = claims.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
                assert_eq!(verify(evidence, collateral, *time, &believing(&claims)).as_ref(), Ok(&claims), "{file}");
                agrees_with_manifest(report, &claims);
            }
            "ok; reject:debug policy bit" => {
                let claims = claims.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
                let policy = believing(&claims);
                let refusal = verify(evidence, collateral, *time, &policy).unwrap_err();
                assert!(
                    matches!(refusal, Refusal::Debug { sign: DebugSign::GuestPolicy(0xb0000) }),
                    "{file}: {refusal}"
                );
                assert!(verify(evidence, collateral, *time, &Policy { allow_debug: true, ..policy }).is_ok(), "{file}");
                agrees_with_manifest(report, &claims);
            }
            "no leaf cert available: parse only" => {
                assert!(Report::parse(evidence).is_ok(), "{file}");
                assert!(matches!(claims, Err(Refusal::Chain(ChainError::Missing { .. }))), "{file}: {claims:?}");
            }
            "reject: leaf certificate not signed by AMD ASK" => {
                assert_eq!(claims, Err(Refusal::Chain(ChainError::Signature)), "{file}");
            }
            "reject: ARK not pinned AMD root" => {
                assert!(matches!(claims, Err(Refusal::Chain(ChainError::ForeignRoot { .. }))), "{file}: {claims:?}");
            }
            other => panic!("{file}: the manifest expects \"{other}\", which this test does not know"),
        }
    }
}

/// The manifest was written by other tools: a second opinion on every field.
fn agrees_with_manifest(report: &RealDocument, claims: &Claims) {
    let RealDocument { file, entry, evidence, .. } = report;
    let hex_of = |register| claims.measurements.get(register).map(hex::encode);
    for (key, found) in [
        ("measurement", hex_of(Register::Measurement)),
        ("host_data", hex_of(Register::HostData)),
        ("report_data", claims.bound.report_data.map(hex::encode)),
    ] {
        assert_eq!(entry[key].as_str(), found.as_deref(), "{file}: {key}");
    }
    let Guest::Snp { policy, vmpl, .. } = claims.guest else { panic!("{file}: a guest of SEV-SNP") };
    assert_eq!(entry["policy"], format!("{:#x}", policy.0), "{file}");
    assert_eq!(entry["vmpl"], vmpl, "{file}");
    assert_eq!(entry["debug"], claims.debug.is_some(), "{file}");
    assert_eq!(entry["version"], Report::parse(evidence).unwrap().version(), "{file}");
    let (_, end) = report.window();
    assert_eq!(claims.valid_until_unix, end, "{file}");
    let identity = claims.identity.to_string();
    let product = entry["product"].as_str().unwrap();
    assert!(
        identity.starts_with(product) && identity.contains(entry["chip_id"].as_str().unwrap()),
        "{file}: {identity}"
    );
}

#[test]
fn a_leaf_alone_finds_its_issuers() {
    let Some(reports) = snp_reports() else { return };
    for report in good(&reports) {
        let whole = claims(report).unwrap();
        for count in 1..=2 {
            let fewer = Collateral::snp(report.collateral.certificates()[..count].to_vec(), Vec::new());
            let found = authenticate(&report.evidence, &fewer, report.time, &rules(|_| ()));
            assert_eq!(found.as_ref(), Ok(&whole), "{}: {count} certificates", report.file);
        }
        // As a host puts them behind the report.
        let [leaf, ask, ark] = report.collateral.certificates() else { panic!("three certificates") };
        let table =
            casemate_attestation::snp::CertificateTable { leaf: Some(leaf), intermediate: Some(ask), root: Some(ark) };
        let extended = [report.evidence.clone(), table.encode()].concat();
        assert_eq!(
            authenticate(&extended, &Collateral::NONE, report.time, &rules(|_| ())),
            Ok(whole),
            "{}",
            report.file
        );
    }
}

#[test]
fn a_chain_without_a_report_leads_to_its_root() {
    let Some(alone) = lone_certificates() else { return };
    for (entry, product) in alone {
        let certificates: Vec<_> = ["leaf", "ca", "ark"].map(|key| file(entry[key].as_str().unwrap())).to_vec();
        assert_eq!(TrustAnchor::amd(product).der().as_ref(), certificates[2]);
        // A report that nobody signed: everything before the signature is right.
        let mut report = vec![0; casemate_attestation::snp::REPORT_BYTES];
        (report[0], report[0x34]) = (3, 1);
        let time = entry["time"].as_u64().unwrap();
        let at = |certificates, time| {
            authenticate(&report, &Collateral::snp(certificates, Vec::new()), time, &rules(|_| ()))
        };
        assert_eq!(at(certificates.clone(), time), Err(Refusal::Signature));
        let end = entry["window"][1].as_u64().unwrap();
        assert!(matches!(at(certificates.clone(), end + 1), Err(Refusal::Chain(ChainError::Expired { .. }))));
        let other = file("snp/ca/SEV-Milan.der");
        let refusal = at(vec![certificates[0].clone(), other], time).unwrap_err();
        assert!(matches!(refusal, Refusal::Chain(ChainError::UnknownIssuer)), "{refusal}");
    }
}

#[test]
fn a_chain_holds_only_in_its_window() {
    let Some(reports) = snp_reports() else { return };
    for report in good(&reports) {
        let (_, end) = report.window();
        let at = |time| authenticate(&report.evidence, &report.collateral, time, &rules(|_| ())).map(drop);
        assert_eq!(at(end), Ok(()), "{}", report.file);
        assert!(matches!(at(end + 1), Err(Refusal::Chain(ChainError::Expired { .. }))), "{}", report.file);
        assert!(matches!(at(1_577_836_800), Err(Refusal::Chain(ChainError::NotYetValid { .. }))), "{}", report.file);
        assert!(at(0).is_err() && at(u64::MAX).is_err());
    }
}

#[test]
fn certificates_belong_to_one_chip_and_one_firmware() {
    let Some(reports) = snp_reports() else { return };
    let good: Vec<_> = good(&reports).collect();
    let mut swapped = 0;
    for report in &good {
        for other in &good {
            if report.collateral == other.collateral || report.entry["chip_id"] == other.entry["chip_id"] {
                continue;
            }
            let refusal = authenticate(&report.evidence, &other.collateral, other.time, &rules(|_| ())).unwrap_err();
            assert_eq!(refusal, Refusal::Signature, "{} with {}'s certificates", report.file, other.file);
            swapped += 1;
        }
    }
    assert!(swapped > 50, "{swapped}");
}

#[test]
fn floors_are_held_component_by_component() {
    let Some(reports) = snp_reports() else { return };
    for report in good(&reports) {
        let claims = claims(report).unwrap();
        let Some(Tcb::Snp { reported, current, committed, launch }) = claims.tcb else { panic!("a TCB") };
        let lowest = |of: fn(&SnpTcb) -> u8| [reported, current, committed, launch].iter().map(of).min().unwrap();
        let floor = SnpTcb {
            fmc: lowest(|tcb| tcb.fmc),
            bootloader: lowest(|tcb| tcb.bootloader),
            tee: lowest(|tcb| tcb.tee),
            snp: lowest(|tcb| tcb.snp),
            microcode: lowest(|tcb| tcb.microcode),
        };
        let product = Product::from_name(report.entry["product"].as_str().unwrap()).unwrap();
        let under = |floor: SnpTcb| {
            let mut policy = believing(&claims);
            policy.snp.as_mut().unwrap().min_tcb.insert(product, floor);
            verify(&report.evidence, &report.collateral, report.time, &policy).map(drop)
        };
        assert_eq!(under(floor), Ok(()), "{}", report.file);
        let raised = [
            ("fmc", SnpTcb { fmc: floor.fmc + 1, ..floor }),
            ("bootloader", SnpTcb { bootloader: floor.bootloader + 1, ..floor }),
            ("tee", SnpTcb { tee: floor.tee + 1, ..floor }),
            ("snp", SnpTcb { snp: floor.snp + 1, ..floor }),
            ("microcode", SnpTcb { microcode: floor.microcode + 1, ..floor }),
        ];
        for (name, floor) in raised {
            let refusal = under(floor).unwrap_err();
            assert!(
                matches!(&refusal, Refusal::TcbFloor { component, .. } if *component == name),
                "{}: {refusal}",
                report.file
            );
        }
    }
}

#[test]
fn policies_are_enforced_on_real_reports() {
    let Some(reports) = snp_reports() else { return };
    for report in good(&reports) {
        let claims = claims(report).unwrap();
        let policy = believing(&claims);
        let refusal = |change: &dyn Fn(&mut Policy)| {
            let mut policy = policy.clone();
            change(&mut policy);
            verify(&report.evidence, &report.collateral, report.time, &policy).unwrap_err()
        };
        let none = refusal(&|policy| policy.images.clear());
        assert_eq!(none, Refusal::NoMeasurements { platform: Platform::SevSnp });
        let other = refusal(&|policy| policy.images[0].registers.get_mut(&Register::Measurement).unwrap()[0] ^= 1);
        assert!(matches!(other, Refusal::Measurement { register: Register::Measurement, .. }), "{other}");
        let data = refusal(&|policy| policy.bound.report_data = Some([9; 64]));
        assert!(matches!(data, Refusal::ReportData { .. }), "{data}");
        let nonce = refusal(&|policy| {
            policy.bound.report_data = None;
            policy.bound.nonce = Some(b"mine".to_vec());
        });
        assert!(matches!(nonce, Refusal::ReportData { .. }), "{nonce}");
        let svn = refusal(&|policy| policy.images[0].min_svn = Some(u32::MAX));
        assert!(matches!(svn, Refusal::GuestSvn { .. }), "{svn}");
        let window = refusal(&|policy| policy.images[0].window.not_after_unix = report.time - 1);
        assert!(matches!(window, Refusal::ImageWindow { .. }), "{window}");
        let vmpl = refusal(&|policy| policy.snp.as_mut().unwrap().vmpl = 1);
        assert_eq!(vmpl, Refusal::Vmpl { found: 0, wanted: 1 });
        let signer = refusal(&|policy| policy.snp.as_mut().unwrap().signers.clear());
        assert!(matches!(signer, Refusal::Signer { .. }), "{signer}");
        let crl = refusal(&|policy| policy.snp.as_mut().unwrap().require_crl = true);
        assert!(matches!(crl, Refusal::Chain(ChainError::Crl(_))), "{crl}");
        let platform = refusal(&|policy| policy.snp = None);
        assert!(matches!(platform, Refusal::Platform { found: Platform::SevSnp, .. }), "{platform}");
        let product = Product::from_name(report.entry["product"].as_str().unwrap()).unwrap();
        let root = refusal(&|policy| policy.snp.as_mut().unwrap().anchors.retain(|(other, _)| *other != product));
        assert!(matches!(root, Refusal::Chain(ChainError::ForeignRoot { .. })), "{root}");
    }
}

#[test]
fn no_flipped_bit_is_believed() {
    let Some(reports) = snp_reports() else { return };
    for (number, report) in good(&reports).enumerate() {
        let mut evidence = report.evidence.clone();
        for position in 0..evidence.len() {
            let bit = 1 << ((position + number) % 8);
            evidence[position] ^= bit;
            let verdict = authenticate(&evidence, &report.collateral, report.time, &rules(|_| ()));
            assert!(verdict.is_err(), "{}: byte {position}, bit {bit:#04x}", report.file);
            evidence[position] ^= bit;
        }
    }
}

#[test]
fn no_flipped_bit_of_a_certificate_is_believed() {
    let Some(reports) = snp_reports() else { return };
    let report = good(&reports).next().expect("a good report");
    for place in 0..3 {
        let mut certificates = report.collateral.certificates().to_vec();
        for position in 0..certificates[place].len() {
            certificates[place][position] ^= 1 << (position % 8);
            let collateral = Collateral::snp(certificates.clone(), Vec::new());
            let verdict = authenticate(&report.evidence, &collateral, report.time, &rules(|_| ()));
            assert!(verdict.is_err(), "certificate {place}, byte {position}");
            certificates[place][position] ^= 1 << (position % 8);
        }
    }
}
