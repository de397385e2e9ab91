//! `memcpy` and `memmove`.
//!
//! The C library's copy with one string instruction, whose start takes longer than all of a small copy, and nearly all copies of a
//! request are small. Backwards they move one byte at a time (`docs/decisions/0022`).
//!
//! Up to 128 bytes everything is loaded before anything is stored, so overlaps need no care. Beyond, blocks of 64 bytes go in the
//! direction that reads each byte before it is overwritten; both ends are loaded first and stored last, because the blocks in between,
//! whose stores are aligned, fit them only by chance.
#![allow(unsafe_code)]
#![expect(
    clippy::inline_always,
    reason = "one function in pieces; each knows what the one before has found out about the length"
)]

use std::arch::x86_64::__m128i;
use std::mem::MaybeUninit;

/// What is copied may have bytes that were never written: a structure's padding.
pub(crate) type Vector = MaybeUninit<__m128i>;

/// Bytes of a vector.
pub(crate) const VECTOR: usize = size_of::<Vector>();
/// Bytes that are moved at a time, where there are many.
pub(crate) const BLOCK: usize = 4 * VECTOR;

/// Copies `len` bytes; as C has it.
///
/// # Safety
/// So many bytes can be read at `src` and written at `dest`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memcpy(dest: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { copy(dest, src, len) };
    dest
}

/// Copies `len` bytes between places that may overlap; as C has it.
///
/// # Safety
/// So many bytes can be read at `src` and written at `dest`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memmove(dest: *mut u8, src: *const u8, len: usize) -> *mut u8 {
    // SAFETY: the caller's promise.
    unsafe { copy(dest, src, len) };
    dest
}

/// # Safety
/// So many bytes can be read at `src` and written at `dest`.
#[inline(always)]
unsafe fn copy(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: what each arm reads and writes lies within `len` bytes, by the arm's own bound.
    unsafe {
        match len {
            0..VECTOR => few(dest, src, len),
            VECTOR..=32 => ends::<Vector>(dest, src, len),
            33..=64 => pairs(dest, src, len),
            65..=128 => blocks(dest, src, len),
            // Also when `dest` lies before `src`: the difference wraps around.
            _ if dest.addr().wrapping_sub(src.addr()) >= len => forwards(dest, src, len),
            _ => backwards(dest, src, len),
        }
    }
}

/// Copies less than a vector.
///
/// # Safety
/// As [`copy`].
#[inline(always)]
unsafe fn few(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: what each arm reads and writes lies within `len` bytes, by the arm's own bound.
    unsafe {
        match len {
            8.. => ends::<MaybeUninit<u64>>(dest, src, len),
            4.. => ends::<MaybeUninit<u32>>(dest, src, len),
            2.. => ends::<MaybeUninit<u16>>(dest, src, len),
            1 => dest.cast::<MaybeUninit<u8>>().write(src.cast::<MaybeUninit<u8>>().read()),
            0 => {}
        }
    }
}

/// Copies the first and the last `T`, which together are everything.
///
/// # Safety
/// As [`copy`], with a `len` between one and two times the size of `T`.
#[inline(always)]
unsafe fn ends<T: Copy>(dest: *mut u8, src: *const u8, len: usize) {
    let last = len.wrapping_sub(size_of::<T>());
    // SAFETY: both ends lie within `len` bytes.
    unsafe {
        let ends = (src.cast::<T>().read_unaligned(), src.add(last).cast::<T>().read_unaligned());
        dest.cast::<T>().write_unaligned(ends.0);
        dest.add(last).cast::<T>().write_unaligned(ends.1);
    }
}

/// Copies the first and the last two vectors, which together are everything.
///
/// # Safety
/// As [`copy`], with a `len` between two and four vectors.
#[inline(always)]
unsafe fn pairs(dest: *mut u8, src: *const u8, len: usize) {
    let last = len.wrapping_sub(2 * VECTOR);
    // SAFETY: both ends lie within `len` bytes.
    unsafe {
        let (a, b) = (load(src), load(src.add(VECTOR)));
        let (c, d) = (load(src.add(last)), load(src.add(last + VECTOR)));
        store(dest, a);
        store(dest.add(VECTOR), b);
        store(dest.add(last), c);
        store(dest.add(last + VECTOR), d);
    }
}

/// Copies the first and the last block, which together are everything.
///
/// # Safety
/// As [`copy`], with a `len` between one and two blocks.
#[inline(always)]
unsafe fn blocks(dest: *mut u8, src: *const u8, len: usize) {
    let last = len.wrapping_sub(BLOCK);
    // SAFETY: both ends lie within `len` bytes.
    unsafe {
        let (first_block, last_block) = (load_block(src), load_block(src.add(last)));
        store_block(dest, first_block);
        store_block(dest.add(last), last_block);
    }
}

/// Copies from the first byte on.
///
/// # Safety
/// As [`copy`], with a `len` above two blocks; `dest` does not lie behind `src` within it.
#[inline(always)]
unsafe fn forwards(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: a block begins where at least one block and a byte are left.
    unsafe {
        let (head, tail) = (load(src), load_block(src.add(len - BLOCK)));
        let mut at = VECTOR - dest.addr() % VECTOR;
        while at < len - BLOCK {
            store_aligned(dest.add(at), load_block(src.add(at)));
            at = at.wrapping_add(BLOCK);
        }
        store_block(dest.add(len - BLOCK), tail);
        store(dest, head);
    }
}

