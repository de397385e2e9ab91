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

use libc::{PF_W, PF_X, PT_GNU_RELRO, PT_LOAD, dl_phdr_info};
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
    kind: Kind,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Code,
    Constants,
    /// Addresses, which stand as they are once the program has been loaded.
    Relocated,
    Written,
}

/// What is moved of a segment, and the huge pages that it comes into: they may begin before it and end behind it, if nothing of the program
/// stands there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Part {
    first: usize,
    start: usize,
    end: usize,
    last: usize,
    is_code: bool,
}

impl Segment {
    /// The part of it for which there are whole huge pages, if there is one. `before` is where the program has ended before it, `next` where
    /// it goes on.
    fn part(self, before: usize, next: usize) -> Option<Part> {
        let first = self.start / HUGE_PAGE * HUGE_PAGE;
        let first = if before <= first { first } else { self.start.checked_next_multiple_of(HUGE_PAGE)? };
        let last = self.end.checked_next_multiple_of(HUGE_PAGE)?;
        let last = if last <= next { last } else { self.end / HUGE_PAGE * HUGE_PAGE };
        let (start, end) = (self.start.max(first), self.end.min(last));
        (start < end).then_some(Part { first, start, end, last, is_code: self.kind == Kind::Code })
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
/// process has one thread. How much it was is told by [`moved`].
///
/// Nothing is writable and executable at any time: the copy is written first, then made executable, then put in the place of the file.
///
/// # Errors
/// What the kernel said before anything was taken away; nothing but speed depends on it.
pub(crate) fn move_text() -> nix::Result<()> {
    let segments = segments();
    let mut before = 0;
    // What stands before the code is read once, by whoever loads the program.
    let code = segments.iter().position(|segment| segment.kind == Kind::Code).unwrap_or(segments.len());
    for (index, segment) in segments.iter().enumerate() {
        let next = segments.get(index + 1).map_or(usize::MAX, |next| next.start);
        let part = if index < code || segment.kind == Kind::Written { None } else { segment.part(before, next) };
        before = segment.end;
        if let Some(part) = part
            && replace(part)?
        {
            before = part.last.max(segment.end);
            MOVED.fetch_add(part.last - part.first, Ordering::Relaxed);
        }
    }
    Ok(())
}

/// Makes the tables of functions unwritable that the program was given when it was loaded, as a dynamic loader does; a static program has
/// none. Attack stopped: whoever can write somewhere in a process's memory, and looks for the address of a function that will be called.
///
/// # Errors
/// What the kernel said; [`Errno::ENOEXEC`] when the program was linked without such a part (`-z relro`).
pub(crate) fn protect_addresses() -> nix::Result<()> {
    let segments = segments();
    let segment = segments.iter().find(|segment| segment.kind == Kind::Relocated).ok_or(Errno::ENOEXEC)?;
    let start = NonNull::new(ptr::with_exposed_provenance_mut(segment.start)).ok_or(Errno::EINVAL)?;
    // SAFETY: the linker has put nothing there that is written once the program runs.
    unsafe { mprotect(start, segment.end - segment.start, ProtFlags::PROT_READ) }
}

/// What the program's headers say of it, in order.
fn segments() -> Vec<Segment> {
    let mut found: Vec<Segment> = Vec::new();
    // SAFETY: the callback gets this vector and is done with it when the call returns.
    unsafe { libc::dl_iterate_phdr(Some(collect), (&raw mut found).cast()) };
    in_order(found)
}

/// Sorts them; what is relocated begins a part that is written.
fn in_order(mut found: Vec<Segment>) -> Vec<Segment> {
    let relocated = found.iter().find(|segment| segment.kind == Kind::Relocated).copied();
    for segment in &mut found {
        if let Some(relocated) = relocated
            && segment.kind == Kind::Written
            && (segment.start..segment.end).contains(&relocated.start)
        {
            segment.start = relocated.end;
        }
    }
    found.retain(|segment| segment.start < segment.end);
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
        let kind = match header.p_type {
            PT_LOAD if header.p_flags & PF_X != 0 => Kind::Code,
            PT_LOAD if header.p_flags & PF_W != 0 => Kind::Written,
            PT_LOAD => Kind::Constants,
            PT_GNU_RELRO => Kind::Relocated,
            _ => continue,
        };
        let end = base + at + length;
        // A page of which a part is written stays as it is.
        let end = if kind == Kind::Relocated { end / PAGE * PAGE } else { end.next_multiple_of(PAGE) };
        found.push(Segment { start: (base + at) / PAGE * PAGE, end, kind });
    }
    // The first is the program; a static one has no other, but what the kernel lends it.
    1
}

/// Puts memory with the same content in the place of a part of the program. Says whether it did: there may be no huge pages, or the kernel
/// has put something else beside the part before the program could have a say.
fn replace(part: Part) -> nix::Result<bool> {
    let gaps = match [Gap::reserve(part.first, part.start), Gap::reserve(part.end, part.last)] {
        [Ok(before), Ok(behind)] => [before, behind],
        [Err(Errno::EEXIST), _] | [_, Err(Errno::EEXIST)] => return Ok(false),
        [Err(errno), _] | [_, Err(errno)] => return Err(errno),
    };
    let length = part.last - part.first;
    let room = NonZeroUsize::new(length + HUGE_PAGE).ok_or(Errno::EINVAL)?;
    let (access, kind) =
        (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE);
    // SAFETY: a new anonymous mapping at an address of the kernel's choice collides with nothing.
    let scratch = unsafe { mmap_anonymous(None, room, access, kind)? };
    // Whole huge pages move whole from one boundary to another.
    let offset = scratch.addr().get().next_multiple_of(HUGE_PAGE) - scratch.addr().get();
    // SAFETY: less than a huge page further on in the same mapping.
    let place = unsafe { scratch.byte_add(offset) };
    let done = fill(place, part);
    let is_moved = done == Ok(true);
    // What was moved is not there any more, and whatever stands there now is somebody else's.
    let left = if is_moved { [(0, offset), (offset + length, HUGE_PAGE - offset)] } else { [(0, room.get()), (0, 0)] };
    for (from, length) in left.into_iter().filter(|(_, length)| *length > 0) {
        // SAFETY: inside the mapping made above, into which nothing points.
        unsafe { munmap(scratch.byte_add(from), length)? };
    }
    if is_moved {
        gaps.into_iter().for_each(Gap::keep);
    }
    done
}

/// Addresses of a huge page outside of the part that comes into it, so that nothing comes to stand there meanwhile. Given back unless kept.
struct Gap {
    from: usize,
    length: usize,
}

impl Gap {
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

impl Drop for Gap {
    fn drop(&mut self) {
        if let Some(at) = NonNull::new(ptr::with_exposed_provenance_mut(self.from))
            && self.length > 0
        {
            // SAFETY: the mapping made above, into which nothing points. If it cannot be undone, addresses are lost and nothing else.
            let _: nix::Result<()> = unsafe { munmap(at, self.length) };
        }
    }
}

/// Copies the part into scratch memory that begins with a huge page, and moves it from there.
fn fill(place: NonNull<c_void>, part: Part) -> nix::Result<bool> {
    let length = part.last - part.first;
    let to = NonNull::new(ptr::with_exposed_provenance_mut::<c_void>(part.first)).ok_or(Errno::EINVAL)?;
    let from = ptr::with_exposed_provenance::<u8>(part.start);
    // SAFETY: advice on memory that is ours.
    match unsafe { madvise(place, length, MmapAdvise::MADV_HUGEPAGE) } {
        Ok(()) => {}
        // This kernel was built without.
        Err(Errno::EINVAL) => return Ok(false),
        Err(errno) => return Err(errno),
    }
    let (before, content, behind) = (part.start - part.first, part.end - part.start, part.last - part.end);
    let filler = if part.is_code { NO_CODE } else { 0 };
    let into = place.cast::<u8>().as_ptr();
    // SAFETY: the part is mapped and readable for as long as the process lives; the scratch memory is writable and long enough for all.
    unsafe {
        ptr::write_bytes(into, filler, before);
        ptr::copy_nonoverlapping(from, into.add(before), content);
        ptr::write_bytes(into.add(before + content), filler, behind);
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
    /// Addresses, which are relocated.
    static ANSWERS: [fn() -> u64; 2] = [|| 7, || CONSTANTS[3]];

    #[test]
    fn whole_huge_pages_lie_inside_or_reach_into_nothing() {
        let part = |start, end, before, next| {
            let segment = Segment { start, end, kind: Kind::Constants };
            segment.part(before, next).map(|part| (part.first, part.start, part.end, part.last))
        };
        let (one, two, four) = (HUGE_PAGE, 2 * HUGE_PAGE, 4 * HUGE_PAGE);
        assert_eq!(part(0x8b000, four + PAGE, PAGE, four + 2 * PAGE), Some((one, one, four, four)));
        assert_eq!(part(one, two, PAGE, two), Some((one, one, two, two)));
        assert_eq!(part(one, two - PAGE, one, two), Some((one, one, two - PAGE, two)));
        assert_eq!(part(one, two - PAGE, 0, usize::MAX), Some((one, one, two - PAGE, two)));
        assert_eq!(part(one, two - PAGE, 0, two - PAGE), None);
        assert_eq!(part(PAGE, two - PAGE, 0, two - PAGE), Some((0, PAGE, one, one)));
        assert_eq!(part(PAGE, one - PAGE, PAGE, one), None);
        assert_eq!(part(one + PAGE, two, one, two), Some((one, one + PAGE, two, two)));
        assert_eq!(part(one + PAGE, two, one + PAGE, two), None);
    }

    #[test]
    fn what_is_relocated_is_not_what_is_written() {
        let segment = |start, end, kind| Segment { start, end, kind };
        let code = segment(0, 4 * PAGE, Kind::Code);
        let (relocated, written) =
            (segment(8 * PAGE, 9 * PAGE, Kind::Relocated), segment(8 * PAGE, 12 * PAGE, Kind::Written));
        let rest = segment(9 * PAGE, 12 * PAGE, Kind::Written);
        assert_eq!(in_order(vec![code, written, relocated]), [code, relocated, rest]);
        assert_eq!(in_order(vec![relocated, code, segment(8 * PAGE, 9 * PAGE, Kind::Written)]), [code, relocated]);
        assert_eq!(in_order(vec![written, code]), [code, written]);
    }

    /// In a child, because the test's own process has many threads.
    #[test]
    fn a_program_runs_on_in_its_own_memory() {
        assert!(holds_in_a_child(it_runs_on));
    }

    #[test]
    fn bytes_stay_what_they_are() {
        assert!(holds_in_a_child(|| bytes_stay().unwrap_or(false)));
    }

    fn holds_in_a_child(check: impl FnOnce() -> bool) -> bool {
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{ForkResult, fork};
        // SAFETY: the child looks at its own mappings and leaves; it allocates, which this allocator can do after a fork.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let code = i32::from(!check());
                // SAFETY: leaves without the runtime's farewells.
                unsafe { libc::_exit(code) }
            }
            ForkResult::Parent { child } => waitpid(child, None) == Ok(WaitStatus::Exited(child, 0)),
        }
    }

