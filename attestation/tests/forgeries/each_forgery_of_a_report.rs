//! SEV-SNP: each rule is tested by what breaks it alone.

use casemate_attestation::snp::VekError;
use casemate_attestation::{
    CertificateName, ChainError, Claims, CrlError, DebugSign, Identity, Product, Refusal, SnpSigner, SnpTcb, verify,
};

use crate::amd::{ASK_SERIAL, CHIP, Forgery, LEAF_SERIAL, LONG, Scheme, TCB, list, tcb_bytes, wrapped};
use crate::{DAY, NOW_UNIX};

fn verdict(forgery: &Forgery) -> Result<Claims, Refusal> {
    let built = forgery.build();
    verify(&built.report, &built.collateral, NOW_UNIX, &built.policy)
}

fn refusal(forgery: &Forgery) -> Refusal {
    verdict(forgery).expect_err("a forgery was believed")
}

fn edited(edit: impl Fn(&mut [u8; 0x4a0]) + 'static) -> Forgery {
    Forgery { edit: Box::new(edit), ..Forgery::default() }
}

fn chain(error: ChainError) -> Refusal {
    Refusal::Chain(error)
}

#[test]
fn an_honest_report_of_each_version_and_product() {
    for version in 2..=5 {
        assert!(verdict(&edited(move |report| report[0] = version)).is_ok(), "version {version}");
    }
    assert_eq!(refusal(&edited(|report| report[0] = 6)).to_string(), "the SEV-SNP report has version 6, wanted 2 to 5");
    // Turin writes its versions elsewhere, and its chips have short names.
    let mut chip = [0; 64];
    chip[..8].copy_from_slice(&[0x55; 8]);
    let tcb = SnpTcb { fmc: 9, ..TCB };
    let turin = |certified: SnpTcb| Forgery {
        product: Product::Turin,
        certified,
        certified_chip: Some(chip[..8].to_vec()),
        edit: Box::new(move |report| {
            report[0x1a0..0x1e0].copy_from_slice(&chip);
            for place in [0x38, 0x180, 0x1e0, 0x1f0] {
                report[place..place + 8].copy_from_slice(&tcb_bytes(tcb, Product::Turin));
            }
        }),
        ..Forgery::default()
    };
    assert!(verdict(&turin(tcb)).is_ok());
    let other = refusal(&turin(SnpTcb { fmc: 8, ..TCB }));
    assert_eq!(other, Refusal::Vek(VekError::Tcb { component: "fmc", certificate: 8, report: 9 }));
    let octets = Forgery { certified_chip: Some(wrapped(&CHIP)), ..Forgery::default() };
    assert!(verdict(&octets).is_ok());
}

#[test]
fn a_providers_key_signs_too() {
    let vlek = || Forgery { certified_chip: None, ..Forgery::default() };
    let claims = verdict(&vlek()).unwrap();
    let Identity::Snp { signer, provider, .. } = &claims.identity else { panic!("an identity of SEV-SNP") };
    assert_eq!((*signer, provider.as_deref()), (SnpSigner::Vlek, Some("a cloud")));
    let mut built = vlek().build();
    built.policy.snp.as_mut().unwrap().signers = [SnpSigner::Vcek].into();
    let refused = verify(&built.report, &built.collateral, NOW_UNIX, &built.policy).unwrap_err();
    assert!(matches!(refused, Refusal::Signer { found: SnpSigner::Vlek, .. }), "{refused}");
    // It names no chip, so that nothing is lost when the report names none.
    let masked = Forgery { edit: Box::new(|report| report[0x1a0..0x1e0].fill(0)), ..vlek() };
    let Identity::Snp { chip_id, .. } = verdict(&masked).unwrap().identity else { panic!("a report") };
    assert_eq!(chip_id, None);
    // A provider's certificate with a report that says a chip's key signed it.
    let lying = Forgery { edit: Box::new(|report| report[0x48] = 0), ..vlek() };
    let kinds = VekError::Kind { report: SnpSigner::Vcek, certificate: SnpSigner::Vlek };
    assert_eq!(refusal(&lying), Refusal::Vek(kinds));
}

#[test]
fn certificates_out_of_their_time() {
    let ended = (NOW_UNIX - 2 * DAY, NOW_UNIX - DAY);
    let later = (NOW_UNIX + DAY, NOW_UNIX + 2 * DAY);
    for (name, forge) in [
        (CertificateName::Root, (|window| Forgery { ark: window, ..Forgery::default() }) as fn(_) -> _),
        (CertificateName::Intermediate, |window| Forgery { ask: window, ..Forgery::default() }),
        (CertificateName::Leaf, |window| Forgery { leaf: window, ..Forgery::default() }),
    ] {
        let expired = refusal(&forge(ended));
        assert!(
            matches!(expired, Refusal::Chain(ChainError::Expired { certificate, .. }) if certificate == name),
            "{expired}"
        );
        let early = refusal(&forge(later));
        assert!(
            matches!(early, Refusal::Chain(ChainError::NotYetValid { certificate, .. }) if certificate == name),
            "{early}"
        );
    }
}

