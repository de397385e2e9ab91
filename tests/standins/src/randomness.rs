//! Randomness that comes out the same each time, so that a failing simulation can be run again.

use std::sync::Mutex;

use casemate_enclave::outside::Randomness;
use sha2::{Digest, Sha256};

/// SHA-256 over a seed and a counter. For tests only: whoever knows the seed knows every key.
#[derive(Debug)]
pub struct SeededRandomness {
    seed: u64,
    counter: Mutex<u64>,
}

impl SeededRandomness {
    /// The sequence of this seed, from its start.
    pub fn new(seed: u64) -> Self {
        Self { seed, counter: Mutex::new(0) }
    }
}

impl Randomness for SeededRandomness {
    fn fill(&self, out: &mut [u8]) {
        let mut counter = self.counter.lock().expect("nobody panics while counting");
        for chunk in out.chunks_mut(32) {
            let block = Sha256::new()
                .chain_update("casemate/standins/randomness/v1")
                .chain_update(self.seed.to_be_bytes())
                .chain_update(counter.to_be_bytes())
                .finalize();
            chunk.copy_from_slice(&block[..chunk.len()]);
            *counter = counter.wrapping_add(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drawn(randomness: &SeededRandomness) -> [u8; 40] {
        let mut out = [0; 40];
        randomness.fill(&mut out);
        out
    }

    #[test]
    fn a_seed_is_a_sequence() {
        let (one, same, other) = (SeededRandomness::new(1), SeededRandomness::new(1), SeededRandomness::new(2));
        let first = drawn(&one);
        assert_eq!(first, drawn(&same));
        assert_ne!(first, drawn(&other));
        assert_ne!(first, drawn(&one), "and it goes on");
    }
}
