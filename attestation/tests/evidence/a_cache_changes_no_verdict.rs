//! Verifying through a cache gives the same verdict as verifying anew, whatever it has seen before.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant};

use casemate_attestation::{Authenticated, Cache, Policy, TrustAnchor, authenticate, verify};

use crate::vectors::nitro_documents;

const SIXTEEN: NonZeroUsize = NonZeroUsize::new(16).unwrap();
const LONG: Duration = Duration::from_hours(24 * 365 * 100);

fn policy(evidence: &[u8], time: u64) -> Option<Policy> {
    let anchor = TrustAnchor::aws_nitro();
    let claims = authenticate(evidence, time, &anchor).map(Authenticated::into_claims).ok()?;
    Some(Policy {
        anchor,
        measurements: vec![claims.measurements],
        // So that only the chain's end can refuse it for its age.
        max_age: LONG,
        clock_skew: Duration::from_secs(10),
        nonce: None,
        user_data: None,
        public_key: None,
        allow_debug: true,
    })
}

#[test]
fn at_any_time_and_under_any_policy() {
    let Some(documents) = nitro_documents() else { return };
    let cache = Cache::new(SIXTEEN);
    let mut believed = 0;
    for document in &documents {
        let Some(policy) = policy(&document.evidence, document.time) else { continue };
        let window = |place: usize| document.entry["window"][place].as_u64().unwrap();
        let (begin, end) = (window(0), window(1));
        let strict = Policy { allow_debug: false, nonce: Some(vec![1]), ..policy.clone() };
        let sharp = Policy { clock_skew: Duration::ZERO, ..policy.clone() };
        // Forwards and back: what was good later says nothing of earlier.
        let times = [document.time, end, end + 1, begin, begin - 1, begin - 11, document.time, u64::MAX, 0, end];
        for time in times {
            for policy in [&policy, &strict, &sharp] {
                let anew = verify(&document.evidence, time, policy);
                believed += u32::from(anew.is_ok());
                for _ in 0..2 {
                    assert_eq!(cache.verify(&document.evidence, time, policy), anew, "{} at {time}", document.file);
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
    cache.verify(&document.evidence, document.time, &policy).unwrap();
    let mut evidence = document.evidence.clone();
    for place in (0..evidence.len()).step_by(7) {
        evidence[place] ^= 1;
        assert!(cache.verify(&evidence, document.time, &policy).is_err(), "byte {place}");
        evidence[place] ^= 1;
    }
    let forged = documents.iter().find(|document| document.expected.starts_with("reject:not-aws-root")).unwrap();
    let envelope = casemate_attestation::nitro::Envelope::parse(&forged.evidence).unwrap();
    let root = casemate_attestation::nitro::Document::parse(envelope.payload()).unwrap().cabundle[0].to_vec();
    let other = Policy { anchor: TrustAnchor::from_der(root).unwrap(), ..policy };
    assert!(cache.verify(&evidence, document.time, &other).is_err());
    let oversize = vec![0; casemate_attestation::MAX_EVIDENCE_BYTES + 1];
    assert_eq!(cache.verify(&oversize, 0, &other), verify(&oversize, 0, &other));
}

/// Prints how long a hit takes; `cargo test --release -- --ignored --nocapture measure`.
#[test]
#[ignore = "a measurement"]
fn measure_a_hit() {
    let Some(documents) = nitro_documents() else { return };
    let document = documents.iter().find(|document| document.expected == "ok").unwrap();
    let policy = policy(&document.evidence, document.time).unwrap();
    let cache = Cache::new(SIXTEEN);
    let mut times: Vec<_> = (0..1000)
        .map(|_| {
            let start = Instant::now();
            cache.verify(&document.evidence, document.time, &policy).unwrap();
            start.elapsed()
        })
        .collect();
    times.sort();
    println!("a hit of {} bytes: {:?} at the median", document.evidence.len(), times[500]);
}
