//! How much may be worked on at once. What is asked beyond it is refused at once, so that those who are served do not wait for those who
//! cannot be.
//!
//! The limit is looked at again in each [`WINDOW`]. When answers take longer than
//! [`TARGET`], or more are refused than let in although the limit stands (then they come faster than they can be served, and who waits
//! only makes others wait), it is lowered; when neither is so it is raised. No vault may use more than a share of it, and a vault that
//! was not served lately finds room above it: who asks much is refused before who asks little.

use std::time::Duration;

/// How long those who are let in may take on average.
const TARGET: Duration = Duration::from_millis(5);
/// A longer answer counts as this: one vault-manager that stalls must not speak for the node.
const LONGEST: Duration = TARGET.saturating_mul(3);
/// How often the limit is looked at.
const WINDOW: Duration = Duration::from_millis(20);
/// What the limit never exceeds, for each processor: as many of the quickest requests as one does in [`TARGET`]. It never falls below one
/// for each: far beyond what can be done the next one comes much sooner than one is done, and whoever waits only makes others wait.
const MOST_FOR_EACH: usize = 160;
/// The share of the limit that is one vault's, and what it may have however low the limit is.
const SHARE: usize = 4;
const SHARE_FEWEST: usize = 1;
/// A vault that was let in so long ago asks little.
const SELDOM: Duration = Duration::from_millis(100);
/// Who has not answered for so long is not working.
pub(super) const SILENT: Duration = Duration::from_millis(100);
/// How often work is counted anew while the limit is reached: what has become silent says nothing of it.
const RECOUNT: Duration = Duration::from_millis(10);

/// The limit, and what was seen in this window.
#[derive(Debug, Clone)]
pub(super) struct Overload {
    limit: usize,
    most: usize,
    fewest: usize,
    ends: Duration,
    counted_at: Duration,
    let_in: u32,
    refused: u32,
    answered: u32,
    took: Duration,
    /// The most that was worked on at once.
    peak: usize,
}

/// Who asks for room.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker {
    /// What is worked on for all vaults.
    pub(super) working: usize,
    /// And for this one.
    pub(super) own: usize,
    /// When this one was let in last.
    pub(super) let_in_at: Option<Duration>,
}

impl Overload {
    /// For a machine with so many processors.
    pub(super) fn new(processors: usize) -> Self {
        Self {
            limit: processors * MOST_FOR_EACH,
            most: processors * MOST_FOR_EACH,
            // With one processor, too, a vault's share leaves room for another.
            fewest: processors.max(SHARE_FEWEST + 1),
            ends: Duration::ZERO,
            counted_at: Duration::ZERO,
            let_in: 0,
            refused: 0,
            answered: 0,
            took: Duration::ZERO,
            peak: 0,
        }
    }

    /// Whether one more may be worked on.
    pub(super) fn admits(&mut self, asker: Asker, now: Duration) -> bool {
        self.look(now);
        self.peak = self.peak.max(asker.working + 1);
        // Who has used up its own share says nothing of what the node can do.
        if asker.own >= self.share() {
            return false;
        }
        let admits = asker.working < self.room(asker, now);
        *(if admits { &mut self.let_in } else { &mut self.refused }) += 1;
        admits
    }

    fn share(&self) -> usize {
        (self.limit / SHARE).max(SHARE_FEWEST)
    }

    fn room(&self, asker: Asker, now: Duration) -> usize {
        let seldom = asker.let_in_at.is_none_or(|at| now.saturating_sub(at) >= SELDOM);
        (if seldom { self.limit * 2 } else { self.limit }).min(self.most)
    }

    /// Whether to count anew what is worked on before somebody is refused.
    pub(super) fn is_stale(&mut self, asker: Asker, now: Duration) -> bool {
        self.look(now);
        let is_full = asker.own >= self.share() || asker.working >= self.room(asker, now);
        let stale = is_full && now.saturating_sub(self.counted_at) >= RECOUNT;
        if stale {
            self.counted_at = now;
        }
        stale
    }

    /// A vault-manager has answered; `took` is how long it had the request, none when it waited for something else meanwhile.
    pub(super) fn answered(&mut self, took: Option<Duration>) {
        if let Some(took) = took {
            self.answered += 1;
            self.took += took.min(LONGEST);
        }
    }

