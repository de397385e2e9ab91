//! One connection: calls with exactly one answer each, and notices without.
//!
//! Two tasks own the two directions, so that reading never waits for writing. What they share is one small table behind a
//! mutex that is never held across an await.

mod tasks;

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use casemate_protocol::limits;
use casemate_protocol::link::{BLOB_BYTES, CONTROL_BYTES, Class, REQUEST_BYTES};
use casemate_protocol::record::{RecordError, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, mpsc, oneshot, watch};

use crate::queue::Queue;

/// Stream numbers with this bit are notices; their streams have no answer.
pub(crate) const NOTICE: u64 = 1 << 63;
/// Notices that wait to be written, or to be taken by this side's user. Beyond, new ones are refused or dropped.
const NOTICES: usize = 256;

/// What may be in flight on a connection. Both ends must have the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one message.
    pub message_bytes: usize,
    /// Unanswered calls of each side.
    pub window_requests: usize,
    /// Bytes of unanswered calls of each side.
    pub window_bytes: usize,
}

impl Limits {
    /// The limits of a class of connections.
    pub const fn of(class: Class) -> Self {
        let message_bytes = match class {
            Class::Control | Class::Relay => CONTROL_BYTES,
            Class::Requests => REQUEST_BYTES,
            Class::Blobs => BLOB_BYTES,
        };
        Self { message_bytes, window_requests: limits::WINDOW_REQUESTS, window_bytes: limits::WINDOW_BYTES }
    }

    /// Bytes of unfinished messages, of both kinds together: never less than one message.
    pub(crate) fn unfinished_bytes(&self) -> usize {
        self.window_bytes.max(self.message_bytes)
    }
}

/// Why a call has no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// The window is full; nothing was sent.
    #[error("as much is in flight on the link as may be; try again later")]
    Busy,
    /// The message is over the connection's limit; nothing was sent.
    #[error("the message is over the limit of its connection; send less")]
    TooLarge,
    /// The connection ended; whether the other side saw the call is unknown.
    #[error("the link is closed; it is dialled again by the enclave")]
    Closed,
    /// The deadline came first. The other side goes on; its answer will be dropped.
    #[error("the other side of the link did not answer by the deadline")]
    Deadline,
    /// The other side let go of the call without an answer: a fault of its own.
    #[error("the other side of the link gave up the call; report this as a fault")]
    Unanswered,
}

/// Why a connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CloseReason {
    /// The other side closed.
    #[error("the other side closed")]
    Ended,
    /// This side closed.
    #[error("closed by this side")]
    Local,
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(io::ErrorKind),
    /// The other side took nothing for 30 s.
    #[error("the other side stopped reading")]
    Stalled,
    /// The other side broke the rules of records.
    #[error("the other side broke the protocol: {0}")]
    Record(#[from] RecordError),
    /// An answer to no call of ours.
    #[error("the other side answered a call that was not made")]
    StrayReply,
    /// A call where this side makes them.
    #[error("the other side made a call where it only answers")]
    StrayCall,
    /// More calls unanswered than the window allows.
    #[error("the other side went beyond its window")]
    Window,
}

impl CloseReason {
    /// Whether the other side broke the rules, rather than ended or failed.
    pub const fn is_violation(self) -> bool {
        match self {
            Self::Record(_) | Self::StrayReply | Self::StrayCall | Self::Window => true,
            Self::Ended | Self::Local | Self::Io(_) | Self::Stalled => false,
        }
    }
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    /// Makes calls to the other side.
    pub caller: Caller,
    /// The other side's calls and notices. Dropping it closes the connection.
    pub incoming: mpsc::Receiver<Incoming>,
    /// Tells when the connection has ended.
    pub closed: Closed,
}

/// Something that the other side wants.
#[derive(Debug)]
pub enum Incoming {
    /// A call; it must be answered.
    Call {
        /// The other side's number for it, for logs.
        number: u64,
        /// The message.
        body: Bytes,
        /// Answers it.
        reply: Replier,
    },
    /// A message that wants no answer.
    Notice {
        /// The message.
        body: Bytes,
    },
}

