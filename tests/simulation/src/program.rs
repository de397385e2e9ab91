//! A device's program: it creates its vault, writes and reads, is killed and started again, and in the end learns what became of
//! everything it ever asked for.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_client::home::HomeError;
use casemate_client::record::Life;
use casemate_client::vault::VaultParts;
use casemate_client::{Device, Keep, Vault, VaultError, VaultOptions, VaultRecord};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::id::VaultId;
use casemate_protocol::secret::Secret;
use casemate_protocol::session::public_key;
use data_encoding::BASE64;
use futures_util::future::join_all;
use serde_json::json;

use crate::dice::Dice;
use crate::evidence;
use crate::network::Wire;
use crate::node::Shared;
use crate::time::Surroundings;

/// Operations that a program has under way at the same time, each on secrets of its own and on one that all share.
const LANES: u64 = 2;
/// The secret that all lanes write.
const SHARED: &str = "shared";

/// What is known of a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// It is under way.
    UnderWay,
    /// It was answered: done, under this revision.
    Done(u64),
    /// It is said not to have been done.
    NotDone,
    /// It may have been done or not.
    Unknown,
}

/// A write, of a value that nobody else writes.
#[derive(Debug, Clone)]
pub struct Write {
    /// The secret's name.
    pub name: String,
    /// The value.
    pub value: String,
    /// What is known of it.
    pub fate: Fate,
    /// The newest version that the device had seen when it was answered.
    pub version: u64,
    expected: Option<u64>,
}

/// What a read brought.
#[derive(Debug, Clone)]
pub struct Read {
    /// The secret's name.
    pub name: String,
    /// Its revision.
    pub revision: u64,
    /// Its value.
    pub value: Vec<u8>,
    /// The newest version that the device had seen when it was answered.
    pub version: u64,
}

/// What survives the program's end: what it has written down, and what it was told.
#[derive(Debug)]
struct Notes {
    record: VaultRecord,
    dice: Dice,
    writes: Vec<Write>,
    reads: Vec<Read>,
    finished: bool,
}

/// A program and its device.
#[derive(Clone)]
pub struct Program {
    number: usize,
    device: Device,
    vault: VaultId,
    wire: Wire,
    shared: Shared,
    notes: Arc<Mutex<Notes>>,
}

impl fmt::Debug for Program {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Program").field("number", &self.number).field("vault", &self.vault).finish_non_exhaustive()
    }
}

/// A device and the beginning of its vault, out of chance and in the form in which a home keeps them.
fn begin(dice: &mut Dice) -> (Device, VaultRecord) {
    let (secret, mut salt) = (dice.bytes32(), [0; 16]);
    salt.copy_from_slice(&dice.bytes32()[..16]);
    let vault = VaultId::derive(&public_key(&secret), &salt);
    let device = json!({
        "format": Device::FORMAT,
        "static_secret": BASE64.encode(&secret),
        "signing_seed": BASE64.encode(&dice.bytes32()),
    });
    let record = json!({
        "format": VaultRecord::FORMAT,
        "vault": vault.to_string(),
        "salt": hex::encode(salt),
        "device_name": "simulated",
        "cluster": evidence::cluster().to_string(),
        "life": "creating",
        "lock_key": BASE64.encode(&dice.bytes32()),
        "head": null,
        "next_sequence": 1,
        "unresolved": [],
    });
    let device = serde_json::from_value(device).expect("a device as it is kept");
    (device, serde_json::from_value(record).expect("a record as it is kept"))
}

