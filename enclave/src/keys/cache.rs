//! The cache of unsealed keys as a state machine: plain functions of (state, input, now), which say what to do and do nothing.
//!
//! A key is *confirmed* each time the key service unseals it: "it still authorises us". From then on
//!
//! ```text
//! 0 ─────────── 75–90 % of TTL ─────── TTL ─────────────────────── hard limit
//!   serves        serves, refreshed      serves only while the key   dropped: what is not
//!                 in the background      service throttles or fails  open stays shut
//! ```
//!
//! - Concurrent misses of one key make one call (*single flight*); the others wait for its end.
//! - A failed call is remembered with jittered exponential back-off; until that ends, callers get the failure at once.
//! - A *refusal* at refresh drops the key at once: the key service has said that this enclave is no longer authorised.
//! - Whatever is dropped, for whichever reason, is dropped as a value: the value's own type wipes itself.
//!
//! The host can make calls fail; it can neither put a key in here nor push one out by asking for others that do not exist,
//! because failures live in a room of their own.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::num::NonZeroUsize;
use std::time::Duration;

use lru::LruCache;

use crate::outside::KeyServiceError;

/// How long keys serve and how often the key service is asked. Durations are counted from the last confirmation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Keys held at most; the least recently used one leaves.
    pub capacity: NonZeroUsize,
    /// Age from which a key serves only while the key service throttles or fails.
    pub ttl: Duration,
    /// Age from which no key serves.
    pub hard_limit: Duration,
    /// The first back-off after a failure.
    pub backoff_base: Duration,
    /// The longest back-off.
    pub backoff_cap: Duration,
    /// Calls under way at most.
    pub max_flights: usize,
    /// Callers that may wait at the same time.
    pub max_waiters: usize,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            capacity: NonZeroUsize::new(256).expect("256 is not zero"),
            ttl: Duration::from_hours(1),
            hard_limit: Duration::from_hours(6),
            backoff_base: Duration::from_millis(500),
            backoff_cap: Duration::from_secs(30),
            max_flights: 512,
            max_waiters: 16_384,
        }
    }
}

impl Policy {
    /// For values that are no secrets and never change: kept until the room is needed.
    #[must_use]
    pub fn forever(self) -> Self {
        Self { ttl: Duration::MAX, hard_limit: Duration::MAX, ..self }
    }

    /// When a key confirmed at `now` is refreshed: between 75 % and 90 % of its time to live, spread so that keys that were
    /// loaded together after a restart are not refreshed together.
    fn refresh_at(&self, now: Duration, jitter: u32) -> Duration {
        now.saturating_add(self.ttl / 4 * 3).saturating_add(scaled(self.ttl / 20 * 3, jitter))
    }

    /// The back-off after the `attempt`-th failure in a row (from 1): doubled each time up to the cap, the upper half of it random.
    fn backoff(&self, attempt: u32, jitter: u32) -> Duration {
        let doubled = 2_u32.saturating_pow(attempt.saturating_sub(1));
        let full = self.backoff_base.saturating_mul(doubled).min(self.backoff_cap);
        full / 2 + scaled(full / 2, jitter)
    }
}

/// `duration` times `jitter` / 2^32.
fn scaled(duration: Duration, jitter: u32) -> Duration {
    // A duration has less than 2^95 nanoseconds: the product fits.
    let nanos = (duration.as_nanos() * u128::from(jitter)) >> 32;
    Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
}

/// Names one waiting caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Waiter(u64);

/// Why a caller gets no key now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What the last call said.
    pub error: KeyServiceError,
    /// When asking again may help.
    pub retry_after: Duration,
    /// A key was there, but the key service has not confirmed it within the hard limit.
    pub past_hard_limit: bool,
}

/// What a caller gets at once.
#[derive(Debug, PartialEq, Eq)]
pub enum Lookup<V> {
    /// The key.
    Hit(V),
    /// An answer later, as [`Action::Answer`].
    Wait(Waiter),
    /// No key.
    Fail(Failure),
}

/// What the cache wants done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action<K, V> {
    /// Make the call for this key and tell its end with [`Cache::finished`].
    Start(K),
    /// Tell a waiting caller.
    Answer(Waiter, Result<V, Failure>),
}