#[test]
fn issuers_that_are_not() {
    let stranger = Forgery { leaf_by_stranger: true, ..Forgery::default() };
    assert_eq!(refusal(&stranger), chain(ChainError::Signature));
    let other_name = Forgery { leaf_issuer: "DEV ONLY SEV-Genoa".to_owned(), ..Forgery::default() };
    assert_eq!(refusal(&other_name), chain(ChainError::UnknownIssuer));
    let no_authority = Forgery { ask_authority: None, ..Forgery::default() };
    assert!(matches!(refusal(&no_authority), Refusal::Chain(ChainError::KeyUsage { .. })));
    // Another root, whether it is shown or only named.
    for shown in [true, false] {
        let mut built = Forgery::default().build();
        let rules = built.policy.snp.as_mut().unwrap();
        rules.anchors = casemate_attestation::SnpRules::default().anchors;
        let certificates = built.collateral.certificates()[..if shown { 3 } else { 2 }].to_vec();
        let collateral = casemate_attestation::Collateral::snp(certificates, Vec::new());
        let foreign = verify(&built.report, &collateral, NOW_UNIX, &built.policy).unwrap_err();
        assert!(matches!(foreign, Refusal::Chain(ChainError::ForeignRoot { .. })), "{foreign}");
    }
}

#[test]
fn wrong_curve_wrong_algorithm_wrong_length() {
    let curve = Forgery { leaf_on_p256: true, ..Forgery::default() };
    assert_eq!(refusal(&curve), chain(ChainError::LeafKey { wanted: "P-384" }));
    let algorithm = Forgery { ask_scheme: Scheme::Pkcs1, ..Forgery::default() };
    assert_eq!(refusal(&algorithm), chain(ChainError::Algorithm { wanted: "RSASSA-PSS and SHA-384" }));
    let long = Forgery {
        edit_certificates: Box::new(|certificates| certificates.insert(1, certificates[1].clone())),
        ..Forgery::default()
    };
    assert!(matches!(refusal(&long), Refusal::Chain(ChainError::TooLong { found: 4, .. })));
    let none = Forgery { edit_certificates: Box::new(Vec::clear), ..Forgery::default() };
    assert!(matches!(refusal(&none), Refusal::Chain(ChainError::Missing { .. })));
    let large = Forgery { edit_certificates: Box::new(|all| all[0] = vec![0; 5000]), ..Forgery::default() };
    assert!(matches!(refusal(&large), Refusal::Chain(ChainError::TooLarge { .. })));
    // The root signs the leaf itself: the order is not AMD's.
    let short = Forgery { edit_certificates: Box::new(|all| all[1] = all[2].clone()), ..Forgery::default() };
    assert!(matches!(refusal(&short), Refusal::Chain(_)));
}

#[test]
fn leaves_of_other_machines() {
    let swapped = Forgery { swapped_leaf: true, ..Forgery::default() };
    assert_eq!(refusal(&swapped), Refusal::Signature);
    let chip = Forgery { certified_chip: Some(vec![0xc5; 64]), ..Forgery::default() };
    assert!(matches!(refusal(&chip), Refusal::Vek(VekError::ChipId { .. })));
    let short = Forgery { certified_chip: Some(vec![0xc4; 7]), ..Forgery::default() };
    assert!(matches!(refusal(&short), Refusal::Vek(VekError::Extension { .. })));
    let firmware = Forgery { certified: SnpTcb { snp: 23, ..TCB }, ..Forgery::default() };
    assert_eq!(refusal(&firmware), Refusal::Vek(VekError::Tcb { component: "snp", certificate: 23, report: 24 }));
    let genoa = refusal(&edited(|report| report[0x189] = 0x11));
    assert_eq!(genoa, Refusal::Vek(VekError::Product { report: Product::Genoa, certificate: Product::Milan }));
    let masked = edited(|report| report[0x1a0..0x1e0].fill(0));
    assert_eq!(refusal(&masked), Refusal::MaskedChip);
    let mut built = masked.build();
    built.policy.snp.as_mut().unwrap().allow_masked_chip = true;
    assert!(verify(&built.report, &built.collateral, NOW_UNIX, &built.policy).is_ok());
}

