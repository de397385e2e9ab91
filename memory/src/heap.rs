//! The heap: dlmalloc, in front of which a thread may keep its small blocks, and whose large ones a vault-manager gives back to the kernel
//! as soon as they are freed.
//!
//! dlmalloc has one lock. A request takes it some two hundred times in four processes, nearly always for a block as small as one that
//! the same thread has just freed: a thread that [keeps its blocks](keep_blocks) seldom takes it.
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

use crate::kept::{Kept, rounded};

/// Blocks from this size on are given back. Below it a system call costs more than the pages are worth.
const LARGE: usize = 16 * 1024;
const PAGE: usize = 4096;

static DLMALLOC: Mutex<Dlmalloc> = Mutex::new(Dlmalloc::new());
static IS_THRIFTY: AtomicBool = AtomicBool::new(false);

thread_local! {
    static KEPT: Kept = const { Kept::nothing() };
}

/// The allocator of every program.
#[derive(Debug, Clone, Copy)]
pub struct Heap;

/// From now on this process gives back what it can.
pub fn be_thrifty() {
    IS_THRIFTY.store(true, Ordering::Relaxed);
}

/// From now on this thread keeps small blocks that it frees for what it allocates next: for threads that last as long as their process,
/// since what a thread keeps is lost when it ends.
pub fn keep_blocks() {
    KEPT.with(Kept::begin);
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

// SAFETY: every block comes from dlmalloc, under the lock, with the size that `rounded` says, and goes back to it or to who keeps it;
// pages are dropped only while their block is allocated.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let kept = KEPT.with(|kept| kept.take(layout));
        if !kept.is_null() {
            return kept;
        }
        // SAFETY: the caller's promise.
        unsafe { dlmalloc().malloc(rounded(layout), layout.align()) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block was made for this layout, and the caller gives it up.
        if KEPT.with(|kept| unsafe { kept.keep(block, layout) }) {
            return;
        }
        if is_given_back(layout.size()) {
            // SAFETY: the caller gives the block up.
            unsafe { drop_pages(block, layout.size()) };
        }
        // SAFETY: the caller's promise.
        unsafe { dlmalloc().free(block, rounded(layout), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let size = layout.size();
        if !is_given_back(size) {
            let kept = KEPT.with(|kept| kept.take(layout));
            if kept.is_null() {
                // SAFETY: the caller's promise.
                return unsafe { dlmalloc().calloc(rounded(layout), layout.align()) };
            }
            // SAFETY: a block for this layout has so many bytes.
            unsafe { ptr::write_bytes(kept, 0, size) };
            return kept;
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
        // SAFETY: the caller's promise: the size is not zero and does not overflow with this alignment.
        let new_layout = unsafe { Layout::from_size_align_unchecked(new_size, layout.align()) };
        let (size, new_rounded) = (rounded(layout), rounded(new_layout));
        if size == new_rounded {
            return block;
        }
        if !is_given_back(layout.size()) && !KEPT.with(|kept| kept.wants(layout)) {
            // SAFETY: the caller's promise.
            return unsafe { dlmalloc().realloc(block, size, layout.align(), new_rounded) };
        }
        // What it grows out of is given back, or kept, as well.
        // SAFETY: the caller's promise.
        let new = unsafe { self.alloc(new_layout) };
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
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::*;

    const SIZES: [usize; 12] = [1, 24, 25, 100, 480, 520, 521, LARGE - 1, LARGE, LARGE + 1, 3 * LARGE + 7, 1 << 20];

    /// Whatever happens to a block, it holds what was written.
    fn blocks_keep_what_they_hold() {
        for (size, align) in SIZES.into_iter().flat_map(|size| [1, 16, 64, 4096].map(|align| (size, align))) {
            let layout = Layout::from_size_align(size, align).unwrap();
            for new_size in [size * 2, size.div_ceil(2), size + 1] {
                // SAFETY: the layouts are those of the blocks, and no byte outside them is touched.
                unsafe {
                    let block = Heap.alloc_zeroed(layout);
                    let bytes = std::slice::from_raw_parts_mut(block, size);
                    assert!(block.addr().is_multiple_of(align) && bytes.iter().all(|byte| *byte == 0), "{layout:?}");
                    bytes.fill(7);
                    let block = Heap.realloc(block, layout, new_size);
                    let bytes = std::slice::from_raw_parts_mut(block, new_size);
                    assert!(bytes[..size.min(new_size)].iter().all(|byte| *byte == 7), "{layout:?} to {new_size}");
                    bytes.fill(9);
                    Heap.dealloc(block, Layout::from_size_align(new_size, align).unwrap());
                }
            }
        }
    }

    #[test]
    fn blocks_keep_what_they_hold_and_zeroed_ones_are_zero() {
        be_thrifty();
        blocks_keep_what_they_hold();
        std::thread::spawn(|| {
            keep_blocks();
            blocks_keep_what_they_hold();
        })
        .join()
        .unwrap();
    }

    proptest! {
        /// However blocks come and go, on a thread that keeps them: no byte belongs to two.
        #[test]
        fn no_two_blocks_share_a_byte(steps in vec((0..8_usize, 0..700_usize), 1..300)) {
            let thread = std::thread::spawn(move || {
                keep_blocks();
                let mut places: [Option<(*mut u8, Layout)>; 8] = [None; 8];
                for (place, size) in steps {
                    let mark = u8::try_from(place).unwrap();
                    // SAFETY: each block is given back with its layout, once, and no byte outside it is touched.
                    unsafe {
                        places[place] = match (places[place], Layout::from_size_align(size, 8).unwrap()) {
                            (None, layout) if size > 0 => Some((Heap.alloc(layout), layout)),
                            (Some((block, old)), layout) if size > 0 => Some((Heap.realloc(block, old, size), layout)),
                            (Some((block, old)), _) => {
                                Heap.dealloc(block, old);
                                None
                            }
                            (None, _) => None,
                        };
                        if let Some((block, layout)) = places[place] {
                            block.write_bytes(mark, layout.size());
                        }
                        for (mark, (block, layout)) in (0_u8..).zip(places).filter_map(|(mark, place)| Some((mark, place?))) {
                            let bytes = std::slice::from_raw_parts(block, layout.size());
                            assert!(bytes.iter().all(|byte| *byte == mark), "place {mark}");
                        }
                    }
                }
            });
            prop_assert!(thread.join().is_ok());
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
