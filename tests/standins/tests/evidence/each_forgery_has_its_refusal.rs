//! Evidence that is false in one respect is refused for that respect.

use std::time::Duration;

use casemate_attestation::nitro::{DocumentError, EnvelopeError, authenticate};
use casemate_attestation::{
    Bound, CertificateName, ChainError, DebugSign, MeasurementSet, Platform, Policy, Refusal, Register,
};
use casemate_standins::{
    ChainPlan, Curve, DevelopmentAuthority, Forgery, LEAF_LIFETIME_SECONDS, LeafPlan, PayloadField, SimulatedDocument,
    Validity,
};
use ciborium::Value;
use coset::iana::Algorithm;

use crate::{NOW_UNIX, document, policy, verify};

/// Builds what `forge` makes of an honest document, and returns why it was refused.
fn refusal_of(forge: impl FnOnce(Forgery<'_>) -> Forgery<'_>) -> Refusal {
    let authority = DevelopmentAuthority::new();
    let evidence = forge(Forgery::of(&authority, document())).build();
    verify(&evidence, NOW_UNIX, &policy(&authority)).expect_err("a forgery was believed")
}

fn refusal_under(change: impl FnOnce(&mut Policy)) -> Refusal {
    let authority = DevelopmentAuthority::new();
    let mut policy = policy(&authority);
    change(&mut policy);
    verify(&authority.sign(document()), NOW_UNIX, &policy).expect_err("evidence was believed against the policy")
}

fn chain(refusal: Refusal) -> ChainError {
    match refusal {
        Refusal::Chain(error) => error,
        other => panic!("refused for another reason: {other}"),
    }
}

fn with_leaf(forgery: Forgery<'_>, change: impl FnOnce(&mut LeafPlan)) -> Forgery<'_> {
    forgery.with(|forgery| change(&mut forgery.leaf))
}

fn field<'a>(fields: &'a mut [PayloadField], name: &str) -> &'a mut Value {
    let found = fields.iter_mut().find(|(key, _)| key.as_text() == Some(name));
    &mut found.expect("the field is there").1
}

// The leaf

#[test]
fn a_leaf_on_another_curve() {
    let error = chain(refusal_of(|forgery| with_leaf(forgery, |leaf| leaf.curve = Curve::P256)));
    assert_eq!(error, ChainError::LeafKey { wanted: "P-384" });
}

#[test]
fn a_leaf_that_has_ended() {
    let ended = Validity { not_before_unix: NOW_UNIX - LEAF_LIFETIME_SECONDS, not_after_unix: NOW_UNIX - 1 };
    let error = chain(refusal_of(|forgery| with_leaf(forgery, |leaf| leaf.validity = ended)));
    let not_after_unix = NOW_UNIX - 1;
    assert_eq!(error, ChainError::Expired { certificate: CertificateName::Leaf, not_after_unix, now_unix: NOW_UNIX });
}

#[test]
fn a_leaf_that_has_not_begun() {
    let later = Validity { not_before_unix: NOW_UNIX + 1, not_after_unix: NOW_UNIX + LEAF_LIFETIME_SECONDS };
    let error = chain(refusal_of(|forgery| with_leaf(forgery, |leaf| leaf.validity = later)));
    assert!(matches!(error, ChainError::NotYetValid { certificate: CertificateName::Leaf, .. }), "{error}");
}

#[test]
fn a_leaf_that_may_not_sign() {
    let error = chain(refusal_of(|forgery| with_leaf(forgery, |leaf| leaf.may_sign = false)));
    assert_eq!(error, ChainError::KeyUsage { certificate: CertificateName::Leaf, wanted: "signing documents" });
}

#[test]
fn a_leaf_that_is_an_authority() {
    let error = chain(refusal_of(|forgery| with_leaf(forgery, |leaf| leaf.is_ca = true)));
    assert!(matches!(error, ChainError::X509(_)), "{error}");
}

#[test]
fn a_leaf_of_the_same_issuer_but_of_another_key() {
    let refusal = refusal_of(|forgery| forgery.with(|forgery| forgery.swapped_leaf = true));
    assert_eq!(refusal, Refusal::Signature);
}

