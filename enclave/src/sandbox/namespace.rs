//! Network, IPC and UTS namespaces: made once, entered by the zygote, shared by all its children. Nothing is in them: no interface
//! is up, no queue or segment exists, and the host's name is not the machine's.
//!
//! One for each vault would cost more memory than the vault (a network namespace 230 KiB), and would stop nothing more: no call by
//! which two vault-managers could meet in them is on the seccomp list, and what landlock and `rlimits` leave needs a descriptor.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::sethostname;

/// What uname(2) tells in place of the machine's name.
const HOST_NAME: &str = "vault-manager";

pub(super) fn enter_network() -> nix::Result<bool> {
    enter(CloneFlags::CLONE_NEWNET, "net")
}

pub(super) fn enter_ipc() -> nix::Result<bool> {
    enter(CloneFlags::CLONE_NEWIPC, "ipc")
}

pub(super) fn enter_uts() -> nix::Result<bool> {
    let is_another = enter(CloneFlags::CLONE_NEWUTS, "uts")?;
    if is_another {
        sethostname(HOST_NAME)?;
    }
    Ok(is_another)
}

/// Enters a new namespace; whether the kernel says that it is another one than before.
fn enter(kind: CloneFlags, name: &str) -> nix::Result<bool> {
    let before = identity(name)?;
    unshare(kind)?;
    Ok(identity(name)? != before)
}

fn identity(name: &str) -> nix::Result<u64> {
    let entry = fs::metadata(format!("/proc/self/ns/{name}"));
    entry.map(|entry| entry.ino()).map_err(|error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw))
}
