//! The archive format of ramdisks: cpio in its "new ASCII" form, as Linux unpacks it.
//!
//! Source: Linux, `Documentation/driver-api/early-userspace/buffer-format.rst`, and `usr/gen_init_cpio.c` for the field values.
//! There is exactly one archive for a [`Ramdisk`]: entries in bytewise order of their names, inode numbers counted from 1,
//! owner, time and device numbers zero, padded with zeros to 512 bytes. [`read`] takes that form and no other.

use crate::ramdisk::{Content, Entry, EntryError, NAME_BYTES, Ramdisk};

/// The name that ends an archive.
pub(crate) const TRAILER: &str = "TRAILER!!!";

const MAGIC: &[u8; 6] = b"070701";
/// Magic and thirteen numbers of eight hexadecimal digits.
const HEADER_BYTES: usize = 6 + 13 * 8;
/// What archives are padded to, as GNU cpio pads them. The kernel asks for four bytes between archives that follow each other.
const BLOCK_BYTES: usize = 512;

const KIND: u32 = 0o170_000;
const DIRECTORY: u32 = 0o040_000;
const FILE: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const DEVICE: u32 = 0o020_000;

/// Why bytes are not a ramdisk that this program wrote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// It ends in the middle of something.
    #[error("the archive is cut short at byte {0}")]
    Short(usize),
    /// Another format: compressed, perhaps.
    #[error("there is no \"new ASCII\" cpio header at byte {0}")]
    Magic(usize),
    /// The same files in another form: other numbers, order, padding or letters.
    #[error("the entry at byte {0} is not in the form that casemate-eif writes")]
    Form(usize),
    /// An entry that the kernel would not unpack where it says.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// The numbers of a header that are not the same in each.
struct Numbers {
    inode: u32,
    mode: u32,
    links: u32,
    size: u32,
    device: (u32, u32),
    name_size: u32,
}

impl Numbers {
    /// In the order of the format, with those that are always zero: owner and group, time; the device of the file system; the check.
    fn fields(&self) -> [u32; 13] {
        let Self { inode, mode, links, size, device: (major, minor), name_size } = *self;
        [inode, mode, 0, 0, links, 0, size, 0, 0, major, minor, name_size, 0]
    }

    fn of(fields: [u32; 13]) -> Self {
        let [inode, mode, _, _, links, _, size, _, _, major, minor, name_size, _] = fields;
        Self { inode, mode, links, size, device: (major, minor), name_size }
    }
}

/// The archive of a ramdisk.
pub fn write(ramdisk: &Ramdisk) -> Vec<u8> {
    let mut archive = Vec::new();
    for ((name, entry), inode) in ramdisk.entries().zip(1_u32..) {
        let (kind, links, data, device): (u32, u32, &[u8], _) = match &entry.content {
            Content::Directory => (DIRECTORY, 2, &[], (0, 0)),
            Content::File(bytes) => (FILE, 1, bytes, (0, 0)),
            Content::Symlink(target) => (SYMLINK, 1, target.as_bytes(), (0, 0)),
            Content::Device { major, minor } => (DEVICE, 1, &[], (*major, *minor)),
        };
        let mode = kind | u32::from(entry.mode);
        append(&mut archive, name, data, Numbers { inode, mode, links, size: 0, device, name_size: 0 });
    }
    append(&mut archive, TRAILER, &[], Numbers { inode: 0, mode: 0, links: 1, size: 0, device: (0, 0), name_size: 0 });
    archive.resize(archive.len().next_multiple_of(BLOCK_BYTES), 0);
    archive
}

