//! `CASEMATE_HOME`: the directory where a device keeps its keys, its lock keys and what it trusts.
//!
//! ```text
//! device.json            the device's keys
//! trust.json             the pinned cluster, self-built images, releases
//! lock                   held while one of the two above is changed
//! vaults/<id>.json       what the device remembers of a vault
//! vaults/<id>.lock       held by the process that uses the vault
//! ```
//!
//! The directory belongs to one user and nobody else may enter it. A file is never changed in place: a crash leaves the old one or
//! the new one.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_protocol::id::VaultId;
use serde::Serialize;
use serde::de::DeserializeOwned;
use zeroize::Zeroizing;

use crate::device::Device;
use crate::random::RandomError;
use crate::record::{Keep, VaultRecord};
use crate::trust::{Trust, TrustFile};

/// No file of a home is larger.
const FILE_BYTES: u64 = 1024 * 1024;
/// No trust file is larger: room for as many images and releases as a home takes. A reader of TOML makes a kilobyte of one byte
/// of it.
const TRUST_FILE_BYTES: u64 = 128 * 1024;
/// How often a held lock is tried again.
const LOCK_POLL: Duration = Duration::from_millis(20);

/// Why a home cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    /// A file or directory could not be read or written.
    #[error("cannot {what} {path}: {error}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        error: io::Error,
    },
    /// Others may read it, or it belongs to another user.
    #[error("{path} is open to others (mode {mode:03o}, owner {owner})")]
    Exposed {
        /// The path.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        owner: u32,
    },
    /// Not what this program wrote.
    #[error("{path} cannot be read: {reason}")]
    Damaged {
        /// The path.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Written by a newer version.
    #[error("{path} has format {format}, which this version does not know")]
    Newer {
        /// The path.
        path: PathBuf,
        /// The format.
        format: u8,
    },
    /// Another process holds the lock.
    #[error("another process is using {path}")]
    Locked {
        /// The lock file.
        path: PathBuf,
    },
    /// No such vault.
    #[error("this home has no vault {0}")]
    NoVault(VaultId),
    /// The system has no randomness.
    #[error(transparent)]
    Random(#[from] RandomError),
}

impl HomeError {
    /// What to do about it.
    pub fn remedy(&self) -> String {
        match self {
            Self::Io { .. } => {
                "Check the path, its permissions and the free space; CASEMATE_HOME or --home names the directory."
                    .to_owned()
            }
            Self::Exposed { path, .. } => format!(
                "Make it yours alone (`chmod -R go= {}`, and its owner must be you). If others could read it, treat its keys as known to them.",
                path.display()
            ),
            Self::Damaged { .. } => "Restore the file from a backup of CASEMATE_HOME; do not edit it.".to_owned(),
            Self::Newer { .. } => "Upgrade this program.".to_owned(),
            Self::Locked { .. } => {
                "Wait until the other command has ended, or give it longer with --timeout.".to_owned()
            }
            Self::NoVault(_) => {
                "`casemate vault list` shows the vaults of this home; --home chooses another.".to_owned()
            }
            Self::Random(_) => "Wait until the system has gathered randomness.".to_owned(),
        }
    }

    fn io(what: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { what, path: path.to_owned(), error }
    }
}

/// A lock that ends with this value, or with the process.
#[derive(Debug)]
struct Lock {
    _file: File,
}

/// An opened home.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
    wait: Duration,
}

impl Home {
    /// Opens a home, making it if it is not there. Waits at most `wait` for other processes.
    ///
    /// # Errors
    /// When it is open to others, or cannot be made.
    pub fn open(path: &Path, wait: Duration) -> Result<Self, HomeError> {
        let home = Self { path: path.to_owned(), wait };
        for directory in [home.path.clone(), home.vaults()] {
            DirBuilder::new()
                .recursive(true)
                .mode(0o700)
                .create(&directory)
                .map_err(HomeError::io("make", &directory))?;
            let found = fs::metadata(&directory).map_err(HomeError::io("look at", &directory))?;
            refuse_exposed(&directory, &found)?;
        }
        Ok(home)
    }

