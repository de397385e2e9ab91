//! The fuzz targets of casemate-eif behind libFuzzer; the environment variable `CASEMATE_FUZZ_TARGET` names one of them.

#![no_main]

#[path = "../targets.rs"]
mod targets;

#[global_allocator]
static METER: casemate_fuzzing::Meter = casemate_fuzzing::Meter;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    casemate_fuzzing::chosen(targets::TARGETS).take(bytes);
});