#[test]
fn a_leaf_of_another_authority_of_the_same_name() {
    let impostor = DevelopmentAuthority::new();
    let authority = DevelopmentAuthority::new();
    let evidence = Forgery::of(&authority, document()).with(|forgery| forgery.leaf_issuer = &impostor).build();
    let refusal = verify(&evidence, NOW_UNIX, &policy(&authority)).unwrap_err();
    assert_eq!(chain(refusal), ChainError::Signature);
}

// The chain

#[test]
fn a_chain_to_another_root() {
    let impostor = DevelopmentAuthority::new();
    let believed = DevelopmentAuthority::new();
    let refusal = verify(&impostor.sign(document()), NOW_UNIX, &policy(&believed)).unwrap_err();
    assert!(matches!(chain(refusal), ChainError::ForeignRoot { .. }));
}

#[test]
fn another_chain_behind_the_right_root() {
    let impostor = DevelopmentAuthority::new();
    let believed = DevelopmentAuthority::new();
    let root = believed.root_der();
    let evidence = Forgery::of(&impostor, document()).editing_cabundle(move |bundle| bundle[0] = root).build();
    let refusal = verify(&evidence, NOW_UNIX, &policy(&believed)).unwrap_err();
    assert_eq!(chain(refusal), ChainError::Signature);
}

#[test]
fn an_issuer_that_has_ended() {
    let ended = Validity { not_before_unix: NOW_UNIX - 86_400, not_after_unix: NOW_UNIX - 1 };
    let authority = DevelopmentAuthority::planned(ChainPlan { instance: ended, ..ChainPlan::default() }).unwrap();
    let refusal = verify(&authority.sign(document()), NOW_UNIX, &policy(&authority)).unwrap_err();
    assert!(matches!(chain(refusal), ChainError::Expired { certificate: CertificateName::Cabundle(3), .. }));
}

#[test]
fn a_root_that_has_ended() {
    let ended = Validity { not_before_unix: NOW_UNIX - 86_400, not_after_unix: NOW_UNIX - 1 };
    let authority = DevelopmentAuthority::planned(ChainPlan { root: ended, ..ChainPlan::default() }).unwrap();
    let refusal = verify(&authority.sign(document()), NOW_UNIX, &policy(&authority)).unwrap_err();
    assert!(matches!(chain(refusal), ChainError::Expired { certificate: CertificateName::Cabundle(0), .. }));
}

#[test]
fn an_issuer_with_a_weaker_signature() {
    let plan = ChainPlan { instance_curve: Curve::P256, ..ChainPlan::default() };
    let authority = DevelopmentAuthority::planned(plan).unwrap();
    let refusal = verify(&authority.sign(document()), NOW_UNIX, &policy(&authority)).unwrap_err();
    assert_eq!(chain(refusal), ChainError::Algorithm { wanted: "ECDSA on P-384 and SHA-384" });
}

#[test]
fn a_missing_issuer() {
    let error = chain(refusal_of(|forgery| forgery.editing_cabundle(|bundle| drop(bundle.pop()))));
    assert_eq!(error, ChainError::UnknownIssuer);
}

#[test]
fn a_bundle_in_another_order() {
    let error = chain(refusal_of(|forgery| forgery.editing_cabundle(|bundle| bundle[1..].reverse())));
    assert_eq!(error, ChainError::Order);
}

#[test]
fn a_bundle_with_a_guest() {
    let error = chain(refusal_of(|forgery| {
        forgery.editing_cabundle(|bundle| {
            let guest = bundle[1].clone();
            bundle.push(guest);
        })
    }));
    assert_eq!(error, ChainError::Order);
}

#[test]
fn a_bundle_that_ends_with_the_root() {
    let error = chain(refusal_of(|forgery| forgery.editing_cabundle(|bundle| bundle.reverse())));
    assert!(matches!(error, ChainError::ForeignRoot { .. }), "{error}");
}

#[test]
fn a_bundle_of_garbage_behind_the_root() {
    let error = chain(refusal_of(|forgery| forgery.editing_cabundle(|bundle| bundle[2] = vec![0; 64])));
    assert!(matches!(error, ChainError::Malformed { certificate: CertificateName::Cabundle(2), .. }), "{error}");
}

