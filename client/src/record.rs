//! What a device remembers of one vault, and the order in which it must remember it.
//!
//! Everything here is written down before anything that depends on it is sent: key, salt and lock key before the vault is created,
//! a sequence number before the mutation that carries it, a head before the answer that came with it is believed.

use std::fmt;

use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::request::{Operation, request_hash};
use casemate_protocol::trust::ClusterId;
use serde::{Deserialize, Serialize};

use crate::device::Device;
use crate::encoding;
use crate::home::HomeError;
use crate::lock::LockKey;
use crate::random::{self, RandomError};

/// Where a record is written down durably. A program that does not want to survive its own end may keep it in memory.
pub trait Keep {
    /// Writes the record down; when this returns, it is durable.
    ///
    /// # Errors
    /// When it cannot be.
    fn keep_vault(&self, record: &VaultRecord) -> Result<(), HomeError>;

    /// Writes down that evidence of release `number` was accepted, so that an older one is refused from now on.
    ///
    /// # Errors
    /// When it cannot be.
    fn keep_release(&self, number: u64) -> Result<(), HomeError>;
}

/// Keeps nothing: for measurements and tests. A vault created this way is lost with the process.
#[derive(Debug, Clone, Copy, Default)]
pub struct Forgetful;

impl Keep for Forgetful {
    fn keep_vault(&self, _: &VaultRecord) -> Result<(), HomeError> {
        Ok(())
    }

    fn keep_release(&self, _: u64) -> Result<(), HomeError> {
        Ok(())
    }
}

/// Where a vault stands in its life, as far as this device knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Life {
    /// Its creation was begun and is not known to have happened.
    Creating,
    /// It exists.
    Live,
    /// It was deleted; the lock key is destroyed, the head stays.
    Deleted,
}

/// A mutation whose outcome is not known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unresolved {
    /// Its sequence number.
    pub sequence: u64,
    /// The request's hash, which tells whether a command is the same one again.
    #[serde(with = "encoding::hexed")]
    pub request_hash: [u8; 32],
    /// What it changes, as [`subject`] tells.
    #[serde(default, with = "encoding::hexed")]
    subject: [u8; 32],
}

/// The subject of what concerns the whole vault (docs/decisions/0025).
const EVERYTHING: [u8; 32] = [0; 32];
/// How far numbers go on above those that the vault may have seen from another copy of this record.
const BEYOND_COPIES: u64 = 1 << 20;

/// What a mutation changes: a hash of the secret's or the key's name, or [`EVERYTHING`]. Of two with different subjects it does not matter
/// which came first.
fn subject(operation: &Operation) -> [u8; 32] {
    let name = match operation {
        Operation::SecretPut { name, .. } | Operation::SecretDelete { name, .. } => {
            Operation::SecretDelete { name: name.clone(), expected_revision: None }
        }
        Operation::KeyGenerate { name, .. } | Operation::KeyImport { name, .. } | Operation::KeyDelete { name } => {
            Operation::KeyDelete { name: name.clone() }
        }
        _ => return EVERYTHING,
    };
    request_hash(None, &name)
}

/// What a device remembers of one vault.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VaultRecord {
    format: u8,
    #[serde(with = "encoding::vault_id")]
    vault: VaultId,
    #[serde(with = "encoding::hexed")]
    salt: [u8; 16],
    device_name: String,
    #[serde(with = "encoding::hexed")]
    cluster: [u8; 32],
    life: Life,
    lock_key: Option<LockKey>,
    #[serde(with = "encoding::head")]
    head: Option<Head>,
    next_sequence: u64,
    unresolved: Vec<Unresolved>,
}

impl fmt::Debug for VaultRecord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VaultRecord")
            .field("vault", &self.vault)
            .field("life", &self.life)
            .field("head", &self.head)
            .field("next_sequence", &self.next_sequence)
            .finish_non_exhaustive()
    }
}

