//! The replay window of one direction of a session.

use minicbor::{Decode, Encode};

use crate::limits::REPLAY_WINDOW;

const WORDS: usize = 16;

/// Remembers which of the last 1,024 counters were used. Attack stopped: a host that delivers a frame twice, or much later.
#[derive(Debug, Clone, Default, Encode, Decode)]
#[cbor(map)]
pub struct ReplayWindow {
    /// One above the highest counter used; zero when none was.
    #[n(0)]
    next: u64,
    /// Bit `counter % 1,024` tells whether `counter` was used, for the 1,024 counters below `next`.
    #[n(1)]
    used: [u64; WORDS],
}

impl ReplayWindow {
    fn place(counter: u64) -> (usize, u64) {
        let slot = usize::try_from(counter % REPLAY_WINDOW).expect("below 1,024");
        (slot / 64, 1 << (slot % 64))
    }

    /// Whether `counter` was never used and is not older than the window.
    pub fn is_fresh(&self, counter: u64) -> bool {
        if counter >= self.next {
            return true;
        }
        let (word, bit) = Self::place(counter);
        self.next - counter <= REPLAY_WINDOW && self.used[word] & bit == 0
    }

    /// Marks `counter` as used. Call it only after the frame has authenticated.
    pub fn mark(&mut self, counter: u64) {
        if counter >= self.next {
            let skipped = (counter - self.next).min(REPLAY_WINDOW);
            for old in counter - skipped..counter {
                let (word, bit) = Self::place(old);
                self.used[word] &= !bit;
            }
            self.next = counter + 1;
        }
        let (word, bit) = Self::place(counter);
        self.used[word] |= bit;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        /// Against the obvious model: a set of all used counters.
        #[test]
        fn agrees_with_a_set(steps in prop::collection::vec((0_u64..3000, any::<bool>()), 1..400)) {
            let mut window = ReplayWindow::default();
            let mut used = BTreeSet::new();
            let mut base = 0_u64;
            for (step, jump) in steps {
                let counter = if jump { base + step } else { base.saturating_sub(step) };
                let next = used.last().map_or(0, |last| last + 1);
                let fresh = counter >= next || (next - counter <= REPLAY_WINDOW && !used.contains(&counter));
                prop_assert_eq!(window.is_fresh(counter), fresh);
                if fresh {
                    window.mark(counter);
                    used.insert(counter);
                    prop_assert!(!window.is_fresh(counter));
                }
                base = base.max(counter);
            }
        }
    }
}
