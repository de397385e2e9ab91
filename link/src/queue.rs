//! What waits to be written: which message gets the next record.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use casemate_protocol::limits::RECORD_BYTES;
use casemate_protocol::record::{Outgoing, StreamId};

/// Bytes gathered before they are written. What comes while they are on their way waits for this much and no more, however
/// long the messages before it are.
const BURST_BYTES: usize = 2 * RECORD_BYTES;
/// Bytes of a record's payload that a message's length takes.
const LENGTH_BYTES: usize = 4;

/// A message, and what it counts for.
#[derive(Debug)]
struct Waiting {
    message: Outgoing,
    len: usize,
    is_notice: bool,
}

/// Messages on their way out. Those of one record go first, then the larger ones take turns, one record each.
#[derive(Debug)]
pub(crate) struct Queue {
    small: VecDeque<Waiting>,
    waiting: VecDeque<Waiting>,
    begun: VecDeque<Waiting>,
    begun_bytes: usize,
    begun_limit: usize,
    begun_bytes_limit: usize,
    bytes: usize,
    notices: usize,
}

impl Queue {
    /// A queue that interleaves at most so many messages and bytes: the other side keeps what is unfinished in memory and
    /// gives the connection up beyond the same bounds.
    pub(crate) fn new(begun_limit: usize, begun_bytes_limit: usize) -> Self {
        Self {
            small: VecDeque::new(),
            waiting: VecDeque::new(),
            begun: VecDeque::new(),
            begun_bytes: 0,
            begun_limit,
            begun_bytes_limit,
            bytes: 0,
            notices: 0,
        }
    }

    /// Messages that are not completely taken yet.
    pub(crate) fn len(&self) -> usize {
        self.small.len() + self.waiting.len() + self.begun.len()
    }

    /// Bytes of messages that are not completely taken yet.
    pub(crate) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Notices that are not completely taken yet.
    pub(crate) const fn notices(&self) -> usize {
        self.notices
    }

    /// Puts a call or an answer at the end.
    pub(crate) fn push(&mut self, stream: StreamId, body: Bytes) {
        self.put(stream, body, false);
    }

    /// Puts a notice at the end.
    pub(crate) fn push_notice(&mut self, stream: StreamId, body: Bytes) {
        self.put(stream, body, true);
    }

    fn put(&mut self, stream: StreamId, body: Bytes, is_notice: bool) {
        let len = body.len();
        self.bytes += len;
        self.notices += usize::from(is_notice);
        let waiting = Waiting { message: Outgoing::new(stream, body), len, is_notice };
        if len + LENGTH_BYTES <= RECORD_BYTES {
            self.small.push_back(waiting);
        } else {
            self.waiting.push_back(waiting);
        }
    }

    fn taken(&mut self, whole: &Waiting) {
        self.bytes -= whole.len;
        self.notices -= usize::from(whole.is_notice);
    }

    /// Appends the next records to `out`, about [`BURST_BYTES`] of them; nothing when nothing waits.
    pub(crate) fn fill(&mut self, out: &mut BytesMut) {
        while out.len() < BURST_BYTES {
            let before = out.len();
            // A record's worth of small messages, then one record of a large one: neither kind can starve the other.
            while out.len() - before < RECORD_BYTES {
                let Some(mut small) = self.small.pop_front() else { break };
                small.message.write_piece(out);
                self.taken(&small);
            }
            self.begin();
            if let Some(mut large) = self.begun.pop_front() {
                if large.message.write_piece(out) {
                    self.begun_bytes -= large.len;
                    self.taken(&large);
                } else {
                    self.begun.push_back(large);
                }
            }
            if out.len() == before {
                return;
            }
        }
    }

    fn begin(&mut self) {
        while let Some(next) = self.waiting.front() {
            let fits = self.begun.len() < self.begun_limit && self.begun_bytes + next.len <= self.begun_bytes_limit;
            if !fits && !self.begun.is_empty() {
                return;
            }
            self.begun_bytes += next.len;
            self.begun.extend(self.waiting.pop_front());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_protocol::record::{Assembler, Bounds, HEADER_BYTES, Header};

    fn stream(number: u64) -> StreamId {
        StreamId { number, is_reply: false }
    }

    #[test]
    fn everything_comes_out_whole_and_within_bounds() {
        let mut queue = Queue::new(2, 1 << 20);
        let lens = [700_000, 10, 700_000, 0, RECORD_BYTES - 4, RECORD_BYTES - 3, 3 << 20, 5];
        for (number, len) in (0..).zip(lens) {
            queue.push(stream(number), vec![1; len].into());
        }
        assert_eq!(queue.bytes(), lens.iter().sum::<usize>());
        let mut assembler = Assembler::new(Bounds { message_bytes: 4 << 20, messages: 2, bytes: 4 << 20 });
        let mut whole = [None; 8];
        loop {
            let mut out = BytesMut::new();
            queue.fill(&mut out);
            if out.is_empty() {
                break;
            }
            assert!(out.len() <= 2 * BURST_BYTES);
            let mut out = out.freeze();
            while !out.is_empty() {
                let header = Header::parse(&out.split_to(HEADER_BYTES)[..].try_into().unwrap()).unwrap();
                if let Some((stream, body)) = assembler.take(header, &out.split_to(header.payload_len)).unwrap() {
                    whole[usize::try_from(stream.number).unwrap()] = Some(body.len());
                }
            }
        }
        assert_eq!(whole, lens.map(Some));
        assert_eq!((queue.bytes(), queue.begun_bytes), (0, 0));
    }
}
