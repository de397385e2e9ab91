//! Limits of the kernel that are made for general machines, raised for one that has thousands of processes and sockets. What is left
//! bounds the supervisor by memory alone, and it checks them at its start (`enclave/src/supervisor/machine.rs`).

use std::{fs, io};

use nix::errno::Errno;
use nix::sys::resource::{Resource, setrlimit};

/// A limit could not be raised.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KernelError {
    #[error("{path} cannot be set to {value}: {reason}")]
    Setting { path: &'static str, value: u64, reason: io::Error },
    #[error("{limit:?} cannot be set to {value}: {reason}")]
    Limit { limit: Resource, value: u64, reason: Errno },
}

/// One vault-manager for each uid that is set aside for them, and as many again for the supervisor, the kernel's threads and what is ending.
const PROCESSES: u64 = 2 * (1 << 16);
/// Both ends of a socketpair for each of them.
const FILES: u64 = 4 * PROCESSES;

const SETTINGS: [(&str, u64); 5] = [
    ("/proc/sys/kernel/pid_max", PROCESSES),
    ("/proc/sys/kernel/threads-max", PROCESSES),
    ("/proc/sys/user/max_pid_namespaces", PROCESSES),
    ("/proc/sys/fs/nr_open", FILES),
    ("/proc/sys/fs/file-max", FILES),
];

const LIMITS: [(Resource, u64); 3] =
    [(Resource::RLIMIT_NOFILE, FILES), (Resource::RLIMIT_NPROC, PROCESSES), (Resource::RLIMIT_CORE, 0)];

/// Raises them for this process and all that follow.
pub(crate) fn raise_limits() -> Result<(), KernelError> {
    for (path, value) in SETTINGS {
        fs::write(path, value.to_string()).map_err(|reason| KernelError::Setting { path, value, reason })?;
    }
    for (limit, value) in LIMITS {
        setrlimit(limit, value, value).map_err(|reason| KernelError::Limit { limit, value, reason })?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_within_what_the_kernel_takes() {
        // PID_MAX_LIMIT of a 64-bit kernel.
        const { assert!(PROCESSES <= 4 * 1024 * 1024) };
        // RLIMIT_NOFILE may not be above fs.nr_open.
        let open = SETTINGS.iter().find(|(path, _)| path.ends_with("nr_open")).unwrap().1;
        assert!(LIMITS.iter().all(|(limit, value)| *limit != Resource::RLIMIT_NOFILE || *value <= open));
        // The kernel wants whole words of a bitmap.
        assert_eq!(open % 64, 0);
    }
}
