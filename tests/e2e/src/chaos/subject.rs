//! A vault under test: the devices that use it, and what they saw.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use casemate_client::{Explain, VaultError};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::id::VaultId;
use casemate_protocol::secret::Secret;
use tokio::sync::Mutex;

use super::check::{self, Violation};
use super::dice::Dice;
use super::history::{Call, Ending, Found, Held, History, Moment, Outcome, Read, Write};
use super::plan::NAMES;
use super::store;
use crate::Node;
use crate::owner::{OwnedVault, Owner};

/// How long one call may take. Short, so that many outcomes stay unknown and have to be asked for again.
pub(super) const DEADLINE: Duration = Duration::from_secs(1);
/// How long a device goes on asking. All parts run again long before.
pub(super) const PATIENCE: Duration = Duration::from_secs(40);
/// Between two questions, so that a device that is refused at once does not spin.
const PAUSE: Duration = Duration::from_millis(10);

/// What the operations of a round came to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Writes that were answered.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Calls whose outcome was unknown, so that it was asked for again.
    pub unknown: u64,
    /// Calls that failed for certain.
    pub failed: u64,
    /// The longest call.
    pub longest: Duration,
}

impl Tally {
    /// The sum of both.
    pub(super) fn add(&mut self, other: &Self) {
        self.writes += other.writes;
        self.reads += other.reads;
        self.unknown += other.unknown;
        self.failed += other.failed;
        self.longest = self.longest.max(other.longest);
    }
}

/// A vault, two sessions to it over connections of their own, and its history.
#[derive(Debug)]
pub(super) struct Subject {
    writer: OwnedVault,
    reader: OwnedVault,
    history: RefCell<History>,
    moment: Cell<Moment>,
    values: Cell<u64>,
    tally: Cell<Tally>,
    /// Held for a write of each secret: what becomes of one can be asked for until the next begins.
    writing: Vec<Mutex<()>>,
}

/// Which session a read goes through.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Through {
    /// The one that writes.
    Writer,
    /// The one that only reads.
    Reader,
}

impl Subject {
    /// Makes a vault, while nothing is hurt.
    ///
    /// # Panics
    /// When it cannot be made.
    pub(super) async fn create(node: &Node) -> Self {
        let owner = Owner::new(node);
        let writer = owner.open(&node.nats_url(), owner.begin(), DEADLINE).await;
        let patience = Instant::now() + PATIENCE;
        while let Err(error) = writer.create().await {
            assert!(Instant::now() < patience, "a vault can be made: {error}");
        }
        let reader = owner.open(&node.nats_url(), writer.record(), DEADLINE).await;
        Self {
            writer,
            reader,
            history: RefCell::default(),
            moment: Cell::default(),
            values: Cell::default(),
            tally: Cell::default(),
            writing: (0..NAMES).map(|_| Mutex::default()).collect(),
        }
    }

    /// The vault's id.
    pub(super) fn id(&self) -> VaultId {
        self.writer.id()
    }