#[test]
fn a_leaf_that_issues_a_leaf() {
    // What a compromised enclave could do if its leaf's key leaked: sign a leaf of its own making.
    let authority = DevelopmentAuthority::new();
    let mut leaf = Vec::new();
    let honest = authority.sign(document());
    let envelope = casemate_attestation::nitro::Envelope::parse(&honest).unwrap();
    leaf.extend_from_slice(casemate_attestation::nitro::Document::parse(envelope.payload()).unwrap().certificate);
    let evidence = Forgery::of(&authority, document()).editing_cabundle(move |bundle| bundle.push(leaf)).build();
    let refusal = verify(&evidence, NOW_UNIX, &policy(&authority)).unwrap_err();
    assert_eq!(
        chain(refusal),
        ChainError::KeyUsage { certificate: CertificateName::Cabundle(4), wanted: "signing certificates" }
    );
}

// The envelope and the document

#[test]
fn another_algorithm() {
    let refusal = refusal_of(|forgery| forgery.with(|forgery| forgery.algorithm = Algorithm::ES256));
    assert_eq!(refusal, Refusal::Envelope(EnvelopeError::Algorithm { found: -7 }));
}

#[test]
fn a_payload_changed_after_it_was_signed() {
    let refusal = refusal_of(|forgery| {
        forgery.editing_signed_payload(|payload| {
            let place = payload.windows(48).position(|window| window == [0xa2; 48]).expect("PCR2 is there");
            payload[place] ^= 1;
        })
    });
    assert_eq!(refusal, Refusal::Signature);
}

#[test]
fn no_signature() {
    assert_eq!(refusal_of(|forgery| forgery.editing_signature(|bytes| bytes.fill(0))), Refusal::Signature);
    let short = refusal_of(|forgery| forgery.editing_signature(|bytes| bytes.truncate(64)));
    assert_eq!(short, Refusal::Envelope(EnvelopeError::SignatureLength { found: 64 }));
}

#[test]
fn an_emulators_document() {
    // QEMU's nitro-enclave machine: algorithm -1, 64 zero bytes as certificate, as bundle and as signature.
    let zeros = || vec![0; 64];
    let emulated = |algorithm| {
        refusal_of(move |forgery| {
            forgery
                .with(|forgery| (forgery.algorithm, forgery.indefinite) = (algorithm, false))
                .editing_cabundle(move |bundle| *bundle = vec![zeros()])
                .editing_fields(move |fields| *field(fields, "certificate") = Value::Bytes(zeros()))
                .editing_signature(move |signature| *signature = zeros())
        })
    };
    assert_eq!(emulated(Algorithm::ES256), Refusal::Envelope(EnvelopeError::Algorithm { found: -7 }));
    assert_eq!(emulated(Algorithm::ES384), Refusal::Envelope(EnvelopeError::SignatureLength { found: 64 }));
}

#[test]
fn a_signed_document_that_is_none() {
    let document_error = |edit: fn(&mut Vec<PayloadField>)| match refusal_of(|forgery| forgery.editing_fields(edit)) {
        Refusal::Document(error) => error,
        other => panic!("refused for another reason: {other}"),
    };
    assert_eq!(document_error(|fields| *field(fields, "digest") = Value::from("SHA256")), DocumentError::Digest);
    assert_eq!(
        document_error(|fields| fields.retain(|(name, _)| name.as_text() != Some("pcrs"))),
        DocumentError::MissingField { field: "pcrs" }
    );
    assert_eq!(
        document_error(|fields| fields.push((Value::from("nonce"), Value::Null))),
        DocumentError::DuplicateField { field: "nonce" }
    );
    assert_eq!(
        document_error(|fields| *field(fields, "user_data") = Value::Bytes(vec![0; 513])),
        DocumentError::FieldSize { field: "user_data", found: 513, min: 0, max: 512 }
    );
    assert_eq!(
        document_error(|fields| *field(fields, "cabundle") = Value::Array(Vec::new())),
        DocumentError::EmptyCabundle
    );
}

#[test]
fn an_unknown_field_does_not_matter() {
    let authority = DevelopmentAuthority::new();
    let evidence = Forgery::of(&authority, document())
        .editing_fields(|fields| fields.push((Value::from("later"), Value::from(1))))
        .build();
    assert!(verify(&evidence, NOW_UNIX, &policy(&authority)).is_ok());
}

// What the evidence says

