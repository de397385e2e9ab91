//! The targets of casemate-client and their memory.

use casemate_client::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    // A person's file: what the TOML reader makes of it before anything is understood.
    Target { name: "trust_files", run: fuzz::trust_files, per_byte: 256, fixed: 64 * 1024 },
    Target { name: "home_files", run: fuzz::home_files, per_byte: 16, fixed: 4 * 1024 },
];
