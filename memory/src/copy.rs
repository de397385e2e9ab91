//! `memcpy` and `memmove`.
//!
//! The C library's copy with one string instruction, whose start takes longer than all of a small copy; a warm read makes some two
//! hundred of them in four processes. Backwards it moves one byte at a time (`docs/decisions/0022`).
//!
//! Up to 128 bytes everything is loaded before anything is stored, so overlaps need no care. Beyond, blocks of 64 bytes go in the
//! direction that reads each byte before it is overwritten; both ends are loaded first and stored last, because the blocks in between,
//! whose stores are aligned, fit them only by chance.
#![allow(unsafe_code)]

use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_store_si128, _mm_storeu_si128};

/// Bytes of a vector.
const VECTOR: usize = size_of::<__m128i>();
/// Bytes that are moved at a time, where there are many.
const BLOCK: usize = 4 * VECTOR;

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
            VECTOR..=32 => ends::<__m128i>(dest, src, len),
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
            8.. => ends::<u64>(dest, src, len),
            4.. => ends::<u32>(dest, src, len),
            2.. => ends::<u16>(dest, src, len),
            1 => dest.write(src.read()),
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
unsafe fn load(src: *const u8) -> __m128i {
    // SAFETY: the caller's promise.
    unsafe { _mm_loadu_si128(src.cast()) }
}

/// # Safety
/// A vector can be written; no alignment is asked for.
#[inline(always)]
unsafe fn store(dest: *mut u8, vector: __m128i) {
    // SAFETY: the caller's promise.
    unsafe { _mm_storeu_si128(dest.cast(), vector) }
}

/// # Safety
/// A block can be read; no alignment is asked for.
#[inline(always)]
unsafe fn load_block(src: *const u8) -> [__m128i; 4] {
    // SAFETY: the caller's promise.
    unsafe { [load(src), load(src.add(VECTOR)), load(src.add(2 * VECTOR)), load(src.add(3 * VECTOR))] }
}

/// # Safety
/// A block can be written; no alignment is asked for.
#[inline(always)]
unsafe fn store_block(dest: *mut u8, [a, b, c, d]: [__m128i; 4]) {
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
unsafe fn store_aligned(dest: *mut u8, [a, b, c, d]: [__m128i; 4]) {
    let dest = dest.cast::<__m128i>();
    // SAFETY: the caller's promise.
    unsafe {
        _mm_store_si128(dest, a);
        _mm_store_si128(dest.add(1), b);
        _mm_store_si128(dest.add(2), c);
        _mm_store_si128(dest.add(3), d);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[link(name = "c")]
    unsafe extern "C" {
        #[link_name = "memcpy"]
        fn linked_memcpy();
        #[link_name = "memmove"]
        fn linked_memmove();
    }

    /// What the program's own calls reach.
    #[test]
    fn they_are_what_the_program_is_linked_with() {
        assert!(std::ptr::fn_addr_eq(
            linked_memcpy as unsafe extern "C" fn(),
            memcpy as unsafe extern "C" fn(_, _, _) -> _
        ));
        assert!(std::ptr::fn_addr_eq(
            linked_memmove as unsafe extern "C" fn(),
            memmove as unsafe extern "C" fn(_, _, _) -> _
        ));
    }

    /// The longest that is tried with every overlap: past the last bound between two ways.
    const LONGEST: usize = 300;

    /// Copies within `bytes` as a person would, one byte at a time from a copy of all of them.
    fn expected(bytes: &[u8], from: usize, to: usize, len: usize) -> Vec<u8> {
        let mut moved = bytes.to_vec();
        for at in 0..len {
            moved[to + at] = bytes[from + at];
        }
        moved
    }

    fn is_moved_right(from: usize, to: usize, len: usize) -> bool {
        let room = from.max(to) + len + 1;
        let bytes: Vec<u8> = (0..room).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect();
        let mut moved = bytes.clone();
        // SAFETY: both places lie within the room.
        let returned = unsafe { memmove(moved.as_mut_ptr().add(to), moved.as_ptr().add(from), len) };
        returned.addr() == moved.as_ptr().addr() + to && moved == expected(&bytes, from, to, len)
    }

    #[test]
    fn every_short_length_with_every_overlap() {
        for len in 0..=LONGEST {
            // Every distance up to two vectors, and then some; with every alignment over the distances.
            for apart in (0..=33).chain([63, 64, 65, 127, 128, 129, len.saturating_sub(1), len, len + 1]) {
                assert!(is_moved_right(1, 1 + apart, len), "{len} bytes, {apart} ahead");
                assert!(is_moved_right(1 + apart, 1, len), "{len} bytes, {apart} back");
            }
        }
    }

    proptest! {
        #[test]
        fn any_length_between_any_places(from in 0..9000_usize, to in 0..9000_usize, len in 0..9000_usize) {
            prop_assert!(is_moved_right(from, to, len));
        }

        #[test]
        fn nothing_outside_is_touched(len in 0..2000_usize, before in 0..32_usize, at in 0..32_usize) {
            let source = vec![7; at + len];
            let mut bytes = vec![1_u8; before + len + 32];
            // SAFETY: both hold so many bytes.
            let returned = unsafe { memcpy(bytes.as_mut_ptr().add(before), source.as_ptr().add(at), len) };
            prop_assert_eq!(returned.addr(), bytes.as_ptr().addr() + before);
            for (place, byte) in bytes.iter().enumerate() {
                prop_assert_eq!(*byte, if (before..before + len).contains(&place) { 7 } else { 1 });
            }
        }
    }
}
