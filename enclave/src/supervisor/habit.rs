//! How a vault-manager works, and where it had best do that.
//!
//! Supervisor and vault-manager wake each other for every request, and a small one takes as long as waking another processor does. Those
//! that answer one small request after the other therefore stay on one processor, their home, where whoever is woken simply comes next.
//! Whatever is known to take longer is done anywhere, beside the others' small requests and not before them (decision 0023).

use std::time::Duration;

use crate::ipc::{FromManager, ToManager};
use crate::zygote::Place;

/// Small requests in a row until a process is sent home: so many that moving it costs little beside them.
const SMALL_IN_A_ROW: u32 = 32;
/// The most that are asked for, of those who never stay for long.
const MOST_IN_A_ROW: u32 = 4096;
/// Who stays for so many times what was asked for is no such one.
const LONG_STAY: u32 = 16;
/// Bytes of a small request, and of its answer.
const SMALL_BYTES: usize = 4096;
/// Processor time of a small request, on average; a read takes a tenth of it.
const SMALL_TIME: Duration = Duration::from_micros(100);

/// What one vault-manager did lately.
#[derive(Debug)]
pub(super) struct Habit {
    place: Place,
    /// Small requests since something else happened.
    small: u32,
    /// So many are asked for until it is sent home.
    asked_for: u32,
    unanswered: u32,
    /// Answers since it was looked at last.
    answers: u32,
    /// Processor time of its whole life, when it was looked at last.
    used: Option<Duration>,
    is_stopping: bool,
}

impl Default for Habit {
    fn default() -> Self {
        Self {
            place: Place::Anywhere,
            small: 0,
            asked_for: SMALL_IN_A_ROW,
            unanswered: 0,
            answers: 0,
            used: None,
            is_stopping: false,
        }
    }
}

impl Habit {
    /// Where it is to be.
    pub(super) const fn place(&self) -> Place {
        self.place
    }

    /// It is told something. Whether it is to be moved.
    #[must_use]
    pub(super) fn told(&mut self, message: &ToManager) -> bool {
        match message {
            ToManager::Request { frame, credentials, .. } => {
                self.unanswered = self.unanswered.saturating_add(1);
                // Credentials are for a handshake.
                (credentials.is_some() || frame.len() > SMALL_BYTES) && self.leave()
            }
            ToManager::Stop { .. } => {
                self.is_stopping = true;
                self.leave()
            }
            _ => self.leave(),
        }
    }

    /// It says something. Whether it is to be moved.
    #[must_use]
    pub(super) fn said(&mut self, message: &FromManager) -> bool {
        let FromManager::Reply { frame, .. } = message else { return self.leave() };
        // Attack stopped: answers to nothing, with which a process would lead itself home and away as often as it likes.
        if self.unanswered == 0 || frame.len() > SMALL_BYTES {
            return self.leave();
        }
        self.unanswered -= 1;
        self.answers = self.answers.saturating_add(1);
        self.small = self.small.saturating_add(1);
        let goes = self.small >= self.asked_for && self.place == Place::Anywhere && !self.is_stopping;
        if goes {
            (self.place, self.used) = (Place::Home, None);
        }
        goes
    }

    /// Some time has passed, and one that is at home has used so much processor time in its life. Whether it is to be moved.
    ///
    /// Attack stopped: a process that has itself led home and then computes, asked or not, before everybody else there. It is gone at the
    /// second look.
    #[must_use]
    pub(super) fn looked_at(&mut self, used: Option<Duration>) -> bool {
        let answers = std::mem::take(&mut self.answers);
        if self.place == Place::Anywhere {
            return false;
        }
        let before = std::mem::replace(&mut self.used, used);
        let spent = used.zip(before).map_or(Duration::ZERO, |(used, before)| used.saturating_sub(before));
        if spent > SMALL_TIME * answers.max(1) {
            self.asked_for = MOST_IN_A_ROW;
            return self.depart();
        }
        answers == 0 && self.depart()
    }

    /// Something else than a small request has happened.
    fn leave(&mut self) -> bool {
        if self.place == Place::Home {
            // Moving costs little beside many small requests and much beside few.
            let stayed = self.small / LONG_STAY >= self.asked_for;
            self.asked_for = if stayed { SMALL_IN_A_ROW } else { (2 * self.asked_for).min(MOST_IN_A_ROW) };
        }
        self.depart()
    }

    fn depart(&mut self) -> bool {
        self.small = 0;
        std::mem::replace(&mut self.place, Place::Anywhere) == Place::Home
    }
}

#[cfg(test)]
mod tests {
    use casemate_protocol::error::{ErrorCode, Refusal};

    use super::*;
    use crate::ipc::CommitResult;

    const READ: Duration = Duration::from_micros(12);

    fn request(bytes: usize) -> ToManager {
        ToManager::Request { id: 1, deadline_ms: 1000, frame: vec![0; bytes], credentials: None }
    }

    fn reply(bytes: usize) -> FromManager {
        FromManager::Reply { id: 1, frame: vec![0; bytes] }
    }

