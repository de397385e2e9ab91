//! For tests: a page whose neighbours nobody may touch.
#![allow(unsafe_code)]

use std::ffi::c_void;
use std::num::NonZero;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};

pub(crate) const PAGE: usize = 4096;

/// A page between two that nobody may touch: a byte too many, read or written, is the end of the test.
pub(crate) struct Lonely(NonNull<c_void>);

impl Lonely {
    pub(crate) fn new() -> Self {
        let length = NonZero::new(3 * PAGE).expect("three pages");
        // SAFETY: new memory at a place of the kernel's choice.
        let pages = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE) };
        let lonely = Self(pages.expect("three pages"));
        let inner = NonNull::new(lonely.page().cast()).expect("a page");
        // SAFETY: one whole page of it.
        unsafe { mprotect(inner, PAGE, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE) }.expect("a page");
        lonely
    }

    pub(crate) fn page(&self) -> *mut u8 {
        // SAFETY: the second of three pages.
        unsafe { self.0.as_ptr().cast::<u8>().add(PAGE) }
    }
}

impl Drop for Lonely {
    fn drop(&mut self) {
        // SAFETY: nobody has it but this.
        unsafe { munmap(self.0, 3 * PAGE) }.expect("mapped");
    }
}