    /// What there is of huge pages is used, and what is not huge stays where it stands.
    fn it_runs_on() -> bool {
        if (protect_addresses(), move_text()) != (Ok(()), Ok(())) {
            return false;
        }
        let Ok(maps) = fs::read_to_string("/proc/self/maps") else { return false };
        let own: usize = maps.lines().filter(|line| line.contains(" r-xp ") && !line.contains('/')).count();
        let both = maps.lines().any(|line| line.contains(" rwx"));
        let is_written = |at: usize| {
            maps.lines().any(|line| {
                let (range, rest) = line.split_once(' ').unwrap_or_default();
                let ends = range.split_once('-').map(|ends| [ends.0, ends.1].map(|end| usize::from_str_radix(end, 16)));
                matches!(ends, Some([Ok(start), Ok(end)]) if (start..end).contains(&at)) && rest.starts_with("rw")
            })
        };
        let segments = segments();
        let relocated = segments.iter().find(|segment| segment.kind == Kind::Relocated);
        let protected = relocated.is_some_and(|part| !(part.start..part.end).step_by(PAGE).any(is_written));
        // Beside the kernel's own.
        (moved() == 0 || own > 1)
            && !both
            && protected
            && std::hint::black_box(&ANSWERS).iter().all(|answer| answer() == 7)
            && std::hint::black_box(CONSTANTS).iter().sum::<u64>() == 17
    }

