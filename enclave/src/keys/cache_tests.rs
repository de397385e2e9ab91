#![expect(clippy::unchecked_time_subtraction, reason = "an underflow here panics, which is a failed test")]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use proptest::prelude::*;

use super::*;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);
/// No jitter at all, and all of it.
const LEAST: u32 = 0;
const MOST: u32 = u32::MAX;

type Numbers = Cache<&'static str, u32>;

fn cache() -> Numbers {
    Cache::new(Policy { capacity: NonZeroUsize::new(3).unwrap(), ..Policy::default() })
}

fn down() -> KeyServiceError {
    KeyServiceError::Unavailable("down".to_owned())
}

/// A lookup, and the keys whose calls it started.
fn lookup(cache: &mut Numbers, key: &'static str, now: Duration) -> (Lookup<u32>, Vec<&'static str>) {
    let mut actions = Vec::new();
    let found = cache.lookup(&key, now, &mut actions);
    (found, started(&actions))
}

fn started(actions: &[Action<&'static str, u32>]) -> Vec<&'static str> {
    actions
        .iter()
        .filter_map(|action| match action {
            Action::Start(key) => Some(*key),
            Action::Answer(..) => None,
        })
        .collect()
}

fn tick(cache: &mut Numbers, now: Duration) -> Vec<&'static str> {
    let mut actions = Vec::new();
    cache.tick(now, &mut actions);
    started(&actions)
}

/// Ends a call; gives the answers to its waiters.
fn finish(
    cache: &mut Numbers,
    key: &'static str,
    result: Result<u32, KeyServiceError>,
    now: Duration,
) -> Vec<Result<u32, Failure>> {
    let mut actions = Vec::new();
    cache.finished(&key, result, now, LEAST, &mut actions);
    actions
        .into_iter()
        .map(|action| match action {
            Action::Answer(_, answer) => answer,
            Action::Start(key) => panic!("the end of a call starts none: {key}"),
        })
        .collect()
}

/// A cache that holds `key` since time zero; its refresh is due at 45 minutes.
fn holding(key: &'static str) -> Numbers {
    let mut cache = cache();
    assert!(matches!(lookup(&mut cache, key, Duration::ZERO), (Lookup::Wait(_), started) if started == [key]));
    assert_eq!(finish(&mut cache, key, Ok(1), Duration::ZERO), [Ok(1)]);
    cache
}

#[test]
fn a_thousand_concurrent_misses_make_one_call() {
    let mut cache = cache();
    let mut calls = 0;
    for _ in 0..1_000 {
        let (found, started) = lookup(&mut cache, "a", Duration::ZERO);
        assert!(matches!(found, Lookup::Wait(_)));
        calls += started.len();
    }
    assert_eq!(calls, 1);
    assert_eq!(finish(&mut cache, "a", Ok(1), Duration::ZERO), vec![Ok(1); 1_000]);
    assert_eq!(lookup(&mut cache, "a", Duration::ZERO), (Lookup::Hit(1), vec![]));
    assert_eq!(cache.counters(), Counters { hits: 1, misses: 1_000, ..Counters::default() });
}

#[test]
fn a_key_is_refreshed_in_the_background_before_its_end() {
    let mut cache = holding("a");
    let due = 45 * MINUTE;
    assert_eq!(lookup(&mut cache, "a", due - Duration::from_millis(1)), (Lookup::Hit(1), vec![]));
    assert_eq!(tick(&mut cache, due - Duration::from_millis(1)), Vec::<&str>::new());
    // From 75 % on, a lookup is served at once and starts the refresh, once.
    assert_eq!(lookup(&mut cache, "a", due), (Lookup::Hit(1), vec!["a"]));
    assert_eq!(lookup(&mut cache, "a", due), (Lookup::Hit(1), vec![]));
    assert_eq!(tick(&mut cache, due), Vec::<&str>::new());
    assert_eq!(finish(&mut cache, "a", Ok(2), due + MINUTE), []);
    assert_eq!(lookup(&mut cache, "a", due + MINUTE), (Lookup::Hit(2), vec![]));
    // The next one is due 75 % after the confirmation, and needs no lookup.
    assert_eq!(tick(&mut cache, 2 * due + MINUTE - Duration::from_millis(1)), Vec::<&str>::new());
    assert_eq!(tick(&mut cache, 2 * due + MINUTE), ["a"]);
    assert_eq!(cache.counters().refreshes, 2);
}

#[test]
fn refreshes_are_spread_up_to_ninety_percent() {
    let policy = Policy::default();
    assert_eq!(policy.refresh_at(HOUR, LEAST), HOUR + 45 * MINUTE);
    let latest = policy.refresh_at(HOUR, MOST);
    assert!(latest < HOUR + 54 * MINUTE && latest > HOUR + 54 * MINUTE - Duration::from_millis(1), "{latest:?}");
}

#[test]
fn past_its_time_to_live_a_key_needs_a_confirmation() {
    let mut cache = holding("a");
    // Nobody ticked (a paused virtual machine): the key service has not been asked, so the key does not serve.
    let (found, started) = lookup(&mut cache, "a", HOUR);
    assert!(matches!(found, Lookup::Wait(_)));
    assert_eq!(started, ["a"]);
    assert_eq!(finish(&mut cache, "a", Ok(2), HOUR), [Ok(2)]);
    assert_eq!(lookup(&mut cache, "a", HOUR), (Lookup::Hit(2), vec![]));
}

#[test]
fn keys_serve_through_an_outage_until_the_hard_limit() {
    for error in [KeyServiceError::Throttled, down(), KeyServiceError::NotBelieved("forged")] {
        let mut cache = holding("a");
        let mut now = Duration::ZERO;
        let mut calls = 0;
        while now < 6 * HOUR {
            match lookup(&mut cache, "a", now).0 {
                Lookup::Hit(1) => {}
                Lookup::Wait(_) => panic!("waited at {now:?}"),
                other => panic!("{other:?} at {now:?}"),
            }
            for key in tick(&mut cache, now) {
                calls += 1;
                assert_eq!(finish(&mut cache, key, Err(error.clone()), now), []);
            }
            if !cache.flights.is_empty() {
                calls += 1;
                assert_eq!(finish(&mut cache, "a", Err(error.clone()), now), []);
            }
            now += Duration::from_secs(1);
        }
        // From 45 minutes on, about every 15 to 30 seconds: asked again, never hammered.
        assert!((600..=1_300).contains(&calls), "{calls} calls");
        let (found, _) = lookup(&mut cache, "a", 6 * HOUR);
        let past = |failure: &Failure| failure.past_hard_limit && failure.error == error;
        assert!(matches!(&found, Lookup::Fail(failure) if past(failure)), "{found:?}");
        assert_eq!(cache.held(), 0, "nothing is kept past the hard limit");
        assert_eq!(cache.counters().hard_limits, 1);
        // The service comes back: the next try opens again.
        let now = 6 * HOUR + MINUTE;
        assert!(matches!(lookup(&mut cache, "a", now), (Lookup::Wait(_), started) if started == ["a"]));
        assert_eq!(finish(&mut cache, "a", Ok(2), now), [Ok(2)]);
    }
}

#[test]
fn the_hard_limit_needs_no_lookup() {
    let mut cache = holding("a");
    assert_eq!(tick(&mut cache, 45 * MINUTE), ["a"]);
    finish(&mut cache, "a", Err(down()), 45 * MINUTE);
    tick(&mut cache, 6 * HOUR - Duration::from_millis(1));
    assert_eq!(cache.held(), 1);
    assert_eq!(tick(&mut cache, 6 * HOUR), Vec::<&str>::new());
    assert_eq!(cache.held(), 0);
}

#[test]
fn a_call_that_ends_after_the_hard_limit_does_not_revive_the_key() {
    let mut cache = holding("a");
    // The refresh begins within the limit and ends, failed, beyond it, with a caller waiting.
    let (found, _) = lookup(&mut cache, "a", 6 * HOUR - MINUTE);
    assert!(matches!(found, Lookup::Wait(_)));
    let answers = finish(&mut cache, "a", Err(down()), 6 * HOUR);
    assert!(matches!(&answers[..], [Err(Failure { .. })]), "{answers:?}");
    assert_eq!(cache.held(), 0);
}

#[test]
fn waiters_of_a_failed_refresh_get_the_old_key() {
    let mut cache = holding("a");
    assert!(matches!(lookup(&mut cache, "a", HOUR).0, Lookup::Wait(_)));
    assert_eq!(finish(&mut cache, "a", Err(KeyServiceError::Throttled), HOUR), [Ok(1)]);
    assert_eq!(lookup(&mut cache, "a", HOUR), (Lookup::Hit(1), vec![]));
}

#[test]
fn a_refused_refresh_drops_the_key_at_once() {
    let mut cache = holding("a");
    assert_eq!(tick(&mut cache, 45 * MINUTE), ["a"]);
    let refused = KeyServiceError::Refused("AccessDeniedException".to_owned());
    assert_eq!(finish(&mut cache, "a", Err(refused.clone()), 45 * MINUTE), []);
    assert_eq!(cache.held(), 0);
    assert_eq!(cache.counters().refusals, 1);
    let (found, started) = lookup(&mut cache, "a", 45 * MINUTE);
    assert!(matches!(found, Lookup::Fail(failure) if failure.error == refused));
    assert!(started.is_empty());
}

#[test]
fn failures_are_remembered_with_growing_back_off() {
    let mut cache = cache();
    let mut now = Duration::ZERO;
    // Half of 0.5, 1, 2, … 30 seconds: the part of the back-off that is not random.
    for millis in [250, 500, 1_000, 2_000, 4_000, 8_000, 15_000, 15_000] {
        assert!(matches!(lookup(&mut cache, "a", now), (Lookup::Wait(_), started) if started == ["a"]));
        let until = Duration::from_millis(millis);
        let failure = Failure { error: down(), retry_after: until, past_hard_limit: false };
        assert_eq!(finish(&mut cache, "a", Err(down()), now), [Err(failure)]);
        let just_before = now + until - Duration::from_millis(1);
        let (found, started) = lookup(&mut cache, "a", just_before);
        assert!(matches!(found, Lookup::Fail(failure) if failure.retry_after == Duration::from_millis(1)));
        assert!(started.is_empty(), "no call before the back-off ends");
        now += until;
    }
    assert!(matches!(lookup(&mut cache, "a", now).0, Lookup::Wait(_)));
    finish(&mut cache, "a", Ok(1), now);
    // A success forgets the failures.
    cache.forget(|key| *key == "a");
    lookup(&mut cache, "a", now);
    let answers = finish(&mut cache, "a", Err(down()), now);
    assert!(matches!(&answers[..], [Err(failure)] if failure.retry_after == Duration::from_millis(250)));
}

#[test]
fn back_off_is_jittered_and_capped() {
    let policy = Policy::default();
    assert_eq!(policy.backoff(1, LEAST), Duration::from_millis(250));
    for attempt in [7, 30, u32::MAX] {
        assert_eq!(policy.backoff(attempt, LEAST), Duration::from_secs(15));
        assert!(policy.backoff(attempt, MOST) <= Duration::from_secs(30));
        assert!(policy.backoff(attempt, MOST) > Duration::from_millis(29_999));
    }
}

#[test]
fn the_least_recently_used_key_leaves() {
    let mut cache = cache();
    for key in ["a", "b", "c"] {
        lookup(&mut cache, key, Duration::ZERO);
        finish(&mut cache, key, Ok(1), Duration::ZERO);
    }
    assert_eq!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Hit(1));
    lookup(&mut cache, "d", Duration::ZERO);
    finish(&mut cache, "d", Ok(1), Duration::ZERO);
    assert_eq!(cache.held(), 3);
    assert_eq!(cache.counters().evictions, 1);
    assert_eq!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Hit(1));
    assert!(matches!(lookup(&mut cache, "b", Duration::ZERO).0, Lookup::Wait(_)), "b was the least recently used");
}

