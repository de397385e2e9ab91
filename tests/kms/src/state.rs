//! What must outlive the process: the master key, the key's identity and the certificate authority.
//!
//! A directory of mode 0700 with files of mode 0600, each written whole or not at all. It is locked while in use: two
//! stand-ins over one directory would make two keys.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::blob::MasterKey;

const KEY_FILE: &str = "key.json";
const LOCK_FILE: &str = "lock";
const MAX_FILE_BYTES: u64 = 64 * 1024;

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// An I/O error.
    #[error("{}: {source}", path.display())]
    Io {
        /// What was read or written.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may look inside.
    #[error("{} must be a directory of its owner only: chmod 700 it, or name another", .0.display())]
    Permissions(PathBuf),
    /// Another process holds it.
    #[error("{} is in use by another standin-kms: stop that one, or name another directory", .0.display())]
    InUse(PathBuf),
    /// Not what this program wrote.
    #[error("{} is not what this program wrote ({reason}): restore it, or remove the directory and lose its key", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Made for another region or account.
    #[error(
        "the state directory holds a key of {found}, not of {wanted}: pass that region and account, or another directory"
    )]
    Elsewhere {
        /// Region and account in the directory.
        found: String,
        /// Region and account asked for.
        wanted: String,
    },
    /// No randomness.
    #[error("the kernel gave no randomness")]
    Randomness,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeyFile {
    format: u8,
    region: String,
    account: String,
    key_id: String,
    created_unix: u64,
    master_key: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.master_key.zeroize();
    }
}

/// The KMS key: its material and what DescribeKey says of it.
#[derive(Debug)]
pub struct KmsKey {
    /// Wraps data keys.
    pub master: MasterKey,
    /// A UUID.
    pub id: String,
    /// The AWS account it belongs to.
    pub account: String,
    /// The region it lives in.
    pub region: String,
    /// When it was made.
    pub created_unix: u64,
}

impl KmsKey {
    /// `arn:aws:kms:<region>:<account>:key/<id>`.
    pub fn arn(&self) -> String {
        format!("arn:aws:kms:{}:{}:key/{}", self.region, self.account, self.id)
    }

    fn from_file(file: &KeyFile) -> Result<Self, String> {
        if file.format != 1 {
            return Err(format!("format {}", file.format));
        }
        let mut id = [0; 16];
        hex::decode_to_slice(file.key_id.replace('-', ""), &mut id).map_err(|error| format!("key_id: {error}"))?;
        let mut master = Zeroizing::new([0; 32]);
        hex::decode_to_slice(&file.master_key, master.as_mut_slice())
            .map_err(|error| format!("master_key: {error}"))?;
        Ok(Self {
            master: MasterKey::new(id, master),
            id: uuid_text(&id),
            account: file.account.clone(),
            region: file.region.clone(),
            created_unix: file.created_unix,
        })
    }
}

/// The open state directory.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    lock: File,
}

impl Drop for StateDir {
    fn drop(&mut self) {
        // Closing alone is not enough: a child forked meanwhile by the same process shares the lock until it execs.
        let _ = self.lock.unlock();
    }
}

