//! The store as its operator sees it: names, bytes and clear headers.

use std::io;

use casemate_protocol::id::VaultId;
use casemate_protocol::object::{self, Object};
use casemate_protocol::path;

use super::history::Stored;
use crate::Node;

/// How often the folder is read again, because a collection was under way.
const ATTEMPTS: u32 = 50;

/// The versions of a vault, ascending. Files that are no versions, such as what a killed create has left, do not count.
///
/// # Errors
/// When the folder cannot be read, or a version is no object of this vault.
pub(super) fn versions(node: &Node, vault: VaultId) -> io::Result<Vec<Stored>> {
    let folder = node.path("store").join(path::vault_folder(vault));
    let mut attempts = 0;
    loop {
        match read(&folder, vault) {
            // A collection took an old version between the list and the look.
            Err(error) if error.kind() == io::ErrorKind::NotFound && attempts < ATTEMPTS => attempts += 1,
            read => return read,
        }
    }
}

fn read(folder: &std::path::Path, vault: VaultId) -> io::Result<Vec<Stored>> {
    let mut versions: Vec<u64> = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        versions.extend(entry?.file_name().to_str().and_then(path::parse_version));
    }
    versions.sort_unstable();
    let mut stored = Vec::with_capacity(versions.len());
    for version in versions {
        let bytes = std::fs::read(folder.join(format!("{version:020}")))?;
        let header = Object::parse(&bytes).map_err(io::Error::other)?.header;
        if (header.vault, header.version) != (vault, version) {
            return Err(io::Error::other(format!("version {version} says that it is another")));
        }
        stored.push(Stored { version, hash: object::hash(&bytes), previous: header.previous });
    }
    Ok(stored)
}
