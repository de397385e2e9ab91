//! The sessions that a vault-manager has named. Frames under any other name wake nobody, and a name under which too many frames fail is
//! forgotten: its owner makes another session, whoever else knew the name has to find out the new one.

use std::collections::VecDeque;
use std::time::Duration;

use casemate_link::TokenBucket;
use casemate_protocol::frame::SessionId;

use crate::vault::parking::PARKED_SESSIONS;
use crate::vault::sessions::{HANDSHAKE_AGE, HANDSHAKES, SESSIONS};

/// Frames that may fail under one name, at once and each second from then on. A device's own seldom do: replayed by a network, a few.
const FAILURES: u32 = 1024;
const FAILURES_PER_SECOND: u32 = 64;
/// The vault-manager counts its own time and uses: what it still takes must still be known here.
const MARGIN: Duration = Duration::from_secs(1);
const PROVEN: usize = 2 * SESSIONS;

/// Names that the vault-manager may know.
#[derive(Debug, Clone, Default)]
pub(super) struct Sessions {
    /// Named in a welcome then, oldest first. Nobody has shown anything under these.
    named: VecDeque<(SessionId, Duration)>,
    /// Frames have opened under these.
    proven: Vec<Proven>,
}

#[derive(Debug, Clone)]
struct Proven {
    id: SessionId,
    used_at: Duration,
    failures: TokenBucket,
}

impl Sessions {
    /// The vault-manager has named a session.
    pub(super) fn name(&mut self, id: SessionId, now: Duration) {
        while self.named.len() >= HANDSHAKES || self.named.front().is_some_and(|(_, at)| is_over(*at, now)) {
            self.named.pop_front();
        }
        self.named.push_back((id, now));
    }

    /// Whether the vault-manager may know this name.
    pub(super) fn knows(&self, id: &SessionId, now: Duration) -> bool {
        self.proven.iter().any(|proven| proven.id == *id)
            || self.named.iter().any(|(named, at)| named == id && !is_over(*at, now))
    }

    /// The names that a vault-manager may park: those that were used last.
    pub(super) fn to_be_parked(&self) -> Self {
        let mut proven = self.proven.clone();
        proven.sort_unstable_by_key(|proven| std::cmp::Reverse(proven.used_at));
        proven.truncate(PARKED_SESSIONS);
        Self { named: VecDeque::new(), proven }
    }

    /// Takes over what became of these names elsewhere: the failures under them, and which are forgotten. No other name comes in.
    pub(super) fn learn_from(&mut self, other: &Self) {
        self.proven.retain_mut(|ours| {
            let theirs = other.proven.iter().find(|theirs| theirs.id == ours.id);
            theirs.is_some_and(|theirs| {
                ours.clone_from(theirs);
                true
            })
        });
    }

    /// A frame under this name opened.
    pub(super) fn prove(&mut self, id: SessionId, now: Duration) {
        if let Some(proven) = self.proven.iter_mut().find(|proven| proven.id == id) {
            proven.used_at = now;
            return;
        }
        // Only what was named can be proven: a reply to anything else is none.
        let Some(at) = self.named.iter().position(|(named, _)| *named == id) else { return };
        self.named.remove(at);
        if self.proven.len() >= PROVEN
            && let Some((oldest, _)) = self.proven.iter().enumerate().min_by_key(|(_, proven)| proven.used_at)
        {
            self.proven.swap_remove(oldest);
        }
        let failures = TokenBucket::with_burst(FAILURES_PER_SECOND, FAILURES);
        self.proven.push(Proven { id, used_at: now, failures });
    }

    /// A frame under this name did not open.
    pub(super) fn fail(&mut self, id: SessionId, now: Duration) {
        // A handshake ends with its first message 3, well or badly.
        self.named.retain(|(named, _)| *named != id);
        if let Some(at) = self.proven.iter().position(|proven| proven.id == id)
            && self.proven[at].failures.take(now).is_err()
        {
            self.proven.swap_remove(at);
        }
    }
}

fn is_over(named_at: Duration, now: Duration) -> bool {
    now.saturating_sub(named_at) >= HANDSHAKE_AGE + MARGIN
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(100);

    fn id(number: usize) -> SessionId {
        let mut id = [0; 16];
        id[..8].copy_from_slice(&number.to_be_bytes());
        id
    }

    #[test]
    fn a_name_is_known_while_its_handshake_may_be_finished() {
        let mut sessions = Sessions::default();
        assert!(!sessions.knows(&id(1), NOW));
        sessions.name(id(1), NOW);
        assert!(sessions.knows(&id(1), NOW + HANDSHAKE_AGE));
        assert!(!sessions.knows(&id(1), NOW + HANDSHAKE_AGE + MARGIN));
        sessions.name(id(2), NOW);
        sessions.fail(id(2), NOW);
        assert!(!sessions.knows(&id(2), NOW), "a handshake can be ended once");
    }

    #[test]
    fn a_proven_session_outlives_any_number_of_names() {
        let mut sessions = Sessions::default();
        sessions.name(id(0), NOW);
        sessions.prove(id(0), NOW);
        for number in 1..10 * HANDSHAKES {
            sessions.name(id(number), NOW);
        }
        assert!(sessions.knows(&id(0), NOW + Duration::from_hours(1)));
        assert!(sessions.named.len() <= HANDSHAKES);
        sessions.prove(id(usize::MAX), NOW);
        assert!(!sessions.knows(&id(usize::MAX), NOW), "never named");
    }

    #[test]
    fn the_least_recently_used_makes_room() {
        let mut sessions = Sessions::default();
        for number in 0..=PROVEN {
            let now = NOW + Duration::from_secs(number as u64);
            sessions.name(id(number), now);
            sessions.prove(id(number), now);
            sessions.prove(id(0), now);
        }
        assert_eq!(sessions.proven.len(), PROVEN);
        assert!(sessions.knows(&id(0), NOW) && !sessions.knows(&id(1), NOW));
    }

    #[test]
    fn a_flood_of_failures_ends_the_name_and_a_trickle_does_not() {
        let mut sessions = Sessions::default();
        sessions.name(id(1), NOW);
        sessions.prove(id(1), NOW);
        for second in 0..100 {
            for _ in 0..FAILURES_PER_SECOND {
                sessions.fail(id(1), NOW + Duration::from_secs(second));
            }
        }
        assert!(sessions.knows(&id(1), NOW));
        let then = NOW + Duration::from_secs(200);
        (0..=FAILURES).for_each(|_| sessions.fail(id(1), then));
        assert!(!sessions.knows(&id(1), then));
    }
}