impl Connection {
    /// Takes over a stream after its hello. Must be called inside a tokio runtime, of either kind.
    pub fn spawn<S>(stream: S, limits: Limits) -> Self
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let (reader, writer) = tokio::io::split(stream);
        let (incoming_sender, incoming) = mpsc::channel(limits.window_requests + NOTICES);
        let (closed, closed_receiver) = watch::channel(None);
        let shared = Arc::new(Shared {
            limits,
            state: Mutex::new(State {
                is_closed: false,
                next_call: 0,
                next_notice: NOTICE,
                pending: HashMap::new(),
                pending_bytes: 0,
                served: 0,
                served_bytes: 0,
                queue: Queue::new(limits.window_requests, limits.unfinished_bytes()),
                writing: 0,
            }),
            wake: Notify::new(),
            written: Notify::new(),
            closed,
        });
        tokio::spawn(tasks::read(reader, Arc::clone(&shared), incoming_sender));
        tokio::spawn(tasks::write(writer, Arc::clone(&shared)));
        Self { caller: Caller(shared), incoming, closed: Closed(closed_receiver) }
    }
}

#[derive(Debug)]
struct Shared {
    limits: Limits,
    state: Mutex<State>,
    /// There is something to write.
    wake: Notify,
    /// A burst has been written, or never will be.
    written: Notify,
    closed: watch::Sender<Option<CloseReason>>,
}

#[derive(Debug)]
struct State {
    is_closed: bool,
    next_call: u64,
    next_notice: u64,
    /// Our calls that have no answer yet, also those that nobody waits for any more: the other side still works on them, and a
    /// window that forgot them would let more in flight than it says.
    pending: HashMap<u64, Pending>,
    pending_bytes: usize,
    /// The other side's calls that have no answer yet.
    served: usize,
    served_bytes: usize,
    queue: Queue,
    /// Bytes handed to the socket and not taken by it yet.
    writing: usize,
}

#[derive(Debug)]
struct Pending {
    answer: oneshot::Sender<Bytes>,
    bytes: usize,
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        // A panic aborts the process in every binary of ours; in a test the state is still whole, because no step of it is
        // left half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self, reason: CloseReason) {
        let pending = {
            let mut state = self.state();
            if state.is_closed {
                return;
            }
            state.is_closed = true;
            state.queue = Queue::new(self.limits.window_requests, self.limits.unfinished_bytes());
            state.pending_bytes = 0;
            std::mem::take(&mut state.pending)
        };
        // Each waiting call ends here, by its sender being dropped.
        drop(pending);
        self.closed.send_replace(Some(reason));
        self.wake.notify_one();
        self.written.notify_waiters();
    }
}

/// Makes calls; cheap to clone.
#[derive(Debug, Clone)]
pub struct Caller(Arc<Shared>);

impl Caller {
    /// Makes a call and waits for its answer.
    ///
    /// # Errors
    /// See [`CallError`]; each call has exactly one end.
    pub async fn call(&self, body: Bytes, deadline: Duration) -> Result<Bytes, CallError> {
        self.begin(body)?.wait(deadline).await
    }

    /// Puts a call on its way without waiting; calls begun one after the other are sent in that order (within one size class:
    /// those of one record overtake larger ones).
    ///
    /// # Errors
    /// [`CallError::Busy`], [`CallError::TooLarge`] or [`CallError::Closed`]; nothing was sent then.
    pub fn begin(&self, body: Bytes) -> Result<InFlight, CallError> {
        let limits = &self.0.limits;
        if body.len() > limits.message_bytes {
            return Err(CallError::TooLarge);
        }
        let (answer, answered) = oneshot::channel();
        {
            let mut state = self.0.state();
            if state.is_closed {
                return Err(CallError::Closed);
            }
            let bytes = body.len();
            if state.pending.len() >= limits.window_requests || state.pending_bytes + bytes > limits.unfinished_bytes()
            {
                return Err(CallError::Busy);
            }
            let number = state.next_call;
            state.next_call += 1;
            state.pending_bytes += bytes;
            state.pending.insert(number, Pending { answer, bytes });
            state.queue.push(StreamId { number, is_reply: false }, body);
        }
        self.0.wake.notify_one();
        Ok(InFlight(answered))
    }

