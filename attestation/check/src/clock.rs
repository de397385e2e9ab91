//! A clock that stands: `attestation-doc-validation` asks the system's and takes no other, and real documents have ended.

use std::cell::Cell;

thread_local! {
    static NOW: Cell<i64> = const { Cell::new(0) };
}

/// Sets what this thread's clock says, in Unix seconds.
pub(crate) fn set(unix: u64) {
    NOW.set(i64::try_from(unix).unwrap_or(i64::MAX));
}

/// The C library's function, which Rust's standard library calls: this program's own goes before it.
///
/// # Safety
/// `out` must be a place for a `timespec`, as for the C library's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: libc::clockid_t, out: *mut libc::timespec) -> libc::c_int {
    if clock == libc::CLOCK_REALTIME {
        // SAFETY: the caller's promise.
        unsafe { *out = libc::timespec { tv_sec: NOW.get(), tv_nsec: 0 } };
        return 0;
    }
    // SAFETY: the arguments are the caller's, passed on to the kernel.
    let result = unsafe { libc::syscall(libc::SYS_clock_gettime, clock, out) };
    libc::c_int::try_from(result).unwrap_or(-1)
}
