//! Walking CBOR arrays and maps of definite and of indefinite length alike.

use minicbor::Decoder;
use minicbor::data::Type;
use minicbor::decode::Error;

/// Counts the items of an array, or the entries of a map, whichever way its length was encoded.
///
/// A claimed length is never allocated for: it only counts down while items are found.
#[derive(Debug)]
pub(super) struct Items {
    /// `None` for an indefinite length, which a break ends.
    left: Option<u64>,
}

impl Items {
    pub(super) fn of(length: Option<u64>) -> Self {
        Self { left: length }
    }

    /// Whether another item follows. Must be asked before each item and until it says no.
    pub(super) fn another(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, Error> {
        match &mut self.left {
            Some(0) => Ok(false),
            Some(left) => {
                *left -= 1;
                Ok(true)
            }
            None if decoder.datatype()? == Type::Break => {
                decoder.set_position(decoder.position() + 1);
                self.left = Some(0);
                Ok(false)
            }
            None => Ok(true),
        }
    }
}
