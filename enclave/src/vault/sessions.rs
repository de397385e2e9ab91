//! The sessions of one vault: handshakes that are not finished, and those that are.

use std::collections::VecDeque;
use std::fmt;
use std::mem;
use std::time::Duration;

use casemate_protocol::frame::SessionId;
use casemate_protocol::session::{Channel, Responder};
use minicbor::{Decode, Encode};

/// Unfinished handshakes of one vault; the oldest goes first. As many as the supervisor lets come within [`HANDSHAKE_AGE`], so that none is
/// pushed out before its time (`crate::supervisor::router`).
pub(crate) const HANDSHAKES: usize = 104;
/// An unfinished handshake is dropped after this time.
pub(crate) const HANDSHAKE_AGE: Duration = Duration::from_secs(5);
/// Sessions of one vault; the least recently used goes first. Its device makes a new one by itself.
pub(crate) const SESSIONS: usize = 64;

/// An established session with an enrolled device.
#[derive(Encode, Decode)]
#[cbor(map)]
pub struct Session {
    /// Its name.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub id: SessionId,
    /// The device's static key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub device: [u8; 32],
    /// Seals and opens.
    #[n(2)]
    pub channel: Channel,
    /// When it was established, monotonic.
    #[n(3)]
    opened_at: Duration,
    /// When it was last used, monotonic.
    #[n(4)]
    used_at: Duration,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Session(redacted)")
    }
}

/// Handshakes and sessions.
#[derive(Debug, Default)]
pub struct Sessions {
    handshakes: VecDeque<(SessionId, Duration, Responder)>,
    established: Vec<Session>,
}

impl Sessions {
    /// Keeps a handshake until its message 3.
    pub fn begin(&mut self, id: SessionId, responder: Responder, now: Duration) {
        self.handshakes.retain(|(_, at, _)| now.saturating_sub(*at) < HANDSHAKE_AGE);
        if self.handshakes.len() == HANDSHAKES {
            self.handshakes.pop_front();
        }
        self.handshakes.push_back((id, now, responder));
    }

    /// Whether a handshake has this name.
    pub fn has_begun(&self, id: &SessionId) -> bool {
        self.handshakes.iter().any(|(known, _, _)| known == id)
    }

    /// Takes a handshake out: it can be finished once.
    pub fn take_handshake(&mut self, id: &SessionId, now: Duration) -> Option<Responder> {
        let at = self.handshakes.iter().position(|(known, _, _)| known == id)?;
        let (_, begun, responder) = self.handshakes.remove(at)?;
        (now.saturating_sub(begun) < HANDSHAKE_AGE).then_some(responder)
    }

    /// Establishes a session.
    pub fn establish(&mut self, id: SessionId, device: [u8; 32], channel: Channel, now: Duration) {
        if self.established.len() >= SESSIONS
            && let Some((oldest, _)) = self.established.iter().enumerate().min_by_key(|(_, session)| session.used_at)
        {
            self.established.swap_remove(oldest);
        }
        self.established.push(Session { id, device, channel, opened_at: now, used_at: now });
    }

    /// A session that may still be used.
    pub fn get(&mut self, id: &SessionId, now: Duration) -> Option<&mut Session> {
        let at = self.established.iter().position(|session| session.id == *id)?;
        let session = &self.established[at];
        if session.channel.is_exhausted(now.saturating_sub(session.opened_at)) {
            self.established.swap_remove(at);
            return None;
        }
        let session = &mut self.established[at];
        session.used_at = now;
        Some(session)
    }

    /// Goes on with sessions that another process of this vault has parked. There are none yet.
    pub fn resume(&mut self, parked: Vec<Session>) {
        debug_assert!(self.established.is_empty(), "nobody is let in before the vault is open");
        self.established = parked;
        self.established.truncate(SESSIONS);
    }

    /// The sessions that were used last, no more than `count`, to be parked. They are not here any more.
    pub fn leave(&mut self, count: usize) -> Vec<Session> {
        let mut leaving = mem::take(&mut self.established);
        leaving.sort_unstable_by_key(|session| std::cmp::Reverse(session.used_at));
        leaving.truncate(count);
        leaving
    }

    /// Ends the sessions of devices that `stays` does not name.
    pub fn retain(&mut self, stays: impl Fn(&[u8; 32]) -> bool) {
        self.established.retain(|session| stays(&session.device));
    }

    /// Ends all sessions.
    pub fn clear(&mut self) {
        self.established.clear();
    }
}
