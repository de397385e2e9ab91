//! The targets of casemate-attestation and their memory.

use casemate_attestation::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    // A document borrows from its evidence; the bytes under the signature are a copy, made twice here.
    Target { name: "evidence", run: fuzz::evidence, per_byte: 4, fixed: 16 * 1024 },
    // Certificates are read into names and extensions, one at a time, of at most 1 KiB each.
    Target { name: "certificates", run: fuzz::certificates, per_byte: 16, fixed: 64 * 1024 },
    Target { name: "anchors", run: fuzz::anchors, per_byte: 32, fixed: 4 * 1024 },
];