impl Program {
    /// A program that has done nothing yet.
    pub fn new(number: usize, wire: Wire, shared: Shared, mut dice: Dice) -> Self {
        let (device, record) = begin(&mut dice);
        let vault = record.vault();
        let notes = Notes { record, dice, writes: Vec::new(), reads: Vec::new(), finished: false };
        Self { number, device, vault, wire, shared, notes: Arc::new(Mutex::new(notes)) }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its vault.
    pub const fn vault(&self) -> VaultId {
        self.vault
    }

    /// Whether it knows what became of everything, and has read it back.
    pub fn is_finished(&self) -> bool {
        self.notes().finished
    }

    /// What it has written down.
    pub fn record(&self) -> VaultRecord {
        self.notes().record.clone()
    }

    /// What it wrote.
    pub fn writes(&self) -> Vec<Write> {
        self.notes().writes.clone()
    }

    /// What it read.
    pub fn reads(&self) -> Vec<Read> {
        self.notes().reads.clone()
    }

    /// Its life, from its start or from its last end: all that it knows is what it has written down.
    pub async fn live(self) {
        let record = {
            let mut notes = self.notes();
            for write in notes.writes.iter_mut().filter(|write| write.fate == Fate::UnderWay) {
                write.fate = Fate::Unknown;
            }
            notes.record.clone()
        };
        let surroundings = Surroundings::new(self.shared.time.clone(), self.notes().dice.fork());
        let parts = VaultParts {
            transport: self.wire.clone(),
            keeper: self.clone(),
            device: self.device.clone(),
            roots: evidence::roots(),
            trust: evidence::trust(),
            options: VaultOptions { outside: Arc::new(surroundings), ..VaultOptions::default() },
        };
        let vault = Vault::new(parts, record);
        while vault.record().life() == Life::Creating {
            let result = vault.create().await;
            self.told("create", &result);
            if let Err(error) = result {
                self.judge("create", &error, &[]);
                self.pause(500).await;
            }
        }
        join_all((0..LANES).map(|lane| self.lane(&vault, lane))).await;
        self.finish(&vault).await;
    }

    async fn pause(&self, most_ms: u64) {
        let pause = self.notes().dice.millis(0, most_ms);
        self.shared.time.wait(pause).await;
    }

    /// Writes and reads until the trouble is over.
    async fn lane(&self, vault: &Vault<Wire, Self>, lane: u64) {
        let weather = &self.shared.weather;
        let pause = u64::try_from(weather.calm_at.as_millis()).expect("seconds") * 2 / weather.writes;
        let own = format!("lane {lane}");
        for _ in 0..weather.writes {
            self.pause(pause).await;
            if weather.is_calm() {
                break;
            }
            let (choice, unsure) = {
                let mut notes = self.notes();
                let unsure = |write: &Write| write.name == own && !matches!(write.fate, Fate::Done(_));
                (notes.dice.roll(8), notes.writes.iter().position(unsure))
            };
            match (choice, unsure) {
                (0..=2, Some(at)) => self.write(vault, at).await,
                (0..=2, None) => {
                    let at = self.note(&own, true);
                    self.write(vault, at).await;
                }
                (3 | 4, _) => {
                    let at = self.note(SHARED, false);
                    self.write(vault, at).await;
                }
                (5, _) => self.read(vault, SHARED).await,
                _ => self.read(vault, &own).await,
            }
        }
        while !weather.is_calm() {
            self.shared.time.wait(Duration::from_millis(200)).await;
        }
    }

    /// Takes note of a new write before anything of it is sent. One that has the name to itself says which revision it follows.
    fn note(&self, name: &str, alone: bool) -> usize {
        let mut notes = self.notes();
        let value = format!("program {}, write {}", self.number, notes.writes.len());
        let present = newest(&notes.writes, name).map_or(0, |(revision, _)| revision);
        let expected = (alone && notes.dice.chance(500)).then_some(present);
        notes.writes.push(Write { name: name.to_owned(), value, fate: Fate::NotDone, version: 0, expected });
        notes.writes.len() - 1
    }

    /// Performs a write, for the first time or again: the very same one, so that it is done once.
    async fn write(&self, vault: &Vault<Wire, Self>, at: usize) {
        let write = {
            let mut notes = self.notes();
            let before = notes.writes[at].clone();
            // Another lane may be at it.
            if matches!(before.fate, Fate::UnderWay | Fate::Done(_)) {
                return;
            }
            notes.writes[at].fate = Fate::UnderWay;
            before
        };
        let value = Secret::from(write.value.as_bytes());
        let result = vault.secret_put(&write.name, value, write.expected).await;
        self.told(&write.value, &result);
        let fate = match &result {
            Ok(revision) => Fate::Done(*revision),
            Err(VaultError::OutcomeUnknown) => Fate::Unknown,
            Err(error) => {
                self.judge(&write.value, error, &[]);
                // What was unknown before does not become known by a call that did not get through. A complaint says nothing of the
                // request either.
                let unknown = write.fate == Fate::Unknown || matches!(error, VaultError::Rollback(_));
                if unknown { Fate::Unknown } else { Fate::NotDone }
            }
        };
        let version = vault.record().head().map_or(0, |head| head.version);
        let mut notes = self.notes();
        (notes.writes[at].fate, notes.writes[at].version) = (fate, version);
    }

    async fn read(&self, vault: &Vault<Wire, Self>, name: &str) {
        let floor = newest(&self.notes().writes, name).map_or(0, |(revision, _)| revision);
        let result = vault.secret_get(name, None).await;
        let shown = result.as_ref().map(|read| read.revision);
        self.told(&format!("read {name}"), &shown);
        match result {
            Ok(read) => {
                if read.revision < floor {
                    let revision = read.revision;
                    self.violation(format_args!("reads revision {revision} of {name} after {floor} was answered"));
                }
                let version = vault.record().head().map_or(0, |head| head.version);
                let (name, value) = (name.to_owned(), read.value.to_vec());
                self.notes().reads.push(Read { name, revision: read.revision, value, version });
            }
            Err(error) => {
                let absent: &[ErrorCode] = if floor == 0 { &[ErrorCode::NotFound] } else { &[] };
                self.judge(&format!("read {name}"), &error, absent);
            }
        }
    }

    /// Learns what became of everything, and reads it back. But for the name that all lanes write: to ask again for one of several changes
    /// of the same would be another change. A last one comes after all of them.
    async fn finish(&self, vault: &Vault<Wire, Self>) {
        if self.notes().writes.iter().any(|write| write.name == SHARED) {
            self.note(SHARED, false);
        }
        loop {
            let unsure = unsure(&self.notes().writes);
            let Some(at) = unsure else { break };
            self.write(vault, at).await;
            self.pause(100).await;
        }
        let mut names: Vec<_> = self.notes().writes.iter().map(|write| write.name.clone()).collect();
        names.sort_unstable();
        names.dedup();
        for name in names {
            let newest = newest(&self.notes().writes, &name);
            loop {
                let result = vault.secret_get(&name, None).await;
                let shown = result.as_ref().map(|read| read.revision);
                self.told(&format!("finally reads {name}"), &shown);
                match result {
                    Ok(read) => {
                        let found = Some((read.revision, read.value.to_vec()));
                        let newest = newest.map(|(revision, value)| (revision, value.into_bytes()));
                        if found != newest {
                            self.violation(format_args!("finds another {name} than the one answered last"));
                        }
                        break;
                    }
                    Err(error) => self.judge(&format!("finally reads {name}"), &error, &[]),
                }
                self.pause(100).await;
            }
        }
        self.notes().finished = true;
    }

    /// What an honest world may tell a device: that nobody answered in time, or that a part is away. Everything else accuses somebody, or
    /// denies what is there.
    fn judge(&self, what: &str, error: &VaultError, allowed: &[ErrorCode]) {
        let fits = match error {
            VaultError::TimedOut { .. } | VaultError::RefusedOutside(_) => true,
            VaultError::OutcomeUnknown => what == "create",
            VaultError::Refused(refusal) => allowed.contains(&refusal.code),
            // A second node may have looked into the store just before the vault was created there: it says so for as long as it
            // remembers that, and the device rightly complains. One node serves a vault; two over one store are a mistake.
            VaultError::Rollback(heads) => heads.found.is_none() && self.shared.weather.nodes > 1,
            _ => false,
        };
        if !fits {
            self.violation(format_args!("is told of an honest world ({what}): {error}"));
        }
    }

    fn told<T: fmt::Debug, E: fmt::Display>(&self, what: &str, result: &Result<T, E>) {
        let findings = &self.shared.findings;
        match result {
            Ok(answer) => findings.trace(format_args!("program {}: {what}: {answer:?}", self.number)),
            Err(error) => findings.trace(format_args!("program {}: {what}: {error}", self.number)),
        }
    }

    fn violation(&self, what: fmt::Arguments<'_>) {
        self.shared.findings.violation(format_args!("program {} {what}", self.number));
    }
}

/// The first write that can be asked for again without being another change, and is not known to be done.
fn unsure(writes: &[Write]) -> Option<usize> {
    let last = writes.iter().rposition(|write| write.name == SHARED);
    let mut numbered = writes.iter().enumerate();
    let found = numbered
        .find(|(at, write)| !matches!(write.fate, Fate::Done(_)) && (write.name != SHARED || Some(*at) == last));
    found.map(|(at, _)| at)
}

/// The newest answered write of a name: its revision and value.
fn newest(writes: &[Write], name: &str) -> Option<(u64, String)> {
    let of_name = writes.iter().filter(|write| write.name == name);
    let done = of_name.filter_map(|write| match write.fate {
        Fate::Done(revision) => Some((revision, write.value.clone())),
        Fate::UnderWay | Fate::NotDone | Fate::Unknown => None,
    });
    done.max()
}

impl Keep for Program {
    fn keep_vault(&self, record: &VaultRecord) -> Result<(), HomeError> {
        let mut notes = self.notes();
        if let Some(head) = record.head() {
            let before = notes.record.head();
            let back = before.is_some_and(|before| before.version > head.version);
            let other = before.is_some_and(|before| before.version == head.version && before.hash != head.hash);
            if back || other {
                self.violation(format_args!("holds {before:?} and takes {head:?} for newer"));
            }
            if !self.shared.store.has_held(self.vault, &head) {
                self.violation(format_args!("was shown version {} before it was durable", head.version));
            }
        }
        notes.record = record.clone();
        Ok(())
    }

    fn keep_release(&self, _: u64) -> Result<(), HomeError> {
        Ok(())
    }
}
