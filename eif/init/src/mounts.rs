//! File systems that the supervisor and its runtime expect. The image holds nothing that is written to, and nothing that is written can be run.

use std::fs;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};

const NOTHING: Option<&str> = None;

/// A file system could not be mounted.
#[derive(Debug, thiserror::Error)]
#[error("{kind} cannot be mounted on {at}: {reason}")]
pub(crate) struct MountError {
    kind: &'static str,
    at: &'static str,
    reason: Errno,
}

struct Mount {
    kind: &'static str,
    at: &'static str,
    devices: bool,
    options: &'static str,
}

/// In this order; `/sys/fs/cgroup` comes with `/sys`.
const MOUNTS: [Mount; 6] = [
    Mount { kind: "proc", at: "/proc", devices: false, options: "" },
    Mount { kind: "sysfs", at: "/sys", devices: false, options: "" },
    Mount { kind: "devtmpfs", at: "/dev", devices: true, options: "mode=0755" },
    Mount { kind: "tmpfs", at: "/run", devices: false, options: "mode=0755,size=16m" },
    Mount { kind: "tmpfs", at: "/tmp", devices: false, options: "mode=1777,size=16m" },
    Mount { kind: "cgroup2", at: "/sys/fs/cgroup", devices: false, options: "" },
];

fn flags(mount: &Mount) -> MsFlags {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC;
    if mount.devices { flags } else { flags | MsFlags::MS_NODEV }
}

/// Mounts all of them, then makes the root read-only.
pub(crate) fn mount_all() -> Result<(), MountError> {
    for wanted in &MOUNTS {
        let Mount { kind, at, options, .. } = *wanted;
        // Where the image does not bring the folder. When it cannot be made, mounting says so.
        let _ = fs::create_dir(at);
        mount(Some(kind), at, Some(kind), flags(wanted), Some(options)).map_err(|reason| MountError {
            kind,
            at,
            reason,
        })?;
    }
    mount(NOTHING, "/", NOTHING, MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY, NOTHING).map_err(|reason| MountError {
        kind: "the root, read-only,",
        at: "/",
        reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_are_in_one_place_and_programs_in_none() {
        for mount in &MOUNTS {
            assert!(flags(mount).contains(MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC), "{}", mount.at);
            assert_eq!(flags(mount).contains(MsFlags::MS_NODEV), mount.at != "/dev", "{}", mount.at);
        }
    }

    #[test]
    fn what_lies_in_another_comes_after_it() {
        for (index, mount) in MOUNTS.iter().enumerate() {
            for earlier in &MOUNTS[..index] {
                assert!(!earlier.at.starts_with(&format!("{}/", mount.at)), "{} hides {}", mount.at, earlier.at);
            }
        }
    }
}
