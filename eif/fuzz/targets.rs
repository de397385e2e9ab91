//! The targets of casemate-eif and their memory.

use casemate_eif::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    // The file itself is copied to mend its checksum. A signature is CBOR: a value of some 32 bytes for each of its bytes.
    Target { name: "images", run: fuzz::images, per_byte: 128, fixed: 64 * 1024 },
    // The files are copied, and written again.
    Target { name: "ramdisks", run: fuzz::ramdisks, per_byte: 8, fixed: 4 * 1024 },
];