    /// Two huge pages of code, of which the first page and the last are nobody's.
    fn bytes_stay() -> nix::Result<bool> {
        let room = NonZeroUsize::new(4 * HUGE_PAGE).ok_or(Errno::EINVAL)?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping.
        let from = unsafe { mmap_anonymous(None, room, access, MapFlags::MAP_PRIVATE)? };
        let first = from.addr().get().next_multiple_of(HUGE_PAGE);
        let last = first + 2 * HUGE_PAGE;
        let part = Part { first, start: first + PAGE, end: last - PAGE, last, is_code: true };
        let content = |at: usize| (at / PAGE % 251).to_le_bytes()[0];
        for at in (first..last).step_by(PAGE) {
            // SAFETY: inside the mapping, which is writable.
            unsafe { ptr::with_exposed_provenance_mut::<u8>(at).write(content(at)) };
        }
        for gap in [part.first, part.end] {
            let gap = NonNull::new(ptr::with_exposed_provenance_mut(gap)).ok_or(Errno::EINVAL)?;
            // SAFETY: inside the mapping, into which nothing points.
            unsafe { munmap(gap, PAGE)? };
        }
        let is_moved = replace(part)?;
        // SAFETY: of pages that are mapped.
        let read = |at: usize| unsafe { ptr::with_exposed_provenance::<u8>(at).read() };
        let same = (part.start..part.end).step_by(PAGE).all(|at| read(at) == content(at));
        // What was reserved is kept, and holds no code, or given back.
        let gaps = [(part.first, part.start), (part.end, part.last)];
        let filled = |at: usize| read(at) == NO_CODE && read(at + PAGE - 1) == NO_CODE;
        let kept = |(from, to): (usize, usize)| match Gap::reserve(from, to) {
            Ok(_) => !is_moved,
            Err(errno) => is_moved && errno == Errno::EEXIST && filled(from),
        };
        let taken = Gap::reserve(part.start, part.last).err() == Some(Errno::EEXIST);
        Ok(same && gaps.into_iter().all(kept) && taken)
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
