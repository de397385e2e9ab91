//! How long to wait before trying again: doubling, bounded, and jittered, so that many waiters do not come back in step.

use std::time::Duration;

/// Waits from 20 ms up to one second.
const FIRST: Duration = Duration::from_millis(20);
/// The longest wait, jitter included.
pub const LONGEST: Duration = Duration::from_secs(1);

/// The wait before attempt `attempt` (0 is the first retry): between half and all of a doubling time. `salt` tells waiters apart; nothing
/// secret depends on it, so a mixing function is enough and keeps this pure.
pub fn wait(attempt: u32, salt: u64) -> Duration {
    let full = FIRST.saturating_mul(1 << attempt.min(6)).min(LONGEST);
    let half = full / 2;
    let share = mix(salt ^ (u64::from(attempt) << 56)) % 1024;
    half + half.saturating_mul(u32::try_from(share).expect("below 1,024")) / 1024
}

/// SplitMix64's finaliser.
const fn mix(salt: u64) -> u64 {
    let mut z = salt.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grows_is_bounded_and_differs() {
        for attempt in 0..40 {
            for salt in 0..100 {
                let wait = wait(attempt, salt);
                assert!(wait >= FIRST / 2 && wait <= LONGEST);
                assert!(attempt < 6 || wait >= LONGEST / 2);
            }
        }
        assert_ne!(wait(5, 1), wait(5, 2));
    }
}
