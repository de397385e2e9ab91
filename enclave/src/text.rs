//! A program's code and constants in memory of its own, in huge pages where the kernel has them.
//!
//! The kernel maps a program's file in pages of 4 KiB, one fault for each few of them, again in each process. A fork copies no such mapping:
//! a vault-manager spent a seventh of an eviction on asking for code that the zygote had all along. Memory of the zygote's own is there in
//! the child from its first instruction, and in huge pages one entry stands for 512. Whoever serves many processes in turn, each with the
//! caches of another, saves the way through the page tables besides.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_void};
use std::fs;
use std::num::NonZeroUsize;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicUsize, Ordering};

use libc::{PF_W, PF_X, PT_LOAD, dl_phdr_info};
use nix::errno::Errno;

use nix::sys::mman::{MRemapFlags, MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, mprotect, mremap, munmap};

const PAGE: usize = 4096;
const HUGE_PAGE: usize = 2 << 20;
/// Where nothing is to be run: a breakpoint, or no instruction.
const NO_CODE: u8 = if cfg!(target_arch = "x86_64") { 0xcc } else { 0 };

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

/// What this process has moved, in bytes of huge pages.
static MOVED: AtomicUsize = AtomicUsize::new(0);

/// How much memory of this process is code and constants in huge pages.
pub(crate) fn moved() -> usize {
    MOVED.load(Ordering::Relaxed)
}

/// Moves the program's code and constants into huge pages of the process, byte by byte the same, as far as they fill some and the kernel
/// has some: small pages would have to be mapped in each child one by one, which costs more than asking for a few. To be called while the
/// process has one thread. Gives the bytes of huge pages that it takes.
///
/// Nothing is writable and executable at any time: the copy is written first, then made executable, then put in the place of the file.
///
/// # Errors
/// What the kernel said. What has not been moved stands where it stood; nothing but speed depends on it.
pub(crate) fn move_text() -> nix::Result<usize> {
    let segments = segments();
    let nexts = segments.iter().skip(1).map(|segment| segment.start).chain([usize::MAX]);
    // What stands before the code is read once, by whoever loads the program.
    let parts = segments.iter().zip(nexts).skip_while(|(segment, _)| !segment.is_code);
    parts
        .filter(|(segment, _)| !segment.is_written)
        .filter_map(|(segment, next)| segment.part(next))
        .map(|part| Ok(if replace(part)? { part.filled - part.start } else { 0 }))
        .sum::<nix::Result<usize>>()
        .inspect(|moved| MOVED.store(*moved, Ordering::Relaxed))
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

/// Puts memory with the same content in the place of a part of the program. Says whether it did: there may be no huge pages.
fn replace(part: Part) -> nix::Result<bool> {
    let behind = Behind::reserve(part.end, part.filled)?;
    let length = part.filled - part.start;
    let room = NonZeroUsize::new(length + HUGE_PAGE).ok_or(Errno::EINVAL)?;
    let (access, kind) =
        (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice collides with nothing.
    let scratch = unsafe { mmap_anonymous(None, room, access, kind)? };
    let done = fill(scratch, part);
    // What was moved away is not there any more, and the rest is nobody's.
    // SAFETY: the range is the mapping made above, into which nothing points.
    unsafe { munmap(scratch, room.get())? };
    if done == Ok(true) {
        behind.keep();
    }
    done
}

/// The addresses between a part's end and that of its last huge page, so that nothing comes to stand there meanwhile. Given back unless kept.
struct Behind {
    from: usize,
    length: usize,
}

impl Behind {
    fn reserve(from: usize, to: usize) -> nix::Result<Self> {
        let (Some(at), Some(length)) = (NonZeroUsize::new(from), NonZeroUsize::new(to - from)) else {
            return Ok(Self { from, length: 0 });
        };
        let kind = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
        // SAFETY: a new mapping where there is none: where something stands, this fails.
        let got = unsafe { mmap_anonymous(Some(at), length, ProtFlags::PROT_NONE, kind)? };
        let reserved = Self { from: got.addr().get(), length: length.get() };
        // A kernel that does not know the flag takes the address for a wish.
        if reserved.from == from { Ok(reserved) } else { Err(Errno::EEXIST) }
    }

    fn keep(mut self) {
        self.length = 0;
    }
}

impl Drop for Behind {
    fn drop(&mut self) {
        if let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(self.from))
            && self.length > 0
        {
            // SAFETY: the mapping made above, into which nothing points. If it cannot be undone, addresses are lost and nothing else.
            let _: nix::Result<()> = unsafe { munmap(at, self.length) };
        }
    }
}

/// Copies the part into the scratch memory, which is a huge page longer, and moves it from there.
fn fill(scratch: NonNull<c_void>, part: Part) -> nix::Result<bool> {
    let length = part.filled - part.start;
    // Whole huge pages move whole from one boundary to another.
    let offset = scratch.addr().get().next_multiple_of(HUGE_PAGE) - scratch.addr().get();
    // SAFETY: less than a huge page further on in the same mapping.
    let place = unsafe { scratch.byte_add(offset) };
    let to = NonNull::new(ptr::with_exposed_provenance_mut::<c_void>(part.start)).ok_or(Errno::EINVAL)?;
    // SAFETY: advice on memory that is ours.
    match unsafe { madvise(place, length, MmapAdvise::MADV_HUGEPAGE) } {
        Ok(()) => {}
        // This kernel was built without.
        Err(Errno::EINVAL) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let (from, into) = (to.cast::<u8>(), place.cast::<u8>());
    let (filled, behind) = (part.end - part.start, part.filled - part.end);
    // SAFETY: the part is mapped and readable for as long as the process lives; the scratch memory is writable and long enough for both.
    unsafe {
        ptr::copy_nonoverlapping(from.as_ptr(), into.as_ptr(), filled);
        ptr::write_bytes(into.add(filled).as_ptr(), if part.is_code { NO_CODE } else { 0 }, behind);
    }
    if huge_bytes(place.addr().get(), length) < length {
        return Ok(false);
    }
    let access = if part.is_code { ProtFlags::PROT_READ | ProtFlags::PROT_EXEC } else { ProtFlags::PROT_READ };
    // SAFETY: nobody has a reference into the scratch memory, and what comes to the part's place is what was there: whoever runs or reads
    // it, this call included, finds the same bytes before and after. The process has one thread.
    unsafe {
        mprotect(place, length, access)?;
        mremap(place, length, length, MRemapFlags::MREMAP_MAYMOVE | MRemapFlags::MREMAP_FIXED, Some(to))?;
    }
    Ok(true)
}

/// How many bytes in a range the kernel has put into huge pages. It need not have any left, whatever it was advised.
fn huge_bytes(from: usize, length: usize) -> usize {
    fs::read_to_string("/proc/self/smaps").map_or(0, |maps| huge_bytes_in(&maps, from, length))
}

fn huge_bytes_in(maps: &str, from: usize, length: usize) -> usize {
    let mut is_inside = false;
    let mut kibibytes = 0;
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some("AnonHugePages:"), Some(count)) if is_inside => kibibytes += count.parse().unwrap_or(0),
            (Some(range), Some(_)) => {
                if let Some((start, end)) = range.split_once('-')
                    && let (Ok(start), Ok(end)) = (usize::from_str_radix(start, 16), usize::from_str_radix(end, 16))
                {
                    is_inside = start < from + length && from < end;
                }
            }
            _ => {}
        }
    }
    kibibytes * 1024
}

