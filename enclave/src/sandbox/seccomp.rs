//! The system calls that a vault-manager's loop needs on static musl, with their arguments where an argument decides what the
//! call can do. Everything else, also every call of another architecture's table, kills the process.
//!
//! - **Talk:** `recvfrom` and `sendto` on the one socket, and `ppoll`. Not `recvmsg` and `sendmsg`: those carry descriptors.
//! - **Memory:** `brk`, `mmap` of private anonymous memory only (shared memory would escape `RLIMIT_DATA`), `munmap`, `mremap`,
//!   `mprotect`, `madvise` that gives memory back. Nothing is ever executable that was not so at the fork.
//! - **Time and chance:** `clock_gettime` of the two clocks that we use (where the vDSO falls back to it; a clock id can also name
//!   another process and would then tell its CPU time), `getrandom`.
//! - **The end:** `exit`, `exit_group`, and `sigaltstack`, with which the Rust runtime takes leave. abort(3) works, so that a
//!   panic or an exhausted memory limit is told apart from an attack: `rt_sigprocmask`, `tkill` with SIGABRT (own uid: there
//!   is nobody else to hit), and `write` to descriptor 2, where the runtime's last words go; it is closed.
//!
//! There is no `futex`: the process has one thread, and a lock that is not free will never be.

use std::collections::BTreeMap;

use nix::errno::Errno;
use seccompiler::SeccompCmpArgLen::{Dword, Qword};
use seccompiler::SeccompCmpOp::{Eq, MaskedEq};
use seccompiler::{
    BackendError, BpfProgram, BpfProgramRef, SeccompAction, SeccompCondition, SeccompFilter, SeccompRule, TargetArch,
};

use super::descriptors;

/// The filter could not be compiled: a mistake in the list, or an architecture that it was not made for.
#[derive(Debug, thiserror::Error)]
#[error("the seccomp filter cannot be compiled for this architecture: {0}")]
pub struct FilterError(#[from] BackendError);

const STDERR: u64 = 2;
const SOCKET: u64 = descriptors::SOCKET.unsigned_abs() as u64;
const PROT_READ_WRITE: u64 = (libc::PROT_READ | libc::PROT_WRITE).unsigned_abs() as u64;
const PRIVATE_ANONYMOUS: u64 = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS).unsigned_abs() as u64;
/// musl's malloc lays guard pages with it.
const FIXED: u64 = libc::MAP_FIXED.unsigned_abs() as u64;

/// An argument that is a C `int`: the kernel looks at its lower half only, so we do.
fn is(index: u8, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, Dword, Eq, value)
}

/// An argument that is a `long` and must be `value` in all bits but those of `free`.
fn is_but_for(index: u8, free: u64, value: u64) -> Result<SeccompCondition, BackendError> {
    SeccompCondition::new(index, Qword, MaskedEq(!free), value)
}

fn no_exec(index: u8) -> Result<SeccompCondition, BackendError> {
    is_but_for(index, PROT_READ_WRITE, 0)
}

fn one_of(index: u8, values: &[i32]) -> Result<Vec<SeccompRule>, BackendError> {
    values.iter().map(|value| SeccompRule::new(vec![is(index, u64::from(value.unsigned_abs()))?])).collect()
}

fn where_all(conditions: Vec<SeccompCondition>) -> Result<Vec<SeccompRule>, BackendError> {
    Ok(vec![SeccompRule::new(conditions)?])
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    // An empty list of rules allows the call whatever its arguments.
    let whatever = Vec::new;
    Ok(BTreeMap::from([
        (libc::SYS_recvfrom, where_all(vec![is(0, SOCKET)?])?),
        (libc::SYS_sendto, where_all(vec![is(0, SOCKET)?])?),
        (libc::SYS_ppoll, whatever()),
        (libc::SYS_brk, whatever()),
        (libc::SYS_mmap, where_all(vec![no_exec(2)?, is_but_for(3, FIXED, PRIVATE_ANONYMOUS)?])?),
        (libc::SYS_munmap, whatever()),
        (libc::SYS_mremap, whatever()),
        (libc::SYS_mprotect, where_all(vec![no_exec(2)?])?),
        (libc::SYS_madvise, one_of(2, &[libc::MADV_DONTNEED, libc::MADV_FREE])?),
        (libc::SYS_clock_gettime, one_of(0, &[libc::CLOCK_REALTIME, libc::CLOCK_MONOTONIC])?),
        (libc::SYS_getrandom, whatever()),
        (libc::SYS_rt_sigprocmask, whatever()),
        (libc::SYS_sigaltstack, whatever()),
        (libc::SYS_tkill, where_all(vec![is(1, u64::from(libc::SIGABRT.unsigned_abs()))?])?),
        (libc::SYS_write, where_all(vec![is(0, STDERR)?])?),
        (libc::SYS_exit, whatever()),
        (libc::SYS_exit_group, whatever()),
    ]))
}

/// Compiles the list, once, in the zygote.
pub(super) fn compile() -> Result<BpfProgram, FilterError> {
    let architecture = TargetArch::try_from(std::env::consts::ARCH)?;
    let filter = SeccompFilter::new(rules()?, SeccompAction::KillProcess, SeccompAction::Allow, architecture)?;
    Ok(filter.try_into()?)
}

pub(super) fn apply(filter: BpfProgramRef<'_>) -> nix::Result<()> {
    seccompiler::apply_filter(filter).map_err(|error| match error {
        seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => {
            error.raw_os_error().map_or(Errno::EINVAL, Errno::from_raw)
        }
        _ => Errno::EINVAL,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_list_compiles_small() {
        // The kernel keeps the filter once for each process: a page of 512 instructions is its budget.
        let program = super::compile().unwrap();
        assert!(program.len() < 300, "{} instructions", program.len());
    }
}
