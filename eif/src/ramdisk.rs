//! A ramdisk: the files of an image, in the one form that they are measured in.
//!
//! Every entry belongs to root and carries no time, so that the same files give the same bytes wherever and whenever they are
//! packed. `cpio.rs` writes and reads the archive.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cpio;

/// Longest name of an entry in bytes: the kernel's `PATH_MAX`, which counts the final NUL.
pub const NAME_BYTES: usize = 4095;

/// What an entry is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// A directory.
    Directory,
    /// A regular file and its bytes.
    File(Vec<u8>),
    /// A symbolic link and its target.
    Symlink(String),
    /// A character device, such as `/dev/console` (5, 1).
    Device {
        /// The driver.
        major: u32,
        /// The device among the driver's.
        minor: u32,
    },
}

/// An entry of a ramdisk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Permission bits, at most `0o7777`.
    pub mode: u16,
    /// What it is.
    pub content: Content,
}

/// Why an entry cannot stand in a ramdisk.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Not a name the kernel would unpack where it says.
    #[error(
        "{0:?} is no name for an entry: write it without '.', '..', empty parts and control characters, at most {NAME_BYTES} bytes"
    )]
    Name(String),
    /// There twice.
    #[error("/{0} is there already: name it once")]
    Twice(String),
    /// The kernel skips, without a word, what has no folder to stand in.
    #[error("/{name} needs the directory /{parent} before it: the kernel makes none by itself")]
    NoParent {
        /// The entry.
        name: String,
        /// The directory that it needs.
        parent: String,
    },
    /// More than permission bits.
    #[error("/{name}: mode {mode:o} has more than the permission bits 7777")]
    Mode {
        /// The entry.
        name: String,
        /// The mode given.
        mode: u32,
    },
    /// A link to nothing.
    #[error("/{0}: the target of a symbolic link has 1 to {NAME_BYTES} bytes and no control characters")]
    Target(String),
    /// A cpio archive counts in 32 bits.
    #[error("/{0} has 4 GiB or more, which a cpio archive cannot hold")]
    Large(String),
}

/// Why a folder cannot be packed.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// It cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file or folder.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// A name or link that is no text.
    #[error("{} has a name or a target that is not UTF-8: rename it", .0.display())]
    NotText(PathBuf),
    /// A device, socket or pipe.
    #[error("{} is no file, directory or symbolic link: name devices in a list (`nod /dev/console 0600 0 0 c 5 1`)", .0.display())]
    Kind(PathBuf),
    /// An entry that cannot stand in a ramdisk.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// The files of one ramdisk. What it holds is always complete: each entry's directory is an entry before it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ramdisk {
    /// By name without the leading '/'. In bytewise order a directory stands before what is in it.
    entries: BTreeMap<String, Entry>,
}

impl Ramdisk {
    /// A ramdisk without entries.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds an entry. The name may begin with '/'; the directory that it stands in must have been added.
    ///
    /// # Errors
    /// [`EntryError`] when the kernel would not unpack it, or not where the name says.
    pub fn insert(&mut self, name: &str, entry: Entry) -> Result<(), EntryError> {
        let name = name.strip_prefix('/').unwrap_or(name);
        let valid = |text: &str| (1..=NAME_BYTES).contains(&text.len()) && !text.chars().any(char::is_control);
        // Attack stopped: `etc/../init` in a list reads like a file of /etc and would replace the init.
        let plain = name.split('/').all(|part| !matches!(part, "" | "." | ".."));
        if !plain || !valid(name) || name == cpio::TRAILER {
            return Err(EntryError::Name(name.chars().take(200).collect()));
        }
        if entry.mode > 0o7777 {
            return Err(EntryError::Mode { name: name.to_owned(), mode: entry.mode.into() });
        }
        match &entry.content {
            Content::Symlink(target) if !valid(target) => return Err(EntryError::Target(name.to_owned())),
            Content::File(bytes) if u32::try_from(bytes.len()).is_err() => {
                return Err(EntryError::Large(name.to_owned()));
            }
            _ => {}
        }
        if let Some((parent, _)) = name.rsplit_once('/') {
            let found = self.entries.get(parent);
            if !found.is_some_and(|parent| parent.content == Content::Directory) {
                return Err(EntryError::NoParent { name: name.to_owned(), parent: parent.to_owned() });
            }
        }
        if self.entries.contains_key(name) {
            return Err(EntryError::Twice(name.to_owned()));
        }
        self.entries.insert(name.to_owned(), entry);
        Ok(())
    }

    /// Packs what is in `folder`. Owner, time and the packer's umask leave no trace: a file is 0755 when its owner may execute it,
    /// otherwise 0644; directories are 0755. Symbolic links are kept, not followed.
    ///
    /// # Errors
    /// [`FolderError`] for what cannot be read or cannot stand in a ramdisk.
    pub fn from_folder(folder: &Path) -> Result<Self, FolderError> {
        let mut ramdisk = Self::new();
        ramdisk.add_folder(folder, "")?;
        Ok(ramdisk)
    }

