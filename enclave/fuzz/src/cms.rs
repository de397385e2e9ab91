//! Feeds arbitrary bytes to `casemate_enclave::keys::cms::fuzz_cms`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_enclave::keys::cms::fuzz_cms(bytes));
