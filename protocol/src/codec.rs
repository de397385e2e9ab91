//! CBOR in and out: one deterministic encoding, and a strict check before anything is built from foreign bytes.
//!
//! Structures are maps with small unsigned keys. A key below 64 that a reader does not know is optional and is ignored; a key of
//! 64 or more is critical and is refused by a reader that does not know it. No key of 64 or more exists yet.

use minicbor::data::Type;
use minicbor::encode::write::Cursor;
use minicbor::{Decode, Decoder, Encode, Encoder};

use crate::wipe::{ZeroizingVec, wipe};

/// Keys from here on must be understood.
pub const FIRST_CRITICAL_KEY: u64 = 64;
/// More than most messages have.
const USUAL_BYTES: usize = 512;
/// Nesting deeper than any message of ours.
const MAX_DEPTH: usize = 12;

/// Why bytes were not taken as a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// More bytes than this kind of message may have.
    #[error("the message has more bytes than its kind may have")]
    TooLarge,
    /// Not the CBOR that this protocol speaks: truncated, trailing bytes, indefinite lengths, tags, floats, too deep.
    #[error("the message is not well-formed")]
    Malformed,
    /// A map key of 64 or more.
    #[error("the message has a critical field that this version does not know; upgrade the older side")]
    CriticalField,
    /// Well-formed, but not this message.
    #[error("the message is not of the expected form")]
    Unexpected,
}

/// Encodes a value into a vector of exactly its size.
pub fn encode<T: Encode<()>>(value: &T) -> Vec<u8> {
    let mut usual = [0; USUAL_BYTES];
    if let Some(encoded) = encode_within(value, &mut usual) {
        return encoded.to_vec();
    }
    let mut out = Vec::with_capacity(encoded_len(value));
    encode_onto(value, &mut out);
    out
}

/// Encodes a value that holds secrets into a buffer of exactly its size, so that no reallocation leaves a copy behind.
pub fn encode_secret<T: Encode<()>>(value: &T) -> ZeroizingVec {
    let mut usual = [0; USUAL_BYTES];
    let encoded = encode_within(value, &mut usual).map(|encoded| ZeroizingVec::from(encoded.to_vec()));
    wipe(&mut usual);
    encoded.unwrap_or_else(|| {
        let mut out = ZeroizingVec::with_capacity(encoded_len(value));
        encode_onto(value, &mut out);
        out
    })
}

/// The encoded value if it fits into `room`: most do, and need not be gone through a first time for their length.
fn encode_within<'a, T: Encode<()>>(value: &T, room: &'a mut [u8]) -> Option<&'a [u8]> {
    let mut cursor = Cursor::new(&mut *room);
    Encoder::new(&mut cursor).encode(value).ok()?;
    let length = cursor.position();
    room.get(..length)
}

/// Appends an encoded value to `out`, which may grow: not for secrets.
pub fn encode_onto<T: Encode<()>>(value: &T, out: &mut Vec<u8>) {
    Encoder::new(out).encode(value).expect("writing into memory does not fail");
}

/// The length that `value` will have.
pub fn encoded_len<T: Encode<()>>(value: &T) -> usize {
    let mut count = 0;
    feed(value, |bytes| count += bytes.len());
    count
}

/// Gives the encoded value piece by piece, without putting it together.
pub fn feed<T: Encode<()>>(value: &T, take: impl FnMut(&[u8])) {
    struct Feed<F>(F);
    impl<F: FnMut(&[u8])> minicbor::encode::Write for Feed<F> {
        type Error = core::convert::Infallible;

        fn write_all(&mut self, bytes: &[u8]) -> Result<(), Self::Error> {
            (self.0)(bytes);
            Ok(())
        }
    }
    Encoder::new(Feed(take)).encode(value).expect("what is given away cannot fail");
}

/// Lists: `#[cbor(n(0), with = "codec::AtMost::<64>")]` refuses more entries than a field may have, and makes room for them as they turn
/// out to be entries, never for more than are announced. Attack stopped: one byte of input for which room for an entry of many is made.
#[derive(Debug)]
pub struct AtMost<const ENTRIES: usize>;

impl<const ENTRIES: usize> AtMost<ENTRIES> {
    /// Writes a list. Whoever sends more than the field may have is not understood; that is for the sender to see to.
    ///
    /// # Errors
    /// Those of the writer.
    pub fn encode<C, T: Encode<C>, W: minicbor::encode::Write>(
        list: &[T],
        e: &mut Encoder<W>,
        ctx: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.array(list.len() as u64)?;
        list.iter().try_for_each(|entry| entry.encode(e, ctx))
    }

    /// Reads a list.
    ///
    /// # Errors
    /// When it has more entries than it may, or one of them is none.
    pub fn decode<'b, C, T: Decode<'b, C>>(
        d: &mut Decoder<'b>,
        ctx: &mut C,
    ) -> Result<Vec<T>, minicbor::decode::Error> {
        let entries =
            d.array()?.and_then(|entries| usize::try_from(entries).ok()).filter(|entries| *entries <= ENTRIES);
        let entries = entries.ok_or_else(|| minicbor::decode::Error::message("a list has too many entries"))?;
        let mut list = Vec::new();
        for missing in (1..=entries).rev() {
            if list.len() == list.capacity() {
                list.reserve_exact(list.len().max(4).min(missing));
            }
            list.push(d.decode_with(ctx)?);
        }
        Ok(list)
    }
}

