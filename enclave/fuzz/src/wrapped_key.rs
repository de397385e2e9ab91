//! Feeds arbitrary bytes to `casemate_enclave::keys::wrap::fuzz_wrapped_key`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_enclave::keys::wrap::fuzz_wrapped_key(bytes));
