//! Overwriting bytes that nobody may read any more: as surely as `zeroize`, which writes them one at a time, and as quickly as `memset`.

use std::fmt;
use std::ops::{Deref, DerefMut};

use subtle::ConstantTimeEq;
use zeroize::optimization_barrier;

/// Overwrites with zeros. The barrier stands for a reader, so that the compiler cannot leave out what nobody else reads.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    optimization_barrier(bytes);
}

/// A vector of bytes all of whose room is wiped when it is dropped, and which is compared in constant time. Room that it outgrows is not: it is made as large as it will be.
#[derive(Clone, Default)]
pub struct ZeroizingVec(Vec<u8>);

impl ZeroizingVec {
    fn wipe(&mut self) {
        self.0.clear();
        // Behind what it holds, too: bytes that were cut off stand there.
        self.0.resize(self.0.capacity(), 0);
        optimization_barrier(self.0.as_slice());
    }

    /// An empty one with room for `capacity` bytes.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }
}

impl From<Vec<u8>> for ZeroizingVec {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes)
    }
}

impl Deref for ZeroizingVec {
    type Target = Vec<u8>;

    fn deref(&self) -> &Vec<u8> {
        &self.0
    }
}

impl DerefMut for ZeroizingVec {
    fn deref_mut(&mut self) -> &mut Vec<u8> {
        &mut self.0
    }
}

impl AsRef<[u8]> for ZeroizingVec {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl PartialEq for ZeroizingVec {
    fn eq(&self, other: &Self) -> bool {
        self.0.ct_eq(&other.0).into()
    }
}

impl Eq for ZeroizingVec {}

impl fmt::Debug for ZeroizingVec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("redacted")
    }
}

impl Drop for ZeroizingVec {
    fn drop(&mut self) {
        self.wipe();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wiped_bytes_are_zero_and_no_others_are() {
        for from in 0..20 {
            for to in from..40 {
                let mut bytes = [7; 41];
                wipe(&mut bytes[from..to]);
                assert!(
                    bytes.iter().enumerate().all(|(at, byte)| *byte == if (from..to).contains(&at) { 0 } else { 7 })
                );
            }
        }
    }

    /// Looked at while it is alive: nobody may read a block that was freed.
    #[test]
    fn all_of_its_room_is_wiped_also_what_was_cut_off() {
        let mut bytes = ZeroizingVec::from(vec![7; 100]);
        let (room, place) = (bytes.capacity(), bytes.as_ptr());
        bytes.truncate(10);
        bytes.wipe();
        assert_eq!((bytes.as_slice(), bytes.as_ptr()), (&vec![0; room][..], place));
    }

    #[test]
    fn it_is_a_vector_that_does_not_say_what_it_holds() {
        let mut bytes = ZeroizingVec::with_capacity(4);
        bytes.extend_from_slice(b"key");
        assert_eq!((bytes.as_slice(), format!("{bytes:?}")), (&b"key"[..], "redacted".to_owned()));
    }
}
