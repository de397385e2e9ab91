//! The supervisor's end of a vault-manager's socket: never blocks, queues a bounded amount, believes nothing.
//!
//! **Two lanes.** Requests (with `Start` before and `Stop` behind them) keep their order; answers to the vault-manager's own
//! questions keep theirs. The lanes take turns, record by record, so a fat request never holds up the commit result that the
//! vault waits for, and a vault's objects never hold up its requests.
//!
//! **Who writes.** [`SupervisorSocket::try_send`] writes at once what the kernel takes. What it does not take waits for
//! [`SupervisorSocket::flush`], which its owner calls when the socket has room again.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use bytes::{Bytes, BytesMut};
use casemate_protocol::codec;
use casemate_protocol::limits::{FRAME_BYTES, OBJECT_BYTES, RECORD_BYTES};
use casemate_protocol::record::{self, Assembler, Bounds, HEADER_BYTES, Outgoing, StreamId};
use casemate_protocol::wipe::wipe;
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;

use crate::ipc::{FROM_MANAGER_BYTES, FromManager, TO_MANAGER_BYTES, ToManager};
use crate::socket::{DATAGRAM_BYTES, SocketError, parse, receive, transmit};

/// What may wait in the lane of requests: the first message and some frames.
pub const REQUEST_LANE_BYTES: usize = OBJECT_BYTES + 4 * FRAME_BYTES;
/// What may wait in the lane of answers: everything that opening reads, once, and commit results.
pub const ANSWER_LANE_BYTES: usize = TO_MANAGER_BYTES + 4 * 1024;

/// A vault-manager sends one message after the other.
const BOUNDS: Bounds = Bounds { message_bytes: FROM_MANAGER_BYTES, messages: 1, bytes: FROM_MANAGER_BYTES };

thread_local! {
    /// One datagram on its way in. One buffer a thread, not one a vault.
    static INCOMING: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_BYTES]);
    /// One datagram on its way out, likewise. No secret is written into it.
    static OUTGOING: RefCell<Vec<u8>> = RefCell::new(Vec::with_capacity(DATAGRAM_BYTES));
}

/// The supervisor's end.
pub struct SupervisorSocket {
    fd: OwnedFd,
    assembler: Assembler,
    queue: Queue,
}

impl fmt::Debug for SupervisorSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSocket")
            .field("fd", &self.fd)
            .field("queued_bytes", &self.queued_bytes())
            .finish_non_exhaustive()
    }
}

impl AsFd for SupervisorSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl SupervisorSocket {
    /// Takes the supervisor's end of [`crate::socket::pair`].
    pub fn new(fd: OwnedFd) -> Self {
        Self { fd, assembler: Assembler::new(BOUNDS), queue: Queue::default() }
    }

    /// The next message, if all of it has come.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the vault-manager has ended. Every other error is a violation of the protocol: kill it.
    pub fn try_recv(&mut self) -> Result<Option<FromManager>, SocketError> {
        INCOMING.with_borrow_mut(|buffer| {
            loop {
                let length = match receive(self.fd.as_fd(), buffer, MsgFlags::MSG_DONTWAIT) {
                    Ok(length) => length,
                    Err(Errno::EAGAIN) => return Ok(None),
                    Err(errno) => return Err(errno.into()),
                };
                let (header, payload) = parse(buffer, length)?;
                if let Some(body) = self.assembler.whole(header, payload)? {
                    return Ok(Some(codec::decode(body, FROM_MANAGER_BYTES)?));
                }
                match self.assembler.take(header, &Bytes::copy_from_slice(payload))? {
                    Some((_, body)) => return Ok(Some(codec::decode(&body, FROM_MANAGER_BYTES)?)),
                    // Only a message's last record may be short: crumbs would cost this process a call for each byte.
                    None if header.payload_len < RECORD_BYTES => return Err(SocketError::Datagram),
                    None => {}
                }
            }
        })
    }

    /// Queues a message and sends what the kernel takes now.
    ///
    /// # Errors
    /// [`SocketError::QueueFull`]: not taken; for a request, answer `busy`; for an answer, the vault-manager asked again before it
    /// read, which it never should: kill it. [`SocketError::Closed`]: the vault-manager has ended; its last words and its end are
    /// told by [`SupervisorSocket::try_recv`].
    pub fn try_send(&mut self, message: &ToManager) -> Result<(), SocketError> {
        if self.queue.is_empty() && !is_secret(message) && self.send_whole(message)? {
            return Ok(());
        }
        self.queue.push(message)?;
        self.flush()
    }

    /// Sends what waits, as far as the kernel takes it.
    ///
    /// # Errors
    /// [`SocketError::Closed`] as for [`SupervisorSocket::try_send`], or the system's.
    pub fn flush(&mut self) -> Result<(), SocketError> {
        self.queue.flush(self.fd.as_fd())
    }

    /// Whether something waits until the kernel has room again.
    pub fn waits_for_room(&self) -> bool {
        !self.queue.is_empty()
    }