#[cfg(test)]
mod tests {
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

    /// What there is of huge pages is used, and what is not huge stays where it stands.
    fn it_runs_on() -> bool {
        let Ok(moved) = move_text() else { return false };
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return false };
        let own: usize = maps.lines().filter(|line| line.contains(" r-xp ") && !line.contains('/')).count();
        let both = maps.lines().any(|line| line.contains(" rwx"));
        // Beside the kernel's own.
        (moved == 0 || own > 1) && !both && std::hint::black_box(CONSTANTS).iter().sum::<u64>() == 17
    }

    /// One page of code and one of constants, moved whatever they are made of.
    #[test]
    fn bytes_stay_what_they_are() {
        let scratch = |length: usize| {
            let (length, access) = (NonZeroUsize::new(length).unwrap(), ProtFlags::PROT_READ | ProtFlags::PROT_WRITE);
            // SAFETY: a new mapping.
            unsafe { mmap_anonymous(None, length, access, MapFlags::MAP_PRIVATE) }.unwrap()
        };
        let from = scratch(4 * HUGE_PAGE);
        let start = from.addr().get().next_multiple_of(HUGE_PAGE);
        let end = start + 2 * HUGE_PAGE;
        // SAFETY: inside the mapping made above.
        let bytes = unsafe { from.byte_add(start - from.addr().get()).cast::<u8>() };
        for at in (0..end - start).step_by(PAGE) {
            // SAFETY: inside the mapping, which is writable.
            unsafe { bytes.add(at).write(u8::try_from(at / PAGE % 251).unwrap()) };
        }
        replace(Part { start, end, filled: end, is_code: true }).unwrap();
        for at in (0..end - start).step_by(PAGE) {
            // SAFETY: mapped before and after.
            assert_eq!(usize::from(unsafe { bytes.add(at).read() }), at / PAGE % 251);
        }
        assert_eq!(Behind::reserve(start, end).err(), Some(Errno::EEXIST), "what stands somewhere stays there");
    }

    #[test]
    fn huge_pages_are_counted_where_they_are() {
        let maps = "1000-3000 r-xp 00000000 00:00 0 \nRss: 8 kB\nAnonHugePages:    2048 kB\n\
                    3000-4000 rw-p 00000000 00:00 0  [heap]\nAnonHugePages:    4096 kB\nVmFlags: rd wr\n";
        assert_eq!(huge_bytes_in(maps, 0x1000, 0x2000), 2 << 20);
        assert_eq!(huge_bytes_in(maps, 0x2000, 0x1001), 6 << 20);
        assert_eq!(huge_bytes_in(maps, 0x5000, 0x1000), 0);
    }
}
