//! Every real Nitro document of the collection gets the verdict that is known of it, and no changed one is believed.

use std::time::{Duration, Instant};

use crate::vectors::{RealDocument, nitro_documents};
use casemate_attestation::nitro::{ChainError, Document, Envelope};
use casemate_attestation::{Authenticated, Claims, Policy, Refusal, TrustAnchor, authenticate, verify};

/// Believes exactly what the document says of itself, one hour long.
fn believing(claims: &Claims) -> Policy {
    Policy {
        anchor: TrustAnchor::aws_nitro(),
        measurements: vec![claims.measurements],
        max_age: Duration::from_hours(1),
        clock_skew: Duration::ZERO,
        nonce: claims.nonce.clone(),
        user_data: claims.user_data.clone(),
        public_key: claims.public_key.clone(),
        allow_debug: false,
    }
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
                assert_eq!(verify(evidence, *time, &believing(&claims)).as_ref(), Ok(&claims), "{file}");
                assert!(!claims.debug, "{file}");
                agrees_with_manifest(document, &claims);
            }
            "chain-ok; reject:debug-mode(PCR0 zero)" => {
                let claims = claims.unwrap_or_else(|refusal| panic!("{file}: {refusal}"));
                assert!(claims.debug, "{file}");
                // Listing the zeros does not let debug enclaves in; allowing them does.
                let policy = believing(&claims);
                assert_eq!(verify(evidence, *time, &policy), Err(Refusal::Debug { pcr: 0 }), "{file}");
                let development = Policy { allow_debug: true, ..policy };
                assert_eq!(verify(evidence, *time, &development).as_ref(), Ok(&claims), "{file}");
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
    assert_eq!(entry["module_id"], claims.module_id, "{file}");
    assert_eq!(entry["n_pcrs"], claims.pcrs.len(), "{file}");
    for (field, found) in
        [("nonce", &claims.nonce), ("user_data", &claims.user_data), ("public_key", &claims.public_key)]
    {
        // The manifest writes an empty field as null.
        let found = found.as_ref().filter(|bytes| !bytes.is_empty()).map(hex::encode);
        let known = entry[field].as_str().filter(|known| !known.is_empty());
        assert_eq!(found.as_deref(), known, "{file}: {field}");
    }
    for (index, value) in entry["pcrs"].as_object().expect("pcrs") {
        let value = value.as_str().expect("a PCR is hex");
        let found = claims.pcrs.get(index.parse().expect("an index")).map(hex::encode);
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
        let issued = claims.issued_at_unix();
        let policy = believing(&claims);
        let refusal = |policy: Policy, now| verify(evidence, now, &policy).unwrap_err();

        assert_eq!(refusal(Policy { measurements: Vec::new(), ..policy.clone() }, *time), Refusal::NoMeasurements);
        let mut other = claims.measurements;
        other.pcr2[47] ^= 1;
        let mismatch = refusal(Policy { measurements: vec![other], ..policy.clone() }, *time);
        assert!(matches!(mismatch, Refusal::Measurement { pcr: 2, images: 1, .. }), "{file}: {mismatch}");
        assert!(
            verify(evidence, *time, &Policy { measurements: vec![other, claims.measurements], ..policy.clone() })
                .is_ok()
        );
        let wrong = Some(b"another".to_vec());
        assert!(matches!(refusal(Policy { nonce: wrong.clone(), ..policy.clone() }, *time), Refusal::Nonce { .. }));
        assert!(matches!(
            refusal(Policy { user_data: wrong.clone(), ..policy.clone() }, *time),
            Refusal::UserData { .. }
        ));
        assert!(matches!(refusal(Policy { public_key: wrong, ..policy.clone() }, *time), Refusal::PublicKey { .. }));
        let brief = Policy { max_age: Duration::from_mins(5), ..policy.clone() };
        assert!(verify(evidence, issued + 300, &brief).is_ok());
        assert!(matches!(refusal(brief, issued + 301), Refusal::TooOld { age_seconds: 301, max_age_seconds: 300, .. }));
        // Within the chain's window, so that only the document's own time can refuse it.
        let begin = document.entry["window"][0].as_u64().unwrap();
        if begin < issued {
            assert!(matches!(refusal(policy.clone(), issued - 1), Refusal::FromTheFuture { .. }), "{file}");
        }
        // A clock that is ten seconds behind, though the leaf began only three seconds before the document.
        let lenient = Policy { clock_skew: Duration::from_secs(10), ..policy };
        assert!(verify(evidence, issued - 10, &lenient).is_ok(), "{file}");
        assert!(verify(evidence, issued - 11, &lenient).is_err(), "{file}");
    }
}

#[test]
fn no_flipped_bit_is_believed() {
    let Some(documents) = nitro_documents() else { return };
    // One document of each encoding; one bit of each byte, another one from byte to byte.
    for name in ["Dstack-TEE-20251225-5e983e", "anjuna-security-20210317"] {
        let document = good(&documents).find(|document| document.file.contains(name)).expect("a known document");
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
            verify(&document.evidence, document.time, &policy).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("verify: at best {:?}, at the median {:?}", times[0], times[ROUNDS / 2]);
}
