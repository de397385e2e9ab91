//! A vault's state: the fold of its changes.
//!
//! Changes are the only way to alter a state, on execution and on opening alike, so that a vault that was opened anew is the one
//! that was evicted.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use casemate_protocol::limits;
use casemate_protocol::reply::{KeyEntry, SecretEntry};

use super::audit::AuditRing;
use super::body::{Change, KeyRecord, Revision, SecretRecord, Snapshot};
use super::device::Device;
use super::keys;
use super::ring::Ring;

/// The kept hashes are the first 16 bytes of SHA-256.
const SHORT_HASH: usize = 16;
/// More than any record's framing: keys, lengths and numbers of a CBOR map.
const OVERHEAD: usize = 64;

/// A vault's state in memory. Cloning is cheap: values are shared.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// When the vault was created, Unix seconds.
    pub created_at: u64,
    /// The highest secret revision given so far.
    pub last_revision: u64,
    /// Revisions of each secret, newest first.
    pub secrets: BTreeMap<String, VecDeque<Arc<Revision>>>,
    /// Keys.
    pub keys: BTreeMap<String, Arc<KeyRecord>>,
    /// Devices, in the order of their enrolment.
    pub devices: Vec<Device>,
    /// The audit chain's kept end.
    pub audit: AuditRing,
    hashes: Ring<[u8; SHORT_HASH], { limits::HEAD_HASHES }>,
    used: usize,
}

/// A change that does not fit the state it claims to follow: the chain was not made by this code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a stored change does not fit the state before it; the store was damaged or tampered with")]
pub struct Inconsistent;

impl State {
    /// The state of a vault that is just being created.
    pub fn new(created_at: u64) -> Self {
        Self { created_at, used: 2 * OVERHEAD, ..Self::default() }
    }

    /// An upper bound of the encoded state's size in bytes.
    pub const fn used_bytes(&self) -> usize {
        self.used
    }

    /// Applies one change.
    ///
    /// # Errors
    /// [`Inconsistent`]; the state is then not to be used any more.
    pub fn apply(&mut self, change: Change) -> Result<(), Inconsistent> {
        match change {
            Change::SecretWritten { name, revision } => self.write_secret(name, revision),
            Change::SecretDeleted { name } => {
                let revisions = self.secrets.remove(&name).ok_or(Inconsistent)?;
                self.used -=
                    secret_cost(&name) + revisions.iter().map(|revision| revision_cost(revision)).sum::<usize>();
                Ok(())
            }
            Change::KeyAdded(record) => self.add_key(record),
            Change::KeyDeleted { name } => {
                let record = self.keys.remove(&name).ok_or(Inconsistent)?;
                self.used -= key_cost(&record);
                Ok(())
            }
            Change::Outcome { device, record } => {
                let device = self.devices.iter_mut().find(|known| known.static_key == device).ok_or(Inconsistent)?;
                let cost = record.answer.as_ref().map_or(0, |answer| answer.len()) + OVERHEAD;
                let dropped = device.remember(record).map_err(|_| Inconsistent)?;
                self.used += cost;
                self.used -= dropped.map_or(0, |old| old.answer.map_or(0, |answer| answer.len()) + OVERHEAD);
                Ok(())
            }
            Change::Audited(entry) => {
                let cost = audit_cost(entry.subject.as_deref());
                let dropped = self.audit.append(entry).map_err(|_| Inconsistent)?;
                self.used += cost;
                self.used -= dropped.map_or(0, |old| audit_cost(old.subject.as_deref()));
                Ok(())
            }
            Change::DeviceAdded(record) => {
                let known = self.devices.iter().any(|device| device.static_key == record.static_key);
                if known || self.devices.len() >= limits::DEVICES || !record.outcomes.is_empty() {
                    return Err(Inconsistent);
                }
                self.used += record.name.len() + 2 * OVERHEAD;
                self.devices.push(Device::restore(record).ok_or(Inconsistent)?);
                Ok(())
            }
        }
    }

    fn write_secret(&mut self, name: String, revision: Revision) -> Result<(), Inconsistent> {
        if revision.number <= self.last_revision {
            return Err(Inconsistent);
        }
        self.last_revision = revision.number;
        self.used += revision_cost(&revision);
        let name_cost = secret_cost(&name);
        let revisions = self.secrets.entry(name).or_default();
        if revisions.is_empty() {
            self.used += name_cost;
        }
        revisions.push_front(Arc::new(revision));
        while revisions.len() > limits::SECRET_HISTORY + 1 {
            let old = revisions.pop_back().expect("more than nine");
            self.used -= revision_cost(&old);
        }
        Ok(())
    }

    fn add_key(&mut self, record: KeyRecord) -> Result<(), Inconsistent> {
        if self.keys.contains_key(&record.name) {
            return Err(Inconsistent);
        }
        self.used += key_cost(&record);
        self.keys.insert(record.name.clone(), Arc::new(record));
        Ok(())
    }

    /// Remembers the hash of the version that this state builds on.
    pub fn push_version_hash(&mut self, hash: &[u8; 32]) {
        let mut short = [0; SHORT_HASH];
        short.copy_from_slice(&hash[..SHORT_HASH]);
        if self.hashes.push(short).is_none() {
            self.used += SHORT_HASH;
        }
    }