#[test]
fn revoked_stale_and_forged_lists() {
    let with = |crls: Vec<Vec<u8>>| Forgery { crls, ..Forgery::default() };
    let of_root = |revoked: &[u64]| list(true, false, LONG, revoked);
    assert!(verdict(&with(vec![of_root(&[]), list(false, false, LONG, &[99])])).unwrap().revocation_checked);
    let revoked = |certificate| move |error: &ChainError| matches!(error, ChainError::Revoked { certificate: found, .. } if *found == certificate);
    let is = |refusal: Refusal, wanted: &dyn Fn(&ChainError) -> bool| match refusal {
        Refusal::Chain(error) => assert!(wanted(&error), "{error}"),
        other => panic!("refused for another reason: {other}"),
    };
    is(refusal(&with(vec![of_root(&[5, ASK_SERIAL])])), &revoked(CertificateName::Intermediate));
    is(refusal(&with(vec![list(false, false, LONG, &[LEAF_SERIAL])])), &revoked(CertificateName::Leaf));
    // The serial number of the one on the other's list says nothing.
    assert!(verdict(&with(vec![of_root(&[LEAF_SERIAL])])).is_ok());
    let stale = (NOW_UNIX - 2 * DAY, NOW_UNIX);
    is(refusal(&with(vec![list(true, false, stale, &[])])), &|error| {
        matches!(error, ChainError::Crl(CrlError::Stale { .. }))
    });
    let later = (NOW_UNIX + DAY, NOW_UNIX + 2 * DAY);
    is(refusal(&with(vec![list(true, false, later, &[])])), &|error| {
        matches!(error, ChainError::Crl(CrlError::NotYetValid { .. }))
    });
    is(refusal(&with(vec![list(true, true, LONG, &[])])), &|error| {
        matches!(error, ChainError::Crl(CrlError::Signature { .. }))
    });
    is(refusal(&with(vec![vec![0x30, 0]])), &|error| matches!(error, ChainError::Crl(CrlError::Malformed(_))));
    is(refusal(&with(vec![vec![0; 70_000]])), &|error| matches!(error, ChainError::Crl(CrlError::TooLarge { .. })));
    is(refusal(&with(vec![of_root(&[]); 5])), &|error| matches!(error, ChainError::Crl(CrlError::TooMany { .. })));
    let mut built = Forgery::default().build();
    built.policy.snp.as_mut().unwrap().require_crl = true;
    is(verify(&built.report, &built.collateral, NOW_UNIX, &built.policy).unwrap_err(), &|error| {
        matches!(error, ChainError::Crl(CrlError::Missing))
    });
    // A list's end is the evidence's.
    let soon = (NOW_UNIX - DAY, NOW_UNIX + 60);
    assert_eq!(verdict(&with(vec![list(true, false, soon, &[])])).unwrap().valid_until_unix, NOW_UNIX + 59);
}

#[test]
fn guests_of_other_rights() {
    let policy = |bit: u32| edited(move |report| report[0x08 + bit as usize / 8] |= 1 << (bit % 8));
    assert_eq!(refusal(&policy(19)), Refusal::Debug { sign: DebugSign::GuestPolicy(0xb_0000) });
    assert_eq!(refusal(&policy(18)), Refusal::MigrationAgent { policy: 0x7_0000 });
    for vmpl in [1, 2, 3, u32::MAX] {
        let forged = edited(move |report| report[0x30..0x34].copy_from_slice(&vmpl.to_le_bytes()));
        assert_eq!(refusal(&forged), Refusal::Vmpl { found: vmpl, wanted: 0 });
    }
    let mut built = Forgery::default().build();
    built.policy.bound.report_data = Some([0xdb; 64]);
    let other = verify(&built.report, &built.collateral, NOW_UNIX, &built.policy).unwrap_err();
    assert!(matches!(other, Refusal::ReportData { .. }), "{other}");
}

#[test]
fn firmware_one_below_the_floor() {
    for (which, place) in [("committed", 0x1e0), ("launch", 0x1f0), ("current", 0x38)] {
        let below = |by: u8| {
            let tcb = SnpTcb { snp: TCB.snp - by, ..TCB };
            let forged =
                edited(move |report| report[place..place + 8].copy_from_slice(&tcb_bytes(tcb, Product::Milan)));
            let mut built = forged.build();
            built.policy.snp.as_mut().unwrap().min_tcb.insert(Product::Milan, TCB);
            verify(&built.report, &built.collateral, NOW_UNIX, &built.policy)
        };
        assert!(below(0).is_ok());
        assert_eq!(below(1), Err(Refusal::TcbFloor { which, component: "snp", found: 23, wanted: 24 }));
    }
    let mut built = Forgery::default().build();
    built.policy.snp.as_mut().unwrap().min_tcb.insert(Product::Milan, SnpTcb { microcode: 220, ..TCB });
    let below = verify(&built.report, &built.collateral, NOW_UNIX, &built.policy).unwrap_err();
    assert!(matches!(below, Refusal::TcbFloor { component: "microcode", found: 219, wanted: 220, .. }), "{below}");
}

#[test]
fn no_flipped_bit() {
    let built = Forgery::default().build();
    let mut report = built.report.clone();
    for place in 0..report.len() {
        for bit in 0..8 {
            report[place] ^= 1 << bit;
            let verdict = verify(&report, &built.collateral, NOW_UNIX, &built.policy);
            assert!(verdict.is_err(), "byte {place:#x}, bit {bit}");
            report[place] ^= 1 << bit;
        }
    }
}
