//! The supervisor's end of a vault-manager's socket: never blocks, queues a bounded amount, believes nothing.
//!
//! **Two lanes.** Requests (with `Start` before and `Stop` behind them) keep their order; answers to the vault-manager's own
//! questions keep theirs. The lanes take turns, record by record, so a fat request never holds up the commit result that the
//! vault waits for, and a vault's objects never hold up its requests.
//!
//! **Who writes.** [`Sender::try_send`] writes at once what the kernel takes. What it does not take is written by
//! [`SupervisorSocket::poll_recv`], which somebody awaits for as long as the vault-manager lives.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::{Bytes, BytesMut};
use casemate_protocol::codec;
use casemate_protocol::limits::{FRAME_BYTES, OBJECT_BYTES, RECORD_BYTES};
use casemate_protocol::record::{Assembler, Bounds, HEADER_BYTES, Outgoing, StreamId};
use nix::errno::Errno;
use nix::sys::socket::MsgFlags;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use zeroize::Zeroize;

use crate::ipc::{FROM_MANAGER_BYTES, FromManager, TO_MANAGER_BYTES, ToManager};
use crate::socket::{DATAGRAM_BYTES, SocketError, parse, receive, transmit};
use crate::watch;

/// What may wait in the lane of requests: the first message and some frames.
pub const REQUEST_LANE_BYTES: usize = OBJECT_BYTES + 4 * FRAME_BYTES;
/// What may wait in the lane of answers: everything that opening reads, once, and commit results.
pub const ANSWER_LANE_BYTES: usize = TO_MANAGER_BYTES + 4 * 1024;

/// A vault-manager sends one message after the other.
const BOUNDS: Bounds = Bounds { message_bytes: FROM_MANAGER_BYTES, messages: 1, bytes: FROM_MANAGER_BYTES };

thread_local! {
    /// One datagram on its way in. One buffer a thread, not one a vault.
    static INCOMING: RefCell<Vec<u8>> = RefCell::new(vec![0; DATAGRAM_BYTES]);
}

/// The supervisor's end. Its descriptor is closed when it and all its [`Sender`]s are dropped.
pub struct SupervisorSocket {
    shared: Arc<Shared>,
    assembler: Assembler,
}

/// The way to a vault-manager; clones share one queue.
#[derive(Clone)]
pub struct Sender {
    shared: Arc<Shared>,
}

struct Shared {
    fd: AsyncFd<OwnedFd>,
    queue: Mutex<Queue>,
}

impl fmt::Debug for SupervisorSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SupervisorSocket").field("fd", self.shared.fd.get_ref()).finish_non_exhaustive()
    }
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sender").field("queued_bytes", &self.queued_bytes()).finish_non_exhaustive()
    }
}

impl SupervisorSocket {
    /// Takes the supervisor's end of [`crate::socket::pair`]. Call it inside the runtime that will await it.
    ///
    /// # Errors
    /// When the descriptor cannot be watched.
    pub fn new(fd: OwnedFd) -> io::Result<Self> {
        let shared = Arc::new(Shared { fd: watch::socket(fd, Interest::READABLE)?, queue: Mutex::default() });
        Ok(Self { shared, assembler: Assembler::new(BOUNDS) })
    }

    /// The way out.
    pub fn sender(&self) -> Sender {
        Sender { shared: Arc::clone(&self.shared) }
    }

    /// The next message. Nothing is lost when the future is dropped before it is done.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the vault-manager has ended. Every other error is a violation of the protocol: kill it.
    pub async fn recv(&mut self) -> Result<FromManager, SocketError> {
        poll_fn(|cx| self.poll_recv(cx)).await
    }

    /// See [`SupervisorSocket::recv`].
    ///
    /// # Errors
    /// The same.
    pub fn poll_recv(&mut self, cx: &mut Context<'_>) -> Poll<Result<FromManager, SocketError>> {
        if let Err(error) = self.shared.poll_flush(cx) {
            // What the vault-manager said before it ended still counts.
            if error != SocketError::Closed {
                return Poll::Ready(Err(error));
            }
        }
        loop {
            let mut guard = ready!(self.shared.fd.poll_read_ready(cx)).map_err(|_| SocketError::Closed)?;
            let received = INCOMING.with_borrow_mut(|buffer| {
                let length = receive(self.shared.fd.as_fd(), buffer, MsgFlags::MSG_DONTWAIT)?;
                Ok(parse(buffer, length))
            });
            let (header, payload) = match received {
                Ok(record) => record?,
                Err(Errno::EAGAIN) => {
                    guard.clear_ready();
                    continue;
                }
                Err(errno) => return Poll::Ready(Err(errno.into())),
            };
            match self.assembler.take(header, payload)? {
                Some((_, body)) => return Poll::Ready(Ok(codec::decode(&body, FROM_MANAGER_BYTES)?)),
                // Only a message's last record may be short: crumbs would cost this process a call for each byte.
                None if header.payload_len < RECORD_BYTES => return Poll::Ready(Err(SocketError::Datagram)),
                None => {}
            }
        }
    }
}

