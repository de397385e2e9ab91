//! How much may be worked on at once: as much as is answered quickly. What is asked beyond it is refused at once, so that those who are
//! served do not wait for those who cannot be.
//!
//! The limit falls when answers take longer than [`TARGET`] and rises while they do not and it is reached (additive increase,
//! multiplicative decrease). Whoever waits for the store or the key service works on nothing, and neither does a process that is stuck.

use std::time::Duration;

/// How long a vault-manager may take to answer before too many of them work at once.
const TARGET: Duration = Duration::from_millis(8);
/// The limit at first; what is always let in; and what it never exceeds, the link's whole window.
const FIRST: f64 = 128.0;
const FEWEST: f64 = 32.0;
const MOST: f64 = 1024.0;
/// What is left of the limit after one answer that took too long, and how long that has to show before it is lowered again.
const LOWERED: f64 = 0.8;
/// What those may use who have nothing under way, as a share of the limit.
const RESERVED: f64 = 2.0;
/// The share of the limit that has to be used before it is raised.
const USED: f64 = 0.8;
/// Who has not answered for so long is not working.
pub(super) const SILENT: Duration = Duration::from_millis(100);
/// How often work is counted anew while the limit is reached. In between it is an estimate.
const RECOUNT: Duration = Duration::from_millis(10);

/// The limit, and what is being worked on.
#[derive(Debug, Clone)]
pub(super) struct Overload {
    limit: f64,
    working: u32,
    lowered_at: Duration,
    counted_at: Duration,
}

impl Default for Overload {
    fn default() -> Self {
        Self { limit: FIRST, working: 0, lowered_at: Duration::ZERO, counted_at: Duration::ZERO }
    }
}

impl Overload {
    /// Whether one more may be worked on for a vault that has so many under way. When not, and the count is old, it should be counted
    /// anew first. Who has none is let in before who has some: those who ask much use up the limit, not the room above it.
    pub(super) fn has_room(&self, own: usize) -> bool {
        let room = if own == 0 { self.limit * RESERVED } else { self.limit };
        f64::from(self.working) < room.min(MOST)
    }

    /// Whether the count is too old to refuse anybody for it.
    pub(super) fn is_stale(&self, now: Duration) -> bool {
        now.saturating_sub(self.counted_at) >= RECOUNT
    }

    /// So many are being worked on.
    pub(super) fn count(&mut self, working: usize, now: Duration) {
        self.working = u32::try_from(working).unwrap_or(u32::MAX);
        self.counted_at = now;
    }

    /// A vault-manager was given a request.
    pub(super) fn began(&mut self) {
        self.working = self.working.saturating_add(1);
    }

    /// It will not answer, or not in time.
    pub(super) fn given_up(&mut self) {
        self.working = self.working.saturating_sub(1);
    }

    /// It has answered. `took` is how long it worked; none when it waited for something else meanwhile.
    pub(super) fn answered(&mut self, took: Option<Duration>, now: Duration) {
        let is_used = f64::from(self.working) >= self.limit * USED;
        self.given_up();
        match took {
            Some(took) if took > TARGET => {
                // What was begun under the former limit says nothing of this one.
                if now.saturating_sub(took) >= self.lowered_at {
                    self.lowered_at = now;
                    self.limit = (self.limit * LOWERED).max(FEWEST);
                }
            }
            Some(_) if is_used => self.limit = (self.limit + 1.0 / self.limit).min(MOST),
            Some(_) | None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A machine that takes `each` for a request, one after the other.
    struct Machine {
        overload: Overload,
        each: Duration,
        queue: VecDeque<Duration>,
        free_at: Duration,
        took: Vec<Duration>,
        refused: u32,
    }

    impl Machine {
        fn new(each: Duration) -> Self {
            let (overload, queue) = (Overload::default(), VecDeque::new());
            Self { overload, each, queue, free_at: Duration::ZERO, took: Vec::new(), refused: 0 }
        }

        /// What is done by `now`; gives when.
        fn work(&mut self, now: Duration) -> Vec<Duration> {
            let mut done = Vec::new();
            while let Some(begun) = self.queue.front().copied() {
                let end = self.free_at.max(begun) + self.each;
                if end > now {
                    break;
                }
                self.queue.pop_front();
                self.free_at = end;
                self.overload.answered(Some(end - begun), end);
                self.took.push(end - begun);
                done.push(end);
            }
            done
        }

        fn ask(&mut self, now: Duration) -> bool {
            self.work(now);
            if !self.overload.has_room(1) {
                self.refused += 1;
                return false;
            }
            self.overload.began();
            self.queue.push_back(now);
            true
        }

        fn p99(&mut self) -> Duration {
            self.took.sort_unstable();
            self.took[self.took.len() * 99 / 100]
        }
    }

    /// Requests come `times` as fast as they can be done, for as long.
    fn rush(machine: &mut Machine, times: u32, from: Duration, long: Duration) {
        let mut now = from;
        while now < from + long {
            machine.ask(now);
            now += machine.each / times;
        }
        machine.work(from + long + SECOND);
    }

    #[test]
    fn those_who_are_served_in_a_rush_are_served_soon_and_the_machine_is_busy() {
        let mut machine = Machine::new(Duration::from_micros(250));
        rush(&mut machine, 10, SECOND, SECOND);
        machine.took.clear();
        rush(&mut machine, 10, 3 * SECOND, 5 * SECOND);
        let served = machine.took.len();
        assert!(served > 19_000, "{served} of 20,000");
        assert!(machine.p99() <= TARGET * 2, "{:?}", machine.p99());
        assert!(machine.refused > 100_000);
        // When it is over, nobody is refused.
        let refused = machine.refused;
        for number in 0..1000_u32 {
            assert!(machine.ask(20 * SECOND + machine.each * 2 * number));
        }
        assert_eq!(machine.refused, refused);
    }

    /// Sixty-four who each ask again when they are answered are a load, not a rush.
    #[test]
    fn a_crowd_that_is_answered_soon_is_let_in() {
        let mut machine = Machine::new(Duration::from_micros(100));
        let mut asks = BinaryHeap::from(vec![std::cmp::Reverse(SECOND); 64]);
        for _ in 0..50_000 {
            let std::cmp::Reverse(now) = asks.pop().expect("somebody asks");
            let done = machine.work(now);
            asks.extend(done.into_iter().map(std::cmp::Reverse));
            assert!(machine.ask(now), "nobody is refused");
            if asks.is_empty() {
                let next = machine.free_at.max(now) + machine.each;
                asks.extend(machine.work(next).into_iter().map(std::cmp::Reverse));
            }
        }
    }

    #[test]
    fn who_has_nothing_under_way_finds_room_where_others_do_not() {
        let mut overload = Overload::default();
        (0..128).for_each(|_| overload.began());
        assert!(!overload.has_room(1) && overload.has_room(0));
        (0..128).for_each(|_| overload.began());
        assert!(!overload.has_room(0), "there is an end");
    }

    #[test]
    fn the_limit_rises_with_what_the_machine_can_do() {
        let mut machine = Machine::new(Duration::from_micros(10));
        rush(&mut machine, 2, SECOND, 2 * SECOND);
        assert!(machine.overload.limit > 400.0, "{}", machine.overload.limit);
        let mut slow = Machine::new(Duration::from_millis(5));
        rush(&mut slow, 4, SECOND, 5 * SECOND);
        assert!(slow.overload.limit <= FEWEST + 1.0, "{}", slow.overload.limit);
    }
}