/// Counts since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// Lookups served from memory.
    pub hits: u64,
    /// Lookups that were not.
    pub misses: u64,
    /// Calls begun for keys that were held.
    pub refreshes: u64,
    /// Keys dropped because room was needed.
    pub evictions: u64,
    /// Keys dropped because the key service refused them.
    pub refusals: u64,
    /// Keys dropped at the hard limit.
    pub hard_limits: u64,
}

struct Held<V> {
    value: V,
    confirmed: Duration,
    refresh_at: Duration,
    /// Failed refreshes since the confirmation, and the last one's reason.
    failures: u32,
    last_error: Option<KeyServiceError>,
}

struct Failed {
    attempts: u32,
    until: Duration,
    error: KeyServiceError,
    past_hard_limit: bool,
}

#[derive(Default)]
struct Flight {
    waiters: Vec<Waiter>,
    /// The key was forgotten meanwhile: answer the waiters, keep nothing.
    forgotten: bool,
    /// Begun for a key that was held.
    refresh: bool,
}

/// See the module's page.
pub struct Cache<K, V> {
    policy: Policy,
    held: LruCache<K, Held<V>>,
    failed: LruCache<K, Failed>,
    flights: HashMap<K, Flight>,
    waiting: usize,
    next_waiter: u64,
    counters: Counters,
}

