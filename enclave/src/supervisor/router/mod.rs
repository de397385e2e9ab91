//! The router: which request goes to which vault-manager, and what becomes of both.
//!
//! A plain, deterministic function of (state, event, now). It does no I/O, reads no clock and waits for nothing; what it wants done it
//! appends to a list of actions, and `shell` does it. That is why a simulation can show what matters here: every request is answered
//! exactly once, nothing with work in flight is evicted, and every collection has a bound.
//!
//! ```text
//!                        ┌─────────────── Resume: was parked whole ────────────┐
//!    Hello, parked session│        Ready, Finish → Open             Opened     ▼
//!  (none) ──────────▶ HalfOpen ───────────────────────▶ Opening ───────────▶ Open
//!                        │  pool of 5 %, 5 s, oldest out    │   admission      │ idle, memory, limit, operator, drain: Stop
//!                        │                                  │                 │ stuck, crash, protocol: Kill
//!                        └──────────────▶ Closing ◀─────────┴─────────────────┘
//!                                            │ reaped, and no call to the store under way
//!                                            ▼
//!                                          (none)
//! ```

mod commit;
mod event;
mod eviction;
mod lifecycle;
mod limits;
mod listing;
mod opening;
mod overload;
mod parking;
mod requests;
mod residents;
mod sessions;
mod slot;
mod timing;
mod usage;
mod writing;

#[cfg(test)]
mod fairness;
#[cfg(test)]
mod parking_tests;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;
#[cfg(test)]
mod told_tests;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::num::NonZeroUsize;
use std::time::Duration;

use casemate_link::TokenBucket;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::health::{RefusalNumbers, VaultNumbers};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::DEADLINE_MAX;
use casemate_protocol::link::{LogEvent, LogLevel, Tuning};
use lru::LruCache;

pub use commit::{Commit, Step};
pub use event::{Action, Answer, Event, Loaded, ManagerExit, Op, Put, RequestId, SlotId, StoreFailed, VaultKey};
pub use limits::{Limits, half_open};
pub use listing::VaultView;

use super::negative::NegativeCache;
use super::stages::Stages;
use crate::ipc::Notice;
use overload::Overload;
use parking::ParkedVaults;
use residents::Residents;
use slot::{Pending, Slot, Slots};

/// Slots beyond residents and half-open vaults: processes that are on their way out.
pub const CLOSING_SLOTS: usize = 64;
/// The shard key generation under which vaults are created.
pub const GENERATION: u32 = 1;
/// The earliest time to come back after something that passes quickly, milliseconds; the range behind it over which those who are refused
/// are spread; and the step in which they are.
const RETRY_MS: u32 = 50;
const RETRY_SPREAD_MS: u32 = 199;
const RETRY_STEP_MS: u32 = 77;
/// Vaults whose wrong lock keys are remembered.
const LOCKOUTS: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");
/// How often idle vaults and the buckets are looked at.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// What is counted since boot.
#[derive(Debug, Clone, Copy, Default)]
struct Counters {
    evicted: u64,
    opened: u64,
    crashed: u64,
    sandbox_killed: u64,
    stuck: u64,
    requests: u64,
    refused: u64,
    open_us: u64,
}

/// The router.
#[derive(Debug)]
pub struct Router {
    limits: Limits,
    /// What the machine can hold.
    allowed: u32,
    slots: Slots,
    vaults: HashMap<VaultId, SlotId>,
    /// Half-open vaults, oldest first.
    half_open: VecDeque<SlotId>,
    /// Resident vaults, opening or open.
    residents: Residents,
    /// What vaults that had to leave have left.
    parked: ParkedVaults,
    /// Callers that wait, by deadline.
    deadlines: BTreeMap<(Duration, RequestId), SlotId>,
    /// Bytes of the frames that those callers sent.
    in_flight_bytes: usize,
    /// Slots that want to hear of the time.
    wakes: BTreeSet<(Duration, SlotId)>,
    overload: Overload,
    /// Requests that vault-managers are working on, as their slots count them.
    working: usize,
    /// Slots whose timer and work must be looked at before `handle` returns.
    touched: Vec<SlotId>,
    negative: NegativeCache,
    /// Half-open vaults, which need a process each.
    hellos: TokenBucket,
    opens: TokenBucket,
    creates: TokenBucket,
    attests: TokenBucket,
    /// Vaults that were opened for a wrong lock key, and how often that may go on.
    lockouts: LruCache<VaultId, TokenBucket>,
    housekeeping_at: Duration,
    memory_pressure: bool,
    draining: bool,
    drained: bool,
    next_op: u64,
    /// Refusals that named a time.
    refused: u32,
    notices: HashMap<Notice, u64>,
    counters: Counters,
    stages: Stages,
    /// Where the next look at the memory of a few processes begins.
    weigh_next: SlotId,
}

