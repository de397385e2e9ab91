//! Resident vaults in the order in which they leave: a segmented LRU (Karedla, Love and Wherry, 1994).
//!
//! Whoever comes is on probation, and is among the protected once it was used again after the use that brought it in. Who is on probation
//! leaves first, the least recently used before the others. Attack stopped, in part: a crowd of vaults that are opened once each pushes out
//! those that came like them, not those that are in use. With traffic after Zipf's law and room for half of the vaults, a tenth to a fifth
//! fewer requests find their vault closed than under a plain LRU.

use lru::LruCache;

use super::event::SlotId;

/// How many of the residents may be protected, percent of the limit.
const PROTECTED_PERCENT: usize = 95;

/// The resident vaults.
#[derive(Debug)]
pub(super) struct Residents {
    /// With whether the use that brought it in is over.
    probation: LruCache<SlotId, bool>,
    protected: LruCache<SlotId, ()>,
}

impl Default for Residents {
    fn default() -> Self {
        Self { probation: LruCache::unbounded(), protected: LruCache::unbounded() }
    }
}

impl Residents {
    pub(super) fn len(&self) -> usize {
        self.probation.len() + self.protected.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[cfg(test)]
    pub(super) fn contains(&self, slot: SlotId) -> bool {
        self.probation.contains(&slot) || self.protected.contains(&slot)
    }

    /// A vault has come; one that is read anew stays where it is.
    pub(super) fn enter(&mut self, slot: SlotId) {
        if !self.protected.contains(&slot) && !self.probation.contains(&slot) {
            self.probation.put(slot, false);
        }
    }

    /// A device has used a vault. `limit` is that of all residents.
    pub(super) fn used(&mut self, slot: SlotId, limit: usize) {
        match self.probation.get_mut(&slot) {
            Some(came @ false) => *came = true,
            Some(true) => {
                self.probation.pop(&slot);
                self.protected.put(slot, ());
                self.shrink(limit);
            }
            None => {
                self.protected.promote(&slot);
            }
        }
    }

    /// Puts those on probation again, the least recently used first, for whom there is no protected place.
    pub(super) fn shrink(&mut self, limit: usize) {
        while self.protected.len() > (limit * PROTECTED_PERCENT / 100).max(1)
            && let Some((least, ())) = self.protected.pop_lru()
        {
            self.probation.put(least, true);
        }
    }

    /// A vault has left.
    pub(super) fn leave(&mut self, slot: SlotId) {
        self.probation.pop(&slot);
        self.protected.pop(&slot);
    }

    /// All of them, who is to leave first first.
    pub(super) fn leaving(&self) -> impl Iterator<Item = SlotId> {
        let probation = self.probation.iter().rev().map(|(slot, _)| *slot);
        probation.chain(self.protected.iter().rev().map(|(slot, ())| *slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 10;

    fn entered(residents: &mut Residents, slot: u32, uses: u32) {
        residents.enter(SlotId(slot));
        (0..uses).for_each(|_| residents.used(SlotId(slot), LIMIT));
    }

    fn leaving(residents: &Residents) -> Vec<u32> {
        residents.leaving().map(|slot| slot.0).collect()
    }

    #[test]
    fn who_was_used_again_leaves_after_who_was_not() {
        let mut residents = Residents::default();
        entered(&mut residents, 1, 2);
        entered(&mut residents, 2, 1);
        entered(&mut residents, 3, 1);
        entered(&mut residents, 4, 3);
        assert_eq!(leaving(&residents), [2, 3, 1, 4]);
        residents.used(SlotId(2), LIMIT);
        assert_eq!(leaving(&residents), [3, 1, 4, 2]);
        residents.used(SlotId(1), LIMIT);
        assert_eq!(leaving(&residents), [3, 4, 2, 1]);
    }

    #[test]
    fn the_protected_leave_room_for_others() {
        let mut residents = Residents::default();
        (0..20).for_each(|slot| entered(&mut residents, slot, 2));
        assert_eq!((residents.protected.len(), residents.len()), (9, 20));
        assert_eq!(leaving(&residents)[0], 0, "the least recently used of them is on probation again");
        residents.leave(SlotId(0));
        residents.leave(SlotId(19));
        assert_eq!((residents.protected.len(), residents.len()), (8, 18));
        residents.enter(SlotId(18));
        assert_eq!(residents.len(), 18, "read anew");
    }

    #[test]
    fn a_smaller_limit_protects_fewer() {
        let mut residents = Residents::default();
        (0..9).for_each(|slot| entered(&mut residents, slot, 2));
        residents.shrink(5);
        assert_eq!((residents.protected.len(), residents.len()), (4, 9));
        assert_eq!(leaving(&residents), [0, 1, 2, 3, 4, 5, 6, 7, 8]);
    }
}
