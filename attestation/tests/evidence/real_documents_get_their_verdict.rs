//! Every real Nitro document of the collection gets the verdict that is known of it, and no changed one is believed.

use std::time::{Duration, Instant};

use crate::vectors::{RealDocument, nitro_documents};
use casemate_attestation::nitro::{Authenticated, Document, Envelope, authenticate};
use casemate_attestation::{
    ChainError, Claims, Collateral, DebugSign, Identity, MeasurementSet, Policy, Refusal, Register, TrustAnchor,
    Window, verify,
};

const NONE: &Collateral = &Collateral::NONE;

/// Believes exactly what the document says of itself, one hour long.
fn believing(claims: &Claims) -> Policy {
    Policy {
        max_age: Duration::from_hours(1),
        clock_skew: Duration::ZERO,
        bound: claims.bound.clone(),
        ..Policy::nitro(TrustAnchor::aws_nitro(), claims.measurements.image())
    }
}

fn with_images(policy: &Policy, images: impl IntoIterator<Item = MeasurementSet>) -> Policy {
    Policy { images: images.into_iter().map(Into::into).collect(), ..policy.clone() }
}

fn authentic(document: &RealDocument, anchor: &TrustAnchor) -> Result<Claims, Refusal> {
    authenticate(&document.evidence, document.time, anchor).map(Authenticated::into_claims)
}

fn good(documents: &[RealDocument]) -> impl Iterator<Item = &RealDocument> {
    documents.iter().filter(|document| document.expected == "ok")
}

#[test]
fn each_document_gets_its_verdict() {
    let Some(documents) = nitro_documents() else { return };
    for document in &documents {
        let RealDocument { file, evidence, time, expected, .. } = document;
        let claims = authentic(document, &TrustAnchor::aws_nitro());
        match expected.as_str() {
            "ok" => {
                let claims = claims.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
                assert_eq!(verify(evidence, NONE, *time, &believing(&claims)).as_ref(), Ok(&claims), "{file}");
                assert_eq!(claims.debug, None, "{file}");
                agrees_with_manifest(document, &claims);
            }
            "chain-ok; reject:debug-mode(PCR0 zero)" => {
                let claims = claims.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
                assert_eq!(claims.debug, Some(DebugSign::ZeroPcr(0)), "{file}");
                // Listing the zeros does not let debug enclaves in; allowing them does.
                let policy = believing(&claims);
                assert_eq!(
                    verify(evidence, NONE, *time, &policy),
                    Err(Refusal::Debug { sign: DebugSign::ZeroPcr(0) }),
                    "{file}"
                );
                let development = Policy { allow_debug: true, ..policy };
                assert_eq!(verify(evidence, NONE, *time, &development).as_ref(), Ok(&claims), "{file}");
                agrees_with_manifest(document, &claims);
            }
            "reject:bad-signature" => assert_eq!(claims, Err(Refusal::Signature), "{file}"),
            "reject:not-aws-root (ok with own root)" => {
                assert!(matches!(claims, Err(Refusal::Chain(ChainError::ForeignRoot { .. }))), "{file}: {claims:?}");
                let own_root = own_root(evidence);
                assert!(authentic(document, &own_root).is_ok(), "{file}");
            }
            other => panic!("{file}: the manifest expects \"{other}\", which this test does not know"),
        }
    }
}

fn own_root(evidence: &[u8]) -> TrustAnchor {
    let envelope = Envelope::parse(evidence).expect("an envelope");
    let root = Document::parse(envelope.payload()).expect("a document").cabundle[0].to_vec();
    TrustAnchor::from_der(root).expect("a root")
}

