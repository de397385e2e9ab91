//! A bounded reader of BER, ASN.1's loose encoding: only as much of it as the key service's envelopes use.
//!
//! BER allows a value to announce its length or to end with a marker ("indefinite length", X.690 8.1.3.6). The real key
//! service answers in the second form, test vectors and other implementations in the first, so both are read. Everything else
//! that BER leaves open is refused: lengths that are longer than needed, tags above 30, lengths beyond the input. Nothing is
//! allocated here, and nesting is counted, so no input can cost more than its own size.

/// Constructed SEQUENCE.
pub(super) const SEQUENCE: u8 = 0x30;
/// Constructed SET.
pub(super) const SET: u8 = 0x31;
/// Primitive INTEGER.
pub(super) const INTEGER: u8 = 0x02;
/// Primitive OCTET STRING.
pub(super) const OCTET_STRING: u8 = 0x04;
/// Primitive NULL.
pub(super) const NULL: u8 = 0x05;
/// Primitive OBJECT IDENTIFIER.
pub(super) const OBJECT_IDENTIFIER: u8 = 0x06;

/// How deep values may nest. The envelope needs ten (content info, explicit tag, envelope, recipients, recipient, algorithm,
/// parameters, tagged parameter, mask generation function, its hash); more is refused before it is looked at.
const MAX_DEPTH: u8 = 10;

/// Context-specific, constructed tag.
pub(super) const fn constructed(number: u8) -> u8 {
    0xa0 | number
}

/// Context-specific, primitive tag.
pub(super) const fn primitive(number: u8) -> u8 {
    0x80 | number
}

/// Why bytes are not the BER that is read here. Speaks of public bytes only, so it may be told and logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BerError {
    /// The input ends within a value.
    #[error("it ends within a value")]
    Truncated,
    /// Another value stands where one was expected.
    #[error("an unexpected element stands in it")]
    UnexpectedTag,
    /// A length is longer than needed, or more than two bytes long.
    #[error("a length is encoded in a form that is not accepted")]
    Length,
    /// Bytes follow where a value must end.
    #[error("bytes follow where a value must end")]
    Trailing,
    /// Values nest deeper than any envelope needs.
    #[error("it nests too deep")]
    TooDeep,
}

/// Reads the values inside one constructed value (or the whole input), front to back.
#[derive(Debug)]
pub(super) struct Reader<'a> {
    rest: &'a [u8],
    /// Ends with an end-of-contents marker rather than with the slice.
    indefinite: bool,
    depth: u8,
}

/// A length as announced.
enum Length {
    Definite(usize),
    Indefinite,
}

