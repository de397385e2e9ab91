//! The audit ring: the last 1,024 entries of a hash chain that goes back to the vault's creation.

use casemate_protocol::limits::{AUDIT_ENTRIES, PAGE_ENTRIES};
use casemate_protocol::reply::{Answer, AuditEntry, AuditEvent};
use minicbor::{Decode, Encode};

use super::ring::Ring;

/// An entry to be: it waits for the next version.
#[derive(Debug, Clone, Encode, Decode)]
#[cbor(map)]
pub struct Noted {
    /// The device's static key.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub device: [u8; 32],
    /// What was done.
    #[n(1)]
    pub event: AuditEvent,
}

/// The kept end of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditRing {
    before: [u8; 32],
    entries: Ring<AuditEntry, AUDIT_ENTRIES>,
}

impl AuditRing {
    /// A ring whose numbers follow each other; `None` when they do not. Whether its hashes do is asked by [`Self::is_chain`]: to make a
    /// thousand of them anew costs more than everything else that it takes to go on with what another process of the vault has left.
    pub fn resume(before: [u8; 32], entries: Vec<AuditEntry>) -> Option<Self> {
        let mut ring = Self { before, entries: Ring::new() };
        for entry in entries {
            if !ring.counts(&entry, ring.entries.is_empty()) || ring.entries.push(entry).is_some() {
                return None;
            }
        }
        Some(ring)
    }

    /// Whether each hash follows from the one before it.
    pub fn is_chain(&self) -> bool {
        let mut before = &self.before;
        self.entries.iter().all(|entry| entry.hash == entry.chain(std::mem::replace(&mut before, &entry.hash)))
    }

    fn counts(&self, entry: &AuditEntry, any_number: bool) -> bool {
        // The last number is never given: what follows an entry can always be counted.
        entry.number < u64::MAX && (any_number || entry.number == self.next_number())
    }

    /// The chain's hash before the first entry kept.
    pub const fn before(&self) -> [u8; 32] {
        self.before
    }

    /// The entries kept, oldest first.
    pub fn entries(&self) -> impl Iterator<Item = &AuditEntry> {
        self.entries.iter()
    }

    /// The hash of the newest entry.
    pub fn last_hash(&self) -> [u8; 32] {
        self.entries.last().map_or(self.before, |entry| entry.hash)
    }

    /// The number that the next entry gets.
    pub fn next_number(&self) -> u64 {
        self.entries.last().map_or(1, |entry| entry.number + 1)
    }

    /// Appends an entry that chains; returns the one that fell off.
    ///
    /// # Errors
    /// The entry itself, when it does not chain.
    pub fn append(&mut self, entry: AuditEntry) -> Result<Option<AuditEntry>, AuditEntry> {
        if !self.counts(&entry, false) || entry.hash != entry.chain(&self.last_hash()) {
            return Err(entry);
        }
        let dropped = self.entries.push(entry);
        if let Some(dropped) = &dropped {
            self.before = dropped.hash;
        }
        Ok(dropped)
    }

    /// A page after an entry's number.
    pub fn page(&self, after: Option<u64>) -> Answer {
        let after = after.unwrap_or(0);
        let skip = self.entries.iter().take_while(|entry| entry.number <= after).count();
        let entries: Vec<_> = self.entries.iter().skip(skip).take(PAGE_ENTRIES).cloned().collect();
        let more = self.entries.len() > skip + entries.len();
        let before = skip.checked_sub(1).and_then(|at| self.entries.get(at)).map_or(self.before, |entry| entry.hash);
        Answer::Audit { entries, more, before }
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn entries(numbers: [u64; 3]) -> Vec<AuditEntry> {
        let mut before = [9; 32];
        let entry = |number| {
            let event = AuditEvent::SecretWritten;
            let mut entry =
                AuditEntry { number, at: 5, version: 2, event, device: [1; 16], subject: None, hash: [0; 32] };
            entry.hash = entry.chain(&before);
            before = entry.hash;
            entry
        };
        numbers.map(entry).into()
    }

    #[test]
    fn a_hash_follows_from_the_one_before() {
        let ring = AuditRing::resume([9; 32], entries([4, 5, 6])).unwrap();
        assert!(ring.is_chain());
        assert_eq!((ring.next_number(), ring.entries().count()), (7, 3));
        assert!(!AuditRing::resume([8; 32], entries([4, 5, 6])).unwrap().is_chain());
        for at in 0..3 {
            let mut forged = entries([4, 5, 6]);
            forged[at].hash[0] ^= 1;
            assert!(!AuditRing::resume([9; 32], forged).unwrap().is_chain());
        }
    }

    #[test]
    fn numbers_follow_each_other() {
        assert!(AuditRing::resume([9; 32], entries([4, 6, 7])).is_none());
        assert!(AuditRing::resume([9; 32], entries([u64::MAX - 2, u64::MAX - 1, u64::MAX])).is_none());
    }
}
