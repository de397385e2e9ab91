//! Processor time of this process and everything that it started: the client, the server, parent, supervisor and every
//! vault-manager.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use super::Result;

/// Processor time used so far, all threads of all living processes of the family together. The kernel counts in nanoseconds
/// (`schedstat`).
pub(super) fn used() -> Result<Duration> {
    let mut parents = HashMap::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process that ends meanwhile has nothing more to say.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        // The name in parentheses may hold anything; state and parent follow it.
        let fields = stat.rsplit_once(')').map_or("", |(_, fields)| fields);
        if let Some(parent) = fields.split_whitespace().nth(1).and_then(|parent| parent.parse::<u32>().ok()) {
            parents.insert(pid, parent);
        }
    }
    let own = std::process::id();
    let is_family = |pid: u32| std::iter::successors(Some(pid), |pid| parents.get(pid).copied()).any(|pid| pid == own);
    let nanoseconds = parents.keys().filter(|pid| is_family(**pid)).map(|pid| process(*pid)).sum();
    Ok(Duration::from_nanos(nanoseconds))
}

fn process(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let thread = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("schedstat")).ok();
    threads.flatten().filter_map(thread).filter_map(|text| text.split_whitespace().next()?.parse::<u64>().ok()).sum()
}
