//! Frames that the enclave is about to refuse, refused here while somebody floods a vault with them.
//!
//! The enclave alone knows which sessions there are, and refuses all others by itself. But each frame that it refuses has crossed the link,
//! which all vaults share, and woken it. Once it has refused one of a vault's frames, it is asked about others under names that it has not
//! answered to only as often as mistakes of the vault's devices can explain; the rest get here what they would get there. They are counted
//! when they leave and not when they are refused: the busier the enclave, the later that comes, and the more would be on their way. A
//! device that is mistaken for a stranger (this process was started anew, or another session took its place here) makes a new session, as
//! it would if the enclave had been.

use std::hash::{BuildHasher, RandomState};
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use casemate_link::TokenBucket;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::SessionId;
use casemate_protocol::id::VaultId;
use lru::LruCache;
use tokio::time::Instant;

/// Frames of one vault and kind, under unknown names, that the enclave is asked about after it refused one: at once, and each second.
const ASKED: u32 = 256;
const ASKED_PER_SECOND: u32 = 64;
/// Vaults of which the enclave refused a frame, those of the latest refusals.
const VAULTS: NonZeroUsize = NonZeroUsize::new(1024).expect("not zero");
/// Places for sessions, 8 bytes each, and for handshakes, which last five seconds. Two that fall on the same place take turns there.
const SESSIONS: usize = 1 << 18;
const HANDSHAKES: usize = 1 << 16;

/// Who is a stranger, and in which vaults there are too many of them.
#[derive(Debug)]
pub struct Strangers {
    begun: Instant,
    /// Of this process alone: nobody can choose a name for the place that it takes.
    hasher: RandomState,
    /// Sessions in which frames have opened.
    sessions: Names,
    /// Those that were named in a welcome. Anybody can have these made, and none pushes a session out.
    handshakes: Names,
    /// What the enclave may still be asked, by vault; first handshakes, then frames that name a session.
    refused: Mutex<LruCache<VaultId, [TokenBucket; 2]>>,
    /// Whether any was ever refused: the usual answer, without the lock.
    any_refused: AtomicBool,
}

impl Default for Strangers {
    fn default() -> Self {
        Self {
            begun: Instant::now(),
            hasher: RandomState::new(),
            sessions: Names::new(SESSIONS),
            handshakes: Names::new(HANDSHAKES),
            refused: Mutex::new(LruCache::new(VAULTS)),
            any_refused: AtomicBool::new(false),
        }
    }
}

impl Strangers {
    /// A vault began a handshake under this name.
    pub fn welcomed(&self, vault: VaultId, session: &SessionId) {
        self.handshakes.put(self.hash(vault, session));
    }

    /// A frame opened in this session of the vault.
    pub fn opened(&self, vault: VaultId, session: &SessionId) {
        self.sessions.put(self.hash(vault, session));
    }

    /// Whether a frame has opened in this session.
    pub fn knows(&self, vault: VaultId, session: &SessionId) -> bool {
        self.sessions.have(self.hash(vault, session))
    }

    /// The enclave refused a frame of this vault.
    pub fn refused(&self, vault: VaultId, session: Option<&SessionId>, code: ErrorCode) {
        // What it refuses for other reasons says nothing of who asked.
        match (session, code) {
            (Some(session), ErrorCode::SessionUnknown) => {
                let hash = self.hash(vault, session);
                self.sessions.remove(hash);
                self.handshakes.remove(hash);
            }
            (None, ErrorCode::Busy) => {}
            _ => return,
        }
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.get_or_insert(vault, || [(); 2].map(|()| TokenBucket::with_burst(ASKED_PER_SECOND, ASKED)));
        self.any_refused.store(true, Ordering::Relaxed);
    }

