//! Small blocks that a thread has freed and keeps for itself.
//!
//! Blocks of a kind have the same size, so that any of them serves. A block that is kept is free: its first bytes name the next one.
#![allow(unsafe_code)]

use std::alloc::Layout;
use std::cell::Cell;
use std::ptr;

/// What dlmalloc aligns every block to, and the difference between two kinds.
const STEP: usize = 16;
/// The smallest kind. With these sizes a kind has the bytes that dlmalloc's own block has behind its word of bookkeeping, and rounding up
/// to them costs nothing.
const SMALLEST: usize = 24;
const KINDS: usize = 32;
const LARGEST: usize = SMALLEST + (KINDS - 1) * STEP;
/// Kept of each kind at most: together 68 KiB.
const MOST: u8 = 8;

/// None for blocks that are not kept.
fn kind(layout: Layout) -> Option<usize> {
    let is_small = (1..=LARGEST).contains(&layout.size()) && layout.align() <= STEP;
    is_small.then(|| (layout.size().max(SMALLEST) - SMALLEST).div_ceil(STEP))
}

/// The size that a block is allocated with: its kind's, or what was asked for. Whoever frees a block may keep it, and gives it to who
/// needs all of it; so whoever allocates one takes all of it.
pub(crate) fn rounded(layout: Layout) -> usize {
    kind(layout).map_or(layout.size(), |kind| SMALLEST + kind * STEP)
}

/// Where a block that is kept names the next one.
fn next(block: *mut u8) -> *mut *mut u8 {
    block.cast()
}

/// What a thread keeps.
pub(crate) struct Kept {
    first: [Cell<*mut u8>; KINDS],
    count: [Cell<u8>; KINDS],
    has_begun: Cell<bool>,
}

impl Kept {
    /// Nothing, and nothing will be.
    pub(crate) const fn nothing() -> Self {
        Self {
            first: [const { Cell::new(ptr::null_mut()) }; KINDS],
            count: [const { Cell::new(0) }; KINDS],
            has_begun: Cell::new(false),
        }
    }

    /// From now on.
    pub(crate) fn begin(&self) {
        self.has_begun.set(true);
    }

    /// Whether blocks for this layout are kept.
    pub(crate) fn wants(&self, layout: Layout) -> bool {
        self.has_begun.get() && kind(layout).is_some()
    }

    /// A block that was kept; null when there is none.
    pub(crate) fn take(&self, layout: Layout) -> *mut u8 {
        let Some(kind) = kind(layout) else { return ptr::null_mut() };
        let block = self.first[kind].get();
        if !block.is_null() {
            // SAFETY: `keep` has written it, and nobody else has had the block since.
            self.first[kind].set(unsafe { next(block).read() });
            self.count[kind].set(self.count[kind].get() - 1);
        }
        block
    }

    /// Keeps a block. False when it is not to be kept.
    ///
    /// # Safety
    /// The block has the size that [`rounded`] says for this layout, and its owner gives it up.
    pub(crate) unsafe fn keep(&self, block: *mut u8, layout: Layout) -> bool {
        let Some(kind) = kind(layout).filter(|kind| self.has_begun.get() && self.count[*kind].get() < MOST) else {
            return false;
        };
        // SAFETY: every block has at least 24 bytes, and is aligned to 16.
        unsafe { next(block).write(self.first[kind].get()) };
        self.first[kind].set(block);
        self.count[kind].set(self.count[kind].get() + 1);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(size: usize) -> Layout {
        Layout::from_size_align(size, 8).unwrap()
    }

    /// Blocks of a kind, as the heap would make them.
    fn blocks(kind: usize, count: usize) -> Vec<Vec<u128>> {
        vec![vec![0; (SMALLEST + kind * STEP).div_ceil(STEP)]; count]
    }

    #[test]
    fn a_kind_is_as_large_as_the_largest_that_it_serves() {
        assert_eq!([1, 24, 25, 40, 41].map(|size| rounded(layout(size))), [24, 24, 40, 40, 56]);
        for size in 1..=LARGEST {
            let kind = kind(layout(size)).unwrap();
            assert_eq!(rounded(layout(size)), SMALLEST + kind * STEP);
            assert!((size..size + STEP).contains(&rounded(layout(size))) || size < SMALLEST, "{size}");
        }
        for not_small in [layout(LARGEST + 1), Layout::from_size_align(32, 32).unwrap()] {
            assert_eq!((kind(not_small), rounded(not_small)), (None, not_small.size()));
        }
    }

    #[test]
    fn what_was_kept_last_is_taken_first_and_no_more_than_that() {
        let kept = Kept::nothing();
        kept.begin();
        for kind in 0..KINDS {
            let size = SMALLEST + kind * STEP;
            let mut blocks = blocks(kind, usize::from(MOST) + 1);
            let addresses: Vec<*mut u8> = blocks.iter_mut().map(|block| block.as_mut_ptr().cast()).collect();
            let (over, fitting) = addresses.split_last().unwrap();
            // A second time as well: what was taken makes room.
            for _ in 0..2 {
                for block in fitting {
                    // SAFETY: a block of this size, of which nobody else knows.
                    assert!(unsafe { kept.keep(*block, layout(size)) });
                }
                // SAFETY: as above.
                assert!(!unsafe { kept.keep(*over, layout(size)) }, "more of a kind than are kept");
                for block in fitting.iter().rev() {
                    assert_eq!(kept.take(layout(size - 7)), *block);
                }
                assert!(kept.take(layout(size)).is_null());
            }
        }
    }

    #[test]
    fn a_thread_that_has_not_begun_keeps_nothing() {
        let kept = Kept::nothing();
        let mut blocks = blocks(0, 1);
        // SAFETY: a block of the smallest size, of which nobody else knows.
        assert!(!unsafe { kept.keep(blocks[0].as_mut_ptr().cast(), layout(SMALLEST)) });
        assert!(kept.take(layout(SMALLEST)).is_null() && !kept.wants(layout(SMALLEST)));
    }
}
