//! How the kernel lets the parts of the hot path take turns on a processor.
#![allow(unsafe_code)]

use std::io;

use nix::libc::{SCHED_BATCH, SYS_sched_setscheduler, sched_param, syscall};

/// Has this thread, and all threads and processes that it starts later, run as `SCHED_BATCH`: who is woken does not interrupt who runs.
///
/// A request goes through four processes. Interrupted at each wake-up, every one of them handles a single message at a time; left to run,
/// it handles what has gathered meanwhile. Nobody waits longer than a tick for it, and on an idle processor nobody waits at all.
///
/// # Errors
/// What the kernel said. Nothing but speed depends on it.
pub fn let_run() -> io::Result<()> {
    // musl's own function is an empty one.
    let parameters = sched_param { sched_priority: 0, ..zeroed() };
    // SAFETY: the call reads one `sched_param` and keeps nothing; 0 is the calling thread.
    let done = unsafe { syscall(SYS_sched_setscheduler, 0, SCHED_BATCH, &raw const parameters) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn zeroed() -> sched_param {
    // SAFETY: a structure of integers, for which zeros are a value.
    unsafe { std::mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::libc::SYS_sched_getscheduler;

    fn policy() -> i32 {
        // SAFETY: the call takes no pointer.
        i32::try_from(unsafe { syscall(SYS_sched_getscheduler, 0) }).unwrap()
    }

    #[test]
    fn threads_that_come_later_are_let_run_too() {
        std::thread::spawn(|| {
            let before = policy();
            let_run().unwrap();
            assert_eq!(policy(), SCHED_BATCH);
            assert_eq!(std::thread::spawn(policy).join().unwrap(), SCHED_BATCH);
            assert_ne!(before, SCHED_BATCH);
        })
        .join()
        .unwrap();
    }
}
