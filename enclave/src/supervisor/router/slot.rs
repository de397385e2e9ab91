//! A slot: one vault, the process that serves it, and everything that waits for either.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use casemate_link::TokenBucket;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrameKind, SessionId};
use casemate_protocol::id::VaultId;

use super::commit::Commit;
use super::event::{Loaded, Op, RequestId, SlotId};
use super::overload::SILENT;
use super::sessions::Sessions;
use super::usage::Usage;

/// How long a vault-manager may be silent after it was given something, however short a device's deadline is. Without it, anybody who may
/// send a frame with a deadline of a millisecond could have a vault's process killed.
pub(super) const STUCK_AFTER: Duration = Duration::from_secs(5);
/// How long a half-open vault lives.
pub(super) const HALF_OPEN_LIFE: Duration = Duration::from_secs(5);
/// How long a process lives, once it is ready, that was made for a frame of a parked session. The frame is there before it is.
pub(super) const RESUMING_LIFE: Duration = Duration::from_secs(1);
/// How long a vault-manager may take to stop once it has nothing left to do.
pub(super) const STOP_LIMIT: Duration = Duration::from_secs(1);
/// How long opening may take: the store's answer, the key service's answer, twice.
pub(super) const OPENING_LIMIT: Duration = Duration::from_secs(30);
/// Bytes of frames waiting for or held by one vault. Its socket's lane for requests has room for more, credentials included.
pub(super) const BYTES_PER_VAULT: usize = 2 * 1024 * 1024;
/// Handshakes that may be begun with one vault, at once and each second from then on: no more within the age of a handshake than the
/// vault-manager keeps ([`crate::vault::sessions`]), so that nobody pushes another's out. A stranger who takes them all keeps the vault's
/// devices from new sessions, not from those they have.
const HELLOS: u32 = 64;
const HELLOS_PER_SECOND: u32 = 8;

/// How often one vault's process may ask to be opened, at once and each second from then on. An honest one asks when a device comes with
/// a lock key or with a head that is newer than what it has.
const OPENINGS: u32 = 16;
const OPENINGS_PER_SECOND: u32 = 4;
/// How often it may have old versions deleted. An honest one asks after each snapshot, each time for all that came before.
const DELETIONS: u32 = 8;
const DELETIONS_PER_SECOND: u32 = 2;
/// Versions that it may have stored before anybody has asked for anything, and one more for each request that it holds. An honest one makes
/// one for all requests that wait.
const COMMITS: usize = 16;
/// How much it may have stored, in pieces, at once and each second from then on: 128 MiB and 16 MiB.
const STORED_PIECE_BYTES: usize = 4096;
const STORED: u32 = 32 * 1024;
const STORED_PER_SECOND: u32 = 4096;
/// Messages that answer no request which a process may send unasked, and more of them for each request that it holds. An honest one sends
/// four at most for a request: a notice, an opening or a commit, what it notices then, a deletion.
const WORDS: usize = 64;
const WORDS_FOR_EACH: usize = 8;

/// A slot.
#[derive(Debug)]
pub(super) struct Slot {
    /// The vault. Everything done for the process in this slot is done under this name.
    pub(super) vault: VaultId,
    /// Where the slot is in its life.
    pub(super) state: State,
    /// Requests that the process or this slot holds.
    pub(super) requests: BTreeMap<RequestId, Pending>,
    /// Those of them that wait: for the process to be ready, or, while closing, for the next process.
    pub(super) waiting: VecDeque<RequestId>,
    /// Bytes of waiting frames and of frames that the process has not answered.
    pub(super) bytes: usize,
    /// Handshakes that may still be begun.
    pub(super) hellos: TokenBucket,
    /// Names under which frames are passed on.
    pub(super) sessions: Sessions,
    /// Answers to come of which the process has said already that they prove nothing of who asked.
    pub(super) doubted: u32,
    /// The write in flight.
    pub(super) commit: Option<Commit>,
    /// A put that goes on although its write was given up. Until it ends the vault is not opened again.
    pub(super) late_put: Option<Op>,
    /// The newest version known to be durable.
    pub(super) committed: u64,
    /// Whether the newest version, as the store showed it before the vault was open, calls itself a tombstone.
    pub(super) shows_tombstone: bool,
    /// Whether a frame of a parked session brought it into being, and none has opened yet.
    pub(super) resumes: bool,
    /// What the process was handed of the one before it.
    pub(super) handed: Handed,
    /// The process id, once there is one.
    pub(super) pid: Option<u32>,
    /// When the slot was taken.
    pub(super) born: Duration,
    /// How long it took until the process could do handshakes.
    pub(super) made_ready: Duration,
    /// How long it may be half-open.
    pub(super) half_open_until: Duration,
    /// When a device last proved that it may ask.
    pub(super) last_use: Duration,
    /// When the process was last given what it waited for from us.
    pub(super) released: Duration,
    /// Requests that it works on, as they were counted last.
    pub(super) counted: usize,
    /// When the last request was let in to be worked on.
    pub(super) let_in_at: Option<Duration>,
    /// How often its process may still ask to be opened, and to have old versions deleted.
    pub(super) openings: TokenBucket,
    /// See there.
    deletions: TokenBucket,
    /// Whether it had its ended vault cleaned up.
    purged: bool,
    /// What it may still have stored.
    stored: TokenBucket,
    /// Versions that it may still have stored.
    commits: usize,
    /// Messages that answer no request which its process may still send.
    words: usize,
    /// What it has used lately.
    pub(super) usage: Usage,
    /// The timer that is set.
    pub(super) wake: Option<Duration>,
}

