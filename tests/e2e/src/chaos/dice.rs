//! Numbers that follow from a seed. Nothing secret depends on them: the same seed must give the same plan on every machine.

/// SplitMix64.
#[derive(Debug, Clone)]
pub struct Dice(u64);

impl Dice {
    /// Dice of their own for each `path` below a seed, so that one more throw in one place changes nothing in another.
    pub fn new(seed: u64, path: &[u64]) -> Self {
        let mut dice = Self(seed);
        for part in path {
            dice = Self(dice.roll() ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93));
        }
        dice
    }

    /// Any number.
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `end`, which is not zero.
    pub fn below(&mut self, end: u64) -> u64 {
        self.roll() % end
    }

    /// A number from `from` to below `end`.
    pub fn between(&mut self, from: u64, end: u64) -> u64 {
        from + self.below(end - from)
    }

    /// One of these.
    ///
    /// # Panics
    /// When there is none.
    pub fn one_of<T: Copy>(&mut self, of: &[T]) -> T {
        of[usize::try_from(self.below(of.len() as u64)).expect("below a length")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_and_a_path_are_one_sequence() {
        let throw = |seed, path: &[u64]| Dice::new(seed, path).roll();
        assert_eq!(throw(1, &[2, 3]), throw(1, &[2, 3]));
        for other in [throw(2, &[2, 3]), throw(1, &[3, 2]), throw(1, &[2]), throw(1, &[2, 3, 0])] {
            assert_ne!(throw(1, &[2, 3]), other);
        }
        let mut dice = Dice::new(7, &[]);
        assert!((0..100).all(|_| (5..9).contains(&dice.between(5, 9))));
    }
}
