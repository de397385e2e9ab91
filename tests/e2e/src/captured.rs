//! What somebody does who has taken a vault-manager over.

use nix::sys::ptrace;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::Pid;

/// The length of the machine's `syscall` instruction.
const SYSCALL_BYTES: u64 = 2;
const GETPPID: u64 = 110;

/// Makes a vault-manager do what it never would: the system call in which it waits becomes another one, which is not on its list.
///
/// # Panics
/// When it does not run, or this process may not trace it.
pub fn make_forbidden_call(manager: Pid) {
    ptrace::attach(manager).expect("it runs");
    assert_eq!(waitpid(manager, None).expect("it stops"), WaitStatus::Stopped(manager, Signal::SIGSTOP));
    let mut registers = ptrace::getregs(manager).expect("it is stopped");
    // No call to be restarted: the next instruction is the same call's, with another number.
    registers.orig_rax = u64::MAX;
    registers.rax = GETPPID;
    registers.rip -= SYSCALL_BYTES;
    ptrace::setregs(manager, registers).expect("it is stopped");
    ptrace::detach(manager, None).expect("it is stopped");
}
