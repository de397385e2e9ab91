//! How the kernel lets the parts of the hot path take turns on a processor.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::io;

use nix::libc::{
    SCHED_BATCH, SYS_sched_getattr, SYS_sched_setattr, SYS_sched_setscheduler, sched_attr, sched_param, syscall,
};

/// The shortest slice that the kernel has, nanoseconds.
pub const SHORT_SLICE_NS: u64 = 100_000;

thread_local! {
    static TAKES_SHORT_TURNS: Cell<bool> = const { Cell::new(false) };
}

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

/// Has this thread ask for short turns from now on, or for the usual ones.
///
/// Who lets others go first (`sched_yield`) gives up one turn, however long: a thread with the usual turns then stands behind everybody
/// who comes within the next milliseconds, also when what it waited for is there. With short ones it stands behind who is there now.
/// Where there is much to do long turns are better: more has gathered when one begins. Kernels before 6.12 have no turns of a thread's own.
pub(crate) fn take_short_turns(short: bool) {
    if TAKES_SHORT_TURNS.replace(short) == short {
        return;
    }
    // All else (policy, niceness) stays as it is.
    let Ok(attributes) = attributes() else { return };
    // None: the usual.
    let attributes = sched_attr { sched_runtime: if short { SHORT_SLICE_NS } else { 0 }, ..attributes };
    // SAFETY: the call reads one structure and keeps nothing; 0 is the calling thread.
    unsafe { syscall(SYS_sched_setattr, 0, &raw const attributes, 0) };
}

/// What the kernel has noted of this thread.
fn attributes() -> io::Result<sched_attr> {
    // SAFETY: a structure of integers, for which zeros are a value.
    let mut attributes: sched_attr = unsafe { std::mem::zeroed() };
    let size = u32::try_from(size_of::<sched_attr>()).expect("a small structure");
    // SAFETY: the call writes at most so many bytes of one structure; 0 is the calling thread.
    let done = unsafe { syscall(SYS_sched_getattr, 0, &raw mut attributes, size, 0) };
    if done == 0 { Ok(attributes) } else { Err(io::Error::last_os_error()) }
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

    /// Kernels that have no turns of a thread's own tell none, and keep none.
    #[test]
    fn turns_are_as_short_as_was_asked_last_and_nothing_else_changes() {
        std::thread::spawn(|| {
            let_run().unwrap();
            // SAFETY: the call takes no pointer.
            assert_eq!(unsafe { nix::libc::nice(3) }, 3);
            let of =
                |attributes: sched_attr| (attributes.sched_runtime, attributes.sched_policy, attributes.sched_nice);
            let (usual, policy, nice) = of(attributes().unwrap());
            for short in [true, true, false, false, true] {
                take_short_turns(short);
                let slice = if short && usual != 0 { SHORT_SLICE_NS } else { usual };
                assert_eq!(of(attributes().unwrap()), (slice, policy, nice), "{short}");
            }
            assert_eq!((policy, nice), (SCHED_BATCH.unsigned_abs(), 3));
        })
        .join()
        .unwrap();
    }
}
