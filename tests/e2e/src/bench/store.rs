//! The bare limits of the store: an fsynced exclusive create, and one read.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::Path;
use std::time::{Duration, Instant};

use super::Result;
use crate::Node;

/// Creates a file of these bytes exclusively and durably, the directory included.
pub(super) fn create(store: &Path, number: u32, bytes: &[u8]) -> Result<Duration> {
    let folder = store.join("bare");
    fs::create_dir_all(&folder)?;
    let start = Instant::now();
    let mut file = OpenOptions::new().write(true).create_new(true).open(folder.join(number.to_string()))?;
    file.write_all(bytes)?;
    file.sync_all()?;
    File::open(&folder)?.sync_all()?;
    Ok(start.elapsed())
}

/// Reads a vault's newest object once.
pub(super) fn read_newest(node: &Node, vault: casemate_protocol::id::VaultId) -> Result<Duration> {
    let folder = node.path("store").join(casemate_protocol::path::vault_folder(vault));
    let newest = fs::read_dir(folder)?.flatten().map(|entry| entry.path()).max().ok_or("no version")?;
    let start = Instant::now();
    fs::read(newest)?;
    Ok(start.elapsed())
}
