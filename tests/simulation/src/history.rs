//! The last judgement: opens, from the store alone, every version that ever stood there, and holds against it what devices were told.

use std::collections::BTreeMap;

use casemate_enclave::keys::shards::ShardKey;
use casemate_enclave::keys::stored::{SealedShardKey, Slot};
use casemate_enclave::keys::wrap::WrappedVaultKey;
use casemate_enclave::vault::chain;
use casemate_enclave::vault::cipher::RootKey;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::VersionObject;
use casemate_protocol::object::{Kind, Object};
use casemate_protocol::path;
use zeroize::Zeroizing;

use crate::node::Shared;
use crate::program::{Fate, Program, Write};

/// A revision as it was written.
#[derive(Debug)]
struct Written {
    name: String,
    value: Vec<u8>,
    /// The first version that has it.
    version: u64,
}

/// Judges one program's vault.
pub fn judge(shared: &Shared, program: &Program) {
    if let Err(what) = judged(shared, program) {
        shared.findings.violation(format_args!("{}: {what}", program.vault()));
    }
}

fn judged(shared: &Shared, program: &Program) -> Result<(), String> {
    let vault = program.vault();
    let writes = program.writes();
    let archive = shared.store.archive(vault);
    if archive.is_empty() {
        // Nobody was told that it was created.
        return if program.is_finished() { Err("a vault that was created stands nowhere".to_owned()) } else { Ok(()) };
    }
    let root = root(shared, program)?;
    let revisions = replay(vault, &root, &archive)?;
    for write in &writes {
        let value = write.value.as_bytes();
        let found: BTreeMap<_, _> = revisions
            .iter()
            .filter(|(_, written)| written.value == value)
            .map(|(revision, written)| (*revision, written.version))
            .collect();
        if found.len() > 1 {
            return Err(format!("{:?} was done {} times: {found:?}", write.value, found.len()));
        }
        if let Fate::Done(revision) = write.fate
            && found.get(&revision).is_none_or(|version| *version > write.version)
        {
            let (value, version) = (&write.value, write.version);
            return Err(format!("{value:?} was answered with revision {revision} by version {version}: {found:?}"));
        }
    }
    for (revision, written) in &revisions {
        let is_ours = |write: &Write| write.name == written.name && write.value.as_bytes() == written.value;
        if !writes.iter().any(is_ours) {
            return Err(format!("revision {revision} of {} was written by nobody", written.name));
        }
    }
    for read in program.reads() {
        let fits = |written: &Written| {
            written.name == read.name && written.value == read.value && written.version <= read.version
        };
        if !revisions.get(&read.revision).is_some_and(fits) {
            return Err(format!("revision {} of {} was read before it was durable", read.revision, read.name));
        }
    }
    // What the store shows now is what there is.
    let shown = shared.store.load(vault).versions;
    let opened =
        chain::open(vault, &root, &shown).map_err(|error| format!("the store's vault does not open: {error}"))?;
    if Some(&opened.header.version) != archive.last_key_value().map(|(version, _)| version) {
        return Err("the store does not show the newest version".to_owned());
    }
    Ok(())
}

/// The vault's root key: out of the stored key object, the key service, and what the device holds.
fn root(shared: &Shared, program: &Program) -> Result<RootKey, String> {
    let vault = program.vault();
    let object = shared.store.get(&path::vault_key(vault, 1)).ok_or("its key stands nowhere")?;
    let wrapped = WrappedVaultKey::from_bytes(&object).map_err(|error| error.to_string())?;
    let slot = Slot { shard: vault.shard(), generation: 1 };
    let sealed = SealedShardKey::new(slot, wrapped.shard_blob()).map_err(|error| error.to_string())?;
    let key = shared.kms.key(wrapped.shard_blob()).ok_or("the key service never made its shard key")?;
    let key = wrapped.open(&ShardKey::new(Zeroizing::new(key), sealed), vault, 1).map_err(|error| error.to_string())?;
    let lock_key = program.record().lock_key().and_then(|key| key.to_secret().to_array::<32>()).ok_or("no lock key")?;
    Ok(RootKey::derive(vault, &key, &lock_key))
}

/// Opens the vault as it was at each version; gives every revision that was ever written.
fn replay(vault: VaultId, root: &RootKey, archive: &BTreeMap<u64, Vec<u8>>) -> Result<BTreeMap<u64, Written>, String> {
    let mut revisions = BTreeMap::new();
    let mut versions: Vec<VersionObject> = Vec::new();
    let mut last_hash = [0; 32];
    for (expected, (version, bytes)) in (1..).zip(archive) {
        if *version != expected {
            return Err(format!("version {version} stands where {expected} should"));
        }
        let header = Object::parse(bytes).map_err(|_| format!("version {version} is no object"))?.header;
        if header.previous != last_hash {
            return Err(format!("version {version} does not follow the one before it"));
        }
        if header.kind == Kind::Snapshot {
            versions.clear();
        }
        versions.push(VersionObject { version: *version, bytes: bytes.clone() });
        let chain = chain::open(vault, root, &versions).map_err(|error| format!("version {version}: {error}"))?;
        last_hash = chain.hash;
        for (name, written) in &chain.state.secrets {
            for revision in written {
                let value = revision.value.to_vec();
                let first = || Written { name: name.clone(), value: value.clone(), version: *version };
                let known = revisions.entry(revision.number).or_insert_with(first);
                if known.name != *name || known.value != value {
                    return Err(format!("revision {} was given twice", revision.number));
                }
            }
        }
    }
    Ok(revisions)
}