impl Router {
    /// A router on a machine with so many processors that can hold `allowed` resident vaults.
    pub fn new(tuning: &Tuning, allowed: u32, processors: usize, now: Duration) -> Self {
        let limits = Limits::new(tuning, allowed);
        Self {
            hellos: TokenBucket::with_burst(tuning.opens_per_second, limits.hello_burst()),
            limits,
            allowed,
            slots: Slots::default(),
            vaults: HashMap::new(),
            half_open: VecDeque::new(),
            residents: Residents::default(),
            parked: ParkedVaults::default(),
            deadlines: BTreeMap::new(),
            in_flight_bytes: 0,
            wakes: BTreeSet::new(),
            overload: Overload::new(processors),
            working: 0,
            touched: Vec::new(),
            negative: NegativeCache::default(),
            opens: TokenBucket::new(tuning.opens_per_second),
            creates: TokenBucket::new(tuning.creates_per_second),
            attests: TokenBucket::new(tuning.attests_per_second),
            lockouts: LruCache::new(LOCKOUTS),
            housekeeping_at: now + HOUSEKEEPING,
            memory_pressure: false,
            draining: false,
            drained: false,
            next_op: 0,
            refused: 0,
            notices: HashMap::new(),
            counters: Counters::default(),
            stages: Stages::default(),
            weigh_next: SlotId(0),
        }
    }