impl Sender {
    /// Queues a message and sends what the kernel takes now.
    ///
    /// # Errors
    /// [`SocketError::QueueFull`]: not taken; for a request, answer `busy`; for an answer, the vault-manager asked again before it
    /// read, which it never should: kill it. [`SocketError::Closed`]: the vault-manager has ended; its last words and its end are
    /// told by [`SupervisorSocket::recv`].
    pub fn try_send(&self, message: &ToManager) -> Result<(), SocketError> {
        let mut queue = self.shared.queue();
        queue.push(message)?;
        if queue.flush(self.shared.fd.as_fd())? {
            return Ok(());
        }
        // Somebody has to wait for room in the kernel, and that is who waits for messages.
        if let Some(waker) = queue.flusher.take() {
            waker.wake();
        }
        Ok(())
    }

    /// Bytes of messages that the kernel has not taken yet.
    pub fn queued_bytes(&self) -> usize {
        let queue = self.shared.queue();
        queue.lanes.iter().map(|lane| lane.bytes).sum()
    }
}

impl Shared {
    fn watch_room(&self) -> Result<AsyncFd<OwnedFd>, SocketError> {
        let socket = self.fd.get_ref().try_clone().and_then(|socket| watch::socket(socket, Interest::WRITABLE));
        // No descriptor is left, or no memory: this vault's, not everybody's, misfortune.
        socket.map_err(|_| SocketError::System(Errno::EMFILE))
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Writes what waits, or arranges to be woken when there is room, or when there is something to write.
    fn poll_flush(&self, cx: &mut Context<'_>) -> Result<(), SocketError> {
        let mut queue = self.queue();
        while !queue.is_empty() {
            // Watched for room only while somebody waits for it.
            let room = match queue.room.take() {
                Some(room) => room,
                None => self.watch_room()?,
            };
            match room.poll_write_ready(cx) {
                Poll::Ready(Ok(mut guard)) => {
                    // Readiness is what was last heard; only the kernel's refusal unsays it.
                    if !queue.flush(self.fd.as_fd())? {
                        guard.clear_ready();
                        drop(guard);
                        queue.room = Some(room);
                    }
                }
                Poll::Ready(Err(_)) => return Err(SocketError::Closed),
                Poll::Pending => {
                    queue.room = Some(room);
                    return Ok(());
                }
            }
        }
        if !queue.flusher.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            queue.flusher = Some(cx.waker().clone());
        }
        Ok(())
    }
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
    flusher: Option<Waker>,
    /// Tells when the kernel has room again.
    room: Option<AsyncFd<OwnedFd>>,
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
            self.bytes.zeroize();
        }
        *self = Self::default();
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        if self.secret {
            self.bytes.zeroize();
        }
    }
}

/// The message length in front of a message's first record.
const LENGTH_BYTES: usize = 4;

const REQUESTS: usize = 0;
const ANSWERS: usize = 1;

impl Queue {
    fn push(&mut self, message: &ToManager) -> Result<(), SocketError> {
        let (lane, limit, secret) = match message {
            ToManager::Start { .. } | ToManager::Request { .. } => (REQUESTS, REQUEST_LANE_BYTES, false),
            // A few bytes, sent once, and not to be refused.
            ToManager::Stop => (REQUESTS, usize::MAX, false),
            ToManager::Opened { .. } => (ANSWERS, ANSWER_LANE_BYTES, true),
            ToManager::OpenRefused(_) | ToManager::CommitResult(_) => (ANSWERS, ANSWER_LANE_BYTES, false),
        };
        let length = codec::encoded_len(message);
        if length > TO_MANAGER_BYTES {
            return Err(SocketError::TooLarge);
        }
        if self.lanes[lane].bytes + length > limit {
            return Err(SocketError::QueueFull);
        }
        // A secret's bytes are wiped when the last of them was cut off.
        let body =
            if secret { Bytes::from_owner(codec::encode_secret(message)) } else { Bytes::from(codec::encode(message)) };
        let stream = StreamId { number: self.streams, is_reply: false };
        self.streams += 1;
        let lane = &mut self.lanes[lane];
        lane.bytes += length;
        lane.messages.push_back(Message { outgoing: Outgoing::new(stream, body), left: length, begun: false, secret });
        Ok(())
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

    /// Writes until nothing is left (true) or the kernel takes no more (false).
    fn flush(&mut self, fd: BorrowedFd<'_>) -> Result<bool, SocketError> {
        loop {
            if self.record.bytes.is_empty() && !self.cut() {
                return Ok(true);
            }
            match transmit(fd, &self.record.bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(()) => self.record.clear(),
                Err(Errno::EAGAIN) => return Ok(false),
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}