/// The manifest was written by other tools: a second opinion on every field.
fn agrees_with_manifest(document: &RealDocument, claims: &Claims) {
    let RealDocument { file, entry, .. } = document;
    let Identity::Nitro { module_id } = &claims.identity else { panic!("{file}: a Nitro identity") };
    assert_eq!(entry["module_id"], *module_id, "{file}");
    assert_eq!(entry["n_pcrs"], claims.measurements.len(), "{file}");
    let bound = &claims.bound;
    for (field, found) in [("nonce", &bound.nonce), ("user_data", &bound.user_data), ("public_key", &bound.public_key)]
    {
        // The manifest writes an empty field as null.
        let found = found.as_ref().filter(|bytes| !bytes.is_empty()).map(hex::encode);
        let known = entry[field].as_str().filter(|known| !known.is_empty());
        assert_eq!(found.as_deref(), known, "{file}: {field}");
    }
    for (index, value) in entry["pcrs"].as_object().expect("pcrs") {
        let value = value.as_str().expect("a PCR is hex");
        let found = claims.measurements.pcr(index.parse().expect("an index")).map(hex::encode);
        assert_eq!(found.as_deref(), Some(value), "{file}: PCR{index}");
    }
    assert_eq!(entry["window"][1], claims.valid_until_unix, "{file}");
}

#[test]
fn a_chain_holds_only_in_its_window() {
    let Some(documents) = nitro_documents() else { return };
    for document in good(&documents) {
        let (begin, end) =
            (document.entry["window"][0].as_u64().unwrap(), document.entry["window"][1].as_u64().unwrap());
        let at = |time| authenticate(&document.evidence, time, &TrustAnchor::aws_nitro()).map(drop);
        assert_eq!((at(begin), at(end)), (Ok(()), Ok(())), "{}", document.file);
        assert!(matches!(at(begin - 1), Err(Refusal::Chain(ChainError::NotYetValid { .. }))), "{}", document.file);
        assert!(matches!(at(end + 1), Err(Refusal::Chain(ChainError::Expired { .. }))), "{}", document.file);
        assert!(at(0).is_err() && at(u64::MAX).is_err());
    }
}

#[test]
fn policies_are_enforced_on_real_documents() {
    let Some(documents) = nitro_documents() else { return };
    for document in good(&documents) {
        let RealDocument { file, evidence, time, .. } = document;
        let claims = authentic(document, &TrustAnchor::aws_nitro()).unwrap();
        let issued = claims.issued_at_unix().unwrap();
        let policy = believing(&claims);
        let refusal = |policy: Policy, now| verify(evidence, NONE, now, &policy).unwrap_err();

        let none = refusal(with_images(&policy, []), *time);
        assert_eq!(none, Refusal::NoMeasurements { platform: claims.platform });
        let own = claims.measurements.image().unwrap();
        let mut other = own;
        other.pcr2[47] ^= 1;
        let mismatch = refusal(with_images(&policy, [other]), *time);
        assert!(
            matches!(mismatch, Refusal::Measurement { register: Register::Pcr(2), images: 1, .. }),
            "{file}: {mismatch}"
        );
        assert!(verify(evidence, NONE, *time, &with_images(&policy, [other, own])).is_ok());
        let wrong = || Some(b"another".to_vec());
        let bound = |change: &dyn Fn(&mut casemate_attestation::Bound)| {
            let mut policy = policy.clone();
            change(&mut policy.bound);
            refusal(policy, *time)
        };
        assert!(matches!(bound(&|bound| bound.nonce = wrong()), Refusal::Nonce { .. }));
        assert!(matches!(bound(&|bound| bound.user_data = wrong()), Refusal::UserData { .. }));
        assert!(matches!(bound(&|bound| bound.public_key = wrong()), Refusal::PublicKey { .. }));
        let brief = Policy { max_age: Duration::from_mins(5), ..policy.clone() };
        assert!(verify(evidence, NONE, issued + 300, &brief).is_ok());
        assert!(matches!(refusal(brief, issued + 301), Refusal::TooOld { age_seconds: 301, max_age_seconds: 300, .. }));
        // Within the chain's window, so that only the document's own time can refuse it.
        let begin = document.entry["window"][0].as_u64().unwrap();
        if begin < issued {
            assert!(matches!(refusal(policy.clone(), issued - 1), Refusal::FromTheFuture { .. }), "{file}");
        }
        // A clock that is ten seconds behind, though the leaf began only three seconds before the document.
        let lenient = Policy { clock_skew: Duration::from_secs(10), ..policy };
        assert!(verify(evidence, NONE, issued - 10, &lenient).is_ok(), "{file}");
        assert!(verify(evidence, NONE, issued - 11, &lenient).is_err(), "{file}");
    }
}

