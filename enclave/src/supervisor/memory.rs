//! Memory, as the kernel counts it: of the machine from `/proc/meminfo`, of one process from its `statm`.

use std::fs;
use std::io;

/// The machine's memory in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Memory {
    /// All of it.
    pub total: u64,
    /// What could be had without swapping.
    pub available: u64,
}

impl Memory {
    /// Reads it now.
    ///
    /// # Errors
    /// When `/proc` is not mounted or not of the form that it has.
    pub fn sample() -> io::Result<Self> {
        parse(&fs::read_to_string("/proc/meminfo")?).ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
    }
}

fn parse(text: &str) -> Option<Memory> {
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.trim().strip_suffix(" kB")?.parse::<u64>().ok()?.checked_mul(1024)
    };
    Some(Memory { total: field("MemTotal:")?, available: field("MemAvailable:")? })
}

/// What operators see of a process's memory comes in steps of this: per-vault figures leave the enclave only in buckets.
pub const BUCKET: u64 = 64 * 1024;

/// Resident memory of a vault-manager, without the `shared` bytes that it has in common with all others
/// ([`Zygote::shared_bytes`](crate::zygote::Zygote::shared_bytes)), rounded up to whole buckets; zero when it is gone.
pub fn resident(pid: u32, shared: u64) -> u64 {
    let Ok(text) = fs::read_to_string(format!("/proc/{pid}/statm")) else { return 0 };
    let pages = text.split_ascii_whitespace().nth(1).and_then(|pages| pages.parse::<u64>().ok()).unwrap_or(0);
    buckets(pages, shared)
}

fn buckets(pages: u64, shared: u64) -> u64 {
    // x86-64 and arm64 Nitro kernels have pages of 4 KiB.
    pages.saturating_mul(4096).saturating_sub(shared).div_ceil(BUCKET) * BUCKET
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_this_machine() {
        let memory = Memory::sample().unwrap();
        assert!(memory.total > memory.available && memory.available > 0);
        let own = resident(std::process::id(), 0);
        assert!(own > 0 && own.is_multiple_of(BUCKET));
        assert_eq!(resident(u32::MAX, 0), 0);
    }

    #[test]
    fn what_all_have_in_common_is_nobodys() {
        let shared = 8 << 20;
        let pages = |bytes: u64| bytes / 4096;
        assert_eq!(buckets(pages(shared + BUCKET), shared), BUCKET);
        assert_eq!(buckets(pages(shared) + 1, shared), BUCKET, "rounded up");
        assert_eq!(buckets(pages(shared) - 1, shared), 0);
        assert_eq!(buckets(pages(BUCKET), 0), BUCKET);
    }

    #[test]
    fn other_texts_are_refused() {
        assert_eq!(parse(""), None);
        assert_eq!(parse("MemTotal: 5 kB\n"), None);
        assert_eq!(parse("MemTotal: x kB\nMemAvailable: 1 kB\n"), None);
        let memory = parse("MemTotal:  10 kB\nMemFree: 1 kB\nMemAvailable:   4 kB\n");
        assert_eq!(memory, Some(Memory { total: 10 * 1024, available: 4 * 1024 }));
    }
}
