//! The tuning as the router uses it. It comes from the parent, so every value is brought into bounds first: a strange one may deny
//! service, and nothing else.

use std::time::Duration;

use casemate_protocol::limits::WINDOW_REQUESTS;
use casemate_protocol::link::Tuning;

/// Half-open vaults, percent of the limit of vaults.
const HALF_OPEN_PERCENT: usize = 5;
/// Half-open vaults that there may always be.
const HALF_OPEN_MIN: usize = 4;

/// Limits and time-outs within bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Resident vaults.
    pub vaults: usize,
    /// Half-open vaults.
    pub half_open: usize,
    /// Idle time after which a vault is closed.
    pub idle: Duration,
    /// Requests in flight or waiting for one vault.
    pub queue: usize,
    /// Used percent of memory at which eviction begins.
    pub memory_high: u8,
    /// Used percent of memory at which eviction ends.
    pub memory_low: u8,
    /// Old versions kept behind the newest.
    pub versions_kept: u32,
    /// Longest wait for one answer of the store.
    pub store_timeout: Duration,
    /// Memory that a vault-manager may have for data.
    pub vault_memory_bytes: u64,
}

impl Limits {
    /// Brings `tuning` into bounds. `allowed` is the number of vaults that the machine can hold.
    pub fn new(tuning: &Tuning, allowed: u32) -> Self {
        let wanted = usize::try_from(tuning.vault_limit.min(allowed)).unwrap_or(usize::MAX);
        let vaults = wanted.max(1);
        let memory_high = tuning.memory_high_percent.clamp(10, 99);
        Self {
            vaults,
            half_open: half_open(vaults),
            idle: Duration::from_millis(tuning.idle_ms.clamp(1000, 7 * 24 * 3_600_000)),
            queue: usize::try_from(tuning.queue_per_vault).unwrap_or(usize::MAX).clamp(1, WINDOW_REQUESTS),
            memory_high,
            memory_low: tuning.memory_low_percent.clamp(5, memory_high),
            versions_kept: tuning.versions_kept.min(4096),
            store_timeout: Duration::from_millis(tuning.store_timeout_ms.clamp(100, 60_000)),
            vault_memory_bytes: tuning.vault_memory_bytes.clamp(16 << 20, 4 << 30),
        }
    }

    /// Half-open vaults that may come at once: no more than there is room for, or they would push each other out.
    pub(super) fn hello_burst(&self) -> u32 {
        u32::try_from(self.half_open).unwrap_or(u32::MAX)
    }
}

/// How many half-open vaults go with this many resident ones.
pub fn half_open(vaults: usize) -> usize {
    (vaults * HALF_OPEN_PERCENT / 100).max(HALF_OPEN_MIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strange_tuning_is_brought_into_bounds() {
        let strange = Tuning {
            vault_limit: 0,
            idle_ms: 0,
            queue_per_vault: 0,
            memory_high_percent: 255,
            memory_low_percent: 255,
            versions_kept: u32::MAX,
            store_timeout_ms: u64::MAX,
            vault_memory_bytes: 0,
            ..Tuning::default()
        };
        let limits = Limits::new(&strange, 10);
        assert_eq!((limits.vaults, limits.half_open, limits.queue), (1, 4, 1));
        assert!(limits.memory_low <= limits.memory_high && limits.memory_high < 100);
        assert!(limits.store_timeout <= Duration::from_mins(1) && limits.idle >= Duration::from_secs(1));
        assert_eq!(Limits::new(&Tuning::default(), 100).vaults, 100, "the machine's limit holds");
        assert_eq!(Limits::new(&Tuning::default(), 5000).half_open, 50);
    }
}
