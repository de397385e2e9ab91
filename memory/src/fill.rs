//! `memset`.
//!
//! From 127 bytes on the C library's has a string instruction, with a start like that of its copies (`copy`), and what is wiped or made
//! with zeros in a request is a few hundred bytes long.
#![allow(unsafe_code)]
#![expect(clippy::inline_always, reason = "one function in pieces; each knows what the one before has found out")]

use std::arch::x86_64::_mm_set1_epi8;
use std::ffi::c_int;
use std::mem::MaybeUninit;

use crate::copy::{BLOCK, VECTOR, Vector, store, store_aligned, store_block};

/// Writes `byte`, of which the lowest eight bits count, `len` times; as C has it.
///
/// # Safety
/// So many bytes can be written at `dest`.
#[unsafe(no_mangle)]
pub(crate) unsafe extern "C" fn memset(dest: *mut u8, byte: c_int, len: usize) -> *mut u8 {
    let byte = byte.to_le_bytes()[0];
    // SAFETY: what each arm writes lies within `len` bytes, by the arm's own bound.
    unsafe {
        match len {
            0..VECTOR => few(dest, byte, len),
            VECTOR.. => many(dest, byte, len),
        }
    }
    dest
}

/// Less than a vector.
///
/// # Safety
/// As [`memset`].
#[inline(always)]
unsafe fn few(dest: *mut u8, byte: u8, len: usize) {
    let word = u64::from_ne_bytes([byte; 8]);
    let half = u32::from_ne_bytes([byte; 4]);
    // SAFETY: both ends lie within `len` bytes, by the arm's own bound.
    unsafe {
        match len {
            8.. => ends(dest, word, len),
            4.. => ends(dest, half, len),
            2.. => ends(dest, [byte; 2], len),
            1 => dest.write(byte),
            0 => {}
        }
    }
}

/// Writes the first and the last `T`, which together are everything.
///
/// # Safety
/// As [`memset`], with a `len` between one and two times the size of `T`.
#[inline(always)]
unsafe fn ends<T: Copy>(dest: *mut u8, value: T, len: usize) {
    // SAFETY: both ends lie within `len` bytes.
    unsafe {
        dest.cast::<T>().write_unaligned(value);
        dest.add(len.wrapping_sub(size_of::<T>())).cast::<T>().write_unaligned(value);
    }
}

/// A vector or more.
///
/// # Safety
/// As [`memset`].
#[inline(always)]
unsafe fn many(dest: *mut u8, byte: u8, len: usize) {
    // SAFETY: every x86-64 processor has it.
    let vector: Vector = MaybeUninit::new(unsafe { _mm_set1_epi8(byte.cast_signed()) });
    let block = [vector; 4];
    // SAFETY: what each arm writes lies within `len` bytes, by the arm's own bound; an aligned block begins where more than one is left.
    unsafe {
        match len {
            0..=32 => ends(dest, vector, len),
            33..=64 => ends(dest, [vector; 2], len),
            65..=128 => {
                store_block(dest, block);
                store_block(dest.add(len - BLOCK), block);
            }
            _ => {
                store(dest, vector);
                let mut at = VECTOR - dest.addr() % VECTOR;
                while at < len - BLOCK {
                    store_aligned(dest.add(at), block);
                    at = at.wrapping_add(BLOCK);
                }
                store_block(dest.add(len - BLOCK), block);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lonely::{Lonely, PAGE};

    unsafe extern "C" {
        #[link_name = "memset"]
        fn linked_memset();
    }

    /// What ships is looked at in `promises/release_binaries.rs`.
    #[test]
    fn it_is_what_this_program_calls() {
        assert_eq!(linked_memset as *const (), memset as *const ());
    }

    /// The longest that is tried at every place: past the last bound between two ways.
    const LONGEST: usize = 300;

    /// Fills a part of a page and looks at every byte of it.
    fn is_filled_right(page: &Lonely, at: usize, len: usize, byte: u8) -> bool {
        // SAFETY: all of it lies within the page.
        unsafe {
            for index in 0..PAGE {
                page.page().add(index).write(0xEE);
            }
            // Only the lowest eight bits count.
            let returned = memset(page.page().add(at), c_int::from(byte) - 256, len);
            let expected = |index| if (at..at + len).contains(&index) { byte } else { 0xEE };
            returned == page.page().add(at) && (0..PAGE).all(|index| page.page().add(index).read() == expected(index))
        }
    }

    #[test]
    fn every_short_length_and_nothing_outside() {
        let page = Lonely::new();
        for len in (0..=LONGEST).chain([PAGE - 1, PAGE]) {
            for at in [0, 1, 7, 15, PAGE].map(|at: usize| at.min(PAGE - len)) {
                assert!(is_filled_right(&page, at, len, 0x81), "{len} bytes at {at}");
            }
        }
    }

    proptest! {
        #[test]
        fn any_length_at_any_place(at in 0..=PAGE, len in 0..=PAGE, byte: u8) {
            prop_assert!(is_filled_right(&Lonely::new(), at, len.min(PAGE - at), byte));
        }
    }
}
