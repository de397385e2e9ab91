//! The targets of casemate-enclave and their memory.

use casemate_enclave::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    Target { name: "cms", run: fuzz::cms, per_byte: 8, fixed: 2 * 1024 },
    Target { name: "stored_keys", run: fuzz::stored_keys, per_byte: 8, fixed: 4 * 1024 },
    // Bodies are authentic before they are decoded. A change of four bytes becomes a value of some hundred.
    Target { name: "bodies", run: fuzz::bodies, per_byte: 128, fixed: 16 * 1024 },
    // Sealed, opened, and folded twice: by the chain and by the model. Each object is padded to 256 bytes.
    Target { name: "chains", run: fuzz::chains, per_byte: 1024, fixed: 32 * 1024 },
    Target { name: "sockets", run: fuzz::sockets, per_byte: 24, fixed: 16 * 1024 },
    Target { name: "control", run: fuzz::configurations, per_byte: 8, fixed: 4 * 1024 },
];