#[test]
fn a_refresh_neither_saves_nor_brings_back_a_key() {
    let mut cache = cache();
    for key in ["a", "b", "c"] {
        lookup(&mut cache, key, Duration::ZERO);
        finish(&mut cache, key, Ok(1), Duration::ZERO);
    }
    let now = 45 * MINUTE;
    assert_eq!(tick(&mut cache, now).len(), 3);
    // "a" is refreshed, which is no use of it; so "d" pushes it out, and while "b" is being refreshed "e" pushes that out.
    finish(&mut cache, "a", Ok(2), now);
    for key in ["d", "e"] {
        lookup(&mut cache, key, now);
        finish(&mut cache, key, Ok(1), now);
    }
    finish(&mut cache, "b", Ok(2), now);
    let held: Vec<_> = cache.held.iter().map(|(key, _)| *key).collect();
    assert_eq!(held, ["e", "d", "c"]);
}

#[test]
fn failures_push_no_key_out() {
    let mut cache = holding("a");
    let names: Vec<&'static str> =
        (0..100).map(|number| &*Box::leak(format!("false {number}").into_boxed_str())).collect();
    for name in names {
        lookup(&mut cache, name, Duration::ZERO);
        finish(&mut cache, name, Err(down()), Duration::ZERO);
    }
    assert_eq!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Hit(1));
    assert!(cache.failed.len() <= 3, "failures are bounded too");
}

