//! A program's code and constants in memory of its own, in huge pages where the kernel has them.
//!
//! The kernel maps a program's file in pages of 4 KiB, one fault for each few of them, again in each process. A fork copies no such mapping:
//! a vault-manager spent a seventh of an eviction on asking for code that the zygote had all along. Memory of the zygote's own is there in
//! the child from its first instruction, and in huge pages one entry stands for 512. Whoever serves many processes in turn, each with the
//! caches of another, saves the way through the page tables besides.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};

use nix::errno::Errno;
use nix::libc::{self, PF_W, PF_X, PT_LOAD, dl_phdr_info};
use nix::sys::mman::{MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, mremap, munmap};

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;

/// A range of addresses, whole pages, of the program as it was loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    start: usize,
    end: usize,
    is_code: bool,
    is_written: bool,
}

/// What is moved of a segment, and where its last huge page ends: behind its end, if nothing of the program stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    start: usize,
    end: usize,
    filled: usize,
    is_code: bool,
}

impl Segment {
    /// Whole huge pages of it; none when there are none. `next` is where the program goes on.
    fn part(self, next: usize) -> Option<Part> {
        let start = self.start.checked_next_multiple_of(HUGE_PAGE)?;
        let filled = self.end.checked_next_multiple_of(HUGE_PAGE)?;
        let filled = if filled <= next { filled } else { self.end / HUGE_PAGE * HUGE_PAGE };
        let end = self.end.min(filled);
        (start < end).then_some(Part { start, end, filled, is_code: self.is_code })
    }
}

/// Moves the program's code and constants into huge pages of the process, byte by byte the same, as far as they fill some. To be called
/// while the process has one thread. Gives the bytes that were moved.
///
/// Nothing is writable and executable at any time: the copy is written first, then made executable, then put in the place of the file.
///
/// # Errors
/// What the kernel said. The program stands where it stood, whole; nothing but speed depends on it.
pub fn move_text() -> nix::Result<usize> {
    let segments = segments();
    let nexts = segments.iter().skip(1).map(|segment| segment.start).chain([usize::MAX]);
    let parts = segments.iter().zip(nexts).filter(|(segment, _)| !segment.is_written);
    parts
        .filter_map(|(segment, next)| segment.part(next))
        .map(|part| replace(part).map(|()| part.end - part.start))
        .sum()
}

/// What the program's headers say of it, in order.
fn segments() -> Vec<Segment> {
    let mut found: Vec<Segment> = Vec::new();
    // SAFETY: the callback gets this vector and is done with it when the call returns.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
    found.sort_unstable_by_key(|segment| segment.start);
    found
}

unsafe extern "C" fn collect(info: *mut dl_phdr_info, _size: usize, found: *mut c_void) -> c_int {
    // SAFETY: the C library hands out a valid description, and the pointer that `segments` gave it.
    let (info, found) = unsafe { (&*info, &mut *found.cast::<Vec<Segment>>()) };
    for index in 0..usize::from(info.dlpi_phnum) {
        // SAFETY: so many headers lie there.
        let header = unsafe { &*info.dlpi_phdr.add(index) };
        let (Ok(base), Ok(at), Ok(length)) =
            (usize::try_from(info.dlpi_addr), usize::try_from(header.p_vaddr), usize::try_from(header.p_memsz))
        else {
            continue;
        };
        if header.p_type == PT_LOAD {
            found.push(Segment {
                start: (base + at) / PAGE * PAGE,
                end: (base + at + length).next_multiple_of(PAGE),
                is_code: header.p_flags & PF_X != 0,
                is_written: header.p_flags & PF_W != 0,
            });
        }
    }
    // The first is the program; a static one has no other, but what the kernel lends it.
    1
}

/// Puts memory with the same content in the place of a part of the program.
fn replace(part: Part) -> nix::Result<()> {
    let (length, behind) = (part.filled - part.start, part.filled - part.end);
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    if let (Some(at), Some(behind)) = (NonZeroUsize::new(part.end), NonZeroUsize::new(behind)) {
        // Whatever came to stand behind the program meanwhile stays there: then this fails.
        // SAFETY: a new mapping where there is none.
        unsafe {
            mmap_anonymous(
                Some(at),
                behind,
                ProtFlags::PROT_NONE,
                MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE,
            )?
        };
    }
    let room = NonZeroUsize::new(length + HUGE_PAGE).ok_or(Errno::EINVAL)?;
    // SAFETY: a new anonymous mapping at an address of the kernel's choice collides with nothing.
    let scratch = unsafe { mmap_anonymous(None, room, access, MapFlags::MAP_PRIVATE)? };
    let done = fill(scratch, part);
    // What was moved away is not there any more, and the rest is nobody's.
    // SAFETY: the range is the mapping made above, into which nothing points.
    unsafe { munmap(scratch, room.get())? };
    done
}

