//! What init says, on `/dev/console`: the kernel has opened it for the first process, as its standard error.

use std::io::Write;

/// Says a line. That nobody can hear it is no reason to stop.
pub(crate) fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("init: {line}\n").as_bytes());
}