    /// Takes one event at `now` (monotonic) and appends what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Duration, out: &mut Vec<Action>) {
        match event {
            Event::Request { id, vault, remaining, kind, session, frame } => {
                let deadline = now + remaining.min(DEADLINE_MAX);
                self.request(id, vault, Pending::new(kind, session, now, deadline, frame), now, out);
            }
            Event::Spawned { slot, pid } => self.spawned(slot, pid),
            Event::SpawnFailed { slot } => self.spawn_failed(slot, now, out),
            Event::Exited { slot, exit } => self.exited(slot, exit, now, out),
            Event::FromManager { slot, message } => self.manager_said(slot, message, now, out),
            Event::Broken { slot } => self.violation(slot, "a broken socket", out),
            Event::Newest { slot, op, result } => self.newest(slot, op, result, now, out),
            Event::Loaded { slot, op, result } => self.loaded(slot, op, result, now, out),
            Event::VaultKey { slot, op, result } => self.vault_key(slot, op, result, now, out),
            Event::PutDone { slot, op, put } => self.put_done(slot, op, put, now, out),
            Event::ReadBack { slot, op, result } => self.read_back(slot, op, &result, now, out),
            Event::Tick => {}
            Event::Memory { total, available } => self.memory(total, available, now, out),
            Event::Tuning(tuning) => self.tune(&tuning, now, out),
            Event::Evict(vault) => self.evict_by_name(vault, now, out),
            Event::Drain => self.drain(now, out),
        }
        self.time_passes(now, out);
        self.settle(now);
    }

    /// When [`Event::Tick`] is due, if nothing else comes before.
    pub fn next_wake(&self) -> Duration {
        let deadline = self.deadlines.first_key_value().map(|((at, _), _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        [deadline, wake].into_iter().flatten().fold(self.housekeeping_at, Duration::min)
    }

    /// Whether evidence may be made for a stranger now.
    ///
    /// # Errors
    /// The refusal that the stranger gets.
    pub fn admit_attest(&mut self, now: Duration) -> Result<(), Refusal> {
        if self.draining {
            return Err(Refusal::new(ErrorCode::Draining));
        }
        self.attests.take(now).map_err(|wait| Refusal::retry(ErrorCode::RateLimited, milliseconds(wait)))
    }

    /// The numbers for health.
    pub fn numbers(&self) -> VaultNumbers {
        let count = |len: usize| u64::try_from(len).unwrap_or(u64::MAX);
        VaultNumbers {
            resident: count(self.residents.len()),
            half_open: count(self.half_open.len()),
            limit: count(self.limits.vaults),
            in_flight: count(self.deadlines.len()),
            evicted: self.counters.evicted,
            opened: self.counters.opened,
            crashed: self.counters.crashed,
            sandbox_killed: self.counters.sandbox_killed,
            stuck: self.counters.stuck,
            requests: self.counters.requests,
            refused: self.counters.refused,
            open_us: self.counters.open_us,
            parked: count(self.parked.len()),
        }
    }

    /// How long the stages of requests took since boot.
    pub fn stages(&self) -> &Stages {
        &self.stages
    }

    /// Whether a vault has a slot that is not on its way out.
    pub fn holds(&self, vault: VaultId) -> bool {
        let slot = self.vaults.get(&vault).and_then(|slot| self.slots.get(*slot));
        slot.is_some_and(|slot| !matches!(slot.state, slot::State::Closing(_)))
    }

    /// Whether a vault's sessions are kept for the process that comes next.
    pub fn has_parked(&self, vault: VaultId) -> bool {
        self.parked.get(&vault).is_some()
    }

    /// Whether a vault is on its way out.
    pub fn is_closing(&self, vault: VaultId) -> bool {
        self.vaults.contains_key(&vault) && !self.holds(vault)
    }

    /// Whether new work is refused for good.
    pub fn is_draining(&self) -> bool {
        self.draining
    }

    /// Whether memory is short.
    pub fn is_short_of_memory(&self) -> bool {
        self.memory_pressure
    }

    /// What was not believed, as far as it came by here.
    pub fn refusals(&self) -> RefusalNumbers {
        let noticed = |notice| self.notices.get(&notice).copied().unwrap_or(0);
        RefusalNumbers {
            rollback: noticed(Notice::Rollback),
            fork: noticed(Notice::Fork),
            history_unknown: noticed(Notice::HistoryUnknown),
            head_invalid: noticed(Notice::HeadInvalid),
            vanished: noticed(Notice::Vanished),
            lock_turned: noticed(Notice::LockTurned),
            state_corrupt: noticed(Notice::StateCorrupt),
            bad_frame: noticed(Notice::BadFrame),
            session_unknown: noticed(Notice::SessionUnknown),
            stranger: noticed(Notice::Stranger),
            ..RefusalNumbers::default()
        }
    }

    /// A frame came that is none: it is refused without a vault.
    pub fn bad_frame(&mut self) {
        *self.notices.entry(Notice::BadFrame).or_default() += 1;
    }

    /// The longest wait for one answer of the store.
    pub fn store_timeout(&self) -> Duration {
        self.limits.store_timeout
    }

    fn tune(&mut self, tuning: &Tuning, now: Duration, out: &mut Vec<Action>) {
        self.limits = Limits::new(tuning, self.allowed);
        self.hellos.set(tuning.opens_per_second, self.limits.hello_burst());
        self.opens.set(tuning.opens_per_second, tuning.opens_per_second);
        self.creates.set(tuning.creates_per_second, tuning.creates_per_second);
        self.attests.set(tuning.attests_per_second, tuning.attests_per_second);
        if tuning.vault_limit > self.allowed {
            log(LogLevel::Warn, LogEvent::LimitLowered, Some(self.allowed.into()), out);
        }
        self.shrink(now, out);
    }

    fn time_passes(&mut self, now: Duration, out: &mut Vec<Action>) {
        self.expire_requests(now, out);
        self.wake_slots(now, out);
        if now >= self.housekeeping_at {
            self.housekeeping_at = now + HOUSEKEEPING;
            self.close_idle(now, out);
        }
        self.drain_further(out);
    }

    /// Sets the timers of all slots that were touched, and counts their work.
    fn settle(&mut self, now: Duration) {
        while let Some(id) = self.touched.pop() {
            let Some(slot) = self.slots.get_mut(id) else { continue };
            slot.count(&mut self.working, now);
            let wake = slot.next_wake();
            if wake == slot.wake {
                continue;
            }
            if let Some(old) = slot.wake {
                self.wakes.remove(&(old, id));
            }
            slot.wake = wake;
            if let Some(new) = wake {
                self.wakes.insert((new, id));
            }
        }
    }

    /// The slot, which is then looked at again by [`Router::settle`].
    fn touch(&mut self, id: SlotId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id)?;
        self.touched.push(id);
        Some(slot)
    }

    /// When to come back after something that passes quickly, milliseconds. No two who are refused one after the other are told the same.
    fn retry_ms(&mut self) -> u32 {
        self.refused = self.refused.wrapping_add(1);
        // A step that has no common divisor with the range visits all of it, and neighbours lie far apart.
        RETRY_MS + self.refused.wrapping_mul(RETRY_STEP_MS) % RETRY_SPREAD_MS
    }

    fn busy(&mut self) -> Refusal {
        Refusal::retry(ErrorCode::Busy, self.retry_ms())
    }

    fn away(&mut self) -> Refusal {
        Refusal::retry(ErrorCode::Unavailable, self.retry_ms())
    }

    fn op(&mut self) -> Op {
        self.next_op += 1;
        Op(self.next_op)
    }
}

fn log(level: LogLevel, event: LogEvent, value: Option<u64>, out: &mut Vec<Action>) {
    out.push(Action::Log { level, event, value });
}

/// Whole milliseconds, at least one, of a time that is left or to be waited for.
fn milliseconds(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX).max(1)
}
