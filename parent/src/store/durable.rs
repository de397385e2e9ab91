//! Creating a file once, whole and durable, on a local disk.
//!
//! The bytes are written to a file without a name (`O_TMPFILE`), made durable, and only then given their name, which nobody can have
//! had before. A crash leaves the whole object or none, and nothing to be tidied up.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use nix::fcntl::{AT_FDCWD, AtFlags};
use nix::libc::O_TMPFILE;
use nix::unistd::linkat;

use super::Put;

/// Creates the file `path` below `root`, if nothing has this name. Blocks until the disk has it.
///
/// # Errors
/// What the file system said; after an error the file may be there or not. [`ErrorKind::Unsupported`]: this file system has no files
/// without a name, and nothing was done.
pub(super) fn create(root: &Path, path: &str, bytes: &[u8]) -> io::Result<Put> {
    let path = root.join(path);
    let folder = path.parent().ok_or(ErrorKind::InvalidInput)?;
    let mut file = match unnamed(folder) {
        Err(error) if error.kind() == ErrorKind::NotFound => {
            make_folder(folder)?;
            unnamed(folder)
        }
        opened => opened,
    }?;
    file.write_all(bytes)?;
    file.sync_all()?;
    // Fails if the name is taken: two creators cannot both win.
    let by_number = format!("/proc/self/fd/{}", file.as_raw_fd());
    let put = match linkat(AT_FDCWD, by_number.as_str(), AT_FDCWD, &path, AtFlags::AT_SYMLINK_FOLLOW) {
        Ok(()) => Put::Created,
        Err(nix::errno::Errno::EEXIST) => Put::Exists,
        Err(error) => return Err(error.into()),
    };
    // When it exists as well: who made it may have died before its name was durable, and whoever finds the same bytes there will
    // take them for committed.
    sync_folder(folder)?;
    Ok(put)
}

/// Makes the names in a folder durable.
///
/// # Errors
/// What the file system said.
pub(super) fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}

fn unnamed(folder: &Path) -> io::Result<File> {
    let opened = OpenOptions::new().write(true).custom_flags(O_TMPFILE).mode(0o600).open(folder);
    // A kernel that does not know the flag sees an attempt to write to a directory.
    opened.map_err(|error| match error.kind() {
        ErrorKind::IsADirectory => ErrorKind::Unsupported.into(),
        _ => error,
    })
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

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_file_is_created_once_and_leaves_nothing_beside_it() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(create(root.path(), "v1/a/b/1", b"first").unwrap(), Put::Created);
        assert_eq!(create(root.path(), "v1/a/b/1", b"second").unwrap(), Put::Exists);
        assert_eq!(create(root.path(), "v1/a/b/2", b"").unwrap(), Put::Created);
        let folder = root.path().join("v1/a/b");
        assert_eq!(fs::read(folder.join("1")).unwrap(), b"first");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        assert_eq!(fs::metadata(folder.join("1")).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(&folder).unwrap().permissions().mode() & 0o777, 0o700);
    }

    #[test]
    fn what_stands_in_the_way_is_an_error() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("v1"), "a file").unwrap();
        assert!(create(root.path(), "v1/a", b"x").is_err());
        assert!(create(&root.path().join("v1"), "a/b", b"x").is_err());
    }

    #[test]
    fn a_file_system_without_them_says_so() {
        // procfs has none.
        let error = create(Path::new("/proc/self"), "fd/x", b"x").unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    }
}
