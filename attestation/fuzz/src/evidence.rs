//! Feeds arbitrary bytes to `casemate_attestation::fuzz::fuzz_evidence`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_attestation::fuzz::fuzz_evidence(bytes));
