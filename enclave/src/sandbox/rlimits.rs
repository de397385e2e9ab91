//! What the kernel lets a vault-manager have, soft and hard limit alike, so that it cannot raise them again.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The main thread's stack. It is not part of the memory limit, which counts data only.
const STACK_BYTES: u64 = 1024 * 1024;
/// The socket's own number, and none free beside it. Not 0, because ppoll(2) refuses to watch more descriptors than the limit.
const DESCRIPTORS: u64 = 1;

const fn limits(memory_bytes: u64) -> [(Resource, u64); 11] {
    [
        // Counts private writable mappings whatever call made them. A breach is a failed allocation, hence an abort.
        (Resource::RLIMIT_DATA, memory_bytes),
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

pub(super) fn apply(memory_bytes: u64) -> nix::Result<()> {
    limits(memory_bytes).into_iter().try_for_each(|(resource, limit)| setrlimit(resource, limit, limit))
}

pub(super) fn holds(memory_bytes: u64) -> nix::Result<bool> {
    for (resource, limit) in limits(memory_bytes) {
        if getrlimit(resource)? != (limit, limit) {
            return Ok(false);
        }
    }
    Ok(true)
}
