//! What must hold for any bytes at all, one plain function for each parser: for coverage-guided fuzzing (`attestation/fuzz`), and
//! replayed by the tests over corpora and arbitrary bytes.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken.

use std::sync::LazyLock;
use std::time::Duration;

use crate::nitro::{
    Document, Envelope, MAX_BOUND_BYTES, MAX_CABUNDLE, MAX_CERTIFICATE_BYTES, MAX_EVIDENCE_BYTES, MAX_MODULE_ID_BYTES,
    MAX_PUBLIC_KEY_BYTES,
};
use crate::{Policy, Refusal, TrustAnchor, authenticate, verify};

/// A policy that believes no image, whoever signed for it.
static NOBODY: LazyLock<Policy> = LazyLock::new(|| Policy {
    anchor: TrustAnchor::aws_nitro(),
    measurements: Vec::new(),
    max_age: Duration::MAX,
    clock_skew: Duration::MAX,
    nonce: None,
    user_data: None,
    public_key: None,
    allow_debug: true,
});

/// Parses `bytes` as evidence and as a bare document, and verifies them under AWS's root.
///
/// # Panics
///
/// If a parsed envelope or document exceeds a limit, or if bytes verify under a policy that believes no image.
pub fn evidence(bytes: &[u8]) -> bool {
    let envelope = Envelope::parse(bytes);
    if let Ok(envelope) = &envelope {
        assert!(bytes.len() <= MAX_EVIDENCE_BYTES);
        assert!(envelope.signed_bytes().ends_with(envelope.payload()));
        // Nobody signs how the envelope is written, so there is one way to write it, but for the tag.
        let untagged = bytes.strip_prefix(&[0xd2]).unwrap_or(bytes);
        assert_eq!(Envelope::parse(untagged).as_ref(), Ok(envelope));
        // The signed structure has a word of 11 bytes and an empty string where the envelope has an empty map and a signature.
        assert_eq!(envelope.signed_bytes().len() - 12 + 1 + 98, untagged.len(), "nothing else is in it");
    }
    let enclosed = envelope.is_ok_and(|envelope| document(envelope.payload()));
    // Directly as well, so that a fuzzer need not find the envelope first.
    let bare = document(bytes);
    let now_unix = [0, 1_766_668_537, u64::MAX][bytes.len() % 3];
    let refusal = verify(bytes, now_unix, &NOBODY).expect_err("a policy without images believes nothing");
    assert!(!refusal.to_string().is_empty());
    enclosed || bare
}

fn document(payload: &[u8]) -> bool {
    let Ok(document) = Document::parse(payload) else { return false };
    assert!((1..=MAX_MODULE_ID_BYTES).contains(&document.module_id.len()));
    assert!(document.module_id.bytes().all(|byte| byte.is_ascii_graphic()));
    assert!((1..=MAX_CABUNDLE).contains(&document.cabundle.len()));
    for certificate in document.cabundle.iter().chain([&document.certificate]) {
        assert!((1..=MAX_CERTIFICATE_BYTES).contains(&certificate.len()));
    }
    assert!(document.public_key.is_none_or(|key| key.len() <= MAX_PUBLIC_KEY_BYTES));
    for bound in [document.user_data, document.nonce].into_iter().flatten() {
        assert!(bound.len() <= MAX_BOUND_BYTES);
    }
    assert!((3..=32).contains(&document.pcrs.len()));
    assert_eq!(document.pcrs.get(0), Some(&document.measurements.pcr0));
    assert_ne!(document.timestamp_unix_ms, 0);
    true
}

/// Takes the evidence's own root for the anchor, so that certificates are read and the path is judged as if the root were right.
/// Taken: when the evidence authenticates under it.
///
/// # Panics
///
/// If evidence is believed that names no image, or under AWS's root although its own is another.
pub fn certificates(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(bytes) else { return false };
    let Ok(document) = Document::parse(envelope.payload()) else { return false };
    let Ok(anchor) = TrustAnchor::from_der(document.cabundle[0].to_vec()) else { return false };
    let now_unix = document.timestamp_unix_ms / 1000;
    let authenticated = authenticate(bytes, now_unix, &anchor);
    let is_foreign = anchor != NOBODY.anchor;
    let policy = Policy { anchor, ..NOBODY.clone() };
    match &authenticated {
        Ok(_) => assert!(matches!(verify(bytes, now_unix, &policy), Err(Refusal::NoMeasurements))),
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    if is_foreign {
        assert!(authenticate(bytes, now_unix, &NOBODY.anchor).is_err(), "another root");
    }
    authenticated.is_ok()
}

/// Reads `bytes` as a root certificate that an operator names.
///
/// # Panics
///
/// If an anchor is not the bytes that it was read from.
pub fn anchors(bytes: &[u8]) -> bool {
    let Ok(anchor) = TrustAnchor::from_der(bytes.to_vec()) else { return false };
    assert!(bytes.len() <= TrustAnchor::MAX_BYTES);
    assert_eq!(anchor.der().as_ref(), bytes);
    true
}