    /// The directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn vaults(&self) -> PathBuf {
        self.path.join("vaults")
    }

    fn vault_path(&self, vault: VaultId) -> PathBuf {
        self.vaults().join(format!("{vault}.json"))
    }

    fn trust_path(&self) -> PathBuf {
        self.path.join("trust.json")
    }

    /// The device of this home, made on first use.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn device(&self) -> Result<Device, HomeError> {
        let path = self.path.join("device.json");
        let _lock = lock(&self.path.join("lock"), self.wait)?;
        let device = if let Some(device) = read::<Device>(&path)? {
            device
        } else {
            let device = Device::generate()?;
            write(&path, &device)?;
            device
        };
        known_format(&path, device.format(), Device::FORMAT)?;
        Ok(device)
    }

    /// What this home trusts.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn trust(&self) -> Result<Trust, HomeError> {
        let path = self.trust_path();
        let trust = read::<Trust>(&path)?.unwrap_or_default();
        known_format(&path, trust.format(), Trust::FORMAT)?;
        Ok(trust)
    }

    /// Changes what this home trusts; nothing is written when `change` fails.
    ///
    /// # Errors
    /// See [`HomeError`], and those of `change`.
    pub fn change_trust<T, E: From<HomeError>>(&self, change: impl FnOnce(&mut Trust) -> Result<T, E>) -> Result<T, E> {
        let _lock = lock(&self.path.join("lock"), self.wait)?;
        let mut trust = self.trust()?;
        let before = trust.clone();
        let result = change(&mut trust)?;
        if trust != before {
            write(&self.trust_path(), &trust)?;
        }
        Ok(result)
    }

    /// The vaults of this home, in the order of their ids.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn list(&self) -> Result<Vec<VaultRecord>, HomeError> {
        let directory = self.vaults();
        let mut ids = Vec::new();
        for entry in fs::read_dir(&directory).map_err(HomeError::io("read", &directory))? {
            let name = entry.map_err(HomeError::io("read", &directory))?.file_name();
            ids.extend(
                name.to_str().and_then(|name| name.strip_suffix(".json")).and_then(|id| id.parse::<VaultId>().ok()),
            );
        }
        ids.sort_unstable();
        ids.into_iter().map(|vault| self.record(vault)).collect()
    }

    fn record(&self, vault: VaultId) -> Result<VaultRecord, HomeError> {
        let path = self.vault_path(vault);
        let record = read::<VaultRecord>(&path)?.ok_or(HomeError::NoVault(vault))?;
        known_format(&path, record.format(), VaultRecord::FORMAT)?;
        if record.vault() != vault {
            return Err(HomeError::Damaged { path, reason: format!("it describes vault {}", record.vault()) });
        }
        Ok(record)
    }

    /// Takes a vault for this process alone: two processes would use the same sequence numbers.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn claim(&self, vault: VaultId) -> Result<(VaultRecord, VaultKeeper), HomeError> {
        // Looked up first, so that a mistyped id leaves no lock file behind.
        self.record(vault)?;
        let keeper = self.keeper(vault)?;
        Ok((self.record(vault)?, keeper))
    }

    /// A keeper for a vault whose record is still to be written.
    ///
    /// # Errors
    /// See [`HomeError`].
    pub fn keeper(&self, vault: VaultId) -> Result<VaultKeeper, HomeError> {
        let lock = lock(&self.vaults().join(format!("{vault}.lock")), self.wait)?;
        Ok(VaultKeeper { home: self.clone(), vault, _lock: Arc::new(lock) })
    }
}

/// Keeps one vault's record in a home; as long as it lives, no other process uses that vault.
#[derive(Debug, Clone)]
pub struct VaultKeeper {
    home: Home,
    vault: VaultId,
    _lock: Arc<Lock>,
}

impl Keep for VaultKeeper {
    fn keep_vault(&self, record: &VaultRecord) -> Result<(), HomeError> {
        debug_assert_eq!(record.vault(), self.vault);
        write(&self.home.vault_path(self.vault), record)
    }

    fn keep_release(&self, number: u64) -> Result<(), HomeError> {
        self.home.change_trust(|trust| {
            trust.accept_release(number);
            Ok(())
        })
    }
}

/// Reads a trust file that a person wrote; it may be open to others.
///
/// # Errors
/// When it cannot be read or is not of the form that `casemate trust add --help` shows.
pub fn read_trust_file(path: &Path) -> Result<TrustFile, HomeError> {
    let mut text = String::new();
    let file = File::open(path).map_err(HomeError::io("open", path))?;
    file.take(TRUST_FILE_BYTES + 1).read_to_string(&mut text).map_err(HomeError::io("read", path))?;
    let damaged = |reason: String| HomeError::Damaged { path: path.to_owned(), reason };
    // The beginning of a file may read well without its rest.
    if text.len() as u64 > TRUST_FILE_BYTES {
        return Err(damaged("it is longer than 128 KiB".to_owned()));
    }
    toml::from_str(&text).map_err(|error| damaged(error.to_string()))
}

