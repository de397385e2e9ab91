//! Processor time of this process and everything that it started: the client, the server, parent, supervisor and every
//! vault-manager.

use std::fs;
use std::time::Duration;

use super::Result;
use crate::census;

/// Processor time used so far, all threads of all living processes of the family together. The kernel counts in nanoseconds
/// (`schedstat`).
pub(super) fn used() -> Result<Duration> {
    let family = census::family(std::process::id())?;
    let nanoseconds = family.iter().map(|member| process(member.pid)).sum();
    Ok(Duration::from_nanos(nanoseconds))
}

/// Processor time of the whole machine since it started: all of it, and what its host took for others meanwhile ("steal"), in the
/// kernel's ticks.
#[derive(Debug, Clone, Copy)]
pub(super) struct Machine {
    all: u64,
    stolen: u64,
}

impl Machine {
    pub(super) fn now() -> Result<Self> {
        let stat = fs::read_to_string("/proc/stat")?;
        let ticks: Vec<u64> =
            stat.lines().next().unwrap_or_default().split_whitespace().filter_map(|tick| tick.parse().ok()).collect();
        // user, nice, system, idle, iowait, irq, softirq, steal; what follows is counted in these already.
        Ok(Self { all: ticks.iter().take(8).sum(), stolen: ticks.get(7).copied().unwrap_or(0) })
    }

    /// What share of the time since `before` the host took for others, in percent.
    #[expect(clippy::cast_precision_loss, reason = "ticks of a run")]
    pub(super) fn stolen_since(self, before: Self) -> f64 {
        100.0 * (self.stolen - before.stolen) as f64 / (self.all - before.all).max(1) as f64
    }
}

fn process(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let thread = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("schedstat")).ok();
    threads.flatten().filter_map(thread).filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
}
