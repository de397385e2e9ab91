//! When to look again at once instead of going to sleep.
//!
//! Waking a processor that has halted takes tens of microseconds in a virtual machine, more than all the work of a small request. Who
//! waits for something that came quickly the last time looks for it a little longer before it sleeps. The time is bounded, and spent
//! only where nothing else could be done meanwhile: with one request in flight, or none.

use std::future::Future;
use std::pin::pin;
use std::task::Context;
use std::time::{Duration, Instant};

use crate::scheduling::take_short_turns;

/// How long nobody else was there when turns become short.
const CALM: Duration = Duration::from_millis(10);
/// Longest time of looking again. What has not come by then is slept for, and so is what comes next.
const LIMIT: Duration = Duration::from_micros(300);

/// One thing that is waited for again and again.
#[derive(Debug, Default)]
pub struct BusyPoll {
    began: Option<Instant>,
    was_quick: bool,
    crowded_at: Option<Instant>,
}

impl BusyPoll {
    /// It has not come yet. Says whether to look again at once.
    pub fn waits(&mut self, now: Instant) -> bool {
        let began = *self.began.get_or_insert(now);
        self.was_quick && now.saturating_duration_since(began) < LIMIT
    }

    /// There is more than one to be waited for, and much to do.
    pub fn crowded(&mut self, now: Instant) {
        self.came(now);
        self.crowded_at = Some(now);
        take_short_turns(false);
    }

    fn is_calm(&self, now: Instant) -> bool {
        self.crowded_at.is_none_or(|at| now.saturating_duration_since(at) >= CALM)
    }

    /// Has the task polled again once the runtime has looked for events and run what they woke.
    pub fn look_again(&self, now: Instant, cx: &mut Context<'_>) {
        if self.is_calm(now) {
            take_short_turns(true);
        }
        // Whoever else can run on this processor goes first.
        std::thread::yield_now();
        // Such a task is woken behind the reactor's turn; one that wakes itself would be polled many times before it.
        let _pending = pin!(tokio::task::yield_now()).poll(cx);
    }

    /// It has come, or is no longer waited for alone.
    pub fn came(&mut self, now: Instant) {
        if let Some(began) = self.began.take() {
            self.was_quick = now.saturating_duration_since(began) < LIMIT;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_came_quickly_is_looked_for_and_not_for_ever() {
        let start = Instant::now();
        let at = |micros| start + Duration::from_micros(micros);
        let mut poll = BusyPoll::default();
        assert!(!poll.waits(at(0)), "nothing is known of it");
        poll.came(at(100));
        assert!(poll.waits(at(1000)) && poll.waits(at(1299)));
        assert!(!poll.waits(at(1300)), "the limit is over");
        poll.came(at(1400));
        assert!(!poll.waits(at(2000)), "it was slow the last time");
        poll.came(at(2299));
        poll.came(at(9000));
        assert!(poll.waits(at(9000)), "what was not waited for says nothing");
    }

    #[test]
    fn turns_are_short_only_after_a_while_alone() {
        let start = Instant::now();
        let mut poll = BusyPoll::default();
        assert!(poll.is_calm(start));
        poll.crowded(start);
        assert!(!poll.is_calm(start + CALM / 2));
        poll.crowded(start + CALM / 2);
        assert!(!poll.is_calm(start + CALM));
        assert!(poll.is_calm(start + CALM / 2 + CALM));
    }
}
