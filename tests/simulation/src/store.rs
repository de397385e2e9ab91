//! The object store: one for all nodes, create-only, honest about what it holds, and unreliable about everything else.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_enclave::outside::{BlobStore, BoxFuture, PutOutcome, StoreError};
use casemate_enclave::supervisor::router::Loaded;
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{KeyObject, VersionObject};
use casemate_protocol::object::{self, Kind, Object};
use casemate_protocol::path;

use crate::dice::Dice;
use crate::event::Event;
use crate::findings::Findings;
use crate::time::Time;
use crate::weather::Weather;

#[derive(Default)]
struct Inner {
    objects: BTreeMap<String, Vec<u8>>,
    /// Every version that was ever created, deleted ones too. What was deleted and created anew keeps its first body here.
    archive: BTreeMap<VaultId, BTreeMap<u64, Vec<u8>>>,
}

/// The store. Clones share it.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Mutex<Inner>>,
    findings: Findings,
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("objects", &self.inner().objects.len()).finish_non_exhaustive()
    }
}

impl Store {
    /// An empty store.
    pub fn new(findings: Findings) -> Self {
        Self { inner: Arc::default(), findings }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A create-only put takes effect, or finds the path taken.
    pub fn create(&self, path: &str, bytes: Vec<u8>) -> PutOutcome {
        let mut inner = self.inner();
        let created = !inner.objects.contains_key(path);
        let hash = hex::encode(&object::hash(&bytes)[..4]);
        self.findings.trace(format_args!("store: {path} {hash} {}", if created { "created" } else { "exists" }));
        if !created {
            return PutOutcome::Exists;
        }
        if let Some((vault, version)) = parse(path) {
            inner.archive.entry(vault).or_default().entry(version).or_insert_with(|| bytes.clone());
        }
        inner.objects.insert(path.to_owned(), bytes);
        PutOutcome::Created
    }

    /// One object.
    pub fn get(&self, path: &str) -> Option<Vec<u8>> {
        self.inner().objects.get(path).cloned()
    }

    fn versions(&self, vault: VaultId) -> Vec<VersionObject> {
        let folder = path::vault_folder(vault);
        let inner = self.inner();
        let of_vault = inner.objects.range(folder.clone()..).take_while(|(path, _)| path.starts_with(&folder));
        let object = |(path, bytes): (&String, &Vec<u8>)| {
            let version = path::parse_version(&path[folder.len()..])?;
            Some(VersionObject { version, bytes: bytes.clone() })
        };
        of_vault.filter_map(object).collect()
    }

    /// The newest version.
    pub fn newest(&self, vault: VaultId) -> Option<VersionObject> {
        self.versions(vault).pop()
    }

    /// The newest snapshot, all above it, and the wrapped key: as the parent loads a vault.
    pub fn load(&self, vault: VaultId) -> Loaded {
        let mut versions = self.versions(vault);
        let is_snapshot = |object: &VersionObject| {
            Object::parse(&object.bytes).is_ok_and(|object| object.header.kind == Kind::Snapshot)
        };
        let newest = versions.iter().rposition(is_snapshot).unwrap_or(0);
        versions.drain(..newest);
        let key = self.get(&path::vault_key(vault, 1));
        Loaded { versions, keys: key.into_iter().map(|bytes| KeyObject { generation: 1, bytes }).collect() }
    }

    /// Deletes a vault's versions below one, oldest first.
    pub fn collect(&self, vault: VaultId, below: u64) {
        self.findings.trace(format_args!("store: {vault} collected below {below}"));
        let old: Vec<_> = self.versions(vault).into_iter().map(|object| object.version).collect();
        let mut inner = self.inner();
        for version in old.into_iter().filter(|version| *version < below) {
            inner.objects.remove(&path::vault_version(vault, version));
        }
    }

    /// Whether the version that a head names was ever durable, with these bytes.
    pub fn has_held(&self, vault: VaultId, head: &Head) -> bool {
        let inner = self.inner();
        let bytes = inner.archive.get(&vault).and_then(|versions| versions.get(&head.version));
        bytes.is_some_and(|bytes| object::hash(bytes) == head.hash)
    }

    /// Every version of a vault that was ever created.
    pub fn archive(&self, vault: VaultId) -> BTreeMap<u64, Vec<u8>> {
        self.inner().archive.get(&vault).cloned().unwrap_or_default()
    }
}

/// The vault and version of a path.
fn parse(path: &str) -> Option<(VaultId, u64)> {
    let mut segments = path.strip_prefix("v1/vaults/")?.rsplit('/');
    let version = path::parse_version(segments.next()?)?;
    Some((segments.next()?.parse().ok()?, version))
}

/// How a put goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutFate {
    /// It arrives after the first time, and its answer comes after the second.
    Answered(Duration, Duration),
    /// It arrives, and no answer comes before the second time has passed from then.
    AnswerLost(Duration, Duration),
    /// The call ends first, without an answer; the object arrives all the same, much later.
    ArrivesLate(Duration, Duration),
    /// It never arrives; the call ends without an answer.
    Lost(Duration),
    /// It never arrives, and the store says "exists" (what S3's 409 becomes on the way).
    FalseExists(Duration),
    /// It is never sent, and that is known.
    NotSent,
}

