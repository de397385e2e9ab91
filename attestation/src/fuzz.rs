//! What must hold for any bytes at all, one plain function for each parser: for coverage-guided fuzzing (`attestation/fuzz`), and
//! replayed by the tests over corpora and arbitrary bytes.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken.

use std::sync::LazyLock;
use std::time::Duration;

use crate::intel::{IntelCollateral, Quote};
use crate::nitro::{
    Document, Envelope, MAX_BOUND_BYTES, MAX_CABUNDLE, MAX_CERTIFICATE_BYTES, MAX_MODULE_ID_BYTES, MAX_PUBLIC_KEY_BYTES,
};
use crate::snp::{CertificateTable, REPORT_BYTES, Report};
use crate::{
    Bundle, Collateral, MAX_EVIDENCE_BYTES, Platform, Policy, Product, Refusal, TrustAnchor, crl, nitro, verify,
};

/// A policy that believes no image, whoever signed for it.
static NOBODY: LazyLock<Policy> = LazyLock::new(|| Policy {
    any_image: false,
    max_age: Duration::MAX,
    clock_skew: Duration::MAX,
    allow_debug: true,
    ..Policy::genuine()
});

/// Times to verify at: some of them within what seeds are good for.
const TIMES: [u64; 3] = [0, 1_766_668_537, u64::MAX];

/// Verifies `bytes` with `collateral` under a policy that believes no image.
fn is_not_believed(bytes: &[u8], collateral: &Collateral) {
    let now_unix = TIMES[bytes.len() % TIMES.len()];
    let refusal = verify(bytes, collateral, now_unix, &NOBODY).expect_err("a policy without images believes nothing");
    assert!(!refusal.to_string().is_empty());
}

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
    is_not_believed(bytes, &Collateral::NONE);
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
    let authenticated = nitro::authenticate(bytes, now_unix, &anchor);
    let aws = TrustAnchor::aws_nitro();
    let is_foreign = anchor != aws;
    let policy = Policy { max_age: Duration::MAX, allow_debug: true, ..Policy::nitro(anchor, []) };
    match &authenticated {
        Ok(_) => {
            let verdict = verify(bytes, &Collateral::NONE, now_unix, &policy);
            assert_eq!(verdict, Err(Refusal::NoMeasurements { platform: Platform::Nitro }));
        }
        Err(refusal) => assert!(!refusal.to_string().is_empty()),
    }
    if is_foreign {
        assert!(nitro::authenticate(bytes, now_unix, &aws).is_err(), "another root");
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

/// Reads `bytes` as a SEV-SNP report with its certificates behind it, and verifies it under AMD's roots.
///
/// # Panics
///
/// If what was parsed is not what was there, or is believed.
pub fn reports(bytes: &[u8]) -> bool {
    is_not_believed(bytes, &Collateral::NONE);
    let (report, table) = bytes.split_at(bytes.len().min(REPORT_BYTES));
    if let Ok(table) = CertificateTable::parse(table) {
        let again = table.encode();
        assert_eq!(CertificateTable::parse(&again).as_ref(), Ok(&table));
        for certificate in table.certificates() {
            assert!(certificate.len() <= bytes.len());
        }
    }
    let Ok(report) = Report::parse(report) else { return false };
    assert!(bytes.starts_with(report.signed_bytes()));
    assert!((2..=5).contains(&report.version()));
    for product in Product::ALL {
        let _ = (report.current_tcb(product), report.committed_tcb(product), report.launch_tcb(product));
    }
    true
}

/// Reads `bytes` as an SGX or TDX quote, and verifies it without collateral.
///
/// # Panics
///
/// If what was parsed is not what was there, if it is believed, or if `dcap-qvl` reads another quote from the same bytes.
pub fn quotes(bytes: &[u8]) -> bool {
    is_not_believed(bytes, &Collateral::NONE);
    if bytes.len() > MAX_EVIDENCE_BYTES {
        return false;
    }
    let Ok(quote) = Quote::parse(bytes) else { return false };
    assert!(bytes.starts_with(quote.signed_bytes()));
    assert!(quote.chain().is_none_or(|chain| chain.len() < bytes.len()));
    let theirs = dcap_qvl::quote::Quote::parse(bytes).expect("what is framed rightly is read by them too");
    assert_eq!(theirs.signed_length(), quote.signed_bytes().len());
    true
}

/// Reads `bytes` as Intel's collateral in JSON; verifies a real quote's framing with it.
///
/// # Panics
///
/// If a quote is believed with it.
pub fn collaterals(bytes: &[u8]) -> bool {
    let Ok(collateral) = IntelCollateral::parse(bytes) else { return false };
    is_not_believed(&EMPTY_QUOTE, &Collateral::intel(collateral));
    true
}

/// A quote of an SGX enclave whose lengths are right and in which everything is zero, so that collateral is looked at.
static EMPTY_QUOTE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut quote = vec![0; 48 + 384];
    quote[..8].copy_from_slice(&[3, 0, 2, 0, 0, 0, 0, 0]);
    quote[12..28].copy_from_slice(&dcap_qvl::INTEL_QE_VENDOR_ID);
    let signature = 64 + 64 + 384 + 64 + 2 + 32 + 2 + 4;
    quote.extend(u32::try_from(signature).expect("a few hundred").to_le_bytes());
    let start = quote.len();
    quote.resize(start + signature, 0);
    quote[start + 576] = 32;
    quote[start + 610] = 5;
    quote
});

/// Reads `bytes` as a revocation list, and asks it.
///
/// # Panics
///
/// If a list that AMD did not sign is taken for AMD's.
pub fn revocation_lists(bytes: &[u8]) -> bool {
    crl::is_taken(bytes)
}

/// Reads `bytes` as a policy in TOML.
///
/// # Panics
///
/// If a policy that was read prints itself as another one, or if it believes what no policy may.
pub fn policies(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(policy) = Policy::parse(text) else { return false };
    assert!(!policy.platforms().is_empty() && policy.images.len() <= Policy::MAX_IMAGES);
    assert!(policy.images.iter().all(|image| image.check().is_ok()));
    assert_eq!(Policy::parse(&policy.to_string()), Ok(policy));
    true
}

/// Reads `bytes` as a bundle: raw, base64 or JSON.
///
/// # Panics
///
/// If its evidence is believed.
pub fn bundles(bytes: &[u8]) -> bool {
    let Ok(bundle) = Bundle::parse(bytes) else { return false };
    assert!(bundle.evidence.len() <= bytes.len());
    is_not_believed(&bundle.evidence, &bundle.collateral);
    true
}
