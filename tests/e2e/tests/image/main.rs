//! The enclave's image, booted under emulation: one behaviour a file. Skipped, aloud, where there is no emulator or no image.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod boots;
