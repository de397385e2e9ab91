//! Records: how messages are cut into pieces of at most 64 KiB, so that one fat message never stalls the others, and put together
//! again. The same on the link and in tests; the bytes come and go elsewhere.
//!
//! A record is `u32 BE payload length ‖ u64 BE stream ‖ u8 flags ‖ payload`. The first record of a message begins its payload with
//! `u32 BE message length`.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};

use crate::limits::RECORD_BYTES;

/// Bytes of a record's header.
pub const HEADER_BYTES: usize = 13;
const LENGTH_BYTES: usize = 4;

const FIRST: u8 = 1;
const LAST: u8 = 2;
const REPLY: u8 = 4;

/// A message's address: who began the exchange, and its number there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct StreamId {
    /// Counted by the side that began the exchange.
    pub number: u64,
    /// Whether this is the answer to the other side's call.
    pub is_reply: bool,
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Bytes that follow.
    pub payload_len: usize,
    /// The message that it is a piece of.
    pub stream: StreamId,
    first: bool,
    last: bool,
}

/// Why a stream of records was given up. Nothing after such a record can be believed to be in step.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    /// A payload over 64 KiB, or unknown flags.
    #[error("a record's header is not valid")]
    Header,
    /// A message over its class's limit.
    #[error("a message is over the limit of its connection")]
    TooLarge,
    /// More messages or bytes unfinished than the window allows.
    #[error("more is unfinished than the window allows")]
    Window,
    /// A piece that belongs to no message, or does not fit its message.
    #[error("a piece does not fit its message")]
    OutOfStep,
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`RecordError::Header`]; checked before anything is allocated for the payload.
    pub fn parse(bytes: &[u8; HEADER_BYTES]) -> Result<Self, RecordError> {
        let (length, rest) = bytes.split_first_chunk::<4>().expect("13 bytes");
        let (number, flags) = rest.split_first_chunk::<8>().expect("9 bytes");
        let payload_len = usize::try_from(u32::from_be_bytes(*length)).map_err(|_| RecordError::Header)?;
        let flags = flags[0];
        if payload_len > RECORD_BYTES || flags & !(FIRST | LAST | REPLY) != 0 {
            return Err(RecordError::Header);
        }
        let stream = StreamId { number: u64::from_be_bytes(*number), is_reply: flags & REPLY != 0 };
        Ok(Self { payload_len, stream, first: flags & FIRST != 0, last: flags & LAST != 0 })
    }

    fn bytes(&self) -> [u8; HEADER_BYTES] {
        let flags = u8::from(self.first) * FIRST + u8::from(self.last) * LAST + u8::from(self.stream.is_reply) * REPLY;
        let mut bytes = [flags; HEADER_BYTES];
        bytes[..4].copy_from_slice(&u32::try_from(self.payload_len).expect("at most 64 KiB").to_be_bytes());
        bytes[4..12].copy_from_slice(&self.stream.number.to_be_bytes());
        bytes
    }
}

/// Appends a message as one record, its body written by `body` where it is to stand. A body that does not fit into one record is
/// given back, and `out` is as it was.
///
/// # Errors
/// With the body, which is then to be cut by [`Outgoing`].
pub fn write_whole(stream: StreamId, out: &mut Vec<u8>, body: impl FnOnce(&mut Vec<u8>)) -> Result<(), Bytes> {
    let start = out.len();
    out.resize(start + HEADER_BYTES + LENGTH_BYTES, 0);
    body(out);
    let payload_len = out.len() - start - HEADER_BYTES;
    if payload_len > RECORD_BYTES {
        let body = Bytes::copy_from_slice(&out[start + HEADER_BYTES + LENGTH_BYTES..]);
        out.truncate(start);
        return Err(body);
    }
    let (header, rest) = out[start..].split_at_mut(HEADER_BYTES);
    header.copy_from_slice(&Header { payload_len, stream, first: true, last: true }.bytes());
    let length = u32::try_from(payload_len - LENGTH_BYTES).expect("at most 64 KiB");
    rest[..LENGTH_BYTES].copy_from_slice(&length.to_be_bytes());
    Ok(())
}

/// Takes the next header off `buffer` once its whole payload is there too; the payload is then what `buffer` begins with. A header
/// whose payload is on its way is kept in `header` until the next call.
///
/// # Errors
/// [`RecordError::Header`]: nothing after it can be believed.
pub fn next_header(buffer: &mut BytesMut, header: &mut Option<Header>) -> Result<Option<Header>, RecordError> {
    let next = match *header {
        Some(next) => next,
        None => match buffer.first_chunk::<HEADER_BYTES>() {
            Some(bytes) => {
                let next = Header::parse(bytes)?;
                buffer.advance(HEADER_BYTES);
                next
            }
            None => return Ok(None),
        },
    };
    let is_whole = buffer.len() >= next.payload_len;
    *header = (!is_whole).then_some(next);
    Ok(is_whole.then_some(next))
}

