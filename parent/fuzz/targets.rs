//! The targets of casemate-parent and their memory.

use casemate_fuzzing::Target;
use casemate_parent::fuzz;

pub(crate) const TARGETS: &[Target] = &[
    // The operator's file. The TOML reader makes a table of each dot, and a tree's node of about 1 KiB of each table.
    Target { name: "parent_configurations", run: fuzz::parent_configurations, per_byte: 1280, fixed: 64 * 1024 },
    Target { name: "answers", run: fuzz::answers, per_byte: 16, fixed: 4 * 1024 },
];