    /// Destroys the vault: its objects must not pile up over a long run.
    pub(super) async fn delete(&self) {
        let patience = Instant::now() + PATIENCE;
        while self.writer.delete().await.is_err() && Instant::now() < patience {
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Forgets a session, so that the next request makes one.
    pub(super) fn disconnect(&self, through: Through) {
        self.vault(through).disconnect();
    }

    /// What came of the operations since the last time.
    pub(super) fn take_tally(&self) -> Tally {
        self.tally.take()
    }

    fn vault(&self, through: Through) -> &OwnedVault {
        match through {
            Through::Writer => &self.writer,
            Through::Reader => &self.reader,
        }
    }

    fn now(&self) -> Moment {
        self.moment.set(self.moment.get() + 1);
        self.moment.get()
    }

    fn count(&self, change: impl FnOnce(&mut Tally)) {
        let mut tally = self.tally.get();
        change(&mut tally);
        self.tally.set(tally);
    }

    /// Notes how long a call took, the head that its device holds now, and an error that a node may not give.
    fn note<T>(&self, through: Through, started: Instant, result: &Result<T, VaultError>) {
        let took = started.elapsed();
        self.count(|tally| tally.longest = tally.longest.max(took));
        let mut history = self.history.borrow_mut();
        history.took(Call { took, deadline: DEADLINE });
        if let Some(head) = self.vault(through).record().head() {
            history.hold(Held { version: head.version, hash: head.hash });
        }
        if let Err(error) = result
            && !is_allowed(error)
        {
            history.accusations.push(format!("{}: {error}", error.code()));
        }
    }

    /// Writes a new value and asks until its outcome is known.
    pub(super) async fn write(&self, name: u64) {
        let _alone = self.writing[usize::try_from(name).expect("a few names")].lock().await;
        let value = self.values.get() + 1;
        self.values.set(value);
        let begun = self.now();
        let patience = Instant::now() + PATIENCE;
        let outcome = loop {
            let started = Instant::now();
            let result = self.writer.secret_put(&name_of(name), Secret::new(bytes_of(self.id(), value)), None).await;
            self.note(Through::Writer, started, &result);
            match result {
                Ok(revision) => break Outcome::Written(revision),
                Err(VaultError::OutcomeUnknown) if Instant::now() < patience => {
                    self.count(|tally| tally.unknown += 1);
                    tokio::time::sleep(PAUSE).await;
                }
                Err(VaultError::TimedOut { .. }) => break Outcome::NotDone,
                Err(_) => break Outcome::Unresolved,
            }
        };
        self.count(|tally| if outcome == Outcome::NotDone { tally.failed += 1 } else { tally.writes += 1 });
        let ended = self.now();
        self.history.borrow_mut().writes.push(Write { name, value, begun, ended, outcome });
    }

    /// Reads once; whether there was an answer.
    pub(super) async fn read(&self, through: Through, name: u64) -> bool {
        let begun = self.now();
        let started = Instant::now();
        let result = self.vault(through).secret_get(&name_of(name), None).await;
        self.note(through, started, &result);
        let found = match result {
            Ok(secret) => Some(Found { value: value_of(self.id(), &secret.value), revision: secret.revision }),
            Err(error) if is_absence(&error) => None,
            Err(_) => {
                self.count(|tally| tally.failed += 1);
                return false;
            }
        };
        self.count(|tally| tally.reads += 1);
        let ended = self.now();
        self.history.borrow_mut().reads.push(Read { name, begun, ended, found });
        true
    }

    /// When nothing is hurt any more: reads all there is, through both sessions and in the store, and judges it.
    pub(super) async fn judge(&self, node: &Node) -> Vec<Violation> {
        let patience = Instant::now() + PATIENCE;
        let mut ending = Ending::default();
        for name in 0..NAMES {
            for through in [Through::Writer, Through::Reader] {
                while !self.read(through, name).await {
                    if Instant::now() > patience || !self.history.borrow().accusations.is_empty() {
                        return self.with(&Ending::default(), "a secret cannot be read, though every part runs");
                    }
                    tokio::time::sleep(PAUSE).await;
                }
            }
            let revisions = loop {
                let started = Instant::now();
                let result = self.writer.secret_history(&name_of(name)).await;
                self.note(Through::Writer, started, &result);
                match result {
                    Ok(entries) => break entries.iter().map(|entry| entry.revision).collect(),
                    Err(error) if is_absence(&error) => break Vec::new(),
                    Err(_) if Instant::now() < patience => tokio::time::sleep(PAUSE).await,
                    Err(_) => return self.with(&Ending::default(), "a history cannot be read, though every part runs"),
                }
            };
            ending.secrets.push((name, revisions));
        }
        match store::versions(node, self.id()) {
            Ok(stored) => ending.stored = stored,
            Err(error) => return self.with(&ending, &format!("the store cannot be read: {error}")),
        }
        check::check(&self.history.borrow(), &ending)
    }

    fn with(&self, ending: &Ending, accusation: &str) -> Vec<Violation> {
        let mut history = self.history.borrow().clone();
        history.accusations.push(accusation.to_owned());
        check::check(&history, ending)
    }
}

/// A hurt node may fail to answer, and may not know. It may not accuse its store or its device, contradict itself, or refuse for good.
fn is_allowed(error: &VaultError) -> bool {
    matches!(error, VaultError::OutcomeUnknown | VaultError::TimedOut { .. }) || is_absence(error)
}

fn is_absence(error: &VaultError) -> bool {
    matches!(error, VaultError::Refused(Refusal { code: ErrorCode::NotFound, .. }))
}

fn name_of(name: u64) -> String {
    format!("secret-{name}")
}

/// A value says its number, and the rest of it follows from that: mostly small, sometimes more than a record of the link.
fn bytes_of(vault: VaultId, value: u64) -> Vec<u8> {
    let mut dice = Dice::new(value, &[u64::from(vault.shard().0)]);
    let len = if dice.below(24) == 0 { dice.between(20_000, 65_000) } else { dice.between(8, 400) };
    let mut bytes = value.to_be_bytes().to_vec();
    while (bytes.len() as u64) < len {
        bytes.extend_from_slice(&dice.roll().to_be_bytes());
    }
    bytes
}

fn value_of(vault: VaultId, bytes: &[u8]) -> Option<u64> {
    let value = u64::from_be_bytes(*bytes.first_chunk()?);
    (bytes == bytes_of(vault, value)).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_known_by_its_bytes_and_every_change_is_seen() {
        let vault = VaultId::from_bytes([3; 20]);
        for value in 0..200 {
            let mut bytes = bytes_of(vault, value);
            assert!(bytes.len() <= casemate_protocol::limits::SECRET_BYTES);
            assert_eq!(value_of(vault, &bytes), Some(value));
            let last = bytes.len() - 1;
            bytes[last] ^= 1;
            assert_eq!(value_of(vault, &bytes), None);
            assert_eq!(value_of(vault, &bytes[..last]), None);
        }
    }
}
