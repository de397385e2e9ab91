//! The targets of casemate-protocol and their memory, checks of the answers included.

use casemate_fuzzing::Target;
use casemate_protocol::fuzz;

pub(crate) const TARGETS: &[Target] = &[
    // The body is copied once, and written twice by the check.
    Target { name: "frames", run: fuzz::frames, per_byte: 4, fixed: 1024 },
    Target { name: "requests", run: fuzz::requests, per_byte: 16, fixed: 1024 },
    // Lists make room for exactly their entries, at most as many as the field may have.
    Target { name: "messages", run: fuzz::messages, per_byte: 16, fixed: 8 * 1024 },
    // What came, its copy while it grows, and the model's; a table of at most four streams.
    Target { name: "records", run: fuzz::records, per_byte: 8, fixed: 16 * 1024 },
    Target { name: "objects", run: fuzz::objects, per_byte: 6, fixed: 1024 },
    Target { name: "configurations", run: fuzz::configurations, per_byte: 4, fixed: 1024 },
    Target { name: "subjects", run: fuzz::subjects, per_byte: 16, fixed: 8 * 1024 },
    // Padded to 256 bytes at least, sealed, copied, damaged and opened; the session itself is made in the first run.
    Target { name: "sessions", run: fuzz::sessions, per_byte: 16, fixed: 16 * 1024 },
];