/// What a process was handed of the one before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handed {
    /// Nothing was parked.
    Nothing,
    /// Sessions.
    Sessions,
    /// Sessions, and the whole vault as it was at this version.
    Whole(u64),
}

/// Where a slot is in its life.
#[derive(Debug)]
pub(super) enum State {
    /// Nobody has shown a device key of this vault yet.
    HalfOpen(HalfOpen),
    /// Its key and objects are on their way.
    Opening(Opening),
    /// Serving.
    Open {
        /// The process's static key.
        static_key: [u8; 32],
    },
    /// On its way out.
    Closing(Closing),
}

/// The steps of a half-open vault. The process says that it is ready without being asked, and may do so before it is told who it is.
#[derive(Debug)]
pub(super) enum HalfOpen {
    /// The newest object is on its way.
    Preparing {
        /// The call to the store.
        asked: Op,
        /// The static key of a process that was quicker.
        static_key: Option<[u8; 32]>,
    },
    /// The process was told who it is.
    Starting,
    /// The process can do handshakes.
    Ready {
        /// Its static key.
        static_key: [u8; 32],
    },
}

/// Opening: load, then key.
#[derive(Debug)]
pub(super) struct Opening {
    /// The process's static key.
    pub(super) static_key: [u8; 32],
    /// Whether the vault may be created.
    pub(super) create: bool,
    /// When it began.
    pub(super) begun: Duration,
    /// When its present step began.
    pub(super) stepped: Duration,
    /// Whether the vault was open before.
    pub(super) reload: bool,
    /// When it is given up.
    pub(super) deadline: Duration,
    /// What is waited for.
    pub(super) step: OpeningStep,
}

/// What an opening waits for.
#[derive(Debug)]
pub(super) enum OpeningStep {
    /// The store, by this call.
    Loading(Op),
    /// The key, by this call; what the store had is kept meanwhile.
    Unwrapping(Op, Loaded),
}

/// On its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Closing {
    /// Told to stop; killed then.
    Stopping {
        /// When.
        kill_at: Duration,
        /// When at the latest, whatever it still has stored.
        kill_by: Duration,
        /// Whether its sessions go on in the next process.
        parks: bool,
    },
    /// Killed, not yet reaped.
    Killed,
    /// Reaped; an earlier call to the store has not ended.
    Exited,
}

/// A request that has a slot.
#[derive(Debug)]
pub(super) struct Pending {
    /// The frame's kind.
    pub(super) kind: DeviceFrameKind,
    /// The session that it names.
    pub(super) session: Option<SessionId>,
    /// When it came.
    pub(super) arrived: Duration,
    /// When its caller is answered whatever happens.
    pub(super) deadline: Duration,
    /// The frame, until it is sent.
    pub(super) frame: Vec<u8>,
    /// The frame's length.
    pub(super) bytes: usize,
    /// Where it stands.
    pub(super) stage: Stage,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stage {
    /// Not given to a process yet.
    Waiting,
    /// Given to the process then.
    Sent(Duration),
    /// Given to the process then, and its caller was told already that time is up.
    Overdue(Duration),
}

impl Pending {
    /// A request that waits.
    pub(super) fn new(
        kind: DeviceFrameKind,
        session: Option<SessionId>,
        arrived: Duration,
        deadline: Duration,
        frame: Vec<u8>,
    ) -> Self {
        Self { kind, session, arrived, deadline, bytes: frame.len(), frame, stage: Stage::Waiting }
    }

    /// What its caller is told when the process is gone. Whether a sealed request took effect cannot be known then.
    pub(super) fn lost(&self, retry_ms: u32) -> Refusal {
        match (self.stage, self.kind) {
            (Stage::Waiting, _) | (_, DeviceFrameKind::Hello) => Refusal::retry(ErrorCode::Unavailable, retry_ms),
            (Stage::Sent(_) | Stage::Overdue(_), DeviceFrameKind::Finish | DeviceFrameKind::Sealed) => {
                Refusal::new(ErrorCode::OutcomeUnknown)
            }
        }
    }

