//! No core dump, no ptrace, and a `/proc/<pid>` that belongs to root.

use nix::sys::prctl;

pub(crate) fn apply() -> nix::Result<()> {
    prctl::set_dumpable(false)
}

pub(super) fn holds() -> nix::Result<bool> {
    prctl::get_dumpable().map(|dumpable| !dumpable)
}