#[test]
fn calls_and_waiters_are_bounded() {
    let mut cache = Cache::new(Policy { max_flights: 1, max_waiters: 2, ..Policy::default() });
    assert!(matches!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Wait(_)));
    assert!(matches!(lookup(&mut cache, "b", Duration::ZERO), (Lookup::Fail(_), started) if started.is_empty()));
    assert!(matches!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Wait(_)));
    assert!(matches!(lookup(&mut cache, "a", Duration::ZERO).0, Lookup::Fail(_)));
    assert_eq!(finish(&mut cache, "a", Ok(1), Duration::ZERO).len(), 2);
    assert!(matches!(lookup(&mut cache, "b", Duration::ZERO).0, Lookup::Wait(_)));
}

#[test]
fn what_is_forgotten_during_its_call_is_not_kept() {
    let mut cache = cache();
    lookup(&mut cache, "a", Duration::ZERO);
    cache.forget(|key| *key == "a");
    assert_eq!(finish(&mut cache, "a", Ok(1), Duration::ZERO), [Ok(1)], "its waiters are still answered");
    assert_eq!(cache.held(), 0);
}

/// A value that counts its drops, as a zeroizing one would wipe itself.
#[derive(Clone)]
struct Wiped(#[expect(dead_code, reason = "only its drop matters")] Arc<Counted>);

struct Counted(Arc<AtomicUsize>);

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

#[test]
fn whatever_leaves_is_dropped() {
    let wiped = Arc::new(AtomicUsize::new(0));
    let count = || wiped.load(Ordering::SeqCst);
    let mut cache = Cache::new(Policy { capacity: NonZeroUsize::new(1).unwrap(), ..Policy::default() });
    let put = |cache: &mut Cache<&'static str, Wiped>, key: &'static str, now| {
        let mut actions = Vec::new();
        cache.lookup(&key, now, &mut actions);
        cache.finished(&key, Ok(Wiped(Arc::new(Counted(wiped.clone())))), now, LEAST, &mut actions);
    };
    put(&mut cache, "a", Duration::ZERO);
    assert_eq!(count(), 0);
    put(&mut cache, "b", Duration::ZERO);
    assert_eq!(count(), 1, "evicted");
    put(&mut cache, "b", HOUR);
    assert_eq!(count(), 2, "refreshed");
    cache.tick(7 * HOUR, &mut Vec::new());
    assert_eq!(count(), 3, "past the hard limit");
    put(&mut cache, "a", 8 * HOUR);
    cache.tick(9 * HOUR, &mut Vec::new());
    cache.finished(&"a", Err(KeyServiceError::Refused(String::new())), 9 * HOUR, LEAST, &mut Vec::new());
    assert_eq!(count(), 4, "refused");
    put(&mut cache, "b", 9 * HOUR);
    cache.forget(|_| true);
    assert_eq!(count(), 5, "forgotten");
    put(&mut cache, "c", 9 * HOUR);
    drop(cache);
    assert_eq!(count(), 6, "with the cache itself");
}

proptest! {
    /// Whatever happens in whatever order: every waiter is answered exactly once, one call per key is under way at most, no key serves past
    /// the hard limit, and bounds hold.
    #[test]
    fn invariants_hold_in_any_order(steps in proptest::collection::vec((0..5_u8, 0..6_usize, 0..4_000_u64, any::<u32>()), 1..300)) {
        const KEYS: [&str; 6] = ["a", "b", "c", "d", "e", "f"];
        let mut cache = cache();
        let mut now = Duration::ZERO;
        let mut waiting = std::collections::BTreeSet::new();
        let mut flying = std::collections::BTreeSet::new();
        let mut confirmed: HashMap<&str, Duration> = HashMap::new();
        for (what, key, seconds, jitter) in steps {
            let key = KEYS[key];
            let mut actions = Vec::new();
            match what {
                0 | 1 => match cache.lookup(&key, now, &mut actions) {
                    Lookup::Wait(waiter) => prop_assert!(waiting.insert(waiter)),
                    Lookup::Hit(_) => prop_assert!(now - confirmed[key] < 6 * HOUR),
                    Lookup::Fail(_) => {}
                },
                2 => {
                    let was_flying = flying.remove(key);
                    let result = match jitter % 4 {
                        0 => Err(KeyServiceError::Refused(String::new())),
                        1 => Err(KeyServiceError::Throttled),
                        _ => Ok(1),
                    };
                    if result.is_ok() && was_flying {
                        confirmed.insert(key, now);
                    }
                    cache.finished(&key, result, now, jitter, &mut actions);
                }
                3 => now += Duration::from_secs(seconds),
                _ => cache.tick(now, &mut actions),
            }
            for action in actions {
                match action {
                    Action::Start(key) => prop_assert!(flying.insert(key), "two calls for {}", key),
                    Action::Answer(waiter, _) => prop_assert!(waiting.remove(&waiter), "answered twice"),
                }
            }
            prop_assert!(cache.held() <= 3);
            prop_assert_eq!(cache.waiting, waiting.len());
            prop_assert_eq!(cache.flights.len(), flying.len());
        }
    }
}
