//! What must hold for any bytes at all, one plain function for each parser: for coverage-guided fuzzing (`eif/fuzz`), and
//! replayed by the tests over corpora.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken.

use crate::cpio;
use crate::header::{CRC_AT, HEADER_BYTES, Header, Kind, SECTION_HEADER_BYTES};
use crate::kernel;
use crate::parse::{self, ParseError, Parsed};

/// An image. Its checksum is mended first, as a forger would: everything behind it is what is to be tried.
///
/// # Panics
/// When a promise is broken: an image of which a byte is in no section, or is measured when none is there.
pub fn images(bytes: &[u8]) -> bool {
    let mut file = bytes.to_vec();
    if let Some(place) = file.get_mut(CRC_AT..HEADER_BYTES) {
        place.copy_from_slice(&parse::checksum(bytes).to_be_bytes());
    }
    let parsed = match Parsed::parse(&file) {
        Ok(parsed) => parsed,
        Err(error) => {
            assert!(!matches!(error, ParseError::Checksum { .. }), "the checksum is the file's");
            assert!((1..400).contains(&error.to_string().len()), "a refusal is for people");
            return false;
        }
    };
    let sections = parsed.sections();
    let content: usize = sections.iter().map(|section| SECTION_HEADER_BYTES + section.bytes.len()).sum();
    assert_eq!(HEADER_BYTES + content, file.len(), "every byte is somewhere");
    assert_eq!(file.first_chunk().map(Header::decode), Some(Ok(parsed.header().clone())));
    assert_eq!(sections.iter().filter(|section| section.kind == Kind::Kernel).count(), 1);
    let signed = parsed.of_kind(Kind::Signature).next().is_some();
    match parsed.verify() {
        Ok(measurements) => assert_eq!(measurements.pcr8.is_some(), signed),
        Err(_) => assert!(signed, "nothing but a signature can be wrong"),
    }
    let _ = parsed.metadata();
    let _ = parsed.of_kind(Kind::Kernel).next().map(kernel::release);
    true
}

/// The archive of a ramdisk.
///
/// # Panics
/// When one is taken that is not the one form of what is in it.
pub fn ramdisks(bytes: &[u8]) -> bool {
    let Ok(ramdisk) = cpio::read(bytes) else { return false };
    assert_eq!(cpio::write(&ramdisk), bytes, "one ramdisk, one measurement");
    true
}
