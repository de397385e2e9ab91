//! One control group for the zygote and all its children: together they can take neither the memory nor the process numbers that
//! the supervisor lives on. When they reach the limit of memory, the kernel ends one of them and not the supervisor.
//!
//! It is there where this process finds itself in the root of a version 2 hierarchy that has the controllers to give, as in an
//! enclave. On a machine where a service manager or a container keeps the hierarchy, or where it is of version 1, the layer is absent:
//! another's groups are not ours to rearrange. Health says so.
#![allow(unsafe_code)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::sys::sysinfo::sysinfo;

use super::{SLOTS, errno};

const NAME: &str = "vault-managers";
/// The sixteenth part of memory is the supervisor's and the kernel's. Eviction begins far below (`memory_high_percent`): this is for when
/// it comes too late.
const LEFT_TO_OTHERS: u64 = 16;
/// Everybody that there can be, and the zygote.
const PROCESSES: u32 = SLOTS + 1;
/// `FSOPEN_CLOEXEC` and `FSMOUNT_CLOEXEC` of linux/mount.h.
const CLOSE_ON_EXEC: u32 = 1;
/// `FSCONFIG_CMD_CREATE`.
const CREATE: u32 = 6;

/// Enters the group; whether there is one.
pub(super) fn enter() -> nix::Result<bool> {
    // Mounted first: before its first mount the kernel does not tell of the hierarchy at all.
    let Some(root) = hierarchy()? else { return Ok(false) };
    if own_group().as_deref() != Some("/") {
        return Ok(false);
    }
    let offered = read(&root, "cgroup.controllers")?;
    if !["memory", "pids"].iter().all(|wanted| offered.split_whitespace().any(|name| name == *wanted)) {
        return Ok(false);
    }
    match write(&root, "cgroup.subtree_control", "+memory +pids") {
        // What looks like the root is a container's group.
        Err(Errno::EBUSY) => return Ok(false),
        other => other?,
    }
    match mkdirat(&root, NAME, Mode::from_bits_truncate(0o755)) {
        // Of an earlier run.
        Ok(()) | Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    let group = openat(&root, NAME, OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let memory = sysinfo()?.ram_total();
    write(&group, "memory.max", &(memory - memory / LEFT_TO_OTHERS).to_string())?;
    write(&group, "pids.max", &PROCESSES.to_string())?;
    // Oneself.
    write(&group, "cgroup.procs", "0")?;
    Ok(true)
}

/// Whether the group has this process, and its children with it.
pub(super) fn holds() -> bool {
    own_group().as_deref() == Some("/vault-managers")
}

/// This process's group in the version 2 hierarchy, the one with number 0.
fn own_group() -> Option<String> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    groups.lines().find_map(|line| line.strip_prefix("0::")).map(ToOwned::to_owned)
}

/// The root of the version 2 hierarchy, mounted at no place, for nobody else to see; none when the kernel has none.
fn hierarchy() -> nix::Result<Option<OwnedFd>> {
    // SAFETY: the name ends with a zero and lives through the call.
    let context = match own(unsafe { libc::syscall(libc::SYS_fsopen, c"cgroup2".as_ptr(), CLOSE_ON_EXEC) }) {
        Err(Errno::ENODEV) => return Ok(None),
        other => other?,
    };
    let none: *const libc::c_char = ptr::null();
    // SAFETY: this command takes no key and no value.
    let made = unsafe { libc::syscall(libc::SYS_fsconfig, context.as_raw_fd(), CREATE, none, none, 0) };
    Errno::result(made)?;
    // SAFETY: the call takes numbers only.
    own(unsafe { libc::syscall(libc::SYS_fsmount, context.as_raw_fd(), CLOSE_ON_EXEC, 0) }).map(Some)
}

fn own(result: libc::c_long) -> nix::Result<OwnedFd> {
    let fd = i32::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for the caller.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn open(directory: &OwnedFd, name: &str, access: OFlag) -> nix::Result<File> {
    openat(directory, name, access | OFlag::O_CLOEXEC, Mode::empty()).map(File::from)
}

fn read(directory: &OwnedFd, name: &str) -> nix::Result<String> {
    let mut text = String::new();
    open(directory, name, OFlag::O_RDONLY)?.read_to_string(&mut text).map_err(|error| errno(&error))?;
    Ok(text)
}

/// In one write, as the kernel wants it.
fn write(directory: &OwnedFd, name: &str, value: &str) -> nix::Result<()> {
    let written = open(directory, name, OFlag::O_WRONLY)?.write(value.as_bytes());
    written.map(drop).map_err(|error| errno(&error))
}
