//! The negative cache: vault ids for which the store showed nothing a moment ago.

use std::num::NonZeroUsize;
use std::time::Duration;

use casemate_protocol::id::VaultId;
use lru::LruCache;

/// Ids remembered.
pub const ENTRIES: usize = 4096;
/// How long one is remembered.
pub const LIFETIME: Duration = Duration::from_secs(10);

/// Spares the store the reads of strangers who guess ids. It only ever stands in for a read whose answer was "nothing there", so a
/// creation is never refused by it; a creation clears its id.
#[derive(Debug)]
pub struct NegativeCache(LruCache<VaultId, Duration>);

impl Default for NegativeCache {
    fn default() -> Self {
        Self(LruCache::new(NonZeroUsize::new(ENTRIES).expect("not zero")))
    }
}

impl NegativeCache {
    /// The store has shown nothing for `vault`.
    pub fn insert(&mut self, vault: VaultId, now: Duration) {
        self.0.put(vault, now + LIFETIME);
    }

    /// Something may be there from now on.
    pub fn remove(&mut self, vault: VaultId) {
        self.0.pop(&vault);
    }

    /// Whether the store showed nothing for `vault` a moment ago. Asking does not make it younger.
    pub fn holds(&mut self, vault: VaultId, now: Duration) -> bool {
        match self.0.peek(&vault) {
            Some(until) if now < *until => true,
            Some(_) => {
                self.0.pop(&vault);
                false
            }
            None => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vault(number: usize) -> VaultId {
        let mut bytes = [0; 20];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        VaultId::from_bytes(bytes)
    }

    #[test]
    fn forgets_by_time_by_creation_and_by_number() {
        let (mut cache, now) = (NegativeCache::default(), Duration::from_secs(1));
        for number in 0..=ENTRIES {
            cache.insert(vault(number), now);
        }
        assert!(!cache.holds(vault(0), now), "the oldest made room");
        assert!(cache.holds(vault(1), now) && cache.holds(vault(ENTRIES), now));
        cache.remove(vault(1));
        assert!(!cache.holds(vault(1), now));
        assert!(cache.holds(vault(2), now + LIFETIME.mul_f32(0.99)));
        assert!(!cache.holds(vault(2), now + LIFETIME));
    }
}