    fn add_folder(&mut self, folder: &Path, prefix: &str) -> Result<(), FolderError> {
        let unreadable = |path: &Path| {
            let path = path.to_owned();
            move |error| FolderError::Read { path, error }
        };
        for found in fs::read_dir(folder).map_err(unreadable(folder))? {
            let path = found.map_err(unreadable(folder))?.path();
            let not_text = || FolderError::NotText(path.clone());
            let name = path.file_name().and_then(|name| name.to_str()).ok_or_else(not_text)?;
            let name = format!("{prefix}{name}");
            let metadata = path.symlink_metadata().map_err(unreadable(&path))?;
            let kind = metadata.file_type();
            if kind.is_dir() {
                self.insert(&name, Entry { mode: 0o755, content: Content::Directory })?;
                self.add_folder(&path, &format!("{name}/"))?;
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).map_err(unreadable(&path))?;
                let target = target.to_str().ok_or_else(not_text)?.to_owned();
                self.insert(&name, Entry { mode: 0o777, content: Content::Symlink(target) })?;
            } else if kind.is_file() {
                let mode = if executable(&metadata) { 0o755 } else { 0o644 };
                let bytes = fs::read(&path).map_err(unreadable(&path))?;
                self.insert(&name, Entry { mode, content: Content::File(bytes) })?;
            } else {
                return Err(FolderError::Kind(path));
            }
        }
        Ok(())
    }

    /// The entries by name, without the leading '/', in bytewise order.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &Entry)> {
        self.entries.iter().map(|(name, entry)| (name.as_str(), entry))
    }

    /// The entry of this name, without the leading '/'.
    pub fn get(&self, name: &str) -> Option<&Entry> {
        self.entries.get(name)
    }

    /// The first entry that unpacking this ramdisk after `earlier` would put in another's place.
    pub fn replaced_of<'a>(&'a self, earlier: &Self) -> Option<&'a str> {
        let replaces = |name: &str, entry: &Entry| {
            earlier.get(name).is_some_and(|found| {
                found.content != Content::Directory || entry.content != Content::Directory || found.mode != entry.mode
            })
        };
        self.entries().find(|(name, entry)| replaces(name, entry)).map(|(name, _)| name)
    }
}

fn executable(metadata: &fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt;
    metadata.permissions().mode() & 0o100 != 0
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn file(bytes: &[u8]) -> Entry {
        Entry { mode: 0o644, content: Content::File(bytes.to_vec()) }
    }

    fn directory() -> Entry {
        Entry { mode: 0o755, content: Content::Directory }
    }

    #[test]
    fn names_are_where_they_say() {
        let mut ramdisk = Ramdisk::new();
        ramdisk.insert("/etc", directory()).unwrap();
        for name in ["", "/", "//etc", "etc/", "etc//x", "etc/../init", "./init", "..", "a\nb", "a\0b", "TRAILER!!!"] {
            assert!(matches!(ramdisk.insert(name, file(b"")), Err(EntryError::Name(_))), "{name:?}");
        }
        assert!(ramdisk.insert(&"x".repeat(4095), file(b"")).is_ok());
        assert!(matches!(ramdisk.insert(&"x".repeat(4096), file(b"")), Err(EntryError::Name(_))));
        assert_eq!(ramdisk.insert("etc", file(b"")), Err(EntryError::Twice("etc".into())));
        ramdisk.insert("/etc/hosts", file(b"")).unwrap();
        for name in ["/lib/x", "/etc/hosts/x"] {
            assert!(matches!(ramdisk.insert(name, file(b"")), Err(EntryError::NoParent { .. })), "{name}");
        }
        assert!(matches!(ramdisk.insert("m", Entry { mode: 0o10000, ..file(b"") }), Err(EntryError::Mode { .. })));
        let link = |target: &str| Entry { mode: 0o777, content: Content::Symlink(target.to_owned()) };
        assert_eq!(ramdisk.insert("l", link("")), Err(EntryError::Target("l".into())));
    }

    #[test]
    fn a_folder_is_packed_without_a_trace_of_its_packer() {
        let packed = |umask: u32| {
            let folder = tempfile::tempdir().unwrap();
            let at = |name: &str| folder.path().join(name);
            fs::create_dir(at("bin")).unwrap();
            fs::write(at("bin/run"), b"#!").unwrap();
            fs::write(at("note"), b"text").unwrap();
            symlink("bin/run", at("init")).unwrap();
            let chmod = |name: &str, mode: u32| {
                fs::set_permissions(at(name), fs::Permissions::from_mode(mode & !umask)).unwrap();
            };
            chmod("bin/run", 0o777);
            chmod("note", 0o666);
            chmod("bin", 0o777);
            Ramdisk::from_folder(folder.path()).unwrap()
        };
        let one = packed(0o022);
        assert_eq!(one, packed(0o077));
        let listed: Vec<_> = one.entries().map(|(name, entry)| (name, entry.mode)).collect();
        assert_eq!(listed, [("bin", 0o755), ("bin/run", 0o755), ("init", 0o777), ("note", 0o644)]);
    }

    #[test]
    fn a_folder_with_a_socket_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(folder.path().join("s")).unwrap();
        assert!(matches!(Ramdisk::from_folder(folder.path()), Err(FolderError::Kind(_))));
    }

    #[test]
    fn a_later_ramdisk_that_replaces_is_seen() {
        let mut boot = Ramdisk::new();
        boot.insert("dev", directory()).unwrap();
        boot.insert("init", file(b"ours")).unwrap();
        let mut application = Ramdisk::new();
        application.insert("dev", directory()).unwrap();
        application.insert("dev/x", file(b"")).unwrap();
        assert_eq!(application.replaced_of(&boot), None);
        application.insert("init", file(b"ours")).unwrap();
        assert_eq!(application.replaced_of(&boot), Some("init"));
        let mut other_mode = Ramdisk::new();
        other_mode.insert("dev", Entry { mode: 0o777, ..directory() }).unwrap();
        assert_eq!(other_mode.replaced_of(&boot), Some("dev"));
    }
}
