//! The enclave's image, booted under emulation: one behaviour a file. Skipped, aloud, where there is no emulator or no image.

#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test may stop at the first surprise, and says what it measured"
)]

mod boots;
mod clock;
mod contents;
mod evidence;
mod residents;
