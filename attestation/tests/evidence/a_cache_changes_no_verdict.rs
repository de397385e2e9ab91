//! Verifying through a cache gives the same verdict as verifying anew, whatever it has seen before.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use casemate_attestation::nitro::{Authenticated, authenticate};
use casemate_attestation::{
    Cache, Collateral, IntelRules, Policy, Refusal, TcbStatus, TrustAnchor, verify, verify_batch,
};

use crate::vectors::{intel_quotes, nitro_documents, snp_reports};

const SIXTEEN: NonZeroUsize = NonZeroUsize::new(16).unwrap();
const LONG: Duration = Duration::from_hours(24 * 365 * 100);
const NONE: &Collateral = &Collateral::NONE;

fn policy(evidence: &[u8], time: u64) -> Option<Policy> {
    let anchor = TrustAnchor::aws_nitro();
    let claims = authenticate(evidence, time, &anchor).map(Authenticated::into_claims).ok()?;
    Some(Policy {
        // So that only the chain's end can refuse it for its age.
        max_age: LONG,
        clock_skew: Duration::from_secs(10),
        allow_debug: true,
        ..Policy::nitro(anchor, claims.measurements.image())
    })
}

/// Believes whatever is genuine, of every platform.
fn lenient() -> Policy {
    let intel = IntelRules { statuses: TcbStatus::ALL.into(), allow_service_td: true, ..IntelRules::default() };
    Policy { sgx: Some(intel.clone()), tdx: Some(intel), max_age: LONG, allow_debug: true, ..Policy::genuine() }
}

#[test]
fn at_any_time_and_under_any_policy() {
    let Some(documents) = nitro_documents() else { return };
    let cache = Cache::new(SIXTEEN);
    let mut believed = 0;
    for document in &documents {
        let Some(policy) = policy(&document.evidence, document.time) else { continue };
        let (begin, end) = document.window();
        let mut strict = Policy { allow_debug: false, ..policy.clone() };
        strict.bound.nonce = Some(vec![1]);
        let sharp = Policy { clock_skew: Duration::ZERO, ..policy.clone() };
        // Forwards and back: what was good later says nothing of earlier.
        let times = [document.time, end, end + 1, begin, begin - 1, begin - 11, document.time, u64::MAX, 0, end];
        for time in times {
            for policy in [&policy, &strict, &sharp] {
                let anew = verify(&document.evidence, NONE, time, policy);
                believed += u32::from(anew.is_ok());
                for _ in 0..2 {
                    let cached = cache.verify(&document.evidence, NONE, time, policy).map(|claims| (*claims).clone());
                    assert_eq!(cached, anew, "{} at {time}", document.file);
                }
            }
        }
    }
    assert!(believed > 50, "{believed}");
}

#[test]
fn no_changed_byte_and_no_other_anchor_profits() {
    let Some(documents) = nitro_documents() else { return };
    let document = documents.iter().find(|document| document.expected == "ok").unwrap();
    let policy = policy(&document.evidence, document.time).unwrap();
    let cache = Cache::new(SIXTEEN);
    cache.verify(&document.evidence, NONE, document.time, &policy).unwrap();
    let mut evidence = document.evidence.clone();
    for place in (0..evidence.len()).step_by(7) {
        evidence[place] ^= 1;
        assert!(cache.verify(&evidence, NONE, document.time, &policy).is_err(), "byte {place}");
        evidence[place] ^= 1;
    }
    let forged = documents.iter().find(|document| document.expected.starts_with("reject:not-aws-root")).unwrap();
    let envelope = casemate_attestation::nitro::Envelope::parse(&forged.evidence).unwrap();
    let root = casemate_attestation::nitro::Document::parse(envelope.payload()).unwrap().cabundle[0].to_vec();
    let other = Policy { nitro: Policy::nitro(TrustAnchor::from_der(root).unwrap(), []).nitro, ..policy };
    assert!(cache.verify(&evidence, NONE, document.time, &other).is_err());
    let oversize = vec![0; casemate_attestation::MAX_EVIDENCE_BYTES + 1];
    assert_eq!(cache.verify(&oversize, NONE, 0, &other).map(drop), verify(&oversize, NONE, 0, &other).map(drop));
}