    /// Whether `hash` is the hash of `version`, where `newest` is the version that this state belongs to; `None` when that version
    /// is older than what is kept. The newest version's own hash is not in here: the head has it.
    pub fn knows_hash(&self, newest: u64, version: u64, hash: &[u8; 32]) -> Option<bool> {
        let back = usize::try_from(newest.checked_sub(version)?).ok()?;
        let at = self.hashes.len().checked_sub(back)?;
        Some(self.hashes.get(at)?[..] == hash[..SHORT_HASH])
    }

    /// The whole state as a snapshot holds it.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot {
            created_at: self.created_at,
            last_revision: self.last_revision,
            secrets: self
                .secrets
                .iter()
                .map(|(name, revisions)| SecretRecord {
                    name: name.clone(),
                    revisions: revisions.iter().map(|revision| (**revision).clone()).collect(),
                })
                .collect(),
            keys: self.keys.values().map(|key| (**key).clone()).collect(),
            devices: self.devices.iter().map(Device::record).collect(),
            audit_before: self.audit.before(),
            audit: self.audit.entries().cloned().collect(),
            version_hashes: self.hashes.iter().flatten().copied().collect(),
        }
    }

    /// The state that a snapshot holds.
    ///
    /// # Errors
    /// [`Inconsistent`].
    pub fn restore(snapshot: Snapshot) -> Result<Self, Inconsistent> {
        let state = Self::resume(snapshot)?;
        if state.audit.is_chain() { Ok(state) } else { Err(Inconsistent) }
    }

    /// The state that another process of this vault has left, and nobody else can have written ([`AuditRing::resume`]).
    ///
    /// # Errors
    /// [`Inconsistent`].
    pub fn resume(snapshot: Snapshot) -> Result<Self, Inconsistent> {
        let mut state = Self::new(snapshot.created_at);
        for secret in snapshot.secrets {
            let descending = secret.revisions.is_sorted_by(|a, b| a.number > b.number);
            let newest = secret.revisions.first().ok_or(Inconsistent)?.number;
            let fits =
                descending && newest <= snapshot.last_revision && secret.revisions.len() <= limits::SECRET_HISTORY + 1;
            if !fits || state.secrets.last_key_value().is_some_and(|(last, _)| *last >= secret.name) {
                return Err(Inconsistent);
            }
            state.used += secret_cost(&secret.name) + secret.revisions.iter().map(revision_cost).sum::<usize>();
            state.secrets.insert(secret.name, secret.revisions.into_iter().map(Arc::new).collect());
        }
        state.last_revision = snapshot.last_revision;
        for key in snapshot.keys {
            state.add_key(key)?;
        }
        for device in snapshot.devices {
            let known = state.devices.iter().any(|known| known.static_key == device.static_key);
            if known || state.devices.len() >= limits::DEVICES {
                return Err(Inconsistent);
            }
            let cost: usize =
                device.outcomes.iter().map(|old| old.answer.as_ref().map_or(0, |answer| answer.len()) + OVERHEAD).sum();
            state.used += device.name.len() + 2 * OVERHEAD + cost;
            state.devices.push(Device::restore(device).ok_or(Inconsistent)?);
        }
        state.used += snapshot.audit.iter().map(|entry| audit_cost(entry.subject.as_deref())).sum::<usize>();
        state.audit = AuditRing::resume(snapshot.audit_before, snapshot.audit).ok_or(Inconsistent)?;
        let (hashes, rest) = snapshot.version_hashes.as_chunks::<SHORT_HASH>();
        if !rest.is_empty() || hashes.len() > limits::HEAD_HASHES {
            return Err(Inconsistent);
        }
        state.used += snapshot.version_hashes.len();
        for hash in hashes {
            state.hashes.push(*hash);
        }
        Ok(state)
    }

    /// A device by its static key.
    pub fn device(&self, static_key: &[u8; 32]) -> Option<&Device> {
        self.devices.iter().find(|device| device.static_key == *static_key)
    }
}

fn secret_cost(name: &str) -> usize {
    name.len() + OVERHEAD
}

fn revision_cost(revision: &Revision) -> usize {
    revision.value.len() + OVERHEAD
}

fn key_cost(key: &KeyRecord) -> usize {
    key.name.len() + key.material.len() + OVERHEAD
}

fn audit_cost(subject: Option<&str>) -> usize {
    subject.map_or(0, str::len) + 2 * OVERHEAD
}

/// A revision without its value.
pub fn secret_entry(name: &str, revision: &Revision) -> SecretEntry {
    SecretEntry {
        name: name.to_owned(),
        revision: revision.number,
        bytes: revision.value.len() as u64,
        written_at: revision.written_at,
    }
}

/// A key without its material.
pub fn key_entry(key: &KeyRecord) -> KeyEntry {
    KeyEntry {
        name: key.name.clone(),
        algorithm: key.algorithm,
        policy: key.policy,
        created_at: key.created_at,
        public: keys::public(key.algorithm, &key.material),
    }
}

#[cfg(test)]
mod tests {
    use super::super::audit::tests::entries;
    use super::*;

    /// A store's snapshot is looked at once more; what a process of the same vault has left is not.
    #[test]
    fn a_history_that_was_altered_is_not_restored() {
        let snapshot = Snapshot { audit_before: [9; 32], audit: entries([4, 5, 6]), ..State::new(1).snapshot() };
        assert_eq!(State::restore(snapshot.clone()), State::resume(snapshot.clone()));
        let mut altered = snapshot;
        altered.audit[1].at += 1;
        assert_eq!(State::restore(altered.clone()), Err(Inconsistent));
        assert!(State::resume(altered).is_ok());
    }
}