    /// What its caller is told when its time is up.
    pub(super) fn late(&self) -> Refusal {
        Refusal::new(match (self.stage, self.kind) {
            (Stage::Waiting, _) | (_, DeviceFrameKind::Hello) => ErrorCode::DeadlineExceeded,
            (Stage::Sent(_) | Stage::Overdue(_), DeviceFrameKind::Finish | DeviceFrameKind::Sealed) => {
                ErrorCode::OutcomeUnknown
            }
        })
    }
}

impl Slot {
    /// A slot for `vault`, whose process is on its way, and whose newest object was asked for by this call.
    pub(super) fn new(vault: VaultId, asked: Op, now: Duration) -> Self {
        Self {
            vault,
            state: State::HalfOpen(HalfOpen::Preparing { asked, static_key: None }),
            requests: BTreeMap::new(),
            waiting: VecDeque::new(),
            bytes: 0,
            hellos: TokenBucket::with_burst(HELLOS_PER_SECOND, HELLOS),
            sessions: Sessions::default(),
            doubted: 0,
            commit: None,
            late_put: None,
            committed: 0,
            shows_tombstone: false,
            resumes: false,
            handed: Handed::Nothing,
            pid: None,
            born: now,
            made_ready: Duration::ZERO,
            half_open_until: now + HALF_OPEN_LIFE,
            last_use: now,
            released: now,
            counted: 0,
            let_in_at: None,
            openings: TokenBucket::with_burst(OPENINGS_PER_SECOND, OPENINGS),
            deletions: TokenBucket::with_burst(DELETIONS_PER_SECOND, DELETIONS),
            purged: false,
            stored: TokenBucket::with_burst(STORED_PER_SECOND, STORED),
            commits: COMMITS,
            words: WORDS,
            usage: Usage::default(),
            wake: None,
        }
    }

    /// The process's static key, if it takes requests.
    pub(super) fn serving_key(&self) -> Option<[u8; 32]> {
        match &self.state {
            State::HalfOpen(HalfOpen::Ready { static_key })
            | State::Opening(Opening { static_key, .. })
            | State::Open { static_key } => Some(*static_key),
            State::HalfOpen(HalfOpen::Preparing { .. } | HalfOpen::Starting) | State::Closing(_) => None,
        }
    }

    /// Whether the process answers nothing any more: it was killed, or is gone.
    pub(super) const fn is_ending(&self) -> bool {
        matches!(self.state, State::Closing(Closing::Killed | Closing::Exited))
    }

    /// Whether a frame under this name may wait here or be passed on. Attack stopped: frames that would wake the process, under names that
    /// it never gave out or has seen abused.
    pub(super) fn takes(&self, session: &SessionId, now: Duration) -> bool {
        let goes_on = match self.state {
            State::HalfOpen(_) | State::Opening(_) | State::Open { .. } => true,
            State::Closing(Closing::Stopping { parks, .. }) => parks,
            State::Closing(Closing::Killed | Closing::Exited) => false,
        };
        goes_on && self.sessions.knows(session, now)
    }

    /// Its process was given a request, for which it may say more.
    pub(super) fn is_asked(&mut self) {
        self.words = (self.words + WORDS_FOR_EACH).min(WORDS + WORDS_FOR_EACH * self.requests.len());
        self.commits = (self.commits + 1).min(COMMITS + self.requests.len());
    }

    /// Whether its process may have old versions deleted now.
    pub(super) fn may_collect(&mut self, now: Duration) -> bool {
        self.deletions.take(now).is_ok()
    }

    /// Whether it may have its ended vault cleaned up. Once at any time: a device that has ended its vault asks for it no more.
    pub(super) fn may_purge(&mut self, now: Duration) -> bool {
        !std::mem::replace(&mut self.purged, true) || self.may_collect(now)
    }

    /// Whether its process may have one more version stored.
    pub(super) fn may_commit(&mut self) -> bool {
        let commits = self.commits.checked_sub(1);
        self.commits = commits.unwrap_or(0);
        commits.is_some()
    }

    /// Whether it may have so many bytes stored now.
    pub(super) fn may_store(&mut self, bytes: usize, now: Duration) -> bool {
        let pieces = u32::try_from(bytes.div_ceil(STORED_PIECE_BYTES)).unwrap_or(u32::MAX);
        self.stored.spend(pieces, now).is_ok()
    }