    /// Bytes of messages that the kernel has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        self.queue.lanes.iter().map(|lane| lane.bytes).sum()
    }

    /// The usual case: nothing waits, and the message fits into one record, which the kernel takes. Says whether it was so; if not,
    /// nothing was sent.
    fn send_whole(&mut self, message: &ToManager) -> Result<bool, SocketError> {
        OUTGOING.with_borrow_mut(|out| {
            out.clear();
            let stream = self.queue.next_stream();
            let is_whole = record::write_whole(stream, out, |out| codec::encode_onto(message, out)).is_ok();
            let sent =
                if is_whole { transmit(self.fd.as_fd(), out, MsgFlags::MSG_DONTWAIT) } else { Err(Errno::EAGAIN) };
            if out.capacity() > 2 * DATAGRAM_BYTES {
                *out = Vec::with_capacity(DATAGRAM_BYTES);
            }
            match sent {
                Ok(()) => {
                    self.queue.streams += 1;
                    Ok(true)
                }
                Err(Errno::EAGAIN) => Ok(false),
                Err(errno) => Err(errno.into()),
            }
        })
    }
}

/// Whether a message's bytes are wiped behind it.
const fn is_secret(message: &ToManager) -> bool {
    matches!(message, ToManager::Opened { .. })
}

/// Messages that wait, by lane.
#[derive(Default)]
struct Queue {
    lanes: [Lane; 2],
    /// The lane whose turn it is.
    turn: usize,
    /// A record that was cut and not taken by the kernel.
    record: Record,
    streams: u64,
}

#[derive(Default)]
struct Lane {
    messages: VecDeque<Message>,
    bytes: usize,
}

struct Message {
    outgoing: Outgoing,
    /// Bytes that are not cut yet.
    left: usize,
    begun: bool,
    secret: bool,
}

#[derive(Default)]
struct Record {
    bytes: BytesMut,
    secret: bool,
}

impl Record {
    fn clear(&mut self) {
        if self.secret {
            wipe(&mut self.bytes);
        }
        *self = Self::default();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.secret {
            wipe(&mut self.bytes);
        }
    }
}

/// The message length in front of a message's first record.
const LENGTH_BYTES: usize = 4;

/// Answers that may wait for a process. It is given one at a time, and one that is reopened or stopped a second and a third.
const UNREAD_ANSWERS: usize = 8;

const REQUESTS: usize = 0;
const ANSWERS: usize = 1;

impl Queue {
    fn push(&mut self, message: &ToManager) -> Result<(), SocketError> {
        let (lane, limit) = match message {
            ToManager::Start { .. } | ToManager::Request { .. } => (REQUESTS, REQUEST_LANE_BYTES),
            // A few bytes, sent once, and not to be refused.
            ToManager::Stop { .. } => (REQUESTS, usize::MAX),
            ToManager::Opened { .. } | ToManager::OpenRefused(_) | ToManager::CommitResult(_) => {
                (ANSWERS, ANSWER_LANE_BYTES)
            }
        };
        let (length, secret) = (codec::encoded_len(message), is_secret(message));
        if length > TO_MANAGER_BYTES {
            return Err(SocketError::TooLarge);
        }
        // Attack stopped: a process that asks and does not read. Each answer of a few bytes takes more of us than of its lane.
        let unread = lane == ANSWERS && self.lanes[lane].messages.len() >= UNREAD_ANSWERS;
        if unread || self.lanes[lane].bytes + length > limit {
            return Err(SocketError::QueueFull);
        }
        // A secret's bytes are wiped when the last of them was cut off.
        let body =
            if secret { Bytes::from_owner(codec::encode_secret(message)) } else { Bytes::from(codec::encode(message)) };
        let stream = self.next_stream();
        self.streams += 1;
        let lane = &mut self.lanes[lane];
        lane.bytes += length;
        lane.messages.push_back(Message { outgoing: Outgoing::new(stream, body), left: length, begun: false, secret });
        Ok(())
    }

    const fn next_stream(&self) -> StreamId {
        StreamId { number: self.streams, is_reply: false }
    }

    fn is_empty(&self) -> bool {
        self.record.bytes.is_empty() && self.lanes.iter().all(|lane| lane.messages.is_empty())
    }

    /// Cuts the next record, of the lane whose turn it is if that has any.
    fn cut(&mut self) -> bool {
        if self.lanes[self.turn].messages.is_empty() {
            self.turn ^= 1;
        }
        let lane = &mut self.lanes[self.turn];
        let Some(message) = lane.messages.front_mut() else { return false };
        let announced = if message.begun { 0 } else { LENGTH_BYTES };
        let cut = message.left.min(RECORD_BYTES - announced);
        // Its full size at once: growing would leave copies of a secret behind.
        let bytes = BytesMut::with_capacity(HEADER_BYTES + announced + cut);
        self.record = Record { bytes, secret: message.secret };
        let last = message.outgoing.write_piece(&mut self.record.bytes);
        message.begun = true;
        message.left -= cut;
        lane.bytes -= cut;
        if last {
            lane.messages.pop_front();
        }
        self.turn ^= 1;
        true
    }

    /// Writes until nothing is left or the kernel takes no more.
    fn flush(&mut self, fd: BorrowedFd<'_>) -> Result<(), SocketError> {
        loop {
            if self.record.bytes.is_empty() && !self.cut() {
                return Ok(());
            }
            match transmit(fd, &self.record.bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(()) => self.record.clear(),
                Err(Errno::EAGAIN) => return Ok(()),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