impl<K, V> fmt::Debug for Cache<K, V>
where
    K: Hash + Eq,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("held", &self.held.len())
            .field("failed", &self.failed.len())
            .field("flights", &self.flights.len())
            .field("counters", &self.counters)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    /// An empty cache.
    pub fn new(policy: Policy) -> Self {
        Self {
            held: LruCache::new(policy.capacity),
            failed: LruCache::new(policy.capacity),
            flights: HashMap::new(),
            waiting: 0,
            next_waiter: 0,
            counters: Counters::default(),
            policy,
        }
    }

    /// Keys held.
    pub fn held(&self) -> usize {
        self.held.len()
    }

    /// Counts since the start.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// A caller wants `key`.
    pub fn lookup(&mut self, key: &K, now: Duration, actions: &mut Vec<Action<K, V>>) -> Lookup<V> {
        self.drop_if_past_hard_limit(key, now);
        if let Some(held) = self.held.get(key) {
            let fresh = now.saturating_sub(held.confirmed) < self.policy.ttl;
            // Past its time to live a key serves only if the key service was asked and could not answer.
            if fresh || held.failures > 0 {
                let (value, due) = (held.value.clone(), now >= held.refresh_at);
                if due {
                    self.start(key, true, actions);
                }
                self.counters.hits += 1;
                return Lookup::Hit(value);
            }
            self.counters.misses += 1;
            return self.wait(key, true, actions);
        }
        self.counters.misses += 1;
        if let Some(failed) = self.failed.get(key)
            && now < failed.until
        {
            return Lookup::Fail(Failure {
                error: failed.error.clone(),
                retry_after: failed.until.saturating_sub(now),
                past_hard_limit: failed.past_hard_limit,
            });
        }
        self.wait(key, false, actions)
    }

    /// The call for `key` has ended. `jitter` is a fresh random number.
    pub fn finished(
        &mut self,
        key: &K,
        result: Result<V, KeyServiceError>,
        now: Duration,
        jitter: u32,
        actions: &mut Vec<Action<K, V>>,
    ) {
        // A call that nobody started ends nothing.
        let Some(flight) = self.flights.remove(key) else { return };
        self.waiting = self.waiting.saturating_sub(flight.waiters.len());
        self.drop_if_past_hard_limit(key, now);
        let answer = match result {
            Ok(value) => {
                if !flight.forgotten {
                    self.confirm(key, &flight, value.clone(), now, jitter);
                }
                Ok(value)
            }
            Err(error) if flight.forgotten => {
                Err(Failure { error, retry_after: self.policy.backoff_base, past_hard_limit: false })
            }
            Err(error) => self.fail(key, error, now, jitter),
        };
        actions.extend(flight.waiters.into_iter().map(|waiter| Action::Answer(waiter, answer.clone())));
    }

    /// Time has passed: drops what is past its hard limit, refreshes what is due. To be called about once a second.
    pub fn tick(&mut self, now: Duration, actions: &mut Vec<Action<K, V>>) {
        let hard_limit = self.policy.hard_limit;
        let mut past = Vec::new();
        let mut due = Vec::new();
        for (key, held) in &self.held {
            if now.saturating_sub(held.confirmed) >= hard_limit {
                past.push(key.clone());
            } else if now >= held.refresh_at {
                due.push(key.clone());
            }
        }
        for key in past {
            self.drop_if_past_hard_limit(&key, now);
        }
        for key in due {
            self.start(&key, true, actions);
        }
    }

    /// Drops every key, and every remembered failure, that `matches`. Callers that wait for one still get their answer.
    pub fn forget(&mut self, matches: impl Fn(&K) -> bool) {
        self.held.retain(|key, _| !matches(key));
        self.failed.retain(|key, _| !matches(key));
        for (key, flight) in &mut self.flights {
            flight.forgotten |= matches(key);
        }
    }

    /// Joins the call for `key`, or begins it.
    fn wait(&mut self, key: &K, refresh: bool, actions: &mut Vec<Action<K, V>>) -> Lookup<V> {
        let busy = |policy: &Policy| {
            Lookup::Fail(Failure {
                error: KeyServiceError::Unavailable("too many callers wait for keys".to_owned()),
                retry_after: policy.backoff_base,
                past_hard_limit: false,
            })
        };
        if self.waiting >= self.policy.max_waiters {
            return busy(&self.policy);
        }
        self.start(key, refresh, actions);
        let Some(flight) = self.flights.get_mut(key) else { return busy(&self.policy) };
        let waiter = Waiter(self.next_waiter);
        self.next_waiter += 1;
        self.waiting += 1;
        flight.waiters.push(waiter);
        Lookup::Wait(waiter)
    }

    /// Begins the call for `key` unless it is under way or too many are.
    fn start(&mut self, key: &K, refresh: bool, actions: &mut Vec<Action<K, V>>) {
        if self.flights.contains_key(key) || self.flights.len() >= self.policy.max_flights {
            return;
        }
        self.counters.refreshes += u64::from(refresh);
        self.flights.insert(key.clone(), Flight { refresh, ..Flight::default() });
        actions.push(Action::Start(key.clone()));
    }

    fn confirm(&mut self, key: &K, flight: &Flight, value: V, now: Duration, jitter: u32) {
        self.failed.pop(key);
        let refresh_at = self.policy.refresh_at(now, jitter);
        let fresh = Held { value, confirmed: now, refresh_at, failures: 0, last_error: None };
        if let Some(held) = self.held.peek_mut(key) {
            // In place: a refresh is no use, so it does not save the key from being the least recently used.
            *held = fresh;
        } else if flight.refresh && flight.waiters.is_empty() {
            // Evicted during its refresh: it does not come back unasked.
        } else if self.held.push(key.clone(), fresh).is_some() {
            self.counters.evictions += 1;
        }
    }

    /// Records a failure; says what waiting callers get, which is the old key while that may serve.
    fn fail(&mut self, key: &K, error: KeyServiceError, now: Duration, jitter: u32) -> Result<V, Failure> {
        let refused = matches!(error, KeyServiceError::Refused(_));
        if let Some(held) = self.held.peek_mut(key)
            && !refused
        {
            held.failures = held.failures.saturating_add(1);
            held.refresh_at = now.saturating_add(self.policy.backoff(held.failures, jitter));
            held.last_error = Some(error);
            return Ok(held.value.clone());
        }
        if self.held.pop(key).is_some() {
            self.counters.refusals += 1;
        }
        let earlier = self.failed.peek(key);
        let attempts = earlier.map_or(0, |failed| failed.attempts).saturating_add(1);
        let past_hard_limit = earlier.is_some_and(|failed| failed.past_hard_limit);
        let retry_after = self.policy.backoff(attempts, jitter);
        let until = now.saturating_add(retry_after);
        self.failed.put(key.clone(), Failed { attempts, until, error: error.clone(), past_hard_limit });
        Err(Failure { error, retry_after, past_hard_limit })
    }

    fn drop_if_past_hard_limit(&mut self, key: &K, now: Duration) {
        let past = |held: &Held<V>| now.saturating_sub(held.confirmed) >= self.policy.hard_limit;
        if !self.held.peek(key).is_some_and(past) {
            return;
        }
        self.counters.hard_limits += 1;
        // The failures go on counting, and later ones say that a key was there.
        if let Some(Held { failures, refresh_at, last_error: Some(error), .. }) = self.held.pop(key) {
            let failed = Failed { attempts: failures, until: refresh_at, error, past_hard_limit: true };
            self.failed.put(key.clone(), failed);
        }
    }
}

#[cfg(test)]
#[path = "cache_tests.rs"]
mod tests;
