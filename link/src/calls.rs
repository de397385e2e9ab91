//! The calling end of a requests connection: calls that carry what their answer is for, and one task that drives them all.
//!
//! A call has no task, no channel and no timer of its own; what is to be done with its answer travels with it (`T`) and comes back
//! with exactly one end, from [`Exchange::next`].

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use bytes::Bytes;
use casemate_protocol::record::StreamId;
use futures_util::task::AtomicWaker;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, Sleep};

use crate::busy_poll::BusyPoll;
use crate::connection::{CallError, CloseReason, Limits, NOTICE};
use crate::port::Port;
use crate::queue::Queue;

/// How a call ended, and what it was for.
pub type Ended<T> = (T, Result<Bytes, CallError>);

/// Makes calls, from any thread; cheap to clone.
pub struct Calls<T>(Arc<Shared<T>>);

impl<T> Clone for Calls<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Debug for Calls<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Calls").field("in_flight", &self.in_flight()).finish()
    }
}

struct Shared<T> {
    limits: Limits,
    state: Mutex<State<T>>,
    /// Whoever drives the exchange.
    driver: AtomicWaker,
}

struct State<T> {
    closed: Option<CloseReason>,
    next: u64,
    /// Calls without an answer, also those that nobody waits for any more: the other side still works on them, and a window that
    /// forgot them would let more in flight than it says.
    waiting: HashMap<u64, Waiting<T>>,
    waiting_bytes: usize,
    deadlines: BTreeSet<(Instant, u64)>,
    queue: Queue,
}

struct Waiting<T> {
    until: Instant,
    bytes: usize,
    /// None once its deadline has passed.
    waiter: Option<T>,
}

impl<T> Shared<T> {
    fn state(&self) -> MutexGuard<'_, State<T>> {
        // No step leaves the state half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Calls<T> {
    /// Puts a call on its way. Its end comes from [`Exchange::next`], at `until` at the latest.
    ///
    /// # Errors
    /// [`CallError::Busy`], [`CallError::TooLarge`] or [`CallError::Closed`], and the waiter back; nothing was sent then.
    pub fn begin(&self, body: Bytes, until: Instant, waiter: T) -> Result<(), (CallError, T)> {
        let (limits, bytes) = (&self.0.limits, body.len());
        if bytes > limits.message_bytes {
            return Err((CallError::TooLarge, waiter));
        }
        {
            let mut state = self.0.state();
            if state.closed.is_some() {
                return Err((CallError::Closed, waiter));
            }
            if state.waiting.len() >= limits.window_requests || state.waiting_bytes + bytes > limits.unfinished_bytes()
            {
                return Err((CallError::Busy, waiter));
            }
            let number = state.next;
            state.next += 1;
            state.waiting_bytes += bytes;
            state.waiting.insert(number, Waiting { until, bytes, waiter: Some(waiter) });
            state.deadlines.insert((until, number));
            state.queue.push(StreamId { number, is_reply: false }, body);
        }
        self.0.driver.wake();
        Ok(())
    }

    /// Calls without an answer yet.
    pub fn in_flight(&self) -> usize {
        self.0.state().waiting.len()
    }

    /// Ends the connection now. Every call in flight ends with [`CallError::Closed`].
    pub fn close(&self) {
        self.0.state().closed.get_or_insert(CloseReason::Local);
        self.0.driver.wake();
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.0.state().closed.is_some()
    }

    /// Whether both belong to the same connection.
    pub fn same_connection(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// The connection behind [`Calls`]. Nothing moves unless somebody awaits [`Exchange::next`]; when it is dropped, the connection ends.
pub struct Exchange<S, T> {
    port: Port<S>,
    shared: Arc<Shared<T>>,
    timer: Pin<Box<Sleep>>,
    ended: Vec<Ended<T>>,
    /// For the answer to the one call in flight.
    answer: BusyPoll,
}

impl<S, T> fmt::Debug for Exchange<S, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exchange").finish_non_exhaustive()
    }
}

