//! The stages of a request and how long they take: one histogram for each, all with the same fixed bounds.
//!
//! The enclave counts, the host only shows. A stage is a word of a fixed vocabulary and a time falls into one of a few buckets that
//! all vaults share, so that no histogram tells more of one request than that there was one.

use std::time::Duration;

use minicbor::{Decode, Encode};

use crate::codec;

/// The first bucket holds times up to this; each further bound is twice the one before.
pub const FIRST_BOUND: Duration = Duration::from_micros(1 << FIRST_BOUND_BITS);
const FIRST_BOUND_BITS: u32 = 4;
/// Bounds: 16 µs to 67 s, beyond the longest deadline of a request.
pub const BOUNDS: usize = 23;
/// Buckets: one for each bound, and one for what is beyond the last.
pub const BUCKETS: usize = BOUNDS + 1;
/// Stages that one enclave may tell of: more than there are, so that a newer one is understood.
pub const TOLD_STAGES: usize = 32;
/// Buckets that one stage may have, likewise.
pub const TOLD_BUCKETS: usize = 64;

macro_rules! stages {
    ($($name:ident $word:literal $text:literal)*) => {
        /// A stage of a request inside the enclave. A new one goes to the end: histograms travel in this order.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Stage {
            $(#[doc = $text] $name,)*
        }

        impl Stage {
            /// Every stage there is, in the order in which their histograms travel.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The stage as metrics name it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

stages! {
    Wait "wait" "From a request's arrival in the enclave until the vault's process is given it; next to nothing when one is there."
    Vault "vault" "From then until the vault-manager's reply: its work, its queue, and the commit that it waits for."
    Spawn "spawn" "From the order for a process until it can do handshakes."
    Load "load" "Opening, first part: until the store's objects are there."
    Key "key" "Opening, second part: until the vault's key is unwrapped."
    Open "open" "A whole opening, from the vault-manager's word to its objects and key."
    Commit "commit" "A write, from its put until it is known to be durable."
}

/// The bucket that a time belongs to, below [`BUCKETS`]. A shift and a count of zeros: it is called for each request.
pub fn bucket(took: Duration) -> usize {
    // Begun microseconds count whole, so that a bound holds what it says.
    let micros = took.as_secs().saturating_mul(1_000_000).saturating_add(took.subsec_nanos().div_ceil(1000).into());
    let doublings = (u64::BITS - micros.saturating_sub(1).leading_zeros()).saturating_sub(FIRST_BOUND_BITS);
    usize::try_from(doublings).map_or(BOUNDS, |bucket| bucket.min(BOUNDS))
}

/// The bounds, ascending.
pub fn bounds() -> impl Iterator<Item = Duration> {
    (0..BOUNDS).map(|bound| FIRST_BOUND * (1 << bound))
}

/// One stage's histogram as it travels.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct StageTimes {
    /// How many times fell into each bucket. A reader that expects another number of them shows none.
    #[cbor(n(0), with = "codec::AtMost::<TOLD_BUCKETS>")]
    pub counts: Vec<u64>,
    /// The sum of all times, microseconds.
    #[n(1)]
    pub sum_us: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_holds_what_its_bound_says() {
        assert_eq!(bucket(Duration::ZERO), 0);
        for (number, bound) in bounds().enumerate() {
            assert_eq!(bucket(bound), number, "{bound:?}");
            assert_eq!(bucket(bound + Duration::from_nanos(1)), number + 1, "beyond {bound:?}");
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert!(bounds().last() > Some(crate::limits::DEADLINE_MAX));
    }

    #[test]
    fn words_are_unique_and_fit_where_they_travel() {
        let mut words: Vec<_> = Stage::ALL.iter().map(|stage| stage.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        assert_eq!(words.len(), Stage::ALL.len());
        assert!(Stage::ALL.len() <= TOLD_STAGES && BUCKETS <= TOLD_BUCKETS);
        assert!(Stage::ALL.iter().enumerate().all(|(place, stage)| *stage as usize == place));
    }
}
