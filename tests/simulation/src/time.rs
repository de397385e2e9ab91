//! Simulated time: it stands still while anybody does anything, and jumps to the next event when nobody does.

use std::collections::BTreeMap;
use std::collections::btree_map::OccupiedEntry;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use casemate_client::Outside;
use casemate_enclave::outside::{BoxFuture, Clock};

use crate::dice::Dice;
use crate::event::Event;

/// When every schedule begins, Unix seconds: within every development certificate's time.
pub const BEGINNING_UNIX: u64 = 1_800_000_000;

type At = (Duration, u64);

/// What is due.
#[derive(Debug)]
pub enum Due {
    /// Somebody who sleeps wakes.
    Wake(Arc<Mutex<Option<Waker>>>),
    /// An event.
    Event(Event),
}

struct Inner {
    now: Duration,
    order: u64,
    coming: BTreeMap<At, Due>,
}

/// The one time of a schedule. Clones share it.
#[derive(Clone)]
pub struct Time(Arc<Mutex<Inner>>);

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({:?})", self.now())
    }
}

impl Default for Time {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(Inner { now: Duration::ZERO, order: 0, coming: BTreeMap::new() })))
    }
}

impl Time {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Now.
    pub fn now(&self) -> Duration {
        self.inner().now
    }

    /// Lets `event` happen after a time. What is due at one instant happens in the order in which it was said.
    pub fn after(&self, after: Duration, event: Event) {
        let at = self.now() + after;
        self.put(at, Due::Event(event));
    }

    /// When the next thing is due.
    pub fn next(&self) -> Option<Duration> {
        self.inner().coming.first_key_value().map(|((at, _), _)| *at)
    }

    /// Moves to `to` and takes the first thing that is due by then.
    pub fn advance(&self, to: Duration) -> Option<Due> {
        let mut inner = self.inner();
        inner.now = inner.now.max(to);
        let now = inner.now;
        inner.coming.first_entry().filter(|entry| entry.key().0 <= now).map(OccupiedEntry::remove)
    }

    fn put(&self, at: Duration, due: Due) -> At {
        let mut inner = self.inner();
        inner.order += 1;
        let key = (at, inner.order);
        inner.coming.insert(key, due);
        key
    }

    /// A future that ends after `duration`.
    pub fn wait(&self, duration: Duration) -> Sleep {
        Sleep { time: self.clone(), until: self.now() + duration, set: None, waker: Arc::default() }
    }
}

impl Clock for Time {
    fn monotonic(&self) -> Duration {
        self.now()
    }

    fn unix_seconds(&self) -> u64 {
        BEGINNING_UNIX + self.now().as_secs()
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(self.wait(duration))
    }
}

/// A future that ends when its time has come. Dropped, it leaves nothing behind.
#[derive(Debug)]
pub struct Sleep {
    time: Time,
    until: Duration,
    set: Option<At>,
    waker: Arc<Mutex<Option<Waker>>>,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.until {
            return Poll::Ready(());
        }
        *self.waker.lock().unwrap_or_else(PoisonError::into_inner) = Some(context.waker().clone());
        if self.set.is_none() {
            self.set = Some(self.time.put(self.until, Due::Wake(Arc::clone(&self.waker))));
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        if let Some(at) = self.set {
            self.time.inner().coming.remove(&at);
        }
    }
}

/// What a device's program takes from outside.
#[derive(Debug)]
pub struct Surroundings {
    time: Time,
    dice: Mutex<Dice>,
}

impl Surroundings {
    /// Simulated time, and chance from `dice`.
    pub const fn new(time: Time, dice: Dice) -> Self {
        Self { time, dice: Mutex::new(dice) }
    }
}

impl Outside for Surroundings {
    fn unix_seconds(&self) -> u64 {
        Clock::unix_seconds(&self.time)
    }

    fn monotonic(&self) -> Duration {
        self.time.now()
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.time.wait(duration))
    }

    fn jitter(&self) -> u64 {
        self.dice.lock().unwrap_or_else(PoisonError::into_inner).bits()
    }
}
