//! The targets of casemate-attestation and their memory.

use casemate_attestation::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    // A document borrows from its evidence; the bytes under the signature are a copy, made twice here.
    // With the first document AWS's root is read, and room made for what it signed.
    Target { name: "evidence", run: fuzz::evidence, per_byte: 4, fixed: 32 * 1024 },
    // Certificates are read into names and extensions, one at a time, of at most 1 KiB each.
    Target { name: "certificates", run: fuzz::certificates, per_byte: 16, fixed: 64 * 1024 },
    Target { name: "anchors", run: fuzz::anchors, per_byte: 32, fixed: 8 * 1024 },
    // The certificates behind a report are read like those of a document; what they sign stays where it is.
    Target { name: "reports", run: fuzz::reports, per_byte: 32, fixed: 64 * 1024 },
    // Read twice: framed here, and copied by dcap-qvl.
    Target { name: "quotes", run: fuzz::quotes, per_byte: 32, fixed: 64 * 1024 },
    // JSON in JSON, read into values; chains in PEM, read into certificates.
    Target { name: "collaterals", run: fuzz::collaterals, per_byte: 64, fixed: 128 * 1024 },
    Target { name: "revocation_lists", run: fuzz::revocation_lists, per_byte: 64, fixed: 16 * 1024 },
    // Read, printed and read again; the pinned roots are read with it. The reader of TOML keeps a token for each byte of what makes no sense,
    // and every error: seldom so much, and no more than in proportion.
    Target { name: "policies", run: fuzz::policies, per_byte: 1024, fixed: 128 * 1024 },
    Target { name: "bundles", run: fuzz::bundles, per_byte: 64, fixed: 128 * 1024 },
];