    /// Whether a frame may go to the enclave.
    ///
    /// # Errors
    /// With what the device is to be told.
    pub fn admits(&self, vault: VaultId, session: Option<&SessionId>, at: Instant) -> Result<(), Refusal> {
        if !self.any_refused.load(Ordering::Relaxed) {
            return Ok(());
        }
        if let Some(session) = session {
            let hash = self.hash(vault, session);
            if self.sessions.have(hash) || self.handshakes.have(hash) {
                return Ok(());
            }
        }
        let (kind, at) = (usize::from(session.is_some()), at - self.begun);
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(bucket) = refused.peek_mut(&vault).map(|buckets| &mut buckets[kind]) else { return Ok(()) };
        let Some(wait) = bucket.wait(at) else {
            bucket.take(at).ok();
            return Ok(());
        };
        if session.is_some() {
            return Err(ErrorCode::SessionUnknown.into());
        }
        let milliseconds = u32::try_from(wait.as_micros().div_ceil(1000)).unwrap_or(u32::MAX);
        Err(Refusal::retry(ErrorCode::Busy, milliseconds))
    }

    fn hash(&self, vault: VaultId, session: &SessionId) -> u64 {
        // Zero is an empty place.
        self.hasher.hash_one((vault, session)).max(1)
    }
}

/// Names by their hash: a place holds the one that came last.
#[derive(Debug)]
struct Names(Box<[AtomicU64]>);

impl Names {
    /// With so many places, a power of two.
    fn new(places: usize) -> Self {
        Self(std::iter::repeat_with(AtomicU64::default).take(places).collect())
    }

    fn place(&self, hash: u64) -> &AtomicU64 {
        &self.0[usize::try_from(hash % self.0.len() as u64).expect("below the number of places")]
    }

    fn have(&self, hash: u64) -> bool {
        self.place(hash).load(Ordering::Relaxed) == hash
    }

    fn put(&self, hash: u64) {
        self.place(hash).store(hash, Ordering::Relaxed);
    }

    fn remove(&self, hash: u64) {
        self.place(hash).compare_exchange(hash, 0, Ordering::Relaxed, Ordering::Relaxed).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const VAULT: VaultId = VaultId::from_bytes([1; 20]);
    const OTHER: VaultId = VaultId::from_bytes([2; 20]);

    fn name(number: u64) -> SessionId {
        let mut name = [0; 16];
        name[..8].copy_from_slice(&number.to_le_bytes());
        name[8..].copy_from_slice(&(number + 1).to_le_bytes());
        name
    }

    /// Frames under names that nobody has, each refused by the enclave if it gets there; how many did.
    fn flood(strangers: &Strangers, frames: u64, at: Instant) -> usize {
        let frames = (0..frames).map(|number| name(1_000_000 + number));
        let passed: Vec<SessionId> = frames
            .filter(|name| strangers.admits(VAULT, Some(name), at).is_ok())
            .inspect(|name| strangers.refused(VAULT, Some(name), ErrorCode::SessionUnknown))
            .collect();
        passed.len()
    }

    #[test]
    fn a_flood_gets_to_the_enclave_at_a_bounded_rate() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        assert_eq!(flood(&strangers, 10_000, now), 1 + ASKED as usize);
        assert_eq!(flood(&strangers, 10_000, now + Duration::from_secs(1)), ASKED_PER_SECOND as usize);
        let stranger = strangers.admits(VAULT, Some(&name(5)), now + Duration::from_secs(1));
        assert_eq!(stranger.unwrap_err(), ErrorCode::SessionUnknown.into());
        let later = now + Duration::from_mins(1);
        assert_eq!(strangers.admits(VAULT, Some(&name(5)), later), Ok(()), "it is over");
    }

