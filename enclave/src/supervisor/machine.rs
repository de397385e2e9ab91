//! How many vaults this machine can hold: checked at start, so that a limit is met with a stated reason and not with a failing call under load.

use std::fmt;
use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::router::{CLOSING_SLOTS, half_open};
use crate::sandbox::SLOTS;

/// Descriptors that the supervisor needs beside one for each vault.
const OWN_DESCRIPTORS: u64 = 128;
/// Processes and threads that are not vault-managers.
const OTHER_PROCESSES: u64 = 256;
/// PID namespaces of others, and of vault-managers whose end the kernel has not cleared away yet.
const OTHER_NAMESPACES: u64 = 16;
/// Fewer vaults than this make no node.
const FEWEST: u32 = 8;

/// What sets the limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    /// RLIMIT_NOFILE: one descriptor for each vault-manager's socket.
    OpenFiles,
    /// `/proc/sys/fs/file-max`: two ends of each socket.
    FileMax,
    /// `/proc/sys/kernel/pid_max`.
    PidMax,
    /// `/proc/sys/kernel/threads-max`.
    ThreadsMax,
    /// `/proc/sys/user/max_pid_namespaces`: one for each vault-manager.
    PidNamespaces,
    /// The uids that are set aside.
    Slots,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::OpenFiles => "the hard limit of open files (RLIMIT_NOFILE)",
            Self::FileMax => "/proc/sys/fs/file-max",
            Self::PidMax => "/proc/sys/kernel/pid_max",
            Self::ThreadsMax => "/proc/sys/kernel/threads-max",
            Self::PidNamespaces => "/proc/sys/user/max_pid_namespaces",
            Self::Slots => "the number of uids set aside for vault-managers",
        })
    }
}

/// How many vaults the machine can hold, and what sets that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capacity {
    /// Resident vaults.
    pub vaults: u32,
    /// What sets it.
    pub bound: Bound,
}

/// The machine is too small.
#[derive(Debug, Clone, thiserror::Error)]
pub enum MachineError {
    /// Fewer vaults than make a node.
    #[error("only {vaults} vaults would fit on this machine, at least {FEWEST} must; raise {bound}")]
    TooSmall {
        /// How many.
        vaults: u32,
        /// Why.
        bound: Bound,
    },
    /// A limit could not be read.
    #[error("the limit of open files cannot be read: {0}")]
    Unreadable(nix::errno::Errno),
}

/// Raises what may be raised and reads what holds.
///
/// # Errors
/// See [`MachineError`].
pub fn capacity() -> Result<Capacity, MachineError> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(MachineError::Unreadable)?;
    // The soft limit is there for programs that still use select(2).
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(MachineError::Unreadable)?;
    let read = |path: &str| fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    let bounds = [
        (Bound::OpenFiles, hard.saturating_sub(OWN_DESCRIPTORS)),
        (Bound::FileMax, read("/proc/sys/fs/file-max").saturating_sub(OWN_DESCRIPTORS) / 2),
        (Bound::PidMax, read("/proc/sys/kernel/pid_max").saturating_sub(OTHER_PROCESSES)),
        (Bound::ThreadsMax, read("/proc/sys/kernel/threads-max").saturating_sub(OTHER_PROCESSES)),
        (Bound::PidNamespaces, read("/proc/sys/user/max_pid_namespaces").saturating_sub(OTHER_NAMESPACES)),
        (Bound::Slots, SLOTS.into()),
    ];
    judge(bounds)
}

fn judge(bounds: [(Bound, u64); 6]) -> Result<Capacity, MachineError> {
    let (bound, slots) = bounds.into_iter().min_by_key(|(_, slots)| *slots).unwrap_or((Bound::Slots, SLOTS.into()));
    let vaults = vaults_in(u32::try_from(slots).unwrap_or(u32::MAX));
    if vaults < FEWEST { Err(MachineError::TooSmall { vaults, bound }) } else { Ok(Capacity { vaults, bound }) }
}

/// The most resident vaults whose slots, with half-open and closing ones, are at most `slots`.
fn vaults_in(slots: u32) -> u32 {
    let needed = |vaults: u32| {
        let vaults = usize::try_from(vaults).unwrap_or(usize::MAX);
        vaults.saturating_add(half_open(vaults)).saturating_add(CLOSING_SLOTS)
    };
    let fits = |vaults: u32| u32::try_from(needed(vaults)).is_ok_and(|needed| needed <= slots);
    let (mut low, mut high) = (0, slots);
    while low < high {
        let middle = low + (high - low).div_ceil(2);
        if fits(middle) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_slot_is_counted() {
        assert_eq!(vaults_in(0), 0);
        assert_eq!(vaults_in(u32::try_from(CLOSING_SLOTS).unwrap() + 4 + 10), 10);
        for slots in [100, 1000, 20_000, SLOTS] {
            let vaults = vaults_in(slots) as usize;
            assert!(vaults + half_open(vaults) + CLOSING_SLOTS <= slots as usize);
            assert!(vaults + 1 + half_open(vaults + 1) + CLOSING_SLOTS > slots as usize);
        }
    }

    #[test]
    fn the_smallest_bound_is_named() {
        let many = u64::from(SLOTS);
        let bounds = |files| {
            [
                (Bound::OpenFiles, files),
                (Bound::FileMax, many),
                (Bound::PidMax, many),
                (Bound::ThreadsMax, many),
                (Bound::PidNamespaces, many),
                (Bound::Slots, many),
            ]
        };
        assert_eq!(judge(bounds(1000)).unwrap().bound, Bound::OpenFiles);
        assert!(matches!(judge(bounds(70)), Err(MachineError::TooSmall { bound: Bound::OpenFiles, .. })));
        assert!(capacity().unwrap().vaults > FEWEST);
    }
}
