//! A PID namespace for each vault-manager, which is its first and only process: no other process has a number that it could name,
//! be it to signal, to trace or to read its memory.
//!
//! The zygote sends its next child into a new namespace and then turns back to its own, to which its pidfd leads. It never enters one
//! itself, and sees its children by the numbers of its own.

use std::os::fd::OwnedFd;

use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{Pid, getpid};

/// The next child shall be the first process of a new namespace.
pub(super) fn begin() -> nix::Result<()> {
    unshare(CloneFlags::CLONE_NEWPID)
}

/// Later children shall not. A zygote that cannot turn back must not fork again: its next child would be put with this one.
pub(super) fn end(zygote: &OwnedFd) -> nix::Result<()> {
    setns(zygote, CloneFlags::CLONE_NEWPID)
}

pub(super) fn holds() -> bool {
    getpid() == Pid::from_raw(1)
}
