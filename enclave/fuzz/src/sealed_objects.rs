//! Feeds arbitrary bytes to `casemate_enclave::vault::fuzz::sealed_objects`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_enclave::vault::fuzz::sealed_objects(bytes));