fn append(archive: &mut Vec<u8>, name: &str, data: &[u8], mut numbers: Numbers) {
    numbers.size = u32::try_from(data.len()).expect("a ramdisk takes no file of 4 GiB");
    numbers.name_size = u32::try_from(name.len() + 1).expect("a ramdisk bounds names");
    archive.extend_from_slice(MAGIC);
    for field in numbers.fields() {
        archive.extend_from_slice(format!("{field:08X}").as_bytes());
    }
    archive.extend_from_slice(name.as_bytes());
    archive.push(0);
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend_from_slice(data);
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// Reads an archive that [`write()`] wrote: what is taken is, written again, the same bytes.
///
/// # Errors
/// [`ReadError`] for everything else. Nothing is allocated before the bytes for it are known to be there.
pub fn read(archive: &[u8]) -> Result<Ramdisk, ReadError> {
    let mut ramdisk = Ramdisk::new();
    let mut rest = Rest { archive, at: 0 };
    let mut last = String::new();
    for inode in 1_u32.. {
        let began = rest.at;
        let fields = header(rest.take(HEADER_BYTES)?, began)?;
        let numbers = Numbers::of(fields);
        let name_size = usize::try_from(numbers.name_size).unwrap_or(usize::MAX);
        if fields != numbers.fields() || !(2..=NAME_BYTES + 1).contains(&name_size) {
            return Err(ReadError::Form(began));
        }
        let Some((0, name)) = rest.take(name_size)?.split_last() else { return Err(ReadError::Form(began)) };
        let name = std::str::from_utf8(name).map_err(|_| ReadError::Form(began))?;
        rest.align(4)?;
        let data = rest.take(usize::try_from(numbers.size).unwrap_or(usize::MAX))?;
        rest.align(4)?;
        if name == TRAILER {
            let Numbers { inode: 0, mode: 0, links: 1, size: 0, device: (0, 0), .. } = numbers else {
                return Err(ReadError::Form(began));
            };
            rest.align(BLOCK_BYTES)?;
            // Attack stopped: a second archive behind the first, which the kernel would unpack and no listing would show.
            return if rest.at == archive.len() { Ok(ramdisk) } else { Err(ReadError::Form(rest.at)) };
        }
        // Attack stopped: two orders of the same files would be two measurements of one image.
        if numbers.inode != inode || name <= last.as_str() || name.starts_with('/') {
            return Err(ReadError::Form(began));
        }
        let entry = entry(&numbers, data).ok_or(ReadError::Form(began))?;
        ramdisk.insert(name, entry)?;
        name.clone_into(&mut last);
    }
    Err(ReadError::Form(rest.at))
}

fn header(bytes: &[u8], at: usize) -> Result<[u32; 13], ReadError> {
    let digits = bytes.strip_prefix(MAGIC).ok_or(ReadError::Magic(at))?;
    let mut fields = [0_u32; 13];
    for (field, digits) in fields.iter_mut().zip(digits.chunks_exact(8)) {
        for digit in digits {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'A'..=b'F' => digit - b'A' + 10,
                _ => return Err(ReadError::Form(at)),
            };
            *field = *field << 4 | u32::from(value);
        }
    }
    Ok(fields)
}

fn entry(numbers: &Numbers, data: &[u8]) -> Option<Entry> {
    let mode = u16::try_from(numbers.mode & !KIND).ok()?;
    let content = match (numbers.mode & KIND, numbers.links, numbers.device, data) {
        (DIRECTORY, 2, (0, 0), []) => Content::Directory,
        (FILE, 1, (0, 0), bytes) => Content::File(bytes.to_vec()),
        (SYMLINK, 1, (0, 0), target) => Content::Symlink(std::str::from_utf8(target).ok()?.to_owned()),
        (DEVICE, 1, (major, minor), []) => Content::Device { major, minor },
        _ => return None,
    };
    Some(Entry { mode, content })
}

/// What is left of an archive. Padding is counted from the archive's beginning.
struct Rest<'a> {
    archive: &'a [u8],
    at: usize,
}