/// An image may be named by who signed it, and a rule may ask for the instance's own registers as well.
#[test]
fn other_registers_name_an_image_too() {
    let Some(documents) = nitro_documents() else { return };
    let mut signed = 0;
    for document in good(&documents) {
        let claims = authentic(document, &TrustAnchor::aws_nitro()).unwrap();
        let mut image = believing(&claims).images.remove(0);
        let zero = |index| claims.measurements.pcr(index).is_none_or(|pcr| *pcr == [0; 48]);
        for index in [3, 4, 8].into_iter().filter(|index| !zero(*index)) {
            let register = Register::Pcr(index);
            let value = claims.measurements.get(register).unwrap().to_vec();
            let under = |image: &casemate_attestation::Image| {
                let policy = Policy { images: vec![image.clone()], ..believing(&claims) };
                verify(&document.evidence, NONE, document.time, &policy).map(drop)
            };
            image.registers.insert(register, value.clone());
            assert_eq!(under(&image), Ok(()), "{}", document.file);
            let mut other = image.clone();
            other.registers.get_mut(&register).unwrap()[0] ^= 1;
            let refusal = under(&other).unwrap_err();
            assert!(matches!(refusal, Refusal::Measurement { register: found, .. } if found == register), "{refusal}");
            if index == 8 {
                let mut by_signer = image.clone();
                by_signer.registers = [(register, value)].into();
                assert_eq!((by_signer.check(), under(&by_signer)), (Ok(()), Ok(())), "{}", document.file);
                signed += 1;
            }
        }
        // Old and new are both good while their windows last.
        let at = document.time;
        let between = |not_before_unix, not_after_unix| {
            let window = Window { not_before_unix, not_after_unix };
            let policy =
                Policy { images: vec![casemate_attestation::Image { window, ..image.clone() }], ..believing(&claims) };
            verify(&document.evidence, NONE, at, &policy).map(drop)
        };
        assert_eq!((between(at, at), between(0, u64::MAX)), (Ok(()), Ok(())));
        for refusal in [between(at + 1, u64::MAX), between(0, at - 1)] {
            assert!(matches!(refusal, Err(Refusal::ImageWindow { .. })), "{}: {refusal:?}", document.file);
        }
    }
    assert!(signed > 0);
}

#[test]
fn no_flipped_bit_is_believed() {
    let Some(documents) = nitro_documents() else { return };
    // One bit of each byte, another one from byte to byte.
    for document in good(&documents) {
        let anchor = TrustAnchor::aws_nitro();
        let mut evidence = document.evidence.clone();
        for position in 0..evidence.len() {
            let bit = 1 << (position % 8);
            evidence[position] ^= bit;
            let verdict = authenticate(&evidence, document.time, &anchor);
            assert!(verdict.is_err(), "{}: byte {position}, bit {bit:#04x}", document.file);
            evidence[position] ^= bit;
        }
    }
}

#[test]
fn no_truncated_or_lengthened_document_is_believed() {
    let Some(documents) = nitro_documents() else { return };
    let document = good(&documents).next().expect("a good document");
    let anchor = TrustAnchor::aws_nitro();
    for length in 0..document.evidence.len() {
        assert!(matches!(
            authenticate(&document.evidence[..length], document.time, &anchor),
            Err(Refusal::Envelope(_))
        ));
        let other_root = Policy::genuine();
        assert!(verify(&document.evidence[..length], NONE, document.time, &other_root).is_err());
    }
    let mut longer = document.evidence.clone();
    longer.push(0);
    assert!(matches!(authenticate(&longer, document.time, &anchor), Err(Refusal::Envelope(_))));
}

/// Prints how long a verification takes; `cargo test --release -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure_verification() {
    const ROUNDS: usize = 500;
    let Some(documents) = nitro_documents() else { return };
    let document = good(&documents).next().expect("a good document");
    let claims = authentic(document, &TrustAnchor::aws_nitro()).unwrap();
    let policy = believing(&claims);
    let mut times: Vec<_> = (0..ROUNDS)
        .map(|_| {
            let start = Instant::now();
            verify(&document.evidence, NONE, document.time, &policy).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("verify: at best {:?}, at the median {:?}", times[0], times[ROUNDS / 2]);
}
