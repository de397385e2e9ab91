//! What the kernel lets a vault-manager have, soft and hard limit alike, so that it cannot raise them again.

use std::fs;

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{SysconfVar, sysconf};

use super::errno;

/// The main thread's stack. It is not part of the memory limit, which counts data only.
const STACK_BYTES: u64 = 1024 * 1024;
/// The socket's own number, and none free beside it. Not 0, because ppoll(2) refuses to watch more descriptors than the limit.
const DESCRIPTORS: u64 = 1;

/// How much a vault-manager may have, bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    /// Of writable private memory.
    pub(super) writable: u64,
    /// Of addresses, beside that and the stack: what the zygote has, and every fork with it.
    pub(super) inherited: u64,
}

/// The addresses that this process has. To be asked while there is a `/proc`.
pub(super) fn inherited() -> nix::Result<u64> {
    let text = fs::read_to_string("/proc/self/statm").map_err(|error| errno(&error))?;
    let pages = text.split_whitespace().next().and_then(|pages| pages.parse::<u64>().ok()).ok_or(Errno::EINVAL)?;
    let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|bytes| u64::try_from(bytes).ok()).ok_or(Errno::EINVAL)?;
    pages.checked_mul(page).ok_or(Errno::EOVERFLOW)
}

const fn limits(memory: Memory) -> [(Resource, u64); 12] {
    let addresses = memory.inherited.saturating_add(memory.writable).saturating_add(STACK_BYTES);
    [
        // Counts private writable mappings whatever call made them. A breach is a failed allocation, hence an abort.
        (Resource::RLIMIT_DATA, memory.writable),
        // Attack stopped: gigabytes of page tables for memory that is read and never written, which the limit above does not count. There
        // are no more of them now than two pages for each page of addresses.
        (Resource::RLIMIT_AS, addresses),
        (Resource::RLIMIT_STACK, STACK_BYTES),
        (Resource::RLIMIT_NOFILE, DESCRIPTORS),
        (Resource::RLIMIT_NPROC, 0),
        (Resource::RLIMIT_CORE, 0),
        (Resource::RLIMIT_FSIZE, 0),
        (Resource::RLIMIT_MEMLOCK, 0),
        (Resource::RLIMIT_MSGQUEUE, 0),
        (Resource::RLIMIT_LOCKS, 0),
        (Resource::RLIMIT_NICE, 0),
        (Resource::RLIMIT_RTPRIO, 0),
    ]
}

pub(super) fn apply(memory: Memory) -> nix::Result<()> {
    limits(memory).into_iter().try_for_each(|(resource, limit)| setrlimit(resource, limit, limit))
}

pub(super) fn holds(memory: Memory) -> nix::Result<bool> {
    for (resource, limit) in limits(memory) {
        if getrlimit(resource)? != (limit, limit) {
            return Ok(false);
        }
    }
    Ok(true)
}
