//! Size classes: powers of two with eighths, so that a length tells at most one of eight steps per doubling.

/// The smallest class.
const SMALLEST: usize = 256;

/// The class that holds `len` bytes: `len` rounded up to an eighth of its power of two, at least 256.
pub fn size_class(len: usize) -> usize {
    if len <= SMALLEST {
        return SMALLEST;
    }
    let step = 1 << (usize::BITS - 1 - len.leading_zeros() - 3);
    len.div_ceil(step) * step
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn golden_classes() {
        let classes = [
            (0, 256),
            (256, 256),
            (257, 288),
            (288, 288),
            (1000, 1024),
            (1025, 1152),
            (65_536, 65_536),
            (65_537, 73_728),
        ];
        for (len, class) in classes {
            assert_eq!(size_class(len), class, "{len}");
        }
    }

    proptest! {
        #[test]
        fn holds_and_wastes_at_most_an_eighth(len in 256_usize..8_000_000) {
            let class = size_class(len);
            prop_assert!(class >= len && class - len <= len / 8 + 1);
            prop_assert_eq!(size_class(class), class);
        }
    }
}