    /// Sends a message that wants no answer. It is not told whether it arrived.
    ///
    /// # Errors
    /// [`CallError::Busy`] when 256 wait already; [`CallError::TooLarge`] or [`CallError::Closed`].
    pub fn notify(&self, body: Bytes) -> Result<(), CallError> {
        if body.len() > self.0.limits.message_bytes {
            return Err(CallError::TooLarge);
        }
        {
            let mut state = self.0.state();
            if state.is_closed {
                return Err(CallError::Closed);
            }
            if state.queue.notices() >= NOTICES || state.queue.bytes() + body.len() > self.0.limits.unfinished_bytes() {
                return Err(CallError::Busy);
            }
            let number = state.next_notice;
            state.next_notice += 1;
            state.queue.push_notice(StreamId { number, is_reply: false }, body);
        }
        self.0.wake.notify_one();
        Ok(())
    }

    /// Calls without an answer yet, and their bytes.
    pub fn in_flight(&self) -> (usize, usize) {
        let state = self.0.state();
        (state.pending.len(), state.pending_bytes)
    }

    /// Waits until at most `bytes` wait to be written, or the connection has ended. Who answers with much waits here before it
    /// makes the next answer: a peer that asks faster than it reads then waits for itself, instead of filling our memory.
    pub async fn written_down_to(&self, bytes: usize) {
        loop {
            let mut written = pin!(self.0.written.notified());
            written.as_mut().enable();
            {
                let state = self.0.state();
                if state.is_closed || state.queue.bytes() + state.writing <= bytes {
                    return;
                }
            }
            written.await;
        }
    }

    /// Ends the connection now. Every call in flight ends with [`CallError::Closed`]; what waits to be written is dropped
    /// (see [`Caller::written_down_to`]).
    pub fn close(&self) {
        self.0.close(CloseReason::Local);
    }

    /// Whether both belong to the same connection.
    pub fn same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// A call on its way. Dropping it forgets the answer, not the call.
#[derive(Debug)]
pub struct InFlight(oneshot::Receiver<Bytes>);

impl InFlight {
    /// Waits for the answer.
    ///
    /// # Errors
    /// [`CallError::Closed`], [`CallError::Deadline`] or [`CallError::Unanswered`].
    pub async fn wait(self, deadline: Duration) -> Result<Bytes, CallError> {
        match tokio::time::timeout(deadline, self.0).await {
            // No message of ours is empty: see `Replier`.
            Ok(Ok(answer)) if answer.is_empty() => Err(CallError::Unanswered),
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(CallError::Closed),
            Err(_) => Err(CallError::Deadline),
        }
    }
}

/// Answers one call of the other side. Dropped without an answer (a fault, or a task that ended early), it sends the empty
/// message, which no message of ours is: the caller gets its one end, [`CallError::Unanswered`], and nobody else is disturbed.
pub struct Replier {
    shared: Arc<Shared>,
    number: u64,
    bytes: usize,
    is_answered: bool,
}

impl fmt::Debug for Replier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Replier").field("number", &self.number).finish_non_exhaustive()
    }
}

impl Replier {
    /// Answers. On a closed connection nothing happens. An answer over the connection's limit would end the connection for
    /// everybody, so the caller is told [`CallError::Unanswered`] instead.
    pub fn reply(mut self, body: Bytes) {
        let fits = body.len() <= self.shared.limits.message_bytes;
        self.send(if fits { body } else { Bytes::new() });
    }

    fn send(&mut self, body: Bytes) {
        self.is_answered = true;
        {
            let mut state = self.shared.state();
            state.served -= 1;
            state.served_bytes -= self.bytes;
            if state.is_closed {
                return;
            }
            state.queue.push(StreamId { number: self.number, is_reply: true }, body);
        }
        self.shared.wake.notify_one();
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if !self.is_answered {
            self.send(Bytes::new());
        }
    }
}

/// Tells when a connection has ended.
#[derive(Debug, Clone)]
pub struct Closed(watch::Receiver<Option<CloseReason>>);

impl Closed {
    /// Waits for the end.
    pub async fn wait(&mut self) -> CloseReason {
        // The sender lives as long as the connection's tasks; they end only after a reason was set.
        self.0.wait_for(Option::is_some).await.ok().and_then(|reason| *reason).unwrap_or(CloseReason::Local)
    }

    /// The reason, if it has ended.
    pub fn reason(&self) -> Option<CloseReason> {
        *self.0.borrow()
    }
}
