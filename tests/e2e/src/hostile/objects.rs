//! The objects of a store in memory, and the honest answers about them.

use std::collections::BTreeMap;

use casemate_protocol::id::VaultId;
use casemate_protocol::link::{BlobCall, BlobReply, KeyObject, VersionObject};
use casemate_protocol::object::Object;
use casemate_protocol::path;

/// Objects by their paths.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects(pub BTreeMap<String, Vec<u8>>);

impl Objects {
    /// What an honest store answers, once it has done what was asked.
    pub fn answer(&mut self, call: &BlobCall) -> BlobReply {
        match call {
            BlobCall::Load(vault) => BlobReply::Loaded { versions: self.chain(*vault), keys: self.keys(*vault) },
            BlobCall::Newest(vault) => BlobReply::Newest(self.versions(*vault).pop()),
            BlobCall::Get { path, limit } => match self.0.get(path) {
                Some(object) if object.len() > *limit as usize => BlobReply::Failed("too large".to_owned()),
                object => BlobReply::Object(object.cloned()),
            },
            BlobCall::Create { path, .. } if self.0.contains_key(path) => BlobReply::Exists,
            BlobCall::Create { path, bytes } => {
                self.0.insert(path.clone(), bytes.clone());
                BlobReply::Created
            }
            BlobCall::Delete { paths } => {
                for path in paths {
                    self.0.remove(path);
                }
                BlobReply::Deleted
            }
            BlobCall::Versions(vault) => {
                BlobReply::Versions(self.versions(*vault).iter().map(|version| version.version).collect())
            }
        }
    }

    /// Every version of a vault, ascending.
    pub fn versions(&self, vault: VaultId) -> Vec<VersionObject> {
        let folder = path::vault_folder(vault);
        let below = self.0.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let version = |(path, bytes): (&String, &Vec<u8>)| {
            let version = path::parse_version(&path[folder.len()..])?;
            Some(VersionObject { version, bytes: bytes.clone() })
        };
        below.filter_map(version).collect()
    }

    /// Puts `bytes` in the place of a version, or in a new one.
    pub fn set_version(&mut self, vault: VaultId, version: u64, bytes: Vec<u8>) {
        self.0.insert(path::vault_version(vault, version), bytes);
    }

    /// Takes a vault's objects away, its keys included.
    pub fn forget(&mut self, vault: VaultId) {
        let (folder, key) = (path::vault_folder(vault), path::vault_key(vault, 1));
        self.0.retain(|path, _| !path.starts_with(&folder) && *path != key);
    }

    /// Shows a vault as it stands in `other`, and nothing newer.
    pub fn show(&mut self, vault: VaultId, other: &Self) {
        let folder = path::vault_folder(vault);
        self.0.retain(|path, _| !path.starts_with(&folder));
        let theirs = other.0.iter().filter(|(path, _)| path.starts_with(&folder));
        self.0.extend(theirs.map(|(path, bytes)| (path.clone(), bytes.clone())));
    }

    /// The newest snapshot and every version above it.
    fn chain(&self, vault: VaultId) -> Vec<VersionObject> {
        let mut versions = self.versions(vault);
        let newest = versions.last().and_then(|newest| Object::parse(&newest.bytes).ok());
        let base = newest.map_or(0, |newest| newest.header.base);
        versions.retain(|version| version.version >= base);
        versions
    }

    fn keys(&self, vault: VaultId) -> Vec<KeyObject> {
        let key = self.0.get(&path::vault_key(vault, 1));
        key.map(|bytes| KeyObject { generation: 1, bytes: bytes.clone() }).into_iter().collect()
    }
}