/// Attack stopped: another user of the machine who reads the lock keys, or puts files of his own in their place.
fn refuse_exposed(path: &Path, found: &fs::Metadata) -> Result<(), HomeError> {
    const OTHERS: u32 = 0o077;
    let (mode, owner) = (found.mode() & 0o777, found.uid());
    if mode & OTHERS == 0 && owner == nix::unistd::geteuid().as_raw() {
        return Ok(());
    }
    Err(HomeError::Exposed { path: path.to_owned(), mode, owner })
}

fn known_format(path: &Path, format: u8, known: u8) -> Result<(), HomeError> {
    if format == known { Ok(()) } else { Err(HomeError::Newer { path: path.to_owned(), format }) }
}

fn lock(path: &Path, wait: Duration) -> Result<Lock, HomeError> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::fcntl::OFlag::O_NOFOLLOW.bits())
        .open(path)
        .map_err(HomeError::io("open", path))?;
    let until = Instant::now() + wait;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(Lock { _file: file }),
            Err(TryLockError::WouldBlock) if Instant::now() < until => std::thread::sleep(LOCK_POLL),
            Err(TryLockError::WouldBlock) => return Err(HomeError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => return Err(HomeError::io("lock", path)(error)),
        }
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, HomeError> {
    let flags = nix::fcntl::OFlag::O_NOFOLLOW.bits();
    let file = match OpenOptions::new().read(true).custom_flags(flags).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(HomeError::io("open", path)(error)),
    };
    let found = file.metadata().map_err(HomeError::io("look at", path))?;
    refuse_exposed(path, &found)?;
    let damaged = |reason: String| HomeError::Damaged { path: path.to_owned(), reason };
    if found.len() > FILE_BYTES || !found.is_file() {
        return Err(damaged("it is no file of this program".to_owned()));
    }
    let size = usize::try_from(found.len()).expect("at most 1 MiB");
    // With room for all of it, so that growing leaves no copy behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size + 1));
    file.take(FILE_BYTES).read_to_end(&mut bytes).map_err(HomeError::io("read", path))?;
    serde_json::from_slice(&bytes).map(Some).map_err(|error| damaged(error.to_string()))
}

/// Writes a file so that after a crash there is the old one or the new one: temporary file, fsync, rename, fsync of the directory.
fn write<T: Serialize>(path: &Path, value: &T) -> Result<(), HomeError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(16 * 1024));
    serde_json::to_writer_pretty(&mut *bytes, value).expect("our types serialise into memory");
    let directory = path.parent().expect("a file of a home has a directory");
    let name = path.file_name().expect("a file of a home has a name").to_string_lossy();
    // One name per file: writers hold a lock, and what a crash left behind is not left for good.
    let temporary = directory.join(format!(".{name}.new"));
    let written = write_durably(&temporary, &bytes).and_then(|()| {
        fs::rename(&temporary, path).map_err(HomeError::io("rename into", path))?;
        File::open(directory).and_then(|opened| opened.sync_all()).map_err(HomeError::io("sync", directory))
    });
    if written.is_err() {
        // The error that matters is the first one.
        let _ = fs::remove_file(&temporary);
    }
    written
}

fn write_durably(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(HomeError::io("replace", path)(error)),
        _ => {}
    }
    let mut file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(HomeError::io("make", path))?;
    file.write_all(bytes).and_then(|()| file.sync_all()).map_err(HomeError::io("write", path))
}

/// Writes bytes that left a vault into a file that only the user may read, replacing one that is there.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), HomeError> {
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
    let name = name.ok_or_else(|| HomeError::io("write", path)(io::ErrorKind::IsADirectory.into()))?;
    let temporary = path.with_file_name(format!(".{name}.{}.new", std::process::id()));
    let written = write_durably(&temporary, bytes)
        .and_then(|()| fs::rename(&temporary, path).map_err(HomeError::io("write", path)));
    if written.is_err() {
        let _ = fs::remove_file(&temporary);
    }
    written
}

#[cfg(test)]
#[path = "home_tests.rs"]
mod tests;
