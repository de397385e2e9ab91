//! The answering end of a requests connection, driven by the task that owns it.
//!
//! On the hot path each hand-over between tasks costs more than the work that is handed over: here there is none. Records, windows
//! and limits are those of [`crate::Connection`], which serves everything else.

use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use casemate_protocol::record::StreamId;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use crate::connection::{CloseReason, Limits, NOTICE};
use crate::port::Port;
use crate::queue::Queue;

/// Names connections, so that an answer never goes to another one than its call came from.
static CONNECTIONS: AtomicU64 = AtomicU64::new(0);

/// The other side's call, which has one answer: it is used up by it.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    connection: u64,
    number: u64,
    bytes: usize,
}

/// The end at which calls come in.
#[derive(Debug)]
pub struct Answers<S> {
    port: Port<S>,
    limits: Limits,
    queue: Queue,
    connection: u64,
    served: usize,
    served_bytes: usize,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Answers<S> {
    /// Takes over a stream after its hello.
    pub fn new(stream: S, limits: Limits) -> Self {
        Self {
            port: Port::new(stream, &limits),
            limits,
            queue: Queue::new(limits.window_requests, limits.unfinished_bytes()),
            connection: CONNECTIONS.fetch_add(1, Ordering::Relaxed),
            served: 0,
            served_bytes: 0,
        }
    }

    /// Gives every call that has come to `take`; pending when there is none, and then whoever polls is woken by the next.
    ///
    /// # Errors
    /// The end of the connection, or the rule that the other side broke: drop it then.
    pub fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(Ticket, &[u8]),
    ) -> Poll<Result<(), CloseReason>> {
        let Self { port, limits, connection, served, served_bytes, .. } = self;
        port.poll_receive(cx, |stream, body| {
            if stream.is_reply {
                return Err(CloseReason::StrayReply);
            }
            // Nothing on this connection goes without an answer, so a notice is nothing that this version knows.
            if stream.number & NOTICE != 0 {
                return Ok(());
            }
            if *served >= limits.window_requests || *served_bytes + body.len() > limits.unfinished_bytes() {
                return Err(CloseReason::Window);
            }
            *served += 1;
            *served_bytes += body.len();
            take(Ticket { connection: *connection, number: stream.number, bytes: body.len() }, body);
            Ok(())
        })
    }

    /// Answers a call; what belongs to a former connection is dropped. An answer over the connection's limit would end it for
    /// everybody, so the caller is told that there is none: the empty message, which no message of ours is.
    pub fn answer(&mut self, ticket: &Ticket, body: Bytes) {
        if ticket.connection != self.connection {
            return;
        }
        self.served -= 1;
        self.served_bytes -= ticket.bytes;
        let body = if body.len() <= self.limits.message_bytes { body } else { Bytes::new() };
        self.queue.push(StreamId { number: ticket.number, is_reply: true }, body);
    }

    /// Whether so many answers wait that no call should be received: an honest peer counts its calls and never gets there.
    ///
    /// Attack stopped: a peer that calls and does not read. What it is answered counts for no window any more.
    pub fn is_full(&self) -> bool {
        self.queue.len() >= self.limits.window_requests || self.queue.bytes() > self.limits.window_bytes
    }

    /// Writes the answers that wait, as far as the other side takes them; then whoever polls is woken when it takes more.
    ///
    /// # Errors
    /// Why the connection has ended: drop it then.
    pub fn poll_flush(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        self.port.poll_write(cx, |burst| self.queue.fill(burst))
    }

    /// When [`Answers::poll_flush`] is to be called again, if nothing else happens.
    pub fn stalls_at(&self) -> Option<Instant> {
        self.port.stalls_at()
    }
}
