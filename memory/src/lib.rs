//! The heap and the copies of memory of every program, in place of the C library's.
//!
//! Both belong to a program as a whole: its `main.rs` names [`Heap`] as its allocator, and is linked with `memcpy` and `memmove` from
//! here by that.
// The compiler knows loops that copy, and would make each a call of the function that the loop is written for.
#![no_builtins]

#[cfg(target_arch = "x86_64")]
mod copy;
mod heap;

pub use heap::{Heap, be_thrifty};
