//! One write of one version: put, and if its outcome is unclear, read back until it is clear or the deadline ends.
//!
//! Create-only puts make this safe: whatever the store says, at most one body ever stands under a version's name, and reading it tells
//! whose it is. The same bytes may be put any number of times; other bytes are never made for a version whose fate is unknown.

use std::time::Duration;

use bytes::Bytes;

use super::event::{Op, Put, StoreFailed};
use crate::ipc::CommitResult;
use crate::supervisor::backoff;

/// A write in flight.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Commit {
    /// The version.
    pub version: u64,
    /// Its path.
    pub path: String,
    /// Its object.
    pub bytes: Bytes,
    /// When it began.
    begun: Duration,
    /// When it becomes [`CommitResult::Unknown`].
    deadline: Duration,
    /// How long one answer is waited for.
    timeout: Duration,
    phase: Phase,
    /// The put call that has not ended yet.
    put: Option<Op>,
    /// Whether a put may have reached the store.
    was_sent: bool,
    attempt: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Phase {
    /// The put is waited for, until then.
    Putting { until: Duration },
    /// A read-back is waited for.
    Reading { op: Op, until: Duration },
    /// Trying again then.
    Waiting { until: Duration },
}

/// What is to be done next for a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Wait.
    Wait,
    /// Put the bytes, as this call.
    Put(Op),
    /// Read the version back, as this call.
    ReadBack(Op),
    /// It is over.
    Done(CommitResult),
}

impl Commit {
    /// Begins with a put.
    pub fn begin(version: u64, path: String, bytes: Bytes, timeout: Duration, now: Duration, op: Op) -> Self {
        Self {
            version,
            path,
            bytes,
            begun: now,
            deadline: now + timeout * 2,
            timeout,
            phase: Phase::Putting { until: now + timeout },
            put: Some(op),
            was_sent: false,
            attempt: 0,
        }
    }

    /// When [`Commit::tick`] is to be called.
    pub fn wake(&self) -> Duration {
        let (Phase::Putting { until } | Phase::Reading { until, .. } | Phase::Waiting { until }) = self.phase;
        until.min(self.deadline)
    }

    /// When it began.
    pub(super) fn begun(&self) -> Duration {
        self.begun
    }

    /// When it is over at the latest.
    pub fn deadline(&self) -> Duration {
        self.deadline
    }

    /// The put call that has not ended.
    pub fn outstanding_put(&self) -> Option<Op> {
        self.put
    }

    /// A put call has ended.
    pub fn put_done(&mut self, op: Op, put: Put, now: Duration, next: Op) -> Step {
        if self.put != Some(op) {
            return Step::Wait;
        }
        self.put = None;
        let waited_for = matches!(self.phase, Phase::Putting { .. });
        match put {
            Put::Created => Step::Done(CommitResult::Committed),
            Put::NotSent if !self.was_sent => Step::Done(CommitResult::NotSent),
            Put::NotSent if waited_for => self.pause(now),
            Put::Exists | Put::Unclear if waited_for => {
                self.was_sent = true;
                self.read(now, next)
            }
            // A put that was given up meanwhile; the read-back under way decides.
            Put::NotSent | Put::Exists | Put::Unclear => Step::Wait,
        }
    }

    /// A read-back has ended.
    pub fn read_back(&mut self, op: Op, found: &Result<Option<Vec<u8>>, StoreFailed>, now: Duration) -> Step {
        match self.phase {
            Phase::Reading { op: waited_for, .. } if waited_for == op => {}
            _ => return Step::Wait,
        }
        match found {
            Ok(Some(bytes)) if *bytes == self.bytes => Step::Done(CommitResult::Committed),
            Ok(Some(_)) => Step::Done(CommitResult::OtherWriter),
            Ok(None) | Err(StoreFailed) => self.pause(now),
        }
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Duration, next: Op) -> Step {
        if now >= self.deadline {
            return Step::Done(CommitResult::Unknown);
        }
        match self.phase {
            Phase::Putting { until } if now >= until => {
                // The call goes on; its object may be there already.
                self.was_sent = true;
                self.read(now, next)
            }
            Phase::Reading { until, .. } if now >= until => self.pause(now),
            // Two puts at once could not be told apart; while one has not ended, reading is all that is left.
            Phase::Waiting { until } if now >= until && self.put.is_some() => self.read(now, next),
            Phase::Waiting { until } if now >= until => {
                self.put = Some(next);
                self.phase = Phase::Putting { until: now + self.timeout };
                Step::Put(next)
            }
            Phase::Putting { .. } | Phase::Reading { .. } | Phase::Waiting { .. } => Step::Wait,
        }
    }

