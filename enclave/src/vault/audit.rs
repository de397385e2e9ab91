//! The audit ring: the last 1,024 entries of a hash chain that goes back to the vault's creation.

use std::collections::VecDeque;

use casemate_protocol::limits::{AUDIT_ENTRIES, PAGE_ENTRIES};
use casemate_protocol::reply::{Answer, AuditEntry};

/// The kept end of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditRing {
    before: [u8; 32],
    entries: VecDeque<AuditEntry>,
}

impl AuditRing {
    /// Takes a ring out of a snapshot; `None` when it is not a chain.
    pub fn restore(before: [u8; 32], entries: Vec<AuditEntry>) -> Option<Self> {
        let mut ring = Self { before, entries: VecDeque::new() };
        for entry in entries {
            let first = ring.entries.is_empty();
            if ring.entries.len() == AUDIT_ENTRIES || !ring.fits(&entry, first) {
                return None;
            }
            ring.entries.push_back(entry);
        }
        Some(ring)
    }

    fn fits(&self, entry: &AuditEntry, any_number: bool) -> bool {
        // The last number is never given: what follows an entry can always be counted.
        entry.number < u64::MAX
            && (any_number || entry.number == self.next_number())
            && entry.hash == entry.chain(&self.last_hash())
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
        self.entries.back().map_or(self.before, |entry| entry.hash)
    }

    /// The number that the next entry gets.
    pub fn next_number(&self) -> u64 {
        self.entries.back().map_or(1, |entry| entry.number + 1)
    }

    /// Appends an entry that chains; returns the one that fell off.
    ///
    /// # Errors
    /// The entry itself, when it does not chain.
    pub fn append(&mut self, entry: AuditEntry) -> Result<Option<AuditEntry>, AuditEntry> {
        if !self.fits(&entry, false) {
            return Err(entry);
        }
        self.entries.push_back(entry);
        if self.entries.len() <= AUDIT_ENTRIES {
            return Ok(None);
        }
        let dropped = self.entries.pop_front().expect("more than 1,024 entries");
        self.before = dropped.hash;
        Ok(Some(dropped))
    }

    /// A page after an entry's number.
    pub fn page(&self, after: Option<u64>) -> Answer {
        let after = after.unwrap_or(0);
        let skip = self.entries.partition_point(|entry| entry.number <= after);
        let entries: Vec<_> = self.entries.iter().skip(skip).take(PAGE_ENTRIES).cloned().collect();
        let more = self.entries.len() > skip + entries.len();
        let before = if skip == 0 { self.before } else { self.entries[skip - 1].hash };
        Answer::Audit { entries, more, before }
    }
}
