//! The heap: dlmalloc, whose large blocks a vault-manager gives back to the kernel as soon as they are freed.
//!
//! dlmalloc keeps what it has, which is right for the supervisor and dear for a process of which there are thousands: one large object
//! read at opening would stay in memory for as long as its vault is resident. In a thrifty process the pages inside a block of
//! [`LARGE`] bytes or more are dropped when it is freed, and a zeroed one is made of pages that nobody has touched. What stood in such a
//! block is gone with its pages.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use dlmalloc::Dlmalloc;
use nix::sys::mman::{MmapAdvise, madvise};

/// Blocks from this size on are given back. Below it a system call costs more than the pages are worth.
const LARGE: usize = 16 * 1024;
const PAGE: usize = 4096;

static DLMALLOC: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());
static IS_THRIFTY: AtomicBool = AtomicBool::new(false);

/// The allocator of every program.
#[derive(Debug, Clone, Copy)]
pub struct Heap;

/// From now on this process gives back what it can.
pub fn be_thrifty() {
    IS_THRIFTY.store(true, Ordering::Relaxed);
}

fn dlmalloc() -> MutexGuard<'static, Dlmalloc> {
    DLMALLOC.lock().unwrap_or_else(PoisonError::into_inner)
}

fn is_given_back(size: usize) -> bool {
    size >= LARGE && IS_THRIFTY.load(Ordering::Relaxed)
}

/// The whole pages inside a block: those before, those after, and where they begin.
fn inner(block: *mut u8, size: usize) -> (usize, usize) {
    let before = block.align_offset(PAGE).min(size);
    (before, (size - before) / PAGE * PAGE)
}

/// Drops the pages inside a block: they read as zero from now on, and cost nothing until they are written.
///
/// # Safety
/// The block is allocated, and nobody needs what it holds.
unsafe fn drop_pages(block: *mut u8, size: usize) -> bool {
    let (before, length) = inner(block, size);
    // SAFETY: the range lies inside the block by `inner`.
    let Some(pages) = NonNull::new(unsafe { block.add(before) }.cast()) else { return false };
    // SAFETY: whole pages of private anonymous memory, which is all that dlmalloc has; what they hold is needed by nobody.
    length > 0 && unsafe { madvise(pages, length, MmapAdvise::MADV_DONTNEED) }.is_ok()
}

// SAFETY: every block comes from dlmalloc and goes back to it, under the lock; pages are dropped only while their block is allocated.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        unsafe { dlmalloc().malloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        if is_given_back(layout.size()) {
            // SAFETY: the caller gives the block up.
            unsafe { drop_pages(block, layout.size()) };
        }
        // SAFETY: the caller's promise.
        unsafe { dlmalloc().free(block, layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        if !is_given_back(size) {
            // SAFETY: the caller's promise.
            return unsafe { dlmalloc().calloc(size, layout.align()) };
        }
        // SAFETY: the caller's promise.
        let block = unsafe { self.alloc(layout) };
        // SAFETY: the block was made here, and is not given out yet.
        if block.is_null() || !unsafe { drop_pages(block, size) } {
            if !block.is_null() {
                // SAFETY: the block has so many bytes.
                unsafe { ptr::write_bytes(block, 0, size) };
            }
            return block;
        }
        let (before, length) = inner(block, size);
        // SAFETY: what lies before and behind the pages lies in the block.
        unsafe {
            ptr::write_bytes(block, 0, before);
            ptr::write_bytes(block.add(before + length), 0, size - before - length);
        }
        block
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_size: usize) -> *mut u8 {
        if !is_given_back(layout.size()) {
            // SAFETY: the caller's promise.
            return unsafe { dlmalloc().realloc(block, layout.size(), layout.align(), new_size) };
        }
        // What it grows out of is given back as well.
        // SAFETY: the caller's promise: the size is not zero and does not overflow with this alignment.
        let new = unsafe { self.alloc(Layout::from_size_align_unchecked(new_size, layout.align())) };
        if !new.is_null() {
            // SAFETY: two blocks, each with at least so many bytes.
            unsafe { ptr::copy_nonoverlapping(block, new, layout.size().min(new_size)) };
            // SAFETY: the caller has only the new block from here on.
            unsafe { self.dealloc(block, layout) };
        }
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever happens to a block, it holds what was written.
    #[test]
    fn blocks_keep_what_they_hold_and_zeroed_ones_are_zero() {
        be_thrifty();
        for size in [1, 100, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7, 1 << 20] {
            for align in [1, 16, 64, 4096] {
                let layout = Layout::from_size_align(size, align).unwrap();
                for _ in 0..3 {
                    // SAFETY: the layouts are those of the blocks, and no byte outside them is touched.
                    unsafe {
                        let block = Heap.alloc_zeroed(layout);
                        let bytes = std::slice::from_raw_parts_mut(block, size);
                        assert!(bytes.iter().all(|byte| *byte == 0), "{size} bytes at {align}");
                        bytes.fill(7);
                        let block = Heap.realloc(block, layout, size * 2);
                        let bytes = std::slice::from_raw_parts_mut(block, size * 2);
                        assert!(bytes[..size].iter().all(|byte| *byte == 7));
                        bytes.fill(9);
                        Heap.dealloc(block, Layout::from_size_align(size * 2, align).unwrap());
                    }
                }
            }
        }
    }

    #[test]
    fn pages_lie_inside_their_block() {
        for (at, size) in [(1, 10), (4096, 4096), (4097, 8191), (4097, 8192), (8192, 0), (100, 3 * 4096)] {
            let (before, length) = inner(ptr::without_provenance_mut(at), size);
            assert!(before + length <= size && length.is_multiple_of(PAGE));
            assert!(length == 0 || (at + before).is_multiple_of(PAGE));
        }
    }
}
