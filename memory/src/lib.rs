//! The heap of a program, and how it copies and fills memory, in place of the C library's.
//!
//! Both belong to a program as a whole. It names [`Heap`] as its allocator in its `main.rs`, and is linked with `memcpy`, `memmove` and
//! `memset` from here because it uses this crate at all.
// The compiler knows loops that copy or fill, and would make each a call of the function that the loop is written for.
#![no_builtins]

#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod copy;
#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod fill;
mod heap;
mod kept;
#[cfg(all(test, target_arch = "x86_64", target_env = "musl"))]
mod lonely;

pub use heap::{Heap, be_thrifty, keep_blocks};
