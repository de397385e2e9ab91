//! A list of what is in a ramdisk, one entry a line, in the format of Linux's `usr/gen_init_cpio`.
//!
//! ```text
//! # what                 from           mode uid gid
//! dir   /dev                            0755 0 0
//! nod   /dev/console                    0600 0 0 c 5 1
//! file  /init            ${INIT}        0755 0 0
//! slink /sbin            bin            0777 0 0
//! ```
//!
//! Files are found relative to the list. `${NAME}` in a file's place is replaced by a value that the caller gives; values come
//! from nowhere else, least of all the environment.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::ramdisk::{Content, Entry, EntryError, Ramdisk};

/// Why a line is no entry.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// Not one of the four kinds with its fields.
    #[error(
        "write `dir NAME MODE 0 0`, `file NAME FROM MODE 0 0`, `slink NAME TARGET MODE 0 0` or `nod NAME MODE 0 0 c MAJOR MINOR`"
    )]
    Shape,
    /// Not octal.
    #[error("{0:?} is no mode: write permission bits in octal, such as 0755")]
    Mode(String),
    /// An owner beside root.
    #[error("uid and gid must be 0: everything in an image belongs to root")]
    Owner,
    /// Not a number.
    #[error("{0:?} is no device number")]
    Device(String),
    /// A placeholder without a value.
    #[error("'${{{0}}}' was given no value: pass --set {0}=FILE")]
    Placeholder(String),
    /// A file that cannot be read.
    #[error("cannot read {}: {error}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// An entry that cannot stand in a ramdisk.
    #[error(transparent)]
    Entry(#[from] EntryError),
}

/// Why a list is none.
#[derive(Debug, thiserror::Error)]
#[error("line {line}: {error}")]
pub struct ManifestError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub error: LineError,
}

/// Packs what the list `text` names. `folder` is where it lies, `value` gives what a placeholder stands for.
///
/// # Errors
/// The first line that is no entry, or whose file cannot be read.
pub fn pack(text: &str, folder: &Path, value: impl Fn(&str) -> Option<String>) -> Result<Ramdisk, ManifestError> {
    let mut ramdisk = Ramdisk::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.is_empty() {
            continue;
        }
        let packed = entry(&words, folder, &value).and_then(|(name, entry)| Ok(ramdisk.insert(name, entry)?));
        packed.map_err(|error| ManifestError { line: index + 1, error })?;
    }
    Ok(ramdisk)
}

fn entry<'a>(
    words: &[&'a str],
    folder: &Path,
    value: &impl Fn(&str) -> Option<String>,
) -> Result<(&'a str, Entry), LineError> {
    let (name, [mode, uid, gid], content) = match *words {
        ["dir", name, mode, uid, gid] => (name, [mode, uid, gid], Content::Directory),
        ["slink", name, target, mode, uid, gid] => (name, [mode, uid, gid], Content::Symlink(target.to_owned())),
        ["nod", name, mode, uid, gid, "c", major, minor] => {
            let number = |text: &str| text.parse().map_err(|_| LineError::Device(text.to_owned()));
            (name, [mode, uid, gid], Content::Device { major: number(major)?, minor: number(minor)? })
        }
        ["file", name, from, mode, uid, gid] => {
            let path = folder.join(filled(from, value)?);
            let bytes = fs::read(&path).map_err(|error| LineError::Read { path, error })?;
            (name, [mode, uid, gid], Content::File(bytes))
        }
        _ => return Err(LineError::Shape),
    };
    if uid != "0" || gid != "0" {
        return Err(LineError::Owner);
    }
    let mode = u16::from_str_radix(mode, 8).map_err(|_| LineError::Mode(mode.to_owned()))?;
    Ok((name, Entry { mode, content }))
}

fn filled(text: &str, value: &impl Fn(&str) -> Option<String>) -> Result<String, LineError> {
    let mut filled = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        let (name, after) = after.split_once('}').ok_or(LineError::Shape)?;
        filled.push_str(before);
        filled.push_str(&value(name).ok_or_else(|| LineError::Placeholder(name.to_owned()))?);
        rest = after;
    }
    filled.push_str(rest);
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpio;

    #[test]
    fn each_kind_of_line_is_packed() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.bin"), b"init").unwrap();
        let text = "# a comment\n\ndir /dev 0755 0 0\nnod /dev/console 0600 0 0 c 5 1 # another\n\
                    file /init ${A}.bin 0755 0 0\nslink /sbin bin 0777 0 0\n";
        let ramdisk = pack(text, folder.path(), |name| (name == "A").then(|| "a".to_owned())).unwrap();
        let mut expected = Ramdisk::new();
        let mut add = |name: &str, mode, content| expected.insert(name, Entry { mode, content }).unwrap();
        add("init", 0o755, Content::File(b"init".to_vec()));
        add("dev", 0o755, Content::Directory);
        add("dev/console", 0o600, Content::Device { major: 5, minor: 1 });
        add("sbin", 0o777, Content::Symlink("bin".to_owned()));
        assert_eq!(ramdisk, expected);
        assert_eq!(cpio::read(&cpio::write(&ramdisk)), Ok(expected));
    }

    #[test]
    fn a_wrong_line_is_named_with_its_remedy() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |line: &str| pack(&format!("\n{line}"), folder.path(), |_| None).unwrap_err().to_string();
        for (line, part) in [
            ("pipe /p 0600 0 0", "write `dir NAME"),
            ("dir /d 0755 0", "write `dir NAME"),
            ("nod /d 0600 0 0 b 8 1", "write `dir NAME"),
            ("file /f ${X 0644 0 0", "write `dir NAME"),
            ("dir /d 0755 1000 0", "belongs to root"),
            ("dir /d 0855 0 0", "octal"),
            ("dir /d 200000 0 0", "octal"),
            ("nod /d 0600 0 0 c x 1", "\"x\" is no device number"),
            ("file /f ${X} 0644 0 0", "--set X=FILE"),
            ("file /f nothing 0644 0 0", "cannot read"),
            ("file /f / 0644 0 0", "cannot read /"),
            ("dir /a/b 0755 0 0", "needs the directory /a"),
        ] {
            let error = refused(line);
            assert!(error.starts_with("line 2: ") && error.contains(part), "{line}: {error}");
        }
    }
}