impl<'a> Reader<'a> {
    /// A reader of a whole input.
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { rest: input, indefinite: false, depth: 0 }
    }

    /// Whether no value follows in this one. (An end-of-contents marker ends an indefinite value; elsewhere its tag matches
    /// nothing and is refused.)
    pub(super) fn at_end(&self) -> bool {
        if self.indefinite { self.rest.starts_with(&[0, 0]) } else { self.rest.is_empty() }
    }

    /// Whether the next value has `tag`.
    pub(super) fn next_is(&self, tag: u8) -> bool {
        !self.at_end() && self.rest.first() == Some(&tag)
    }

    /// Reads a primitive value with `tag`; returns its contents.
    pub(super) fn primitive(&mut self, tag: u8) -> Result<&'a [u8], BerError> {
        match self.header(tag)? {
            Length::Definite(length) => self.take(length),
            // X.690 8.1.3.2: a primitive encoding has a definite length.
            Length::Indefinite => Err(BerError::Length),
        }
    }

    /// Reads a constructed value with `tag`: `contents` reads what is in it and must read all of it.
    pub(super) fn constructed<T, E: From<BerError>>(
        &mut self,
        tag: u8,
        contents: impl FnOnce(&mut Reader<'a>) -> Result<T, E>,
    ) -> Result<T, E> {
        let depth = self.depth + 1;
        if depth > MAX_DEPTH {
            return Err(BerError::TooDeep.into());
        }
        match self.header(tag)? {
            Length::Definite(length) => {
                let mut inner = Reader { rest: self.take(length)?, indefinite: false, depth };
                let value = contents(&mut inner)?;
                inner.end()?;
                Ok(value)
            }
            Length::Indefinite => {
                let mut inner = Reader { rest: self.rest, indefinite: true, depth };
                let value = contents(&mut inner)?;
                inner.end()?;
                self.rest = inner.rest;
                Ok(value)
            }
        }
    }

    /// The value ends here, with its marker if it has one.
    pub(super) fn end(&mut self) -> Result<(), BerError> {
        if self.at_end() {
            if self.indefinite {
                self.take(2)?;
            }
            Ok(())
        } else if self.rest.is_empty() {
            Err(BerError::Truncated)
        } else {
            Err(BerError::Trailing)
        }
    }

    fn header(&mut self, tag: u8) -> Result<Length, BerError> {
        if self.at_end() {
            return Err(BerError::UnexpectedTag);
        }
        if self.take(1)?[0] != tag {
            return Err(BerError::UnexpectedTag);
        }
        let first = self.take(1)?[0];
        match first {
            0..=0x7f => Ok(Length::Definite(usize::from(first))),
            0x80 => Ok(Length::Indefinite),
            0x81 => match self.take(1)?[0] {
                0..=0x7f => Err(BerError::Length),
                length => Ok(Length::Definite(usize::from(length))),
            },
            0x82 => {
                let bytes = self.take(2)?;
                match u16::from_be_bytes([bytes[0], bytes[1]]) {
                    0..=0xff => Err(BerError::Length),
                    length => Ok(Length::Definite(usize::from(length))),
                }
            }
            // Nothing that is accepted here is longer than 65,535 bytes.
            _ => Err(BerError::Length),
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BerError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(BerError::Truncated)?;
        self.rest = rest;
        Ok(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets(input: &[u8]) -> Result<&[u8], BerError> {
        let mut reader = Reader::new(input);
        let value = reader.primitive(OCTET_STRING)?;
        reader.end()?;
        Ok(value)
    }

    #[test]
    fn reads_each_length_form_once() {
        assert_eq!(octets(&[4, 1, 7]), Ok(&[7][..]));
        assert_eq!(octets(&[4, 0x81, 1, 7]), Err(BerError::Length));
        assert_eq!(octets(&[4, 0x82, 0, 1, 7]), Err(BerError::Length));
        let mut long = vec![4, 0x81, 200];
        long.resize(203, 9);
        assert_eq!(octets(&long).map(<[u8]>::len), Ok(200));
        let mut longer = vec![4, 0x82, 1, 0];
        longer.resize(260, 9);
        assert_eq!(octets(&longer).map(<[u8]>::len), Ok(256));
        assert_eq!(octets(&[4, 0x84, 0, 0, 0, 1, 7]), Err(BerError::Length));
    }

    #[test]
    fn refuses_lengths_beyond_the_input_and_bytes_after_it() {
        assert_eq!(octets(&[4, 2, 7]), Err(BerError::Truncated));
        assert_eq!(octets(&[4, 0x82, 0xff, 0xff, 7]), Err(BerError::Truncated));
        assert_eq!(octets(&[4, 1, 7, 0]), Err(BerError::Trailing));
        assert_eq!(octets(&[4]), Err(BerError::Truncated));
        assert_eq!(octets(&[]), Err(BerError::UnexpectedTag));
        assert_eq!(octets(&[4, 0x80, 0, 0]), Err(BerError::Length), "a primitive value has a definite length");
    }

    #[test]
    fn indefinite_values_end_with_their_marker() {
        let read = |input: &[u8]| {
            let mut reader = Reader::new(input);
            let value = reader.constructed(SEQUENCE, |inner| inner.primitive(OCTET_STRING).map(<[u8]>::to_vec))?;
            reader.end()?;
            Ok::<_, BerError>(value)
        };
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7, 0, 0]), Ok(vec![7]));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7, 0]), Err(BerError::Trailing));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7]), Err(BerError::Truncated));
        assert_eq!(read(&[0x30, 0x80, 4, 1, 7, 5, 0, 0, 0]), Err(BerError::Trailing));
        assert_eq!(read(&[0x30, 0x80, 0, 0, 4, 1, 7]), Err(BerError::UnexpectedTag));
        assert_eq!(read(&[0x30, 3, 4, 1, 7]), Ok(vec![7]));
        assert_eq!(read(&[0x30, 5, 4, 1, 7, 0, 0]), Err(BerError::Trailing), "a marker ends indefinite values only");
    }

    #[test]
    fn nesting_is_bounded() {
        fn dive(reader: &mut Reader<'_>) -> Result<(), BerError> {
            reader.constructed(SEQUENCE, dive)
        }
        let deep: Vec<u8> = [0x30, 0x80].repeat(1_000);
        assert_eq!(dive(&mut Reader::new(&deep)), Err(BerError::TooDeep));
    }
}