    /// Small requests, each answered; how often the process is moved meanwhile.
    fn serve(habit: &mut Habit, times: u32) -> usize {
        (0..times).flat_map(|_| [habit.told(&request(300)), habit.said(&reply(300))]).filter(|moves| *moves).count()
    }

    fn at_home() -> Habit {
        let mut habit = Habit::default();
        assert_eq!(serve(&mut habit, SMALL_IN_A_ROW), 1);
        assert_eq!(habit.place(), Place::Home);
        habit
    }

    #[test]
    fn small_requests_lead_home_once() {
        let mut habit = Habit::default();
        assert_eq!(serve(&mut habit, SMALL_IN_A_ROW - 1), 0);
        assert_eq!(serve(&mut habit, 1), 1);
        assert_eq!(serve(&mut habit, 10 * SMALL_IN_A_ROW), 0);
        assert_eq!(habit.place(), Place::Home);
    }

    #[test]
    fn whatever_takes_longer_is_done_anywhere_and_small_requests_lead_home_again() {
        type Event = fn(&mut Habit) -> bool;
        let events: [Event; 6] = [
            |habit| habit.told(&request(SMALL_BYTES + 1)),
            |habit| habit.told(&ToManager::OpenRefused(Refusal::new(ErrorCode::Busy))),
            |habit| habit.told(&ToManager::CommitResult(CommitResult::Committed)),
            |habit| habit.told(&request(300)) || habit.said(&reply(SMALL_BYTES + 1)),
            |habit| habit.said(&FromManager::Commit { version: 1, object: Vec::new() }),
            |habit| habit.said(&FromManager::Resume),
        ];
        for event in events {
            let mut habit = Habit::default();
            serve(&mut habit, SMALL_IN_A_ROW / 2);
            assert!(!event(&mut habit), "it is anywhere already");
            assert_eq!(serve(&mut habit, SMALL_IN_A_ROW - 1), 0, "not in a row");
            assert_eq!(serve(&mut habit, 1), 1);
            assert!(event(&mut habit));
            assert_eq!(habit.place(), Place::Anywhere);
            assert!(!event(&mut habit));
            assert_eq!(serve(&mut habit, 2 * SMALL_IN_A_ROW), 1);
            assert_eq!(habit.place(), Place::Home);
        }
    }

    #[test]
    fn who_never_stays_is_moved_less_and_less() {
        let mut habit = Habit::default();
        let mut requests = 0;
        for moves in 1..=20 {
            while habit.place() == Place::Anywhere {
                serve(&mut habit, 1);
                requests += 1;
            }
            assert!(habit.told(&request(SMALL_BYTES + 1)), "{moves}");
        }
        assert!(requests > 12 * MOST_IN_A_ROW, "{requests}");
        serve(&mut habit, LONG_STAY * MOST_IN_A_ROW);
        assert!(habit.told(&request(SMALL_BYTES + 1)), "it stayed for long");
        assert_eq!(serve(&mut habit, SMALL_IN_A_ROW), 1, "and is believed again");
    }

    #[test]
    fn who_computes_at_home_is_sent_away_asked_or_not() {
        let look = Duration::from_millis(500);
        // Nothing is owed, and nothing answered.
        let mut idle = at_home();
        assert!(!idle.looked_at(Some(READ)), "it answered a moment ago");
        assert!(idle.looked_at(Some(look)));
        assert_eq!(serve(&mut idle, MOST_IN_A_ROW - 1), 0, "it does not come again soon");
        // One answer each time, and something owed all the time.
        let mut busy = at_home();
        assert!(!busy.told(&request(300)));
        assert!(!busy.looked_at(Some(READ)));
        assert_eq!(serve(&mut busy, 100), 0);
        assert!(busy.looked_at(Some(READ + 101 * SMALL_TIME)));
        // Small requests that are nothing else.
        let mut sound = at_home();
        for looks in 0..20 {
            assert!(!sound.looked_at(Some(looks * 1000 * READ)), "{looks}");
            assert_eq!(serve(&mut sound, 1000), 0);
        }
        // Who is idle leaves, too, and comes again as soon as there is something to do.
        let mut pauses = at_home();
        for times in 0..10 {
            assert!(!pauses.looked_at(Some(READ)));
            assert!(pauses.looked_at(Some(READ)), "{times}");
            assert_eq!(serve(&mut pauses, SMALL_IN_A_ROW), 1, "{times}");
        }
    }

    #[test]
    fn answers_to_nothing_lead_nowhere_and_who_is_stopped_stays_where_he_is() {
        let mut habit = Habit::default();
        assert!((0..1000).all(|_| !habit.said(&reply(300))));
        let mut habit = at_home();
        assert!(habit.said(&reply(300)));
        let mut habit = at_home();
        assert!(habit.told(&ToManager::Stop { park: false }));
        assert_eq!(serve(&mut habit, 10 * MOST_IN_A_ROW), 0);
    }
}