impl StateDir {
    /// Opens `path`, made if it is absent, and locks it.
    ///
    /// # Errors
    /// [`StateError`] when it cannot be made, is open to others, or is in use.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let io = |source| StateError::Io { path: path.to_owned(), source };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(io)?;
        let metadata = fs::metadata(path).map_err(io)?;
        if metadata.mode() & 0o077 != 0 {
            return Err(StateError::Permissions(path.to_owned()));
        }
        let lock = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(path.join(LOCK_FILE))
            .map_err(io)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), lock }),
            Err(fs::TryLockError::WouldBlock) => Err(StateError::InUse(path.to_owned())),
            Err(fs::TryLockError::Error(source)) => Err(io(source)),
        }
    }

    /// The path of a file in the directory.
    pub fn path(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Reads a file; nothing when there is none.
    ///
    /// # Errors
    /// [`StateError::Io`], also when it is larger than anything this program writes.
    pub fn read(&self, name: &str) -> Result<Option<Zeroizing<Vec<u8>>>, StateError> {
        let path = self.path(name);
        let io = |source| StateError::Io { path: path.clone(), source };
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(io(error)),
        };
        let mut bytes = Zeroizing::new(Vec::new());
        file.take(MAX_FILE_BYTES + 1).read_to_end(&mut bytes).map_err(io)?;
        if bytes.len() as u64 > MAX_FILE_BYTES {
            return Err(StateError::Corrupt { path, reason: "too large".to_owned() });
        }
        Ok(Some(bytes))
    }

    /// Writes a file of mode 0600 durably: it appears whole or not at all.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn write(&self, name: &str, bytes: &[u8]) -> Result<(), StateError> {
        let path = self.path(name);
        let temporary = self.path(&format!(".{name}.new"));
        let write = || -> io::Result<()> {
            let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary)?;
            file.write_all(bytes)?;
            file.sync_all()?;
            fs::rename(&temporary, &path)?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(|source| StateError::Io { path, source })
    }

    /// Loads the KMS key, or makes it when the directory is new.
    ///
    /// # Errors
    /// [`StateError`]; a damaged file is never replaced, for with it the key would be gone.
    pub fn key(&self, region: &str, account: &str) -> Result<KmsKey, StateError> {
        let corrupt = |reason| StateError::Corrupt { path: self.path(KEY_FILE), reason };
        let file = match self.read(KEY_FILE)? {
            Some(bytes) => serde_json::from_slice(&bytes).map_err(|error| corrupt(error.to_string()))?,
            None => self.make_key(region, account)?,
        };
        let key = KmsKey::from_file(&file).map_err(corrupt)?;
        let (found, wanted) = (format!("{}/{}", key.region, key.account), format!("{region}/{account}"));
        if found != wanted {
            return Err(StateError::Elsewhere { found, wanted });
        }
        Ok(key)
    }

    fn make_key(&self, region: &str, account: &str) -> Result<KeyFile, StateError> {
        let mut id = [0_u8; 16];
        let mut master = Zeroizing::new([0_u8; 32]);
        getrandom::fill(&mut id).map_err(|_| StateError::Randomness)?;
        getrandom::fill(master.as_mut_slice()).map_err(|_| StateError::Randomness)?;
        // A UUID of version 4 (RFC 9562), as KMS key ids are.
        id[6] = id[6] & 0x0f | 0x40;
        id[8] = id[8] & 0x3f | 0x80;
        let created_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let file = KeyFile {
            format: 1,
            region: region.to_owned(),
            account: account.to_owned(),
            key_id: uuid_text(&id),
            created_unix,
            master_key: hex::encode(master.as_slice()),
        };
        let bytes = Zeroizing::new(serde_json::to_vec(&file).expect("strings and numbers serialise"));
        self.write(KEY_FILE, &bytes)?;
        Ok(file)
    }
}

fn uuid_text(id: &[u8; 16]) -> String {
    let text = hex::encode(id);
    [&text[..8], &text[8..12], &text[12..16], &text[16..20], &text[20..]].join("-")
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::wire::EncryptionContext;

    #[test]
    fn a_restart_unwraps_what_was_wrapped_before() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let context = EncryptionContext::new();
        let (arn, blob) = {
            let key = StateDir::open(&path).unwrap().key("us-east-1", "111122223333").unwrap();
            (key.arn(), key.master.wrap(b"data key", &context).unwrap())
        };
        let key = StateDir::open(&path).unwrap().key("us-east-1", "111122223333").unwrap();
        assert_eq!(key.arn(), arn);
        assert_eq!(key.master.unwrap(&blob, &context).unwrap().as_slice(), b"data key");
    }

    #[test]
    fn only_the_owner_can_look_inside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        StateDir::open(&path).unwrap().key("us-east-1", "111122223333").unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().mode() & 0o777;
        assert_eq!(mode(&path), 0o700);
        assert_eq!(mode(&path.join(KEY_FILE)), 0o600);
        fs::set_permissions(&path, fs::Permissions::from_mode(0o750)).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::Permissions(_))));
    }

    #[test]
    fn a_directory_in_use_elsewhere_or_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state");
        let state = StateDir::open(&path).unwrap();
        assert!(matches!(StateDir::open(&path), Err(StateError::InUse(_))));
        state.key("us-east-1", "111122223333").unwrap();
        assert!(matches!(state.key("eu-west-1", "111122223333"), Err(StateError::Elsewhere { .. })));
        state.write(KEY_FILE, b"{}").unwrap();
        assert!(matches!(state.key("us-east-1", "111122223333"), Err(StateError::Corrupt { .. })));
    }
}
