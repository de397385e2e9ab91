//! Feeds arbitrary bytes to `casemate_protocol::fuzz::parsers`.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| casemate_protocol::fuzz::parsers(bytes));