    /// At the end of a window, sets the limit.
    fn look(&mut self, now: Duration) {
        if now < self.ends {
            return;
        }
        let slow = self.took > TARGET * self.answered;
        if slow || self.refused > self.let_in {
            self.limit = (self.limit.min(self.peak.max(1)) / 2).max(self.fewest);
        } else if self.refused == 0 {
            self.limit = (self.limit * 2).min(self.most);
        } else {
            self.limit = (self.limit + self.limit / 8 + 1).min(self.most);
        }
        (self.let_in, self.refused, self.answered, self.took, self.peak) = (0, 0, 0, Duration::ZERO, 0);
        self.ends = now + WINDOW;
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::{BinaryHeap, VecDeque};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const VAULTS: usize = 64;

    /// One processor that takes `each` for a request, one after the other.
    struct Machine {
        overload: Overload,
        each: Duration,
        queue: VecDeque<(Duration, usize)>,
        free_at: Duration,
        own: [usize; VAULTS],
        let_in_at: [Option<Duration>; VAULTS],
        took: Vec<Duration>,
        refused: u32,
    }

    impl Machine {
        fn new(each: Duration) -> Self {
            Self {
                overload: Overload::new(1),
                each,
                queue: VecDeque::new(),
                free_at: Duration::ZERO,
                own: [0; VAULTS],
                let_in_at: [None; VAULTS],
                took: Vec::new(),
                refused: 0,
            }
        }

        /// What is done by `now`; gives when, and for whom.
        fn work(&mut self, now: Duration) -> Vec<(Duration, usize)> {
            let mut done = Vec::new();
            while let Some((begun, vault)) = self.queue.front().copied() {
                let end = self.free_at.max(begun) + self.each;
                if end > now {
                    break;
                }
                self.queue.pop_front();
                self.free_at = end;
                self.own[vault] -= 1;
                self.overload.answered(Some(end.saturating_sub(begun)));
                self.took.push(end.saturating_sub(begun));
                done.push((end, vault));
            }
            done
        }

        fn ask(&mut self, vault: usize, now: Duration) -> bool {
            self.work(now);
            let asker = Asker { working: self.queue.len(), own: self.own[vault], let_in_at: self.let_in_at[vault] };
            if !self.overload.admits(asker, now) {
                self.refused += 1;
                return false;
            }
            self.let_in_at[vault] = Some(now);
            self.own[vault] += 1;
            self.queue.push_back((now, vault));
            true
        }

        fn p99(&mut self) -> Duration {
            self.took.sort_unstable();
            self.took[self.took.len() * 99 / 100]
        }
    }

    /// Requests come `times` as fast as they can be done, for as long, from all vaults but the last.
    fn rush(machine: &mut Machine, times: u32, from: Duration, long: Duration) {
        let mut now = from;
        for number in 0.. {
            machine.ask(number % (VAULTS - 1), now);
            now += machine.each / times;
            if now > from + long {
                break;
            }
        }
        machine.work(from + long + SECOND);
    }

    #[test]
    fn those_who_are_served_in_a_rush_are_served_soon_and_the_machine_is_busy() {
        let each = Duration::from_micros(250);
        let mut machine = Machine::new(each);
        rush(&mut machine, 10, SECOND, SECOND / 2);
        // What was let in before anybody could know has been served.
        machine.took.clear();
        rush(&mut machine, 10, 3 * SECOND, 5 * SECOND);
        let served = machine.took.len();
        assert!(served > 19_500, "{served} of 20,000");
        assert!(machine.p99() <= each * 12, "{:?}", machine.p99());
        assert!(machine.refused > 100_000);
        // When it is over, nobody is refused.
        let refused = machine.refused;
        for number in 0..1000 {
            let now = 20 * SECOND + machine.each * 2 * u32::try_from(number).unwrap();
            assert!(machine.ask(number % VAULTS, now));
        }
        assert_eq!(machine.refused, refused);
    }

    #[test]
    fn who_asks_little_is_let_in_during_a_rush_of_the_others() {
        let mut machine = Machine::new(Duration::from_micros(250));
        for second in 1..6 {
            rush(&mut machine, 10, second * SECOND, SECOND);
            assert!(machine.ask(VAULTS - 1, second * SECOND + SECOND));
        }
    }

    /// Sixty-four who each ask again when they are answered are a load, not a rush.
    #[test]
    fn a_crowd_that_is_answered_soon_is_let_in() {
        let mut machine = Machine::new(Duration::from_micros(70));
        let mut asks: BinaryHeap<_> = (0..VAULTS).map(|vault| Reverse((SECOND, vault))).collect();
        for _ in 0..50_000 {
            let Reverse((now, vault)) = asks.pop().expect("somebody asks");
            let done = machine.work(now);
            asks.extend(done.into_iter().map(Reverse));
            assert!(machine.ask(vault, now), "nobody is refused");
            if asks.is_empty() {
                let next = machine.free_at.max(now) + machine.each;
                asks.extend(machine.work(next).into_iter().map(Reverse));
            }
        }
    }

    /// One vault that asks as much as it may, slowly answered: it does not take the others' room.
    #[test]
    fn one_vault_does_not_use_up_the_room_of_all() {
        for (processors, limit) in [(1, 2), (2, 2), (4, 4)] {
            let mut overload = Overload::new(processors);
            let mut now = SECOND;
            for _ in 0..1000 {
                now += Duration::from_millis(1);
                let own = overload.share();
                overload.admits(Asker { working: own, own, let_in_at: Some(now) }, now);
                overload.answered(Some(SECOND));
            }
            assert_eq!(overload.limit, limit);
            for working in overload.share()..limit {
                let other = Asker { working, own: 0, let_in_at: Some(now) };
                assert!(overload.admits(other, now), "{working} are worked on, of {limit}");
            }
        }
    }
}
