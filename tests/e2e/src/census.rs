//! What the kernel says of running processes and of the machine's memory.

use std::collections::HashMap;
use std::fs;
use std::io;

/// The kernel's name of a vault-manager.
const MANAGER: &str = "vault-manager";
/// Pages of x86-64 and of arm64 as Debian builds it.
const PAGE: u64 = 4096;

/// A process, as the kernel lists it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its id.
    pub pid: u32,
    /// The id of its parent.
    pub parent: u32,
    /// The kernel's name of it.
    pub name: String,
    /// Whether it has ended and nobody has asked how.
    pub is_zombie: bool,
}

/// A process and everything that descends from it.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn family(of: u32) -> io::Result<Vec<Member>> {
    let all = everybody()?;
    let parents: HashMap<u32, u32> = all.iter().map(|member| (member.pid, member.parent)).collect();
    let descends = |pid: u32| std::iter::successors(Some(pid), |pid| parents.get(pid).copied()).any(|pid| pid == of);
    Ok(all.into_iter().filter(|member| descends(member.pid)).collect())
}

/// The living vault-managers among the descendants of an enclave.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn managers(enclave: u32) -> io::Result<Vec<u32>> {
    let family = family(enclave)?;
    let is_manager = |member: &Member| member.name == MANAGER && !member.is_zombie;
    Ok(family.into_iter().filter(is_manager).map(|member| member.pid).collect())
}

fn everybody() -> io::Result<Vec<Member>> {
    let mut members = Vec::new();
    for entry in fs::read_dir("/proc")?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        // A process that ends meanwhile has nothing more to say.
        let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { continue };
        members.extend(parse(pid, &stat));
    }
    Ok(members)
}

fn parse(pid: u32, stat: &str) -> Option<Member> {
    // The name in parentheses may hold anything; state and parent follow it.
    let (name, fields) = stat.split_once('(')?.1.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    let is_zombie = matches!(fields.next()?, "Z" | "X");
    Some(Member { pid, parent: fields.next()?.parse().ok()?, name: name.to_owned(), is_zombie })
}

/// A process's share of memory, in bytes: its own pages, and its part of those that it shares. None when it has ended.
pub fn proportional(pid: u32) -> Option<u64> {
    kilobytes(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?, "Pss:")
}

/// A process's own pages, in bytes, without those that it shares. None when it has ended.
pub fn private(pid: u32) -> Option<u64> {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?;
    Some(kilobytes(&rollup, "Private_Clean:")? + kilobytes(&rollup, "Private_Dirty:")?)
}

/// All that a process has in memory, in bytes. None when it has ended.
pub fn resident(pid: u32) -> Option<u64> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    statm.split_ascii_whitespace().nth(1)?.parse::<u64>().ok()?.checked_mul(PAGE)
}

/// How many descriptors a process holds. None when it has ended.
pub fn descriptors(pid: u32) -> Option<u64> {
    u64::try_from(fs::read_dir(format!("/proc/{pid}/fd")).ok()?.count()).ok()
}

/// What memory could be had without swapping, in bytes.
///
/// # Errors
/// When `/proc` cannot be read.
pub fn available() -> io::Result<u64> {
    let found = kilobytes(&fs::read_to_string("/proc/meminfo")?, "MemAvailable:");
    found.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))
}

fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_may_hold_anything() {
        let member = |name: &str, is_zombie| Some(Member { pid: 7, parent: 3, name: name.to_owned(), is_zombie });
        assert_eq!(parse(7, "7 (vault-manager) S 3 7 7 0"), member("vault-manager", false));
        assert_eq!(parse(7, "7 (a) b (c) Z 3 7"), member("a) b (c", true));
        assert_eq!(parse(7, ""), None);
    }

    #[test]
    fn this_process_is_found_and_measured() {
        let own = std::process::id();
        assert!(family(own).unwrap().iter().any(|member| member.pid == own));
        assert!(managers(own).unwrap().is_empty());
        let (proportional, resident) = (proportional(own).unwrap(), resident(own).unwrap());
        assert!(0 < proportional && proportional <= resident * 2, "{proportional} of {resident}");
        assert!(descriptors(own).unwrap() >= 3 && available().unwrap() > 0);
        assert_eq!((descriptors(u32::MAX), kilobytes("A: 3 MB", "A:")), (None, None));
    }
}
