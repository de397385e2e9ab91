//! A slot: the vault on one node, the process that serves it, and everything that waits for either. The names, and what they mean, are
//! those of `casemate_enclave::supervisor::router`.

use std::time::Duration;

use casemate_enclave::supervisor::router::{Commit, Op, Put};

use crate::device::Frame;
use crate::manager::Manager;
use crate::store::{Chain, Object};

/// How long one answer of the store is waited for. Time passes only where the code waits for it; this gives a write room for two puts and
/// for two looks at one that is silent.
pub const STORE_TIMEOUT: Duration = Duration::from_millis(20);

/// A node: its supervisor, and the calls to the store that it has made.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Node {
    /// The vault's slot, if it has one.
    pub slot: Option<Slot>,
    /// Puts that have not ended.
    pub puts: Vec<PutCall>,
    /// What the vault's last process left, until another one goes on from it or opens the vault.
    pub parked: Option<Parked>,
}

/// A vault without a process. It is always parked whole here: where it is too large for that, its next process opens it as any other does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Parked {
    /// What the process held as committed.
    pub vault: Chain,
    /// The newest version that the supervisor knew to be durable.
    pub committed: u64,
    /// Whether the process had been told that its state may not be the vault's any more.
    pub lost: bool,
}

/// A put that has not ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PutCall {
    /// The call.
    pub op: Op,
    /// The version.
    pub version: u64,
    /// Its object.
    pub object: Object,
    /// What the store said, once it has arrived there.
    pub said: Option<Put>,
}

/// A slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Slot {
    /// Where the slot is in its life.
    pub state: State,
    /// Requests that the process or this slot holds, in the order in which they came.
    pub requests: Vec<Pending>,
    /// The write in flight.
    pub commit: Option<Write>,
    /// A put that goes on although its write was given up. Until it ends the vault is not opened again.
    pub late_put: Option<Op>,
    /// The newest version known to be durable.
    pub committed: u64,
    /// The process, while it can still say something.
    pub manager: Option<Manager>,
    /// The newest version of which this process has handed a body to the store.
    pub sent: u64,
    /// The version at which the process was handed the vault that another one had parked.
    pub handed: Option<u64>,
    /// Whether it has gone on from there and answered nobody yet. It may have found no place: then it leaves although it is asked something.
    pub resumed: bool,
}

/// The write in flight: the code's own machine, and what it waits for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Write {
    /// The machine.
    pub commit: Commit,
    /// Its object.
    pub object: Object,
    /// Time since it began.
    pub now: Duration,
    /// What it waits for.
    pub awaits: Awaits,
}

/// What a write waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Awaits {
    /// `Putting`: the end of a put.
    Put,
    /// `Reading`: the end of this read-back.
    ReadBack(Op),
    /// `Waiting`: time.
    Time,
}

/// Where a slot is in its life.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum State {
    /// Nobody has shown a device key of this vault yet.
    HalfOpen,
    /// Its key and objects are on their way.
    Opening {
        /// Whether the vault was open before.
        reload: bool,
        /// What is waited for.
        step: OpeningStep,
    },
    /// Serving.
    Open,
    /// On its way out.
    Closing(Closing),
}

/// What an opening waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum OpeningStep {
    /// The store.
    Loading,
    /// The key; what the store had is kept meanwhile.
    Unwrapping(Chain),
}

/// On its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Closing {
    /// Told to stop.
    Stopping {
        /// Whether its vault goes on in the next process.
        parks: bool,
    },
    /// Killed, not yet reaped.
    Killed,
    /// Reaped; an earlier call to the store has not ended.
    Exited,
}

/// A request that has a slot.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pending {
    /// Its number.
    pub id: u8,
    /// What came.
    pub frame: Frame,
    /// Where it stands.
    pub stage: Stage,
}

/// Where a request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not given to a process yet.
    Waiting,
    /// Given to the process.
    Sent,
}

impl Slot {
    /// A slot whose vault is open.
    pub fn open(vault: Chain) -> Self {
        let committed = vault.version();
        Self { state: State::Open, committed, manager: Some(Manager::open(vault)), ..Self::default() }
    }

    /// Whether its process takes requests.
    pub fn is_serving(&self) -> bool {
        !matches!(self.state, State::Closing(_))
    }

    /// Whether it is open and has nothing to do: the only kind of vault that is ever evicted.
    pub fn is_idle(&self) -> bool {
        self.state == State::Open && self.requests.is_empty() && self.commit.is_none()
    }

    /// Whether its process is called stuck if it stays silent: it holds a request, and waits for nothing from us.
    pub fn may_be_stuck(&self) -> bool {
        let waits_for_us = self.commit.is_some() || matches!(self.state, State::Opening { .. });
        let holds_one = self.requests.iter().any(|pending| pending.stage == Stage::Sent);
        !matches!(self.state, State::Closing(_)) && !waits_for_us && holds_one
    }

    /// Whether it is killed if it does not stop by itself. It has time until the write in flight has ended.
    pub fn is_past_kill_at(&self) -> bool {
        matches!(self.state, State::Closing(Closing::Stopping { .. })) && self.commit.is_none()
    }

    /// A number that no request has.
    pub fn fresh_id(&self) -> u8 {
        let is_free = |id: &u8| self.requests.iter().all(|pending| pending.id != *id);
        (0..=u8::MAX).find(is_free).expect("few requests")
    }
}

impl Default for Slot {
    /// A slot whose process is on its way.
    fn default() -> Self {
        Self {
            state: State::HalfOpen,
            requests: Vec::new(),
            commit: None,
            late_put: None,
            committed: 0,
            manager: Some(Manager::default()),
            sent: 0,
            handed: None,
            resumed: false,
        }
    }
}

impl Node {
    /// A slot for a vault that has none. Its process is handed what is parked.
    pub fn open_half(&mut self) -> &mut Slot {
        let parked = self.parked;
        self.slot.get_or_insert_with(|| Slot {
            handed: parked.map(|parked| parked.committed),
            manager: Some(Manager::handed(parked)),
            ..Slot::default()
        })
    }

    /// A number that no call has.
    pub fn fresh_op(&self) -> Op {
        let reading = self.slot.as_ref().and_then(|slot| slot.commit.as_ref()).map(|write| write.awaits);
        let is_free = |op: &Op| self.puts.iter().all(|put| put.op != *op) && reading != Some(Awaits::ReadBack(*op));
        (0..u64::MAX).map(Op).find(is_free).expect("few calls")
    }
}
