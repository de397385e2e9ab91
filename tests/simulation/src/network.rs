//! The network between devices and nodes: a hostile or unlucky one. It loses, delays, reorders and doubles frames, and brings old ones
//! again; it cannot make any.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use casemate_client::{Transport, TransportError};
use casemate_enclave::outside::within;
use casemate_protocol::id::VaultId;
use casemate_protocol::subject::Subjects;

use crate::dice::Dice;
use crate::event::{CallId, Event};
use crate::time::Time;
use crate::weather::Weather;

/// Frames that the network remembers, to bring them again.
const REMEMBERED: usize = 24;

#[derive(Default)]
struct Waiting {
    answer: Option<Bytes>,
    waker: Option<Waker>,
}

struct Inner {
    dice: Dice,
    calls: BTreeMap<CallId, Waiting>,
    next: CallId,
    old: VecDeque<(VaultId, Vec<u8>)>,
}

/// The network. Clones share it.
#[derive(Clone)]
pub struct Network {
    inner: Arc<Mutex<Inner>>,
    time: Time,
    weather: Weather,
}

impl fmt::Debug for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Network").field("calls", &self.inner().calls.len()).finish_non_exhaustive()
    }
}

impl Network {
    /// A network on which nothing is under way.
    pub fn new(time: Time, weather: Weather, dice: Dice) -> Self {
        let inner = Inner { dice, calls: BTreeMap::new(), next: 0, old: VecDeque::new() };
        Self { inner: Arc::new(Mutex::new(inner)), time, weather }
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An answer has come. The first one counts.
    pub fn answer(&self, call: CallId, frame: Vec<u8>) {
        let mut inner = self.inner();
        let Some(waiting) = inner.calls.get_mut(&call) else { return };
        if waiting.answer.is_none() {
            waiting.answer = Some(frame.into());
            if let Some(waker) = waiting.waker.take() {
                waker.wake();
            }
        }
    }

    /// Sends a frame off, once or twice or not at all.
    fn send(&self, home: usize, vault: VaultId, frame: &[u8]) -> CallId {
        let weather = &self.weather;
        let mut inner = self.inner();
        let inner = &mut *inner;
        inner.next += 1;
        let call = inner.next;
        inner.calls.insert(call, Waiting::default());
        let dice = &mut inner.dice;
        // Nodes are one queue group; most frames of a device go the same way.
        let node = |dice: &mut Dice| match weather.nodes {
            1 => 0,
            _ if dice.chance(850) => home,
            _ => 1 - home,
        };
        let quick = (Duration::from_micros(50), Duration::from_millis(2));
        let slow = (Duration::from_millis(5), Duration::from_secs(6));
        if !weather.strikes(dice, weather.loses) {
            let (least, most) = if weather.strikes(dice, weather.delays) { slow } else { quick };
            let (after, node) = (dice.between(least, most), node(dice));
            self.time.after(after, Event::Frame { call, node, vault, frame: frame.to_vec() });
        }
        if weather.strikes(dice, weather.doubles) {
            // The same frame again: soon, so that its answer may be taken for the first one's, or late.
            let (least, most) = if dice.chance(600) { quick } else { slow };
            let (after, node) = (dice.between(least, most), node(dice));
            self.time.after(after, Event::Frame { call, node, vault, frame: frame.to_vec() });
        }
        if weather.strikes(dice, weather.doubles) && !inner.old.is_empty() {
            let at = usize::try_from(dice.roll(inner.old.len() as u64)).expect("few are remembered");
            let (vault, frame) = inner.old[at].clone();
            let (after, node) = (dice.between(quick.0, slow.1), node(dice));
            self.time.after(after, Event::Frame { call: 0, node, vault, frame });
        }
        if inner.old.len() == REMEMBERED {
            inner.old.pop_front();
        }
        inner.old.push_back((vault, frame.to_vec()));
        call
    }
}

/// One program's way into the network.
#[derive(Debug, Clone)]
pub struct Wire {
    /// The network.
    pub network: Network,
    /// The node that most of its frames reach.
    pub home: usize,
}

/// A call that is forgotten when nobody waits for it any more.
struct Call<'a>(&'a Network, CallId);

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.inner().calls.remove(&self.1);
    }
}

impl Transport for Wire {
    async fn request(&self, subject: String, payload: Bytes, time: Duration) -> Result<Bytes, TransportError> {
        let vault = Subjects::default().parse_vault(&subject).ok_or(TransportError::NoResponders)?;
        let call = Call(&self.network, self.network.send(self.home, vault, &payload));
        let answer = poll_fn(|context| {
            let mut inner = call.0.inner();
            let Some(waiting) = inner.calls.get_mut(&call.1) else { return Poll::Pending };
            waiting.waker = Some(context.waker().clone());
            waiting.answer.take().map_or(Poll::Pending, Poll::Ready)
        });
        within(&self.network.time, time, answer).await.ok_or(TransportError::TimedOut)
    }
}