/// A message on its way out, cut piece by piece.
#[derive(Debug)]
pub struct Outgoing {
    stream: StreamId,
    rest: Bytes,
    begun: bool,
}

impl Outgoing {
    /// A message to be cut.
    pub const fn new(stream: StreamId, body: Bytes) -> Self {
        Self { stream, rest: body, begun: false }
    }

    /// Appends the next record to `out`; returns whether it was the last.
    pub fn write_piece(&mut self, out: &mut impl BufMut) -> bool {
        let first = !self.begun;
        let extra = if first { LENGTH_BYTES } else { 0 };
        let take = self.rest.len().min(RECORD_BYTES - extra);
        let last = take == self.rest.len();
        out.put_slice(&Header { payload_len: take + extra, stream: self.stream, first, last }.bytes());
        if first {
            out.put_u32(u32::try_from(self.rest.len()).expect("messages are far below 4 GiB"));
        }
        out.put_slice(&self.rest[..take]);
        self.rest.advance(take);
        self.begun = true;
        last
    }
}

/// What may be unfinished at one time.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Unfinished messages.
    pub messages: usize,
    /// Bytes received of unfinished messages.
    pub bytes: usize,
}

/// Puts messages together again. Memory grows with the bytes that really came, never with a length that was announced, unless the peer is
/// trusted.
#[derive(Debug)]
pub struct Assembler {
    bounds: Bounds,
    unfinished: HashMap<StreamId, (usize, BytesMut)>,
    held: usize,
    trusts: bool,
}

impl Assembler {
    /// An assembler with these bounds.
    pub fn new(bounds: Bounds) -> Self {
        Self { bounds, unfinished: HashMap::new(), held: 0, trusts: false }
    }

    /// One for a peer that is trusted with memory: each message has the room that it announces at once, so that no buffer is outgrown
    /// and left behind with part of a secret.
    pub fn trusting(bounds: Bounds) -> Self {
        Self { trusts: true, ..Self::new(bounds) }
    }