    fn read(&mut self, now: Duration, op: Op) -> Step {
        self.phase = Phase::Reading { op, until: now + self.timeout };
        Step::ReadBack(op)
    }

    fn pause(&mut self, now: Duration) -> Step {
        self.phase = Phase::Waiting { until: now + backoff::wait(self.attempt, self.version) };
        self.attempt = self.attempt.saturating_add(1);
        Step::Wait
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(5);

    fn begin() -> Commit {
        Commit::begin(3, "p".to_owned(), Bytes::from_static(b"ours"), TIMEOUT, Duration::ZERO, Op(1))
    }

    #[test]
    fn created_is_committed() {
        assert_eq!(begin().put_done(Op(1), Put::Created, Duration::ZERO, Op(2)), Step::Done(CommitResult::Committed));
        assert_eq!(begin().put_done(Op(9), Put::Created, Duration::ZERO, Op(2)), Step::Wait, "another call's result");
    }

    #[test]
    fn what_stands_there_decides() {
        for put in [Put::Exists, Put::Unclear] {
            for (found, result) in
                [(b"ours".to_vec(), CommitResult::Committed), (b"theirs".to_vec(), CommitResult::OtherWriter)]
            {
                let mut commit = begin();
                assert_eq!(commit.put_done(Op(1), put, Duration::ZERO, Op(2)), Step::ReadBack(Op(2)));
                assert_eq!(commit.read_back(Op(2), &Ok(Some(found)), Duration::ZERO), Step::Done(result));
            }
        }
    }

    #[test]
    fn absent_puts_the_same_bytes_again() {
        let mut commit = begin();
        assert_eq!(commit.put_done(Op(1), Put::Exists, Duration::ZERO, Op(2)), Step::ReadBack(Op(2)));
        assert_eq!(commit.read_back(Op(2), &Ok(None), Duration::ZERO), Step::Wait);
        let then = commit.wake();
        assert!(then <= backoff::LONGEST);
        assert_eq!(commit.tick(then, Op(3)), Step::Put(Op(3)));
        assert_eq!(commit.put_done(Op(3), Put::NotSent, then, Op(4)), Step::Wait, "an earlier put may have arrived");
        let then = commit.wake();
        assert_eq!(commit.tick(then, Op(5)), Step::Put(Op(5)));
        assert_eq!(commit.put_done(Op(5), Put::Created, then, Op(6)), Step::Done(CommitResult::Committed));
    }

    #[test]
    fn a_silent_put_is_read_back_and_never_doubled() {
        let mut commit = begin();
        let mut now = commit.wake();
        assert_eq!(now, TIMEOUT);
        assert_eq!(commit.tick(now, Op(2)), Step::ReadBack(Op(2)));
        assert_eq!(commit.read_back(Op(2), &Err(StoreFailed), now), Step::Wait);
        let mut op = 3;
        let last = loop {
            now = commit.wake();
            match commit.tick(now, Op(op)) {
                Step::ReadBack(read) => assert_eq!(commit.read_back(read, &Ok(None), now), Step::Wait),
                Step::Put(_) => panic!("the first put has not ended"),
                Step::Wait => {}
                Step::Done(result) => break result,
            }
            op += 1;
        };
        assert_eq!((last, now), (CommitResult::Unknown, TIMEOUT * 2));
        assert_eq!(commit.outstanding_put(), Some(Op(1)));
    }

    #[test]
    fn never_sent_is_said_so() {
        assert_eq!(begin().put_done(Op(1), Put::NotSent, Duration::ZERO, Op(2)), Step::Done(CommitResult::NotSent));
    }
}