/// Copies the part into the scratch memory, which is a huge page longer, and moves it from there.
fn fill(scratch: NonNull<c_void>, part: Part) -> nix::Result<()> {
    let length = part.filled - part.start;
    // Whole huge pages move whole from one boundary to another.
    let offset = scratch.addr().get().next_multiple_of(HUGE_PAGE) - scratch.addr().get();
    // SAFETY: less than a huge page further on in the same mapping.
    let place = unsafe { scratch.byte_add(offset) };
    let to = NonNull::new(ptr::with_exposed_provenance_mut::<c_void>(part.start)).ok_or(Errno::EINVAL)?;
    // SAFETY: advice on memory that is ours.
    unsafe { madvise(place, length, MmapAdvise::MADV_HUGEPAGE)? };
    let (from, into) = (to.cast::<u8>(), place.cast::<u8>());
    let (filled, behind) = (part.end - part.start, part.filled - part.end);
    // SAFETY: the part is mapped and readable for as long as the process lives; the scratch memory is writable and long enough for both.
    unsafe {
        ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), filled);
        // Where nothing is to be run, each byte is a breakpoint.
        ptr::write_bytes(into.add(filled).as_ptr(), if part.is_code { 0xcc } else { 0 }, behind);
    }
    let access = if part.is_code { ProtFlags::PROT_READ | ProtFlags::PROT_EXEC } else { ProtFlags::PROT_READ };
    // SAFETY: nobody has a reference into the scratch memory, and what comes to the part's place is what was there: whoever runs or reads
    // it, this call included, finds the same bytes before and after. The process has one thread.
    unsafe {
        mprotect(place, length, access)?;
        mremap(place, length, length, MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED, Some(to))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    static CONSTANTS: [u64; 4] = [2, 3, 5, 7];

    #[test]
    fn whole_huge_pages_lie_inside_or_reach_into_nothing() {
        let part = |start, end, next| {
            let segment = Segment { start, end, is_code: true, is_written: false };
            segment.part(next).map(|part| (part.start, part.end, part.filled))
        };
        let (one, two, four) = (HUGE_PAGE, 2 * HUGE_PAGE, 4 * HUGE_PAGE);
        assert_eq!(part(0x8b000, four + PAGE, four + 2 * PAGE), Some((one, four, four)));
        assert_eq!(part(one, two, two), Some((one, two, two)));
        assert_eq!(part(one, two - PAGE, two), Some((one, two - PAGE, two)));
        assert_eq!(part(one, two - PAGE, usize::MAX), Some((one, two - PAGE, two)));
        assert_eq!(part(one, two - PAGE, two - PAGE), None);
        assert_eq!(part(PAGE, two - PAGE, two - PAGE), None);
        assert_eq!(part(PAGE, one - PAGE, one), None);
    }

    /// In a child, because the test's own process has many threads.
    #[test]
    fn a_program_runs_on_in_its_own_memory() {
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{ForkResult, fork};
        // SAFETY: the child looks at its own mappings and leaves; it allocates, which this allocator can do after a fork.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let code = i32::from(!it_runs_on());
                // SAFETY: leaves without the runtime's farewells.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => assert_eq!(waitpid(child, None), Ok(WaitStatus::Exited(child, 0))),
        }
    }

    /// A whole program of pages, wherever it stands.
    fn it_runs_on() -> bool {
        let all = segments();
        let code = all.iter().find(|segment| segment.is_code && !segment.is_written);
        let Some(code) = code else { return false };
        // This test's own code may fill no huge page: then its pages are moved one by one.
        let part = Part { start: code.start, end: code.end, filled: code.end, is_code: true };
        let moved = move_text().is_ok() && replace(part).is_ok();
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return false };
        let of_file = maps.lines().any(|line| line.contains(" r-xp ") && line.contains('/'));
        let both = maps.lines().any(|line| line.contains(" rwx"));
        moved && !of_file && !both && std::hint::black_box(CONSTANTS).iter().sum::<u64>() == 17
    }
}
