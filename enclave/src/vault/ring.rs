//! A queue of the last so many entries, whose clones share them.
//!
//! Each write begins with a clone of the state, and most of a state is history: what fell into it is never altered again. Entries are
//! kept in blocks that clones hold together; only the block that is being filled is copied.

use std::collections::VecDeque;
use std::sync::Arc;

/// Entries of a block: a clone copies at most as many, and as many may stay in memory after they fell off.
const BLOCK: usize = 16;

/// The last `LIMIT` entries of what was appended.
#[derive(Debug, Clone)]
pub struct Ring<T, const LIMIT: usize> {
    full: VecDeque<Arc<[T]>>,
    /// Fewer than a block.
    newest: Vec<T>,
    /// Entries of the first full block that fell off; fewer than a block.
    fallen: usize,
}

impl<T, const LIMIT: usize> Default for Ring<T, LIMIT> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T, const LIMIT: usize> Ring<T, LIMIT> {
    /// Nothing yet.
    pub const fn new() -> Self {
        // The oldest entry is always in a full block when it falls off.
        const { assert!(LIMIT >= BLOCK) };
        Self { full: VecDeque::new(), newest: Vec::new(), fallen: 0 }
    }

    /// Entries kept.
    pub fn len(&self) -> usize {
        self.full.len() * BLOCK + self.newest.len() - self.fallen
    }

    /// Whether nothing is kept.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The entry at a place, counted from the oldest.
    pub fn get(&self, at: usize) -> Option<&T> {
        let at = at.checked_add(self.fallen)?;
        match self.full.get(at / BLOCK) {
            Some(block) => block.get(at % BLOCK),
            None => self.newest.get(at - self.full.len() * BLOCK),
        }
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&T> {
        self.newest.last().or_else(|| self.full.back()?.last())
    }

    /// From the oldest to the newest.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &T> {
        (0..self.len()).filter_map(|at| self.get(at))
    }
}

impl<T: Clone, const LIMIT: usize> Ring<T, LIMIT> {
    /// Appends an entry; returns the one that fell off.
    pub fn push(&mut self, entry: T) -> Option<T> {
        self.newest.push(entry);
        if self.newest.len() == BLOCK {
            self.full.push_back(std::mem::take(&mut self.newest).into());
        }
        if self.len() <= LIMIT {
            return None;
        }
        let oldest = self.get(0).cloned();
        self.fallen += 1;
        if self.fallen == BLOCK {
            self.full.pop_front();
            self.fallen = 0;
        }
        oldest
    }
}

/// What they hold, however it is cut into blocks.
impl<T: PartialEq, const LIMIT: usize> PartialEq for Ring<T, LIMIT> {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl<T: Eq, const LIMIT: usize> Eq for Ring<T, LIMIT> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_queue_of_the_last_entries() {
        let mut ring = Ring::<usize, 40>::new();
        let mut queue = VecDeque::new();
        assert_eq!((ring.last(), ring.get(0), ring.len()), (None, None, 0));
        for entry in 0..500 {
            queue.push_back(entry);
            let fallen = if queue.len() > 40 { queue.pop_front() } else { None };
            assert_eq!(ring.push(entry), fallen);
            assert_eq!((ring.len(), ring.last()), (queue.len(), queue.back()));
            assert!(ring.iter().eq(&queue) && ring.iter().rev().eq(queue.iter().rev()));
            assert!((0..=queue.len()).all(|at| ring.get(at) == queue.get(at)));
            assert!(ring.full.len() <= 40 / BLOCK + 1, "what fell off goes away");
        }
        assert_eq!(ring.get(usize::MAX), None);
    }

    #[test]
    fn a_clone_is_not_changed_by_what_comes_later() {
        let mut ring = Ring::<usize, 16>::new();
        let fill = |ring: &mut Ring<usize, 16>, entries| {
            for entry in entries {
                ring.push(entry);
            }
        };
        fill(&mut ring, 0..20);
        let before = ring.clone();
        fill(&mut ring, 20..50);
        assert!(before.iter().copied().eq(4..20) && ring.iter().copied().eq(34..50));
        let mut otherwise = Ring::<usize, 16>::new();
        fill(&mut otherwise, 34..50);
        assert_eq!(ring, otherwise);
        assert_ne!(ring, before);
    }
}
