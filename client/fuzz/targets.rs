//! The targets of casemate-client and their memory.

use casemate_client::fuzz;
use casemate_fuzzing::Target;

pub(crate) const TARGETS: &[Target] = &[
    // A person's file of at most 128 KiB. The TOML reader makes a table of each dot, and a tree's node of about 1 KiB of each table.
    Target { name: "trust_files", run: fuzz::trust_files, per_byte: 1280, fixed: 64 * 1024 },
    Target { name: "home_files", run: fuzz::home_files, per_byte: 16, fixed: 4 * 1024 },
];