impl<'a> Rest<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], ReadError> {
        let end = self.at.checked_add(bytes).filter(|end| *end <= self.archive.len());
        let end = end.ok_or(ReadError::Short(self.archive.len()))?;
        let taken = &self.archive[self.at..end];
        self.at = end;
        Ok(taken)
    }

    fn align(&mut self, unit: usize) -> Result<(), ReadError> {
        let began = self.at;
        let padding = self.take(self.at.next_multiple_of(unit) - self.at)?;
        // Attack stopped: bytes in the padding are measured, and so would give one set of files many measurements.
        if padding.iter().all(|byte| *byte == 0) { Ok(()) } else { Err(ReadError::Form(began)) }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::io::Write as _;
    use std::process::{Command, Stdio};

    /// Every kind of entry, in a few folders.
    pub(crate) fn sample() -> Ramdisk {
        let mut ramdisk = Ramdisk::new();
        let mut add = |name: &str, mode, content| ramdisk.insert(name, Entry { mode, content }).unwrap();
        add("/dev", 0o755, Content::Directory);
        add("/dev/console", 0o600, Content::Device { major: 5, minor: 1 });
        add("/dev/null", 0o666, Content::Device { major: 1, minor: 3 });
        add("/init", 0o755, Content::File(b"\x7fELF init".to_vec()));
        add("/tmp", 0o1777, Content::Directory);
        add("/sbin", 0o777, Content::Symlink("bin".to_owned()));
        add("/bin", 0o755, Content::Directory);
        add("/bin/empty", 0o644, Content::File(Vec::new()));
        add("/bin/odd", 0o640, Content::File(vec![7; 1025]));
        ramdisk
    }

    fn any_ramdisk() -> impl Strategy<Value = Ramdisk> {
        let content = prop_oneof![
            3 => Just(Content::Directory),
            3 => prop::collection::vec(any::<u8>(), 0..600).prop_map(Content::File),
            1 => "[a-z/.é]{1,40}".prop_map(Content::Symlink),
            1 => (0_u32..4096, any::<u32>()).prop_map(|(major, minor)| Content::Device { major, minor }),
        ];
        let entry = (any::<prop::sample::Index>(), "[a-zA-Z0-9._é -]{1,12}", 0_u16..=0o7777, content);
        prop::collection::vec(entry, 0..30).prop_map(|entries| {
            let mut ramdisk = Ramdisk::new();
            for (parent, name, mode, content) in entries {
                let mut folders: Vec<String> = vec![String::new()];
                let is_folder = |(_, entry): &(&str, &Entry)| entry.content == Content::Directory;
                folders.extend(ramdisk.entries().filter(is_folder).map(|(name, _)| format!("{name}/")));
                // Names that stand there already, '.' and '..' are refused, and left out.
                let _ =
                    ramdisk.insert(&format!("{}{name}", folders[parent.index(folders.len())]), Entry { mode, content });
            }
            ramdisk
        })
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(ramdisk in any_ramdisk()) {
            let archive = write(&ramdisk);
            prop_assert_eq!(archive.len() % 512, 0);
            prop_assert_eq!(read(&archive), Ok(ramdisk));
        }

        #[test]
        fn a_damaged_archive_is_another_ramdisk_or_none(ramdisk in any_ramdisk(), at in any::<prop::sample::Index>(), flip in 1_u8..) {
            let mut archive = write(&ramdisk);
            let at = at.index(archive.len());
            archive[at] ^= flip;
            if let Ok(other) = read(&archive) {
                prop_assert_ne!(&other, &ramdisk);
                prop_assert_eq!(write(&other), archive);
            }
        }
    }

    /// The order in which entries were added leaves no trace, and the numbers stand where the kernel reads them.
    #[test]
    fn the_bytes_are_the_formats() {
        let mut ramdisk = Ramdisk::new();
        let file = |bytes: &[u8]| Entry { mode: 0o644, content: Content::File(bytes.to_vec()) };
        ramdisk.insert("b", file(b"xyz")).unwrap();
        ramdisk.insert("a", Entry { mode: 0o600, content: Content::Device { major: 5, minor: 1 } }).unwrap();
        let mut expected = Vec::new();
        expected.extend_from_slice(
            b"070701000000010000218000000000000000000000000100000000000000000000000000000000000000050000000100000002\
              00000000a\0",
        );
        expected.extend_from_slice(
            b"07070100000002000081A40000000000000000000000010000000000000003000000000000000000000000000000000000000200000000b\0xyz\0",
        );
        expected.extend_from_slice(
            b"07070100000000000000000000000000000000000000010000000000000000000000000000000000000000000000000000000B00000000TRAILER!!!\0",
        );
        expected.resize(512, 0);
        assert_eq!(String::from_utf8_lossy(&write(&ramdisk)), String::from_utf8_lossy(&expected));
    }

    #[test]
    fn other_forms_are_refused() {
        let archive = write(&sample());
        assert_eq!(read(&[]), Err(ReadError::Short(0)));
        assert_eq!(read(b"\x1f\x8b").unwrap_err(), ReadError::Short(2));
        assert_eq!(read(&[0x1f; 512]), Err(ReadError::Magic(0)));
        for end in 0..archive.len() {
            assert!(read(&archive[..end]).is_err(), "cut at {end}");
        }
        let twice = [archive.clone(), archive.clone()].concat();
        assert_eq!(read(&twice), Err(ReadError::Form(archive.len())));
        let changed = |at: usize, bytes: &[u8]| {
            let mut other = archive.clone();
            other[at..at + bytes.len()].copy_from_slice(bytes);
            read(&other)
        };
        // The fields of the first entry: owner, time, a huge file, a huge name, lower-case digits, another inode.
        for (at, bytes) in [
            (6 + 3 * 8, b"00000001"),
            (6 + 5 * 8, b"00000001"),
            (6 + 11 * 8, b"FFFFFFFF"),
            (6 + 12 * 8, b"00000001"),
            (6, b"00000002"),
            (6, b"0000000g"),
        ] {
            assert_eq!(changed(at, bytes), Err(ReadError::Form(0)), "{at}");
        }
        assert_eq!(changed(6 + 6 * 8, b"FFFFFFFF"), Err(ReadError::Short(archive.len())));
        assert_eq!(
            changed(archive.len() - 1, b"x").unwrap_err(),
            ReadError::Form(archive.len() - (archive.len() - end_of(&archive)))
        );
    }

    fn end_of(archive: &[u8]) -> usize {
        let trailer = archive.windows(TRAILER.len()).rposition(|bytes| bytes == TRAILER.as_bytes()).unwrap();
        (trailer + TRAILER.len() + 1).next_multiple_of(4)
    }

    /// A second reader's opinion, where there is one.
    #[test]
    fn gnu_cpio_lists_the_same_entries() {
        let cpio = Command::new("cpio")
            .args(["-itv", "--numeric-uid-gid", "--quiet"])
            .env("TZ", "UTC")
            .env("LC_ALL", "C")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn();
        let Ok(mut cpio) = cpio else {
            println!("skipped: cpio is not installed");
            return;
        };
        cpio.stdin.take().unwrap().write_all(&write(&sample())).unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
        let listing = String::from_utf8(output.stdout).unwrap();
        let shown = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let listing: Vec<String> = listing.lines().map(shown).collect();
        assert_eq!(
            listing,
            [
                "drwxr-xr-x 2 0 0 0 Jan 1 1970 bin",
                "-rw-r--r-- 1 0 0 0 Jan 1 1970 bin/empty",
                "-rw-r----- 1 0 0 1025 Jan 1 1970 bin/odd",
                "drwxr-xr-x 2 0 0 0 Jan 1 1970 dev",
                "crw------- 1 0 0 5, 1 Jan 1 1970 dev/console",
                "crw-rw-rw- 1 0 0 1, 3 Jan 1 1970 dev/null",
                "-rwxr-xr-x 1 0 0 9 Jan 1 1970 init",
                "lrwxrwxrwx 1 0 0 3 Jan 1 1970 sbin -> bin",
                "drwxrwxrwt 2 0 0 0 Jan 1 1970 tmp",
            ]
        );
    }
}