    /// However long the enclave takes to refuse them.
    #[test]
    fn frames_count_when_they_leave() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        strangers.refused(VAULT, Some(&name(1)), ErrorCode::SessionUnknown);
        for (seconds, asked) in [(0, ASKED), (1, ASKED_PER_SECOND), (2, ASKED_PER_SECOND)] {
            let at = now + Duration::from_secs(seconds);
            for session in [None, Some(&name(2))] {
                let left = (0..10_000).filter(|_| strangers.admits(VAULT, session, at).is_ok()).count();
                assert_eq!(left, asked as usize, "after {seconds} s");
            }
        }
    }

    #[test]
    fn sessions_of_the_vault_and_other_vaults_do_not_notice() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        strangers.opened(VAULT, &name(7));
        flood(&strangers, 10_000, now);
        assert_eq!(strangers.admits(VAULT, Some(&name(7)), now), Ok(()));
        assert_eq!(strangers.admits(VAULT, None, now), Ok(()), "a handshake");
        assert_eq!(strangers.admits(OTHER, Some(&name(8)), now), Ok(()));
    }

    /// Whoever floods under a name that he overheard is a stranger as soon as the enclave has forgotten it.
    #[test]
    fn what_the_enclave_forgets_is_forgotten() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        strangers.opened(VAULT, &name(7));
        flood(&strangers, 10_000, now);
        strangers.refused(VAULT, Some(&name(7)), ErrorCode::SessionUnknown);
        assert!(strangers.admits(VAULT, Some(&name(7)), now).is_err());
        strangers.opened(VAULT, &name(7));
        assert_eq!(strangers.admits(VAULT, Some(&name(7)), now), Ok(()), "it is there again");
    }

    /// Whoever knows a session's name can write it wherever he likes, and have handshakes begun without end.
    #[test]
    fn a_session_is_forgotten_for_what_happened_in_its_own_vault_alone() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        strangers.opened(VAULT, &name(7));
        flood(&strangers, 10_000, now);
        strangers.refused(OTHER, Some(&name(7)), ErrorCode::SessionUnknown);
        for number in 0..1_000_000 {
            strangers.welcomed(OTHER, &name(number));
        }
        assert_eq!(strangers.admits(VAULT, Some(&name(7)), now), Ok(()));
        strangers.opened(OTHER, &name(8));
        assert!(strangers.admits(VAULT, Some(&name(8)), now).is_err(), "a session of another vault");
    }

    #[test]
    fn a_handshake_that_was_begun_can_be_finished() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        strangers.welcomed(VAULT, &name(7));
        flood(&strangers, 10_000, now);
        assert_eq!(strangers.admits(VAULT, Some(&name(7)), now), Ok(()));
        assert!(!strangers.knows(VAULT, &name(7)), "nothing has opened yet");
        strangers.refused(VAULT, Some(&name(7)), ErrorCode::SessionUnknown);
        assert!(strangers.admits(VAULT, Some(&name(7)), now).is_err());
    }

    #[test]
    fn handshakes_that_the_enclave_has_no_room_for_are_told_when_to_come_again() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        for _ in 0..=ASKED {
            assert_eq!(strangers.admits(VAULT, None, now), Ok(()));
            strangers.refused(VAULT, None, ErrorCode::Busy);
        }
        let refusal = strangers.admits(VAULT, None, now).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::Busy);
        let wait = Duration::from_millis(refusal.retry_after_ms.unwrap().into());
        assert_eq!(strangers.admits(VAULT, None, now + wait), Ok(()));
        assert_eq!(strangers.admits(VAULT, Some(&name(1)), now), Ok(()), "a session");
    }

    #[test]
    fn refusals_that_say_nothing_of_who_asked_do_not_count() {
        let (strangers, now) = (Strangers::default(), Instant::now());
        for _ in 0..10 * ASKED {
            strangers.refused(VAULT, Some(&name(1)), ErrorCode::Busy);
            strangers.refused(VAULT, None, ErrorCode::Draining);
            assert_eq!(strangers.admits(VAULT, Some(&name(1)), now), Ok(()));
            assert_eq!(strangers.admits(VAULT, None, now), Ok(()));
        }
    }

    #[test]
    fn vaults_that_are_counted_are_bounded() {
        let strangers = Strangers::default();
        for number in 0..3000_u32 {
            let mut id = [3; 20];
            id[..4].copy_from_slice(&number.to_be_bytes());
            strangers.refused(VaultId::from_bytes(id), None, ErrorCode::Busy);
        }
        assert_eq!(strangers.refused.lock().unwrap().len(), VAULTS.get());
    }
}
