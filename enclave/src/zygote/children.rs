//! The zygote's table of children, in memory that forks do not copy.
//!
//! Had it lain on the heap, each new child would keep its own copy of the page that its own birth changed, and each
//! vault-manager could read which processes the others are.
#![allow(unsafe_code)]

use std::num::NonZeroUsize;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};
use nix::unistd::Pid;

use super::Slot;
use crate::sandbox::SLOTS;

const LENGTH: usize = SLOTS as usize;
const BYTES: NonZeroUsize = NonZeroUsize::new(LENGTH * size_of::<i32>()).expect("there are slots");

/// Which process lives in which slot. Reads and writes are the zygote's alone: in a child the memory is not there.
#[derive(Debug)]
pub(super) struct Children {
    /// The process of each slot; 0 where nobody lives.
    pids: NonNull<i32>,
    /// Slots from here on were never used, and their pages never touched.
    used: usize,
}

impl Children {
    pub(super) fn new() -> nix::Result<Self> {
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new anonymous mapping at an address of the kernel's choice collides with nothing.
        let memory = unsafe { mmap_anonymous(None, BYTES, access, MapFlags::MAP_PRIVATE)? };
        // SAFETY: the range is exactly the mapping made above, and nobody has a reference into it yet.
        unsafe { madvise(memory, BYTES.get(), MmapAdvise::MADV_DONTFORK)? };
        Ok(Self { pids: memory.cast(), used: 0 })
    }

    fn pids(&self) -> &[i32] {
        // SAFETY: the mapping is page-aligned, zeroed, as long as LENGTH integers, never unmapped, and borrowed through `self`
        // only; `used` never exceeds LENGTH.
        unsafe { std::slice::from_raw_parts(self.pids.as_ptr(), self.used) }
    }

    fn set(&mut self, slot: Slot, pid: i32) {
        let index = slot.0 as usize;
        assert!(index < LENGTH, "slots are checked when they arrive");
        self.used = self.used.max(index + 1);
        // SAFETY: as above; the index is inside the mapping, and `&mut self` excludes readers.
        unsafe { self.pids.add(index).write(pid) };
    }

    /// Slots that were ever used: an upper bound of how many children there are.
    pub(super) fn used(&self) -> u32 {
        u32::try_from(self.used).unwrap_or(SLOTS)
    }

    /// Whether a child may be put here.
    pub(super) fn is_free(&self, slot: Slot) -> bool {
        slot.0 < SLOTS && self.get(slot).is_none()
    }

    pub(super) fn get(&self, slot: Slot) -> Option<Pid> {
        self.pids().get(slot.0 as usize).filter(|pid| **pid != 0).map(|pid| Pid::from_raw(*pid))
    }

    pub(super) fn put(&mut self, slot: Slot, pid: Pid) {
        self.set(slot, pid.as_raw());
    }

    /// Frees the slot of a child that was reaped. A scan of 40 KiB at ten thousand children costs less than an exit does.
    pub(super) fn remove(&mut self, pid: Pid) -> Option<Slot> {
        let index = self.pids().iter().position(|other| *other == pid.as_raw())?;
        let slot = Slot(u32::try_from(index).expect("below SLOTS"));
        self.set(slot, 0);
        Some(slot)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = Pid> {
        self.pids().iter().filter(|pid| **pid != 0).map(|pid| Pid::from_raw(*pid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_taken_and_freed() {
        let mut children = Children::new().unwrap();
        let (last, beyond) = (Slot(SLOTS - 1), Slot(SLOTS));
        assert!(children.is_free(Slot(0)) && children.is_free(last) && !children.is_free(beyond));
        children.put(last, Pid::from_raw(7));
        children.put(Slot(0), Pid::from_raw(9));
        assert_eq!(children.get(last), Some(Pid::from_raw(7)));
        assert!(!children.is_free(last));
        assert_eq!(children.all().count(), 2);
        assert_eq!(children.remove(Pid::from_raw(7)), Some(last));
        assert_eq!(children.remove(Pid::from_raw(7)), None);
        assert_eq!(children.all().collect::<Vec<_>>(), [Pid::from_raw(9)]);
    }
}
