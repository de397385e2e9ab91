//! The system calls by which a process comes into being and passes away, each wrapped once.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, OwnedFd, RawFd};

use casemate_link::SHORT_SLICE_NS;
use nix::errno::Errno;
use nix::sys::signal::{SigHandler, SigSet, SigmaskHow, Signal, signal, sigprocmask};
use nix::unistd::{ForkResult, Pid, fork, getpid};

use super::ExitKind;
use super::message::{ABORTED_CODE, LAYER_FAILED_CODE};
use crate::sandbox::{Layer, Sandbox};

/// Signals with which a terminal or a service manager ends a whole group. The zygote ends when the supervisor does, who may
/// want to drain first.
const GROUP_SIGNALS: [Signal; 4] = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP, Signal::SIGQUIT];
/// Signals for which the Rust runtime has handlers that would end in a forbidden call and hide the cause of death.
const FAULT_SIGNALS: [Signal; 2] = [Signal::SIGSEGV, Signal::SIGBUS];

/// Which side of the fork this is.
pub(super) enum Side {
    Zygote(Pid),
    Child,
}

/// Why there is no child, or no zygote any more.
#[derive(Debug)]
pub(super) enum CloneError {
    /// No process or no namespace is to be had now.
    Refused(Errno),
    /// The zygote cannot turn back to its own PID namespace. It must end: another child would be born into this one's.
    Astray(Errno),
}

/// Clones the zygote: the one place where a vault-manager comes into being, in a PID namespace of its own. The C library's fork is
/// called rather than clone3(2) with CLONE_NEWPID, because it also renews the thread id that the library caches and that abort(3)
/// sends its signal to.
pub(super) fn clone_zygote(sandbox: &Sandbox) -> Result<Side, CloneError> {
    sandbox.before_fork().map_err(CloneError::Refused)?;
    // SAFETY: the zygote has one thread for ever, so no lock can be held by a thread that does not exist in the child.
    let forked = unsafe { fork() };
    if matches!(forked, Ok(ForkResult::Child)) {
        return Ok(Side::Child);
    }
    sandbox.after_fork().map_err(CloneError::Astray)?;
    match forked {
        Ok(ForkResult::Parent { child }) => Ok(Side::Zygote(child)),
        Ok(ForkResult::Child) => Ok(Side::Child),
        Err(errno) => Err(CloneError::Refused(errno)),
    }
}

/// A descriptor that stands for this process, whatever namespace one looks from. Readable when it has ended.
pub(super) fn pidfd_of_self() -> nix::Result<OwnedFd> {
    // SAFETY: the call takes numbers only.
    let result = unsafe { libc::syscall(libc::SYS_pidfd_open, getpid().as_raw(), 0_u32) };
    let fd = RawFd::try_from(Errno::result(result)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just opened it for us.
    Ok(unsafe { own(fd) })
}

/// Takes a descriptor that the kernel has just given us, or that the process was started with.
///
/// # Safety
/// `fd` is open and nobody else in this process owns it.
pub(super) unsafe fn own(fd: RawFd) -> OwnedFd {
    // SAFETY: the caller's promise.
    unsafe { OwnedFd::from_raw_fd(fd) }
}

/// The zygote's signals: SIGCHLD waits for the signalfd, group signals are ignored, faults have their default.
pub(super) fn zygote_signals() -> nix::Result<SigSet> {
    let mut child = SigSet::empty();
    child.add(Signal::SIGCHLD);
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&child), None)?;
    set_all(&GROUP_SIGNALS, SigHandler::SigIgn)?;
    set_all(&FAULT_SIGNALS, SigHandler::SigDfl)?;
    Ok(child)
}

/// A child's signals: nothing blocked, and ended by what ends any process. As the first process of its PID namespace it is spared
/// every signal without a handler but SIGKILL and SIGSTOP of the zygote's side, the seccomp rule's SIGSYS, and its own faults; so
/// abort(3), which sends itself SIGABRT, gets a handler.
pub(super) fn child_signals() -> nix::Result<()> {
    set_all(&GROUP_SIGNALS, SigHandler::SigDfl)?;
    set_all(&[Signal::SIGABRT], SigHandler::Handler(aborted))?;
    sigprocmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::empty()), None)
}

/// How far a vault-manager stands behind the supervisor when there is not enough processor time for all: a tenth of its weight.
const NICENESS: i32 = 10;

