//! Files that are no files: what a kernel or a library OS makes of reads and writes below one folder. Two security modules speak that way.

use std::fmt;
use std::fs;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

/// Reads and writes below a folder. The real one is the kernel's; tests have doubles that answer as the kernel does.
pub trait PseudoFiles: Send + Sync + fmt::Debug {
    /// Makes a folder, which the kernel fills.
    ///
    /// # Errors
    /// The system's.
    fn make(&self, folder: &str) -> io::Result<()>;
    /// Removes it, with what the kernel had filled it with.
    ///
    /// # Errors
    /// The system's.
    fn remove(&self, folder: &str) -> io::Result<()>;
    /// Writes all of `bytes` in one call, as such files want it.
    ///
    /// # Errors
    /// The system's.
    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()>;
    /// Reads a file of at most `limit` bytes.
    ///
    /// # Errors
    /// The system's; `InvalidData` for a longer file.
    fn read(&self, file: &str, limit: usize) -> io::Result<Vec<u8>>;
}

/// The kernel's.
#[derive(Debug, Clone)]
pub struct KernelFiles(PathBuf);

impl KernelFiles {
    /// Those below this folder.
    pub fn below(folder: impl AsRef<Path>) -> Self {
        Self(folder.as_ref().to_owned())
    }
}

impl PseudoFiles for KernelFiles {
    fn make(&self, folder: &str) -> io::Result<()> {
        fs::create_dir(self.0.join(folder))
    }

    fn remove(&self, folder: &str) -> io::Result<()> {
        // Its files are the kernel's, and go with it.
        fs::remove_dir(self.0.join(folder))
    }

    fn write(&self, file: &str, bytes: &[u8]) -> io::Result<()> {
        let written = fs::OpenOptions::new().write(true).open(self.0.join(file))?.write(bytes)?;
        if written == bytes.len() { Ok(()) } else { Err(io::ErrorKind::WriteZero.into()) }
    }

    fn read(&self, file: &str, limit: usize) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
        fs::File::open(self.0.join(file))?.take(most).read_to_end(&mut bytes)?;
        if bytes.len() > limit { Err(io::ErrorKind::InvalidData.into()) } else { Ok(bytes) }
    }
}