#[test]
fn of_any_platform_alone_and_in_batches() {
    let (Some(nitro), Some(snp), Some(intel)) = (nitro_documents(), snp_reports(), intel_quotes()) else { return };
    let cache = Cache::new(SIXTEEN);
    let policies =
        [lenient(), Policy::genuine(), Policy { any_image: false, ..lenient() }, Policy { snp: None, ..lenient() }];
    let all: Vec<_> = nitro.iter().chain(&snp).chain(&intel).collect();
    let mut believed = 0;
    for policy in &policies {
        for piece in &all {
            let (_, end) = if piece.entry["window"].is_array() { piece.window() } else { (0, piece.time) };
            for time in [piece.time, end, end + 1, piece.time] {
                let anew = verify(&piece.evidence, &piece.collateral, time, policy);
                believed += u32::from(anew.is_ok());
                for _ in 0..2 {
                    let cached = cache.verify(&piece.evidence, &piece.collateral, time, policy);
                    assert_eq!(cached.map(|claims| (*claims).clone()), anew, "{} at {time}", piece.file);
                }
            }
        }
    }
    assert!(believed > 100, "{believed}");
    // Each twice, so that the second one finds what the first one left.
    let pieces: Vec<_> = all.iter().chain(&all).map(|piece| (piece.evidence.as_slice(), &piece.collateral)).collect();
    for time in all.iter().map(|piece| piece.time).filter(|time| *time > 0).step_by(5) {
        let batch = verify_batch(&pieces, time, &lenient());
        for (verdict, (evidence, collateral)) in batch.iter().zip(&pieces) {
            assert_eq!(*verdict, verify(evidence, collateral, time, &lenient()));
        }
    }
}

/// Bytes that nobody signed can be written otherwise by anybody: that is verified anew, and takes no second place.
#[test]
fn other_unsigned_bytes_are_no_hit() {
    let Some(quotes) = intel_quotes() else { return };
    let quote = quotes.iter().find(|quote| quote.expected.starts_with("verify ok")).expect("a good quote");
    let cache = Cache::new(NonZeroUsize::MIN);
    let verdict = |evidence: &[u8]| cache.verify(evidence, &quote.collateral, quote.time, &lenient());
    verdict(&quote.evidence).unwrap();
    let mut padded = quote.evidence.clone();
    padded.extend([0; 16]);
    assert!(verdict(&padded).is_ok());
    let mut forged = quote.evidence.clone();
    let signature = casemate_attestation::intel::Quote::parse(&forged).unwrap().signed_bytes().len() + 4;
    forged[signature] ^= 1;
    assert_eq!(verdict(&forged).unwrap_err(), Refusal::Signature);
    assert!(verdict(&quote.evidence).is_ok());
}

/// Prints how long a verification and a hit take; `cargo test --release -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure_a_hit() {
    let (Some(nitro), Some(snp), Some(intel)) = (nitro_documents(), snp_reports(), intel_quotes()) else { return };
    let policy = lenient();
    let median = |judge: &dyn Fn()| {
        let mut times: Vec<_> = (0..500)
            .map(|_| {
                let start = Instant::now();
                judge();
                start.elapsed()
            })
            .collect();
        times.sort();
        times[250]
    };
    for piece in nitro.iter().chain(&snp).chain(&intel) {
        let cache = Cache::new(SIXTEEN);
        let (evidence, collateral, time) = (&piece.evidence, &piece.collateral, piece.time);
        if cache.verify(evidence, collateral, time, &policy).is_err() {
            continue;
        }
        let anew = median(&|| drop(verify(evidence, collateral, time, &policy).unwrap()));
        let hit = median(&|| drop(cache.verify(evidence, collateral, time, &policy).unwrap()));
        println!("{}, {} bytes: {anew:?} anew, {hit:?} from the cache, at the median", piece.file, evidence.len());
    }
}