    /// The message that a record carries all by itself, without a copy of it; none if it is a piece of one, which
    /// [`Assembler::take`] takes.
    ///
    /// # Errors
    /// See [`RecordError`]; the connection is then to be closed.
    pub fn whole<'a>(&self, header: Header, payload: &'a [u8]) -> Result<Option<&'a [u8]>, RecordError> {
        if !header.first || !header.last {
            return Ok(None);
        }
        let (total, body) = payload.split_first_chunk::<LENGTH_BYTES>().ok_or(RecordError::OutOfStep)?;
        let total = usize::try_from(u32::from_be_bytes(*total)).map_err(|_| RecordError::TooLarge)?;
        if total > self.bounds.message_bytes {
            return Err(RecordError::TooLarge);
        }
        if body.len() != total || self.unfinished.contains_key(&header.stream) {
            return Err(RecordError::OutOfStep);
        }
        Ok(Some(body))
    }

    /// Takes a record; returns the message that it completes.
    ///
    /// # Errors
    /// See [`RecordError`]; the connection is then to be closed.
    pub fn take(&mut self, header: Header, payload: &Bytes) -> Result<Option<(StreamId, Bytes)>, RecordError> {
        if let Some(body) = self.whole(header, payload)? {
            return Ok(Some((header.stream, payload.slice_ref(body))));
        }
        self.piece(header, payload)
    }

    /// Takes a record that is a piece of a message; returns the message that it completes.
    ///
    /// # Errors
    /// See [`RecordError`]; the connection is then to be closed.
    pub fn piece(&mut self, header: Header, mut payload: &[u8]) -> Result<Option<(StreamId, Bytes)>, RecordError> {
        if header.first {
            if header.last || payload.len() < LENGTH_BYTES || self.unfinished.contains_key(&header.stream) {
                return Err(RecordError::OutOfStep);
            }
            let total = usize::try_from(payload.get_u32()).map_err(|_| RecordError::TooLarge)?;
            if total > self.bounds.message_bytes {
                return Err(RecordError::TooLarge);
            }
            if payload.is_empty() || payload.len() >= total {
                return Err(RecordError::OutOfStep);
            }
            self.held += payload.len();
            if self.unfinished.len() >= self.bounds.messages || self.held > self.bounds.bytes {
                return Err(RecordError::Window);
            }
            let mut body = BytesMut::with_capacity(if self.trusts { total } else { payload.len() });
            body.extend_from_slice(payload);
            self.unfinished.insert(header.stream, (total, body));
            return Ok(None);
        }
        let (total, body) = self.unfinished.get_mut(&header.stream).ok_or(RecordError::OutOfStep)?;
        let len = body.len() + payload.len();
        if payload.is_empty() || len > *total || (len == *total) != header.last {
            return Err(RecordError::OutOfStep);
        }
        self.held += payload.len();
        if self.held > self.bounds.bytes {
            return Err(RecordError::Window);
        }
        body.extend_from_slice(payload);
        if !header.last {
            return Ok(None);
        }
        let (_, body) = self.unfinished.remove(&header.stream).expect("found above");
        self.held -= body.len();
        Ok(Some((header.stream, body.freeze())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const BOUNDS: Bounds = Bounds { message_bytes: 1 << 20, messages: 8, bytes: 4 << 20 };

    fn records(mut bytes: BytesMut) -> Vec<(Header, Bytes)> {
        let mut out = Vec::new();
        while let Some(header) = next_header(&mut bytes, &mut None).unwrap() {
            out.push((header, bytes.split_to(header.payload_len).freeze()));
        }
        assert!(bytes.is_empty());
        out
    }

    fn stream(number: u64) -> StreamId {
        StreamId { number, is_reply: number % 2 == 1 }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn interleaved_messages_come_out_whole(lens in prop::collection::vec(0_usize..300_000, 1..6)) {
            let mut pending: Vec<_> = (0_u64..).zip(&lens)
                .map(|(n, len)| Outgoing::new(stream(n), vec![u8::try_from(n).unwrap(); *len].into())).collect();
            let mut wire = BytesMut::new();
            while !pending.is_empty() {
                pending.retain_mut(|message| !message.write_piece(&mut wire));
            }
            let mut assembler = Assembler::new(BOUNDS);
            let mut found = Vec::new();
            for (header, payload) in records(wire) {
                prop_assert!(payload.len() <= RECORD_BYTES);
                found.extend(assembler.take(header, &payload).unwrap());
            }
            found.sort_by_key(|(stream, _)| stream.number);
            prop_assert_eq!(found.iter().map(|(_, body)| body.len()).collect::<Vec<_>>(), lens);
            prop_assert_eq!(assembler.held, 0);
        }
    }

    #[test]
    fn a_whole_message_is_written_as_it_is_cut() {
        for len in [0, 1, 300, RECORD_BYTES - 4, RECORD_BYTES - 3] {
            let body = Bytes::from(vec![5; len]);
            let mut cut = BytesMut::new();
            let fits = Outgoing::new(stream(3), body.clone()).write_piece(&mut cut);
            let mut whole = vec![9];
            let written = write_whole(stream(3), &mut whole, |out| out.extend_from_slice(&body));
            if fits {
                assert_eq!((written, &whole[1..]), (Ok(()), &cut[..]));
            } else {
                assert_eq!((written, &whole[..]), (Err(body), &[9][..]));
            }
        }
    }

    #[test]
    fn a_header_waits_for_its_payload() {
        let mut wire = BytesMut::new();
        Outgoing::new(stream(2), Bytes::from_static(b"hello")).write_piece(&mut wire);
        let (mut buffer, mut header, mut found) = (BytesMut::new(), None, Vec::new());
        for byte in &wire {
            buffer.put_u8(*byte);
            if let Some(header) = next_header(&mut buffer, &mut header).unwrap() {
                found.push((header.stream, buffer.split_to(header.payload_len)));
            }
        }
        assert_eq!((found.len(), header, buffer.len()), (1, None, 0));
        assert_eq!(found[0], (stream(2), BytesMut::from(&b"\0\0\0\x05hello"[..])));
    }

    #[test]
    fn golden_record() {
        let mut wire = BytesMut::new();
        assert!(
            Outgoing::new(StreamId { number: 7, is_reply: true }, Bytes::from_static(b"hi")).write_piece(&mut wire)
        );
        assert_eq!(hex::encode(&wire), "00000006000000000000000707000000026869");
    }

    #[test]
    fn hostile_records_are_refused() {
        assert_eq!(Header::parse(&[0xff; HEADER_BYTES]), Err(RecordError::Header));
        let header = |number, first, last| Header { payload_len: 0, stream: stream(number), first, last };
        let body = |len: u32, rest: usize| {
            let mut out = len.to_be_bytes().to_vec();
            out.resize(4 + rest, 0);
            Bytes::from(out)
        };
        let mut assembler = Assembler::new(BOUNDS);
        assert_eq!(assembler.take(header(1, true, false), &body(u32::MAX, 1)), Err(RecordError::TooLarge));
        assert_eq!(assembler.take(header(1, false, true), &body(1, 0)), Err(RecordError::OutOfStep));
        assert_eq!(assembler.take(header(1, true, true), &body(5, 4)), Err(RecordError::OutOfStep));
        for number in 0..8 {
            assert_eq!(assembler.take(header(number, true, false), &body(100, 50)), Ok(None));
        }
        assert_eq!(assembler.take(header(3, true, false), &body(100, 50)), Err(RecordError::OutOfStep));
        assert_eq!(assembler.take(header(9, true, false), &body(100, 50)), Err(RecordError::Window));
        assert_eq!(assembler.take(header(3, false, true), &body(0, 10)), Err(RecordError::OutOfStep));
    }
}