/// Decodes a value from all of `bytes`, of which there may be at most `limit`.
///
/// # Errors
/// See [`DecodeError`]. Nothing larger than `bytes` is allocated on the way.
pub fn decode<'b, T: Decode<'b, ()>>(bytes: &'b [u8], limit: usize) -> Result<T, DecodeError> {
    if bytes.len() > limit {
        return Err(DecodeError::TooLarge);
    }
    check(bytes)?;
    minicbor::decode(bytes).map_err(|_| DecodeError::Unexpected)
}

/// Walks all of `bytes` as one item of our CBOR subset: definite lengths; unsigned and negative integers, byte and text strings,
/// arrays, maps with unsigned keys in strictly ascending order, booleans and null.
///
/// # Errors
/// [`DecodeError::Malformed`] or [`DecodeError::CriticalField`].
pub fn check(bytes: &[u8]) -> Result<(), DecodeError> {
    let mut d = Decoder::new(bytes);
    check_item(&mut d, 0)?;
    if d.position() == bytes.len() { Ok(()) } else { Err(DecodeError::Malformed) }
}

fn check_item(d: &mut Decoder<'_>, depth: usize) -> Result<(), DecodeError> {
    let malformed = |_| DecodeError::Malformed;
    if depth > MAX_DEPTH {
        return Err(DecodeError::Malformed);
    }
    match d.datatype().map_err(malformed)? {
        Type::Bool => d.bool().map(drop).map_err(malformed),
        Type::Null => d.null().map_err(malformed),
        Type::U8 | Type::U16 | Type::U32 | Type::U64 => d.u64().map(drop).map_err(malformed),
        Type::I8 | Type::I16 | Type::I32 | Type::I64 => d.i64().map(drop).map_err(malformed),
        Type::Bytes => d.bytes().map(drop).map_err(malformed),
        Type::String => d.str().map(drop).map_err(malformed),
        Type::Array => {
            let len = d.array().map_err(malformed)?.ok_or(DecodeError::Malformed)?;
            (0..len).try_for_each(|_| check_item(d, depth + 1))
        }
        Type::Map => {
            let len = d.map().map_err(malformed)?.ok_or(DecodeError::Malformed)?;
            let mut above = None;
            for _ in 0..len {
                let key = d.u64().map_err(malformed)?;
                // A key twice would let two readers see two values.
                if above.is_some_and(|above| key <= above) {
                    return Err(DecodeError::Malformed);
                }
                if key >= FIRST_CRITICAL_KEY {
                    return Err(DecodeError::CriticalField);
                }
                above = Some(key);
                check_item(d, depth + 1)?;
            }
            Ok(())
        }
        _ => Err(DecodeError::Malformed),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
    #[cbor(map)]
    struct Sample {
        #[n(0)]
        a: u32,
        #[n(1)]
        b: Option<String>,
    }

    fn sample(hex_bytes: &str) -> Result<Sample, DecodeError> {
        decode(&hex::decode(hex_bytes).unwrap(), 64)
    }

    #[test]
    fn unknown_optional_ignored_unknown_critical_refused() {
        assert_eq!(sample("a10005"), Ok(Sample { a: 5, b: None }));
        assert_eq!(sample("a2000518200a"), Ok(Sample { a: 5, b: None }));
        assert_eq!(sample("a2000518400a"), Err(DecodeError::CriticalField));
    }

    #[test]
    fn refuses_what_is_not_ours() {
        let cases = [
            ("a1", DecodeError::Malformed),                             // truncated
            ("a1000500", DecodeError::Malformed),                       // trailing
            ("bf0005ff", DecodeError::Malformed),                       // indefinite
            ("a200050006", DecodeError::Malformed),                     // a key twice
            ("a201f60005", DecodeError::Malformed),                     // keys out of order
            ("a100c005", DecodeError::Malformed),                       // tag
            ("a100fb0000000000000000", DecodeError::Malformed),         // float
            ("9bffffffffffffffff", DecodeError::Malformed),             // a length that no input can have
            ("a1006161", DecodeError::Unexpected),                      // text where a number belongs
            ("818181818181818181818181818180", DecodeError::Malformed), // too deep
        ];
        for (bytes, error) in cases {
            assert_eq!(sample(bytes), Err(error), "{bytes}");
        }
        assert_eq!(decode::<Sample>(&[0; 65], 64), Err(DecodeError::TooLarge));
    }

    #[test]
    fn lists_are_bounded() {
        #[derive(Debug, PartialEq, minicbor::Encode, minicbor::Decode)]
        #[cbor(map)]
        struct Bounded(#[cbor(n(0), with = "AtMost::<3>")] Vec<String>);
        let of = |entries| Bounded(vec!["a".to_owned(); entries]);
        for entries in [0, 1, 3] {
            let read: Bounded = decode(&encode(&of(entries)), 64).unwrap();
            assert_eq!((read.0.capacity(), read), (entries, of(entries)), "room for exactly those that are there");
        }
        assert_eq!(decode::<Bounded>(&encode(&of(4)), 64), Err(DecodeError::Unexpected));
        assert_eq!(decode::<Bounded>(&hex::decode("a1009bffffffffffffffff").unwrap(), 64), Err(DecodeError::Malformed));
    }

    /// Those that have the usual length and those that have not, about the bound between them.
    #[test]
    fn length_is_exact() {
        for len in (0..8).chain(USUAL_BYTES - 20..USUAL_BYTES + 20) {
            let value = Sample { a: 70_000, b: Some("x".repeat(len)) };
            let (encoded, secret) = (encode(&value), encode_secret(&value));
            assert_eq!((encoded.len(), encoded.capacity()), (encoded_len(&value), encoded_len(&value)));
            assert_eq!((secret.as_slice(), secret.capacity()), (encoded.as_slice(), encoded_len(&value)));
            assert_eq!(decode(&encoded, 1024), Ok(value));
        }
    }
}