/// Draws the fate of a put.
pub fn put_fate(dice: &mut Dice, weather: &Weather) -> PutFate {
    let (there, back) = (dice.millis(1, 4), dice.millis(0, 2));
    if !weather.strikes(dice, weather.store) {
        return PutFate::Answered(there, back);
    }
    match dice.roll(7) {
        0 => PutFate::Answered(dice.millis(50, 6_000), back),
        1 => PutFate::AnswerLost(there, dice.millis(1, 12_000)),
        2 | 3 => PutFate::ArrivesLate(dice.millis(1, 300), dice.millis(300, 15_000)),
        4 => PutFate::Lost(dice.millis(1, 9_000)),
        5 => PutFate::FalseExists(there),
        _ => PutFate::NotSent,
    }
}

/// Draws how long a read takes, and whether it fails.
pub fn read_fate(dice: &mut Dice, weather: &Weather) -> (Duration, Duration, bool) {
    let (there, back) = (dice.millis(0, 2), dice.millis(0, 2));
    if !weather.strikes(dice, weather.store) {
        return (there, back, false);
    }
    match dice.roll(3) {
        0 => (dice.millis(1, 4_000), back, false),
        1 => (there, dice.millis(1, 4_000), false),
        _ => (there, dice.millis(1, 4_000), true),
    }
}

/// The store as one node's keyring reaches it.
#[derive(Debug)]
pub struct NodeStore {
    /// The store.
    pub store: Store,
    /// Time.
    pub time: Time,
    /// Weather.
    pub weather: Weather,
    /// Chance.
    pub dice: Mutex<Dice>,
}

impl NodeStore {
    fn dice(&self) -> MutexGuard<'_, Dice> {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn failed() -> StoreError {
    StoreError("no answer".to_owned())
}

impl BlobStore for NodeStore {
    fn get<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        let (there, back, fails) = read_fate(&mut self.dice(), &self.weather);
        Box::pin(async move {
            self.time.wait(there).await;
            let found = self.store.get(path).filter(|bytes| bytes.len() <= limit);
            self.time.wait(back).await;
            if fails { Err(failed()) } else { Ok(found) }
        })
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        let fate = put_fate(&mut self.dice(), &self.weather);
        Box::pin(async move {
            // What was sent arrives, whether anybody still waits or not.
            let arrives = |after| {
                self.time.after(after, Event::Arrives { path: path.to_owned(), bytes: bytes.clone(), tell: None });
            };
            match fate {
                PutFate::Answered(there, back) => {
                    self.time.wait(there).await;
                    let outcome = self.store.create(path, bytes);
                    self.time.wait(back).await;
                    return Ok(outcome);
                }
                PutFate::AnswerLost(there, after) => {
                    arrives(there);
                    self.time.wait(there + after).await;
                }
                PutFate::ArrivesLate(ends, late) => {
                    arrives(ends + late);
                    self.time.wait(ends).await;
                }
                PutFate::Lost(after) => self.time.wait(after).await,
                PutFate::FalseExists(after) => {
                    self.time.wait(after).await;
                    return Ok(PutOutcome::Exists);
                }
                PutFate::NotSent => {}
            }
            Err(failed())
        })
    }
}