#[test]
fn a_debug_enclave() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(SimulatedDocument::measuring([[0; 48]; 3], NOW_UNIX * 1000));
    let zeros = MeasurementSet { pcr0: [0; 48], pcr1: [0; 48], pcr2: [0; 48] };
    let mut policy = Policy { bound: Bound::default(), ..policy(&authority) };
    policy.images.push(zeros.into());
    assert_eq!(verify(&evidence, NOW_UNIX, &policy), Err(Refusal::Debug { sign: DebugSign::ZeroPcr(0) }));
    policy.allow_debug = true;
    assert!(verify(&evidence, NOW_UNIX, &policy).unwrap().debug.is_some());
    policy.images.pop();
    let refusal = verify(&evidence, NOW_UNIX, &policy).unwrap_err();
    assert!(
        matches!(refusal, Refusal::Measurement { register: Register::Pcr(0), .. }),
        "allowing debug allows nothing else: {refusal}"
    );
}

#[test]
fn another_image() {
    let refusal = refusal_under(|policy| {
        policy.images[0].registers.insert(Register::Pcr(1), vec![0xb1; 48]);
        policy.images.push(MeasurementSet { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] }.into());
    });
    assert_eq!(
        refusal.to_string(),
        "pcr1 is a1a1a1a1a1a1a1a1…, wanted b1b1b1b1b1b1b1b1… (by PCR0, PCR1 and PCR2, the nearest of 2 known images): the guest \
         runs an image that this verifier does not believe"
    );
    let none = refusal_under(|policy| policy.images.clear());
    assert_eq!(none, Refusal::NoMeasurements { platform: Platform::Nitro });
}

#[test]
fn other_bindings() {
    let other = || Some(b"other".to_vec());
    assert!(matches!(refusal_under(|policy| policy.bound.nonce = other()), Refusal::Nonce { .. }));
    assert!(matches!(refusal_under(|policy| policy.bound.user_data = other()), Refusal::UserData { .. }));
    assert!(matches!(refusal_under(|policy| policy.bound.public_key = other()), Refusal::PublicKey { .. }));
}

#[test]
fn absent_bindings() {
    let refusal = refusal_of(|forgery| forgery.editing_fields(|fields| *field(fields, "nonce") = Value::Null));
    assert!(matches!(&refusal, Refusal::Nonce { found, .. } if found == "absent"), "{refusal}");
}

#[test]
fn a_document_that_is_too_old() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(document());
    let policy = policy(&authority);
    assert!(verify(&evidence, NOW_UNIX + 300, &policy).is_ok());
    let refusal = verify(&evidence, NOW_UNIX + 301, &policy).unwrap_err();
    assert!(matches!(refusal, Refusal::TooOld { age_seconds: 301, max_age_seconds: 300, .. }), "{refusal}");
}

#[test]
fn a_document_from_the_future() {
    let authority = DevelopmentAuthority::new();
    let long = LeafPlan { validity: Validity::LONG, ..LeafPlan::honest(NOW_UNIX) };
    let evidence = Forgery::of(&authority, document()).with(|forgery| forgery.leaf = long).build();
    let policy = policy(&authority);
    assert!(verify(&evidence, NOW_UNIX - 10, &policy).is_ok(), "within the skew");
    let refusal = verify(&evidence, NOW_UNIX - 11, &policy).unwrap_err();
    assert!(matches!(refusal, Refusal::FromTheFuture { skew_seconds: 10, .. }), "{refusal}");
}

#[test]
fn skew_brings_back_no_certificate_that_has_ended() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(document());
    let patient =
        Policy { max_age: Duration::from_hours(24), clock_skew: Duration::from_hours(24), ..policy(&authority) };
    let end = NOW_UNIX - 3 + LEAF_LIFETIME_SECONDS;
    assert!(verify(&evidence, end, &patient).is_ok());
    let refusal = verify(&evidence, end + 1, &patient).unwrap_err();
    assert!(matches!(chain(refusal), ChainError::Expired { certificate: CertificateName::Leaf, .. }));
}

#[test]
fn authentication_alone_judges_neither_age_nor_image() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(SimulatedDocument::measuring([[0; 48]; 3], NOW_UNIX * 1000));
    let authenticated = authenticate(&evidence, NOW_UNIX + 3_600, &authority.anchor()).unwrap();
    assert_eq!(authenticated.document().timestamp_unix_ms, NOW_UNIX * 1000);
    assert!(authenticated.into_claims().debug.is_some());
}
