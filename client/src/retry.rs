//! When to ask again: the one retry policy of this crate.
//!
//! A request is asked again until its deadline. That is safe because every mutation carries a sequence number under which the vault
//! remembers its outcome: asking twice never does a thing twice. So the only questions are *how soon* and *in which session*, and
//! they are answered here and nowhere else.
//!
//! - The session is gone: at once, in a new one.
//! - The other side has too much to do, or a part of it is away: later, twice as late each time, anywhere in that time (full jitter),
//!   because a thousand devices that were all refused together must not come back together. A `retry_after` is respected, but never
//!   above [`LONGEST`]: outside a session anybody could have written it.
//! - No answer: the same frame's request again, after at most half of the time that is left.
//! - Everything else: never; the answer would be the same.

use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};

/// The first pause is below this.
pub const FIRST: Duration = Duration::from_millis(40);
/// No pause is longer than this.
pub const LONGEST: Duration = Duration::from_secs(3);
/// With less time left than this, an attempt gets all of it.
const WHOLE: Duration = Duration::from_secs(2);

/// What a refusal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same request in a new session.
    NewSession,
    /// The same request after a pause; `retry_after` if one was given.
    Later(Option<Duration>),
    /// It is final.
    Final,
}

/// What a refusal asks for.
pub fn verdict(refusal: &Refusal) -> Verdict {
    let after = refusal.retry_after_ms.map(|ms| Duration::from_millis(ms.into()));
    match refusal.code {
        ErrorCode::SessionUnknown => Verdict::NewSession,
        ErrorCode::Busy
        | ErrorCode::Unavailable
        | ErrorCode::DeadlineExceeded
        | ErrorCode::OutcomeUnknown
        | ErrorCode::Moved
        | ErrorCode::Draining
        | ErrorCode::RateLimited
        | ErrorCode::Internal => Verdict::Later(after),
        ErrorCode::Malformed
        | ErrorCode::UnsupportedVersion
        | ErrorCode::TooLarge
        | ErrorCode::InvalidArgument
        | ErrorCode::NotAuthorised
        | ErrorCode::NotFound
        | ErrorCode::AlreadyExists
        | ErrorCode::Conflict
        | ErrorCode::QuotaExceeded
        | ErrorCode::Deleted
        | ErrorCode::HeadInvalid
        | ErrorCode::RollbackDetected
        | ErrorCode::ForkDetected
        | ErrorCode::HistoryUnknown
        | ErrorCode::Superseded
        | ErrorCode::LockTurned
        | ErrorCode::WrongAlgorithm
        | ErrorCode::NotExportable
        | ErrorCode::VerificationFailed
        | ErrorCode::StateCorrupt
        | ErrorCode::AccessRefused => Verdict::Final,
    }
}

/// The time that one attempt may take of the time that is left: half, so that there is a second one, unless little is left.
pub fn attempt_time(remaining: Duration) -> Duration {
    if remaining <= WHOLE { remaining } else { remaining / 2 }
}

/// The pauses between the attempts of one request.
#[derive(Debug, Clone, Default)]
pub struct Backoff {
    attempts: u32,
}

impl Backoff {
    /// The next pause, given what the other side asked for and a random number.
    pub fn pause(&mut self, retry_after: Option<Duration>, random: u64) -> Duration {
        let ceiling = FIRST.saturating_mul(1 << self.attempts.min(10)).min(LONGEST);
        self.attempts = self.attempts.saturating_add(1);
        let nanos = u64::try_from(ceiling.as_nanos()).expect("three seconds");
        let jittered = Duration::from_nanos(random % (nanos + 1));
        retry_after.unwrap_or_default().min(LONGEST).saturating_add(jittered).min(LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_session_first_then_time() {
        assert_eq!(verdict(&Refusal::new(ErrorCode::SessionUnknown)), Verdict::NewSession);
        assert_eq!(verdict(&Refusal::retry(ErrorCode::Busy, 70)), Verdict::Later(Some(Duration::from_millis(70))));
        for code in [ErrorCode::RollbackDetected, ErrorCode::Conflict, ErrorCode::NotAuthorised, ErrorCode::Superseded]
        {
            assert_eq!(verdict(&Refusal::retry(code, 1)), Verdict::Final, "{code}");
        }
    }

    #[test]
    fn there_is_always_a_second_attempt_when_time_allows() {
        assert_eq!(attempt_time(Duration::from_secs(10)), Duration::from_secs(5));
        assert_eq!(attempt_time(Duration::from_millis(1500)), Duration::from_millis(1500));
    }

    proptest! {
        /// Whatever a host writes into `retry_after`, and whatever the dice say.
        #[test]
        fn pauses_are_bounded_and_respect_the_request(after in prop::option::of(0_u64..10_000_000), random: u64, attempts in 0_u32..50) {
            let mut backoff = Backoff { attempts };
            let after = after.map(Duration::from_millis);
            let pause = backoff.pause(after, random);
            prop_assert!(pause <= LONGEST);
            prop_assert!(pause >= after.unwrap_or_default().min(LONGEST));
            prop_assert_eq!(backoff.attempts, attempts + 1);
        }
    }
}
