//! The store on a local disk: plain files, each created once, whole and durable.
//!
//! The bytes of a new file are written before it has a name (`O_TMPFILE`), made durable, and only then given their name, which nobody can
//! have had before. A crash leaves the whole object or none, and nothing to be tidied up.
//!
//! Everything here blocks for the disk and belongs on a thread for that.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_protocol::id::VaultId;
use casemate_protocol::path;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::O_TMPFILE;
use nix::unistd::{linkat, syncfs};

use super::load::Reads;
use super::{LISTED_VERSIONS, Put, StoreError};

/// A directory.
#[derive(Debug)]
pub(super) struct Disk {
    root: PathBuf,
    /// Files that had to be written under a name of their own first.
    staged: AtomicU64,
}

impl Disk {
    /// Makes the directory if there is none. Sealed or not, the objects are nobody else's business.
    pub(super) fn open(root: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(root)?;
        // What a process before this one had not made durable when it was killed is seen here all the same, and will be taken for
        // committed.
        syncfs(File::open(root)?)?;
        Ok(Self { root: root.to_owned(), staged: AtomicU64::new(0) })
    }

    /// Creates a file, if nothing has its name; then makes the name durable, and says whether that was done. After an error nothing is there
    /// that would not last.
    pub(super) fn create(&self, path: &str, bytes: &[u8]) -> io::Result<(Put, io::Result<()>)> {
        let path = self.root.join(path);
        let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
        let mut file = match unnamed(folder) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                make_folder(folder)?;
                unnamed(folder)
            }
            opened => opened,
        };
        if file.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported) {
            file = self.named(&path);
        }
        let Staged { mut file, name } = file?;
        let written = file.write_all(bytes).and_then(|()| file.sync_all());
        // Fails if the name is taken: two creators cannot both win.
        let linked = written.map(|()| linkat(AT_FDCWD, &name, AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW));
        if !name.starts_with(DESCRIPTORS) {
            // What stays behind is nobody's.
            fs::remove_file(&name).ok();
        }
        let put = match linked? {
            Ok(()) => Put::Created,
            Err(Errno::EEXIST) => Put::Exists,
            // It may be there all the same. Then it is made durable, or must not be read.
            Err(error) => match sync_folder(folder) {
                Ok(()) => return Err(error.into()),
                Err(_) => return Ok((Put::Exists, Err(error.into()))),
            },
        };
        // When it exists as well: its maker may not have come to this yet, and whoever finds the same bytes there will take them for
        // committed.
        Ok((put, sync_folder(folder)))
    }

    /// For file systems that have no files without a name (NFS, some of FUSE). What a crash leaves is no object's name.
    fn named(&self, path: &Path) -> io::Result<Staged> {
        let number = self.staged.fetch_add(1, Ordering::Relaxed);
        let name = path.with_added_extension(format!("{}-{number}#", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&name)?;
        Ok(Staged { file, name })
    }

    /// Deletes a file; an absent one counts as deleted.
    pub(super) fn delete(&self, path: &str) -> io::Result<()> {
        match fs::remove_file(self.root.join(path)) {
            Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
            _ => Ok(()),
        }
    }

    /// Writes a file of this node's own and reads it back. A full disk and lost permissions show here first: it is a new file each time,
    /// because one that is written over gives up its own blocks for what is written, however full the disk is.
    pub(super) fn round_trip(&self, path: &str, bytes: &[u8]) -> io::Result<()> {
        let path = self.root.join(path);
        let staged = path.with_extension("new");
        make_folder(path.parent().ok_or(ErrorKind::InvalidInput)?)?;
        let written = File::create(&staged).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        if let Err(error) = written {
            // What was written of it is room that others lack.
            fs::remove_file(&staged).ok();
            return Err(error);
        }
        fs::rename(&staged, &path)?;
        if fs::read(&path)? == bytes { Ok(()) } else { Err(io::Error::other("what was written is not what is read")) }
    }

    fn open_file(&self, path: &str) -> io::Result<Option<File>> {
        match File::open(self.root.join(path)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Reads for Disk {
    async fn read(&self, path: &str, limit: usize) -> Result<Option<Vec<u8>>, StoreError> {
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let found = file.metadata()?.len();
        let too_large = |found| StoreError::TooLarge { found, limit };
        let size = usize::try_from(found).ok().filter(|size| *size <= limit).ok_or_else(|| too_large(found))?;
        let mut bytes = Vec::with_capacity(size);
        // Attack stopped: a file that grows while it is read.
        file.take(limit as u64 + 1).read_to_end(&mut bytes)?;
        if bytes.len() > limit { Err(too_large(bytes.len() as u64)) } else { Ok(Some(bytes)) }
    }

    async fn list(&self, vault: VaultId) -> Result<Vec<(u64, u64)>, StoreError> {
        let entries = match fs::read_dir(self.root.join(path::vault_folder(vault))) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut versions = Vec::new();
        for entry in entries {
            let entry = entry?;
            let Some(version) = entry.file_name().to_str().and_then(path::parse_version) else { continue };
            match entry.metadata() {
                Ok(metadata) => versions.push((version, metadata.len())),
                // Collected meanwhile.
                Err(error) if error.kind() == ErrorKind::NotFound => {}
                Err(error) => return Err(error.into()),
            }
            if versions.len() > LISTED_VERSIONS {
                return Err(StoreError::TooMany);
            }
        }
        versions.sort_unstable();
        Ok(versions)
    }
}

/// A file that is being written, and a name under which it can be linked to.
struct Staged {
    file: File,
    name: PathBuf,
}

/// Where a process finds its files by their number.
const DESCRIPTORS: &str = "/proc/self/fd";

fn unnamed(folder: &Path) -> io::Result<Staged> {
    match OpenOptions::new().write(true).custom_flags(O_TMPFILE).mode(0o600).open(folder) {
        Ok(file) => Ok(Staged { name: Path::new(DESCRIPTORS).join(file.as_raw_fd().to_string()), file }),
        // A kernel that does not know the flag sees an attempt to write to a directory.
        Err(error) if error.kind() == ErrorKind::IsADirectory => Err(ErrorKind::Unsupported.into()),
        Err(error) => Err(error),
    }
}

/// Makes a folder and those above it, each durable in its parent.
fn make_folder(folder: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folder(folder.parent().ok_or(error)?)?;
            make_folder(folder)
        }
        Err(error) if error.kind() != ErrorKind::AlreadyExists => Err(error),
        // Its maker may not have come to this yet.
        _ => folder.parent().map_or(Ok(()), sync_folder),
    }
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use futures_util::FutureExt;
    use tempfile::TempDir;

    use super::*;

    fn disk() -> (TempDir, Disk) {
        let root = tempfile::tempdir().unwrap();
        let disk = Disk::open(&root.path().join("objects")).unwrap();
        (root, disk)
    }

    #[test]
    fn a_file_is_created_once_and_leaves_nothing_beside_it() {
        let (_root, disk) = disk();
        let create = |name: &str, bytes| {
            let (put, durable) = disk.create(name, bytes).unwrap();
            durable.unwrap();
            put
        };
        assert_eq!(create("v1/a/b/1", b"first"), Put::Created);
        assert_eq!(create("v1/a/b/1", b"second"), Put::Exists);
        assert_eq!(create("v1/a/b/2", b""), Put::Created);
        let folder = disk.root.join("v1/a/b");
        assert_eq!(fs::read(folder.join("1")).unwrap(), b"first");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        assert_eq!(fs::metadata(folder.join("1")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_file_with_a_name_of_its_own_is_created_likewise() {
        let (_root, disk) = disk();
        let path = disk.root.join("1");
        let staged = disk.named(&path).unwrap();
        assert_eq!(path::parse_version(staged.name.file_name().unwrap().to_str().unwrap()), None);
        linkat(AT_FDCWD, &staged.name, AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW).unwrap();
        assert!(disk.named(&path).is_ok(), "the next one has another name");
    }

    #[test]
    fn what_stands_in_the_way_is_an_error() {
        let (_root, disk) = disk();
        fs::write(disk.root.join("v1"), "a file").unwrap();
        assert!(disk.create("v1/a", b"x").is_err());
        assert!(disk.read("v1/a", 10).now_or_never().unwrap().is_err());
        assert!(disk.round_trip("v1/health", b"x").is_err());
    }

    #[test]
    fn a_file_system_without_unnamed_files_says_so() {
        // procfs has none.
        let error = unnamed(Path::new("/proc/self/fd")).err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}