impl<S, T> Drop for Exchange<S, T> {
    fn drop(&mut self) {
        self.shared.state().closed.get_or_insert(CloseReason::Local);
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin, T> Exchange<S, T> {
    /// Takes over a stream after its hello. Must be called inside a tokio runtime.
    pub fn new(stream: S, limits: Limits) -> (Calls<T>, Self) {
        let state = State {
            closed: None,
            next: 0,
            waiting: HashMap::new(),
            waiting_bytes: 0,
            deadlines: BTreeSet::new(),
            queue: Queue::new(limits.window_requests, limits.unfinished_bytes()),
        };
        let shared = Arc::new(Shared { limits, state: Mutex::new(state), driver: AtomicWaker::new() });
        let port = Port::new(stream, &limits);
        let timer = Box::pin(tokio::time::sleep_until(Instant::now()));
        (Calls(Arc::clone(&shared)), Self { port, shared, timer, ended: Vec::new(), answer: BusyPoll::default() })
    }

    /// Waits until calls have ended, and gives them all.
    ///
    /// # Errors
    /// Why the connection has ended, once every call was given.
    pub async fn next(&mut self) -> Result<Vec<Ended<T>>, CloseReason> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Vec<Ended<T>>, CloseReason>> {
        self.shared.driver.register(cx.waker());
        if let Err(reason) = self.work(cx) {
            self.close(reason);
        }
        if !self.ended.is_empty() {
            self.answer.came(std::time::Instant::now());
            return Poll::Ready(Ok(std::mem::take(&mut self.ended)));
        }
        let (closed, in_flight) = {
            let state = self.shared.state();
            (state.closed, state.waiting.len())
        };
        if let Some(reason) = closed {
            return Poll::Ready(Err(reason));
        }
        let now = std::time::Instant::now();
        match in_flight {
            0 => self.answer.came(now),
            1 if self.answer.waits(now) => self.answer.look_again(now, cx),
            1 => {}
            _ => self.answer.crowded(now),
        }
        Poll::Pending
    }

    /// Reads, ends what is overdue, writes, and sets the timer; afterwards a waker is registered with all that can happen next.
    fn work(&mut self, cx: &mut Context<'_>) -> Result<(), CloseReason> {
        let (port, shared, ended) = (&mut self.port, &self.shared, &mut self.ended);
        if let Some(reason) = shared.state().closed {
            return Err(reason);
        }
        while let Poll::Ready(taken) = port.poll_receive(cx, |stream, body| {
            if !stream.is_reply {
                // Nothing here is told without being asked: a notice is nothing that this version knows.
                return if stream.number & NOTICE == 0 { Err(CloseReason::StrayCall) } else { Ok(()) };
            }
            let mut state = shared.state();
            let waiting = state.waiting.remove(&stream.number).ok_or(CloseReason::StrayReply)?;
            state.waiting_bytes -= waiting.bytes;
            state.deadlines.remove(&(waiting.until, stream.number));
            drop(state);
            // The empty message is no message of ours: the other side let go of the call.
            let answer = if body.is_empty() { Err(CallError::Unanswered) } else { Ok(Bytes::copy_from_slice(body)) };
            // Nobody may wait any more: late answers are dropped here.
            ended.extend(waiting.waiter.map(|waiter| (waiter, answer)));
            Ok(())
        }) {
            taken?;
        }
        // Deadlines come in nearly ascending order: a timer that is set early enough is left as it is, and asked again when it fires.
        loop {
            let first = shared.end_overdue(ended).into_iter().chain(port.stalls_at()).min();
            port.poll_write(cx, |burst| shared.state().queue.fill(burst))?;
            let Some(first) = first.into_iter().chain(port.stalls_at()).min() else { return Ok(()) };
            if self.timer.deadline() > first || self.timer.is_elapsed() {
                self.timer.as_mut().reset(first);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return Ok(());
            }
        }
    }

    fn close(&mut self, reason: CloseReason) {
        let mut state = self.shared.state();
        state.closed = Some(reason);
        state.deadlines.clear();
        state.waiting_bytes = 0;
        let waiting = std::mem::take(&mut state.waiting);
        drop(state);
        self.ended.extend(waiting.into_values().filter_map(|waiting| Some((waiting.waiter?, Err(CallError::Closed)))));
    }
}

impl<T> Shared<T> {
    /// Ends the calls whose deadline has passed; returns the next deadline.
    fn end_overdue(&self, ended: &mut Vec<Ended<T>>) -> Option<Instant> {
        let mut state = self.state();
        let first = state.deadlines.first()?.0;
        let now = Instant::now();
        if first > now {
            return Some(first);
        }
        while let Some((until, number)) = state.deadlines.first().copied().filter(|(until, _)| *until <= now) {
            state.deadlines.remove(&(until, number));
            let waiter = state.waiting.get_mut(&number).and_then(|waiting| waiting.waiter.take());
            ended.extend(waiter.map(|waiter| (waiter, Err(CallError::Deadline))));
        }
        state.deadlines.first().map(|(until, _)| *until)
    }
}
