//! The heap and the copies of memory of a program, in place of the C library's.
//!
//! Both belong to a program as a whole. It names [`Heap`] as its allocator in its `main.rs`, and is linked with `memcpy` and `memmove`
//! from here because it uses this crate at all.
// The compiler knows loops that copy, and would make each a call of the function that the loop is written for.
#![no_builtins]

#[cfg(all(target_arch = "x86_64", target_env = "musl"))]
mod copy;
mod heap;

pub use heap::{Heap, be_thrifty};