/// Copies from the last byte on.
///
/// # Safety
/// As [`copy`], with a `len` above two blocks; `dest` does not lie before `src`.
#[inline(always)]
unsafe fn backwards(dest: *mut u8, src: *const u8, len: usize) {
    // SAFETY: a block ends where at least one block and a byte are left.
    unsafe {
        let (head, tail) = (load_block(src), load(src.add(len - VECTOR)));
        let mut end = len - dest.addr().wrapping_add(len) % VECTOR;
        while end > BLOCK {
            end -= BLOCK;
            store_aligned(dest.add(end), load_block(src.add(end)));
        }
        store_block(dest, head);
        store(dest.add(len - VECTOR), tail);
    }
}

/// # Safety
/// A vector can be read; no alignment is asked for.
#[inline(always)]
unsafe fn load(src: *const u8) -> Vector {
    // SAFETY: the caller's promise.
    unsafe { src.cast::<Vector>().read_unaligned() }
}

/// # Safety
/// A vector can be written; no alignment is asked for.
#[inline(always)]
pub(crate) unsafe fn store(dest: *mut u8, vector: Vector) {
    // SAFETY: the caller's promise.
    unsafe { dest.cast::<Vector>().write_unaligned(vector) }
}

/// # Safety
/// A block can be read; no alignment is asked for.
#[inline(always)]
unsafe fn load_block(src: *const u8) -> [Vector; 4] {
    // SAFETY: the caller's promise.
    unsafe { [load(src), load(src.add(VECTOR)), load(src.add(2 * VECTOR)), load(src.add(3 * VECTOR))] }
}

/// # Safety
/// A block can be written; no alignment is asked for.
#[inline(always)]
pub(crate) unsafe fn store_block(dest: *mut u8, [a, b, c, d]: [Vector; 4]) {
    // SAFETY: the caller's promise.
    unsafe {
        store(dest, a);
        store(dest.add(VECTOR), b);
        store(dest.add(2 * VECTOR), c);
        store(dest.add(3 * VECTOR), d);
    }
}

/// # Safety
/// A block can be written; `dest` is aligned to a vector.
#[inline(always)]
pub(crate) unsafe fn store_aligned(dest: *mut u8, [a, b, c, d]: [Vector; 4]) {
    #[expect(clippy::cast_ptr_alignment, reason = "the caller's promise")]
    let dest = dest.cast::<Vector>();
    // SAFETY: the caller's promise.
    unsafe {
        dest.write(a);
        dest.add(1).write(b);
        dest.add(2).write(c);
        dest.add(3).write(d);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lonely::{Lonely, PAGE};

    unsafe extern "C" {
        #[link_name = "memcpy"]
        fn linked_memcpy();
        #[link_name = "memmove"]
        fn linked_memmove();
    }

    /// What ships is looked at in `promises/release_binaries.rs`.
    #[test]
    fn they_are_what_this_program_calls() {
        let linked = (linked_memcpy as *const (), linked_memmove as *const ());
        assert_eq!(linked, (memcpy as *const (), memmove as *const ()));
    }

    /// The longest that is tried in every way: past the last bound between two ways.
    const LONGEST: usize = 300;

    /// A byte that its neighbours have not.
    fn byte(at: usize) -> u8 {
        u8::try_from(at % 251).expect("a byte") ^ u8::try_from(at / 251 % 256).expect("a byte")
    }

    /// Moves within a buffer and looks at every byte of it. Nothing here copies by what is tried.
    fn is_moved_right(from: usize, to: usize, len: usize) -> bool {
        let mut bytes: Vec<u8> = (0..=from.max(to) + len).map(byte).collect();
        // SAFETY: both places lie within the buffer.
        let returned = unsafe { memmove(bytes.as_mut_ptr().add(to), bytes.as_ptr().add(from), len) };
        let expected = |at: usize| byte(if (to..to + len).contains(&at) { at - to + from } else { at });
        returned.addr() == bytes.as_ptr().addr() + to
            && bytes.iter().enumerate().all(|(at, byte)| *byte == expected(at))
    }

    #[test]
    fn every_short_length_with_every_overlap() {
        for len in 0..=LONGEST {
            for base in [0, 1, 7, 15] {
                // Every distance up to two vectors, and those about the bounds.
                for apart in (0..=33).chain([63, 64, 65, 127, 128, 129, len.saturating_sub(1), len, len + 1]) {
                    assert!(is_moved_right(base, base + apart, len), "{len} bytes at {base}, {apart} ahead");
                    assert!(is_moved_right(base + apart, base, len), "{len} bytes at {base}, {apart} back");
                }
            }
        }
    }

    /// A byte too many, read or written, on any side, is the end of the test.
    #[test]
    fn nothing_outside_is_read_or_written() {
        let (from, to) = (Lonely::new(), Lonely::new());
        for len in (0..=LONGEST).chain([PAGE - 1, PAGE]) {
            for (src_at, dest_at) in [(0, 0), (0, PAGE - len), (PAGE - len, 0), (PAGE - len, PAGE - len)] {
                // SAFETY: both places lie within their pages.
                unsafe {
                    for at in 0..PAGE {
                        from.page().add(at).write(byte(at));
                        to.page().add(at).write(0xEE);
                    }
                    memcpy(to.page().add(dest_at), from.page().add(src_at), len);
                    for at in 0..PAGE {
                        let is_inside = (dest_at..dest_at + len).contains(&at);
                        let expected = if is_inside { byte(at - dest_at + src_at) } else { 0xEE };
                        assert_eq!(to.page().add(at).read(), expected, "{len} bytes, byte {at}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn any_length_between_any_places(from in 0..9000_usize, to in 0..9000_usize, len in 0..9000_usize) {
            prop_assert!(is_moved_right(from, to, len));
        }
    }
}