/// Has this process give way to the supervisor, which all vaults share, and ask for the shortest turns: who has used little of its share
/// goes before those who want to run for longer, so that a small request does not wait for everybody's large ones, however little its
/// weight. It can always be done (kernels before 6.12 know no slices and leave them out); only speed would depend on it.
pub(super) fn give_way() {
    let attributes = libc::sched_attr {
        size: u32::try_from(size_of::<libc::sched_attr>()).expect("a small structure"),
        sched_policy: libc::SCHED_BATCH.unsigned_abs(),
        sched_flags: 0,
        sched_nice: NICENESS,
        sched_priority: 0,
        sched_runtime: SHORT_SLICE_NS,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the call reads one structure and keeps nothing; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
}

extern "C" fn aborted(_signal: libc::c_int) {
    leave(ABORTED_CODE)
}

fn set_all(signals: &[Signal], handler: SigHandler) -> nix::Result<()> {
    for &each in signals {
        // SAFETY: ignore and default run no code of ours; the one handler calls _exit(2) alone, which it may at any time.
        unsafe { signal(each, handler)? };
    }
    Ok(())
}

/// Ends a child at once, without a word to anybody and without the runtime's farewells.
pub fn leave(code: i32) -> ! {
    // SAFETY: _exit(2) does not return and touches no memory.
    unsafe { libc::_exit(code) }
}

/// Which children to reap.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reap {
    /// This one, if it has ended: the kernel finds it at once.
    This(Pid),
    /// Any that has ended: the kernel looks at all of them.
    Any,
    /// Any, and waits for one.
    AnyInTime,
}

/// Reaps one child that has ended.
pub(super) fn reap(which: Reap) -> nix::Result<Option<(Pid, ExitKind)>> {
    let mut status = 0;
    let (pid, options) = match which {
        Reap::This(pid) => (pid.as_raw(), libc::WNOHANG),
        Reap::Any => (-1, libc::WNOHANG),
        Reap::AnyInTime => (-1, 0),
    };
    // Not nix's waitpid: it fails on a signal that it has no name for, after the child is gone from the kernel's table.
    // SAFETY: `status` is ours and lives through the call.
    match Errno::result(unsafe { libc::waitpid(pid, &raw mut status, options) }) {
        Ok(0) | Err(Errno::ECHILD) => Ok(None),
        Ok(pid) => Ok(Some((Pid::from_raw(pid), exit_kind(status)))),
        Err(errno) => Err(errno),
    }
}

fn exit_kind(status: libc::c_int) -> ExitKind {
    if libc::WIFSIGNALED(status) {
        return match libc::WTERMSIG(status) {
            libc::SIGSYS => ExitKind::SandboxKilled,
            signal => ExitKind::Signal(signal),
        };
    }
    let code = libc::WEXITSTATUS(status);
    if code == ABORTED_CODE {
        return ExitKind::Signal(libc::SIGABRT);
    }
    let layer = u8::try_from(code - LAYER_FAILED_CODE).ok().and_then(Layer::from_number);
    layer.map_or(ExitKind::Code(code), ExitKind::LayerFailed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_read_from_the_kernels_word() {
        let exited = |code: i32| exit_kind(code << 8);
        assert_eq!(exited(0), ExitKind::Code(0));
        assert_eq!(exited(LAYER_FAILED_CODE - 1), ExitKind::Code(LAYER_FAILED_CODE - 1));
        assert_eq!(exited(255), ExitKind::Code(255));
        for layer in Layer::ALL {
            assert_eq!(exited(LAYER_FAILED_CODE + i32::from(layer.number())), ExitKind::LayerFailed(layer));
        }
        assert_eq!(exited(ABORTED_CODE), ExitKind::Signal(libc::SIGABRT));
        assert_eq!(exit_kind(libc::SIGABRT), ExitKind::Signal(libc::SIGABRT));
        assert_eq!(exit_kind(libc::SIGKILL), ExitKind::Signal(libc::SIGKILL));
        // With the core dump's bit, and a signal that has no name.
        assert_eq!(exit_kind(libc::SIGSYS | 0x80), ExitKind::SandboxKilled);
        assert_eq!(exit_kind(63), ExitKind::Signal(63));
    }

    #[test]
    fn it_gives_way_and_wants_little() {
        let scheduled = || {
            give_way();
            let size = u32::try_from(size_of::<libc::sched_attr>()).unwrap();
            // SAFETY: a structure of integers, for which zeros are a value.
            let mut attributes: libc::sched_attr = unsafe { std::mem::zeroed() };
            // SAFETY: the call writes one structure of that size; 0 is the calling thread.
            let done = unsafe { libc::syscall(libc::SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
            assert_eq!(done, 0);
            (attributes.sched_policy, attributes.sched_nice, attributes.sched_runtime)
        };
        // In a thread of its own, which alone is changed.
        let (policy, nice, slice) = std::thread::spawn(scheduled).join().unwrap();
        assert_eq!((policy, nice), (libc::SCHED_BATCH.unsigned_abs(), NICENESS));
        // A kernel that knows no slices tells none.
        assert!([0, SHORT_SLICE_NS].contains(&slice), "{slice}");
    }
}
