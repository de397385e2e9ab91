//! An allocator that measures: what a thread holds at one time, so that "allocates no more than its input is worth" can be
//! asserted. It counts what Rust code allocates; what a C library takes for itself it does not see.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    // Without destructors and made at compile time, so that reading them never allocates.
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

/// The system's allocator, measured by thread. A program that asks for [`peak_of`] names it as its global allocator.
#[derive(Debug, Clone, Copy, Default)]
pub struct Meter;

fn count(bytes: isize) {
    // A thread that ends has no cells any more; nobody measures it.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

fn signed(bytes: usize) -> isize {
    isize::try_from(bytes).expect("an allocation has at most half of the address space")
}

#[allow(unsafe_code)]
// SAFETY: every call is passed on to the system's allocator as it came, and counting neither allocates nor unwinds.
unsafe impl GlobalAlloc for Meter {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(signed(layout.size()));
        // SAFETY: the caller's promise, passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, place: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise, passed on.
        unsafe { System.dealloc(place, layout) }
        count(-signed(layout.size()));
    }

    unsafe fn realloc(&self, place: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Old and new stand side by side while one is copied into the other.
        count(signed(size));
        // SAFETY: the caller's promise, passed on.
        let grown = unsafe { System.realloc(place, layout, size) };
        count(-signed(layout.size()));
        grown
    }
}

/// Runs `work`; returns its value and the most bytes that it held at one time beyond what this thread held before.
pub fn peak_of<T>(work: impl FnOnce() -> T) -> (T, usize) {
    HELD.set(0);
    PEAK.set(0);
    let value = work();
    (value, usize::try_from(PEAK.get()).unwrap_or(0))
}
