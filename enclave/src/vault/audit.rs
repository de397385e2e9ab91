//! The audit ring: the last 1,024 entries of a hash chain that goes back to the vault's creation.

use casemate_protocol::limits::{AUDIT_ENTRIES, PAGE_ENTRIES};
use casemate_protocol::reply::{Answer, AuditEntry};

use super::ring::Ring;

/// The kept end of the chain.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AuditRing {
    before: [u8; 32],
    entries: Ring<AuditEntry, AUDIT_ENTRIES>,
}

impl AuditRing {
    /// Takes a ring out of a snapshot; `None` when it is not a chain.
    pub fn restore(before: [u8; 32], entries: Vec<AuditEntry>) -> Option<Self> {
        let mut ring = Self { before, entries: Ring::new() };
        for entry in entries {
            let first = ring.entries.is_empty();
            if !ring.fits(&entry, first) || ring.entries.push(entry).is_some() {
                return None;
            }
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
        if !self.fits(&entry, false) {
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