    /// Whether its process may say something that answers no request. Attack stopped: a process that keeps the router busy, which all vaults
    /// share, with what costs it nothing.
    pub(super) fn may_speak(&mut self) -> bool {
        let words = self.words.checked_sub(1);
        self.words = words.unwrap_or(0);
        words.is_some()
    }

    /// Whether it is open and has nothing to do: the only kind of vault that is ever evicted.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self.state, State::Open { .. }) && self.requests.is_empty() && self.commit.is_none()
    }

    /// Whether the process waits for us rather than we for it.
    fn waits_for_us(&self) -> bool {
        self.commit.is_some() || matches!(self.state, State::Opening(_))
    }

    /// Whether the process has had all it needs since then.
    pub(super) fn has_worked_since(&self, sent: Duration) -> bool {
        !self.waits_for_us() && self.released <= sent
    }

    /// Requests that it is working on.
    pub(super) fn working(&self, now: Duration) -> usize {
        if self.waits_for_us() {
            return 0;
        }
        // Also those whose callers' time is up: the process has them all the same.
        let is_fresh = |pending: &&Pending| match pending.stage {
            Stage::Sent(sent) | Stage::Overdue(sent) => now.saturating_sub(sent) < SILENT,
            Stage::Waiting => false,
        };
        self.requests.values().filter(is_fresh).count()
    }

    /// Puts the number of requests that it is working on in the place of the former one.
    pub(super) fn count(&mut self, of_all: &mut usize, now: Duration) {
        let working = self.working(now);
        *of_all = *of_all - self.counted + working;
        self.counted = working;
    }

    /// When the process is to be called stuck, if it holds an overdue request by then.
    pub(super) fn stuck_at(&self) -> Option<Duration> {
        if self.waits_for_us() {
            return None;
        }
        let overdue = self.requests.values().filter_map(|pending| match pending.stage {
            Stage::Overdue(sent) => Some(pending.deadline.max(sent.max(self.released) + STUCK_AFTER)),
            Stage::Waiting | Stage::Sent(_) => None,
        });
        overdue.min()
    }

    /// When this slot wants to hear of the time again.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        let own = match &self.state {
            State::HalfOpen(_) => Some(self.half_open_until),
            State::Opening(opening) => Some(opening.deadline),
            State::Open { .. } | State::Closing(Closing::Killed | Closing::Exited) => None,
            State::Closing(Closing::Stopping { kill_at, .. }) => Some(*kill_at),
        };
        let stuck = if matches!(self.state, State::Closing(_)) { None } else { self.stuck_at() };
        [own, stuck, self.commit.as_ref().map(Commit::wake)].into_iter().flatten().min()
    }

    /// The state as operators read it.
    pub(super) fn state_name(&self) -> &'static str {
        match self.state {
            State::HalfOpen(_) => "half_open",
            State::Opening(_) => "opening",
            State::Open { .. } => "open",
            State::Closing(_) => "closing",
        }
    }
}

/// All slots. A number is given anew only after it was given back, the longest unused first.
#[derive(Debug, Default)]
pub(super) struct Slots {
    entries: Vec<Option<Slot>>,
    free: VecDeque<SlotId>,
}

impl Slots {
    /// Slots that are taken.
    pub(super) fn len(&self) -> usize {
        self.entries.len() - self.free.len()
    }

    /// Takes a slot; gives the number back to the caller.
    pub(super) fn insert(&mut self, slot: Slot) -> SlotId {
        if let Some(id) = self.free.pop_front() {
            self.entries[index(id)] = Some(slot);
            return id;
        }
        let id = SlotId(u32::try_from(self.entries.len()).expect("slots are bounded far below 2^32"));
        self.entries.push(Some(slot));
        id
    }

    /// The slot of this number.
    pub(super) fn get(&self, id: SlotId) -> Option<&Slot> {
        self.entries.get(index(id))?.as_ref()
    }

    /// The slot of this number.
    pub(super) fn get_mut(&mut self, id: SlotId) -> Option<&mut Slot> {
        self.entries.get_mut(index(id))?.as_mut()
    }

    /// Gives a slot back.
    pub(super) fn remove(&mut self, id: SlotId) -> Option<Slot> {
        let slot = self.entries.get_mut(index(id))?.take()?;
        self.free.push_back(id);
        Some(slot)
    }

    /// Every slot, to be changed.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Slot> {
        self.entries.iter_mut().flatten()
    }

    /// Every slot.
    pub(super) fn iter(&self) -> impl Iterator<Item = (SlotId, &Slot)> {
        (0..).map(SlotId).zip(&self.entries).filter_map(|(id, slot)| Some((id, slot.as_ref()?)))
    }
}

fn index(id: SlotId) -> usize {
    usize::try_from(id.0).expect("32 bits fit")
}
