//! What must hold for any bytes at all: for fuzzers to call, and replayed by the tests over arbitrary bytes.

use std::time::Duration;

use crate::nitro::{
    Document, Envelope, MAX_BOUND_BYTES, MAX_CABUNDLE, MAX_CERTIFICATE_BYTES, MAX_MODULE_ID_BYTES, MAX_PUBLIC_KEY_BYTES,
};
use crate::{Policy, TrustAnchor, verify};

/// Parses `bytes` as evidence and as a bare document; verifies them under AWS's root.
///
/// # Panics
///
/// If a parsed document exceeds a limit, or if bytes verify under a policy that believes no image: both are defects.
pub fn fuzz_evidence(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::parse(bytes) {
        assert!(envelope.signed_bytes().ends_with(envelope.payload()));
        fuzz_document(envelope.payload());
    }
    // Directly as well, so that a fuzzer need not find the envelope first.
    fuzz_document(bytes);

    let nobody = Policy {
        anchor: TrustAnchor::aws_nitro(),
        measurements: Vec::new(),
        max_age: Duration::MAX,
        clock_skew: Duration::MAX,
        nonce: None,
        user_data: None,
        public_key: None,
        allow_debug: true,
    };
    for now_unix in [0, 1_766_668_537, u64::MAX] {
        let refusal = verify(bytes, now_unix, &nobody).expect_err("a policy without images believes nothing");
        assert!(!refusal.to_string().is_empty());
    }
}

fn fuzz_document(payload: &[u8]) {
    let Ok(document) = Document::parse(payload) else { return };
    assert!((1..=MAX_MODULE_ID_BYTES).contains(&document.module_id.len()));
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
}