/// What a head that the vault showed means to this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advance {
    /// Nothing new.
    Same,
    /// Newer than what the device held: to be written down.
    Newer,
    /// Older than what the device held when it asked.
    Rollback,
    /// The version that the device holds, with another content.
    Fork,
}

impl VaultRecord {
    /// The format of a record in a file.
    pub const FORMAT: u8 = 1;

    /// Begins a vault: salt, id and lock key.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn begin(device: &Device, device_name: &str, cluster: ClusterId) -> Result<Self, RandomError> {
        let salt = random::bytes()?;
        Ok(Self {
            format: Self::FORMAT,
            vault: VaultId::derive(&device.public_key(), &salt),
            salt,
            device_name: device_name.to_owned(),
            cluster: cluster.0,
            life: Life::Creating,
            lock_key: Some(LockKey::generate()?),
            head: None,
            next_sequence: 1,
            unresolved: Vec::new(),
        })
    }

    /// The format that the file named.
    pub const fn format(&self) -> u8 {
        self.format
    }

    /// The vault's id.
    pub const fn vault(&self) -> VaultId {
        self.vault
    }

    /// This device's name in the vault.
    pub fn device_name(&self) -> &str {
        &self.device_name
    }

    /// The cluster that the vault was created in. Evidence of another one is refused.
    pub const fn cluster(&self) -> ClusterId {
        ClusterId(self.cluster)
    }

    /// Where the vault stands in its life.
    pub const fn life(&self) -> Life {
        self.life
    }

    /// The lock key; none once the vault was deleted.
    pub const fn lock_key(&self) -> Option<&LockKey> {
        self.lock_key.as_ref()
    }

    /// The newest head that this device has seen.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// The mutations whose outcome is not known.
    pub fn unresolved(&self) -> &[Unresolved] {
        &self.unresolved
    }

    /// The operation that creates this vault.
    pub fn creation(&self, device: &Device) -> Operation {
        Operation::CreateVault {
            salt: self.salt,
            device_name: self.device_name.clone(),
            device_signing_key: device.signing_public_key(),
        }
    }

    /// The number under which `operation` was sent before without its outcome becoming known, unless it is in `busy`.
    pub fn find_unresolved(&self, operation: &Operation, busy: &[u64]) -> Option<u64> {
        self.unresolved
            .iter()
            .filter(|entry| !busy.contains(&entry.sequence))
            .find(|entry| entry.request_hash == request_hash(Some(entry.sequence), operation))
            .map(|entry| entry.sequence)
    }

    /// Takes the next sequence number. A mutation is remembered until [`VaultRecord::resolve`] or until another one with the same subject
    /// takes a number; of more than 32 the oldest that is not in `busy` is forgotten. What became of a forgotten one can be learnt by
    /// reading only.
    pub fn take_sequence(&mut self, operation: &Operation, busy: &[u64]) -> u64 {
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        if operation.is_mutation() {
            let subject = subject(operation);
            // Loss stopped: `put a 1`, whose answer is lost; `put a 2`; `put a 1`. The first one's outcome is no answer to the third.
            self.unresolved.retain(|earlier| {
                let is_same = earlier.subject == subject;
                !is_same && earlier.subject != EVERYTHING && subject != EVERYTHING
            });
            if self.unresolved.len() >= limits::UNRESOLVED_PER_DEVICE
                && let Some(oldest) = self.unresolved.iter().position(|entry| !busy.contains(&entry.sequence))
            {
                self.unresolved.remove(oldest);
            }
            let request_hash = request_hash(Some(sequence), operation);
            self.unresolved.push(Unresolved { sequence, request_hash, subject });
        }
        sequence
    }

    /// The outcome of `sequence` is known.
    pub fn resolve(&mut self, sequence: u64) {
        self.unresolved.retain(|entry| entry.sequence != sequence);
    }

    /// The vault will never execute `sequence`. If no newer number was given out, the vault has seen newer ones all the same: this record
    /// was restored from a copy. Numbers go on where no copy has been.
    pub fn renounce(&mut self, sequence: u64) {
        self.resolve(sequence);
        if sequence + 1 == self.next_sequence {
            self.next_sequence += BEYOND_COPIES;
        }
    }

    /// Whether as many numbers as a vault remembers the outcomes of were given out since one of `busy`. That one must end before the next
    /// is given out: its outcome would be forgotten before it was learnt. For those that are farther behind already, waiting changes nothing.
    pub fn is_at_window(&self, busy: &[u64]) -> bool {
        busy.iter().any(|busy| self.next_sequence - busy == limits::OUTCOMES_PER_DEVICE as u64)
    }

    /// Judges the head of an authentic reply to a request that was sent while `sent` was the newest head.
    pub fn compare(&self, sent: Option<Head>, found: &Head) -> Advance {
        for held in [sent, self.head].into_iter().flatten() {
            if held.version == found.version && held != *found {
                return Advance::Fork;
            }
        }
        // Only against what was held when the request left: replies to requests in flight together may come in any order.
        if sent.is_some_and(|sent| found.version < sent.version) {
            return Advance::Rollback;
        }
        if self.head.is_none_or(|held| found.version > held.version) { Advance::Newer } else { Advance::Same }
    }

    /// Holds a newer head.
    pub fn hold(&mut self, head: Head) {
        self.head = Some(head);
    }

    /// Holds a lock key under which a version has opened.
    pub fn hold_lock_key(&mut self, key: LockKey) {
        self.lock_key = Some(key);
    }

    /// The vault is known to exist.
    pub fn created(&mut self) {
        self.life = Life::Live;
    }

    /// The vault is known to be deleted: the lock key goes, the head stays.
    pub fn deleted(&mut self) {
        self.life = Life::Deleted;
        self.lock_key = None;
        self.unresolved.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    pub(crate) fn head(version: u64, hash: u8) -> Head {
        Head { version, hash: [hash; 32], tag: [0; 32] }
    }

    pub(crate) fn record() -> (Device, VaultRecord) {
        let device = Device::generate().unwrap();
        let record = VaultRecord::begin(&device, "test", ClusterId([7; 32])).unwrap();
        (device, record)
    }

    fn put(name: &str) -> Operation {
        Operation::SecretPut { name: name.to_owned(), value: b"v".as_slice().into(), expected_revision: None }
    }

    #[test]
    fn heads_only_move_forward() {
        let (_, mut record) = record();
        assert_eq!(record.compare(None, &head(1, 1)), Advance::Newer);
        record.hold(head(5, 5));
        let held = record.head();
        assert_eq!(record.compare(held, &head(5, 5)), Advance::Same);
        assert_eq!(record.compare(held, &head(6, 6)), Advance::Newer);
        assert_eq!(record.compare(held, &head(4, 4)), Advance::Rollback);
        assert_eq!(record.compare(held, &head(5, 6)), Advance::Fork);
        assert_eq!(record.compare(Some(head(3, 3)), &head(4, 4)), Advance::Same, "a late reply of a request in flight");
        assert_eq!(record.compare(Some(head(3, 3)), &head(5, 9)), Advance::Fork, "against the newest too");
    }

    #[test]
    fn the_same_command_again_is_the_same_request() {
        let (_, mut record) = record();
        let first = record.take_sequence(&put("a"), &[]);
        assert_eq!(record.find_unresolved(&put("a"), &[]), Some(first));
        assert_eq!(record.find_unresolved(&put("b"), &[]), None);
        assert_eq!(record.find_unresolved(&put("a"), &[first]), None, "two at once are two");
        record.resolve(first);
        assert_eq!(record.find_unresolved(&put("a"), &[]), None);
        assert!(
            record.take_sequence(&Operation::KeySign { name: "k".into(), message: b"m".as_slice().into() }, &[])
                > first
        );
        assert!(record.unresolved().is_empty(), "using a key twice does no harm");
    }

    #[test]
    fn a_later_change_of_the_same_ends_the_asking_for_an_earlier_one() {
        let key = |name: &str| Operation::KeyDelete { name: name.to_owned() };
        let delete = |name: &str| Operation::SecretDelete { name: name.to_owned(), expected_revision: Some(1) };
        for (earlier, later, ends) in [
            (put("a"), delete("a"), true),
            (put("a"), put("b"), false),
            (put("a"), key("a"), false),
            (put("a"), Operation::DeleteVault, true),
            (Operation::DeleteVault, put("a"), true),
            (put("a"), Operation::KeySign { name: "a".to_owned(), message: b"m".as_slice().into() }, false),
        ] {
            let (_, mut record) = record();
            record.take_sequence(&earlier, &[]);
            record.take_sequence(&later, &[]);
            assert_eq!(record.find_unresolved(&earlier, &[]).is_none(), ends, "{earlier:?}, {later:?}");
        }
    }

    /// As records had it before subjects were written down.
    #[test]
    fn what_has_no_subject_may_be_anything() {
        let (_, mut record) = record();
        record.take_sequence(&put("a"), &[]);
        let mut text = serde_json::to_value(&record).unwrap();
        text["unresolved"][0].as_object_mut().unwrap().remove("subject").unwrap();
        let mut record: VaultRecord = serde_json::from_value(text).unwrap();
        assert_eq!(record.find_unresolved(&put("a"), &[]), Some(1));
        record.take_sequence(&put("b"), &[]);
        assert_eq!(record.find_unresolved(&put("a"), &[]), None);
    }

    #[test]
    fn a_number_in_use_is_waited_for_as_long_as_that_keeps_its_outcome() {
        let (_, mut record) = record();
        let window = limits::OUTCOMES_PER_DEVICE as u64;
        let first = record.take_sequence(&put("a"), &[]);
        let waits = (1..2 * window).filter(|_| {
            let waits = record.is_at_window(&[first]);
            record.take_sequence(&put("b"), &[]);
            waits
        });
        assert_eq!(waits.collect::<Vec<_>>(), [window]);
        assert!(!record.is_at_window(&[]));
    }

    #[test]
    fn numbers_go_on_beyond_copies_when_the_newest_is_refused() {
        let (_, mut record) = record();
        let numbers = [(); 2].map(|()| record.take_sequence(&put("a"), &[]));
        record.renounce(numbers[0]);
        let next = record.take_sequence(&put("a"), &[]);
        assert_eq!(next, numbers[1] + 1, "a newer one of this record came first");
        record.renounce(next);
        assert!(record.unresolved().is_empty());
        assert_eq!(record.take_sequence(&put("a"), &[]), next + 1 + BEYOND_COPIES);
    }

    #[test]
    fn deletion_destroys_the_lock_key_and_keeps_the_head() {
        let (_, mut record) = record();
        record.hold(head(3, 3));
        record.deleted();
        let text = serde_json::to_string(&record).unwrap();
        let again: VaultRecord = serde_json::from_str(&text).unwrap();
        assert!(again.lock_key().is_none() && again.head() == Some(head(3, 3)) && again.life() == Life::Deleted);
    }

    #[test]
    fn secrets_do_not_print() {
        let (_, record) = record();
        assert!(!format!("{record:?}").contains("lock"));
    }

    proptest! {
        #[test]
        fn numbers_rise_and_the_unresolved_are_bounded(names in prop::collection::vec("[a-c]{1,2}", 1..80)) {
            let (_, mut record) = record();
            let mut last = 0;
            for name in names {
                let sequence = record.take_sequence(&put(&name), &[]);
                prop_assert!(sequence > last);
                last = sequence;
                prop_assert!(record.unresolved().len() <= limits::UNRESOLVED_PER_DEVICE);
            }
            let text = serde_json::to_string(&record).unwrap();
            let again: VaultRecord = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(serde_json::to_string(&again).unwrap(), text);
        }
    }
}
