//! One node: a real router, real vault-managers, a real keyring, and between them what the shell and the kernel do in the real one:
//! messages that take time, processes that come and go, calls to the outside that end or do not.

mod bridge;
mod outside;
mod processes;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_enclave::ipc::{FromManager, Newest, ToManager};
use casemate_enclave::keys::shards::{ShardKeyring, ShardKeyringParts};
use casemate_enclave::outside::{BlobStore, Clock, Randomness};
use casemate_enclave::supervisor::identity::Identity;
use casemate_enclave::supervisor::log::Log;
use casemate_enclave::supervisor::router::{self, Action, Answer, ManagerExit, Op, RequestId, Router, SlotId};
use casemate_enclave::supervisor::vault_keys::VaultKeys;
use casemate_enclave::vault::manager::Manager;
use casemate_enclave::vault::parking::ParkingSecret;
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind};
use casemate_protocol::id::VaultId;
use tokio::runtime::{Builder, Runtime};

use crate::dice::Dice;
use crate::event::{CallId, Event, Place, Read};
use crate::evidence;
use crate::findings::Findings;
use crate::kms::{Kms, NodeKms};
use crate::store::{NodeStore, Store};
use crate::time::Time;
use crate::weather::Weather;

/// The enclave answers by a request's deadline; the bridge gives it so much longer.
const GRACE: Duration = Duration::from_millis(100);

/// What all parts of a schedule share.
#[derive(Debug, Clone)]
pub struct Shared {
    /// Time.
    pub time: Time,
    /// What is seen.
    pub findings: Findings,
    /// What goes wrong.
    pub weather: Weather,
    /// The store.
    pub store: Store,
    /// The key service.
    pub kms: Kms,
    /// Randomness of the enclaves.
    pub randomness: Arc<dyn Randomness>,
}

/// Which processes may be told to stop because of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MayStop {
    /// Those that have nothing to do.
    Idle,
    /// This one as well: it went on from what was parked, and there is no place for it beyond what it was asked.
    This(SlotId),
    /// Any: an operator wants it.
    Any,
}

impl MayStop {
    fn although_it_works(self, slot: SlotId) -> bool {
        match self {
            Self::Idle => false,
            Self::This(this) => this == slot,
            Self::Any => true,
        }
    }
}

/// A vault-manager's process.
struct Process<'a> {
    number: u64,
    vault: VaultId,
    manager: Manager<'a>,
    /// Messages to it arrive in order, and so do those from it.
    hears_at: Duration,
    speaks_at: Duration,
    hangs: bool,
    dead: bool,
    /// Requests that it was given and has not answered.
    holds: BTreeSet<RequestId>,
    /// Whether a version of it is on its way to the store.
    commits: bool,
    /// Whether its last commit failed, after which it is told to stop.
    gave_up: bool,
}

struct Open {
    call: CallId,
    deadline: Duration,
}

/// The parts of one boot.
struct Enclave<'a> {
    router: Router,
    processes: BTreeMap<SlotId, Process<'a>>,
    parking_secret: ParkingSecret,
    identity: Identity,
    keys: VaultKeys,
    runtime: Runtime,
    /// Requests that the router has not answered.
    open: BTreeMap<RequestId, Open>,
    answered: BTreeSet<RequestId>,
    next_request: RequestId,
    /// Puts that have not ended, for a link that is cut.
    puts: BTreeMap<Op, SlotId>,
    reads: BTreeMap<Op, (SlotId, Read)>,
    link_down_until: Duration,
}

/// A node.
pub struct Node<'a> {
    place: Place,
    shared: &'a Shared,
    dice: Dice,
    enclave: Option<Enclave<'a>>,
    next_process: u64,
    /// Whether tasks were begun that have not run yet.
    fresh: bool,
    /// Vaults opened since the first boot.
    opened: u64,
    evicted: u64,
}

impl fmt::Debug for Node<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("place", &self.place).finish_non_exhaustive()
    }
}

impl<'a> Node<'a> {
    /// A node that has booted.
    pub fn new(node: usize, shared: &'a Shared, dice: Dice) -> Self {
        let place = Place { node, boot: 0 };
        let mut node =
            Self { place, shared, dice, enclave: None, next_process: 0, fresh: false, opened: 0, evicted: 0 };
        node.boot();
        node
    }

    /// Vaults opened and evicted since the first boot.
    pub fn numbers(&self) -> (u64, u64) {
        let numbers = self.enclave.as_ref().map(|enclave| enclave.router.numbers()).unwrap_or_default();
        (self.opened + numbers.opened, self.evicted + numbers.evicted)
    }

    /// Starts the enclave anew, with nothing but what the store holds.
    pub fn boot(&mut self) {
        if self.enclave.is_some() {
            return;
        }
        self.place.boot += 1;
        let shared = self.shared;
        shared.findings.trace(format_args!("node {}: boot {}", self.place.node, self.place.boot));
        let clock: Arc<dyn Clock> = Arc::new(shared.time.clone());
        let store: Arc<dyn BlobStore> = Arc::new(NodeStore {
            store: shared.store.clone(),
            time: shared.time.clone(),
            weather: shared.weather.clone(),
            dice: Mutex::new(self.dice.fork()),
        });
        let keyring = ShardKeyring::new(ShardKeyringParts {
            service: Arc::new(NodeKms { kms: shared.kms.clone(), place: self.place }),
            store: Arc::clone(&store),
            clock: Arc::clone(&clock),
            randomness: Arc::clone(&shared.randomness),
            cluster: evidence::cluster(),
            policy: shared.weather.policy.clone(),
        });
        // Without a timer: whoever waits here waits in simulated time.
        let runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
        runtime.spawn(keyring.clone().run());
        self.fresh = true;
        let randomness = Arc::clone(&shared.randomness);
        self.enclave = Some(Enclave {
            router: Router::new(&shared.weather.tuning, 1000, 2, shared.time.now()),
            processes: BTreeMap::new(),
            parking_secret: ParkingSecret::random(&*randomness),
            identity: evidence::identity(self.place),
            keys: VaultKeys { keyring, store, randomness, log: Log::new(clock) },
            runtime,
            open: BTreeMap::new(),
            answered: BTreeSet::new(),
            next_request: 0,
            puts: BTreeMap::new(),
            reads: BTreeMap::new(),
            link_down_until: Duration::ZERO,
        });
    }

    /// The enclave ends, with everything in its memory.
    pub fn crash(&mut self) {
        (self.opened, self.evicted) = self.numbers();
        self.enclave = None;
    }

    /// Whether an event of `place` still means this boot.
    fn is_current(&self, place: Place) -> bool {
        place == self.place && self.enclave.is_some()
    }

    /// When the router wants to hear of the time.
    pub fn next_wake(&self) -> Option<Duration> {
        self.enclave.as_ref().map(|enclave| enclave.router.next_wake())
    }

    /// The router's own timer.
    pub fn tick(&mut self) {
        self.event(router::Event::Tick);
    }

    /// Lets the keyring's tasks run as far as they can, if there may be something for them to do.
    pub fn run_tasks(&mut self, woken: bool) {
        let fresh = std::mem::take(&mut self.fresh);
        if let Some(enclave) = self.enclave.as_ref().filter(|_| woken || fresh) {
            enclave.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    /// Gives an event of an earlier time to the router, if it means this boot.
    pub fn router(&mut self, place: Place, event: router::Event) {
        if self.is_current(place) {
            self.event(event);
        }
    }

    /// Memory is short for a moment.
    pub fn short_of_memory(&mut self) {
        self.event(router::Event::Memory { total: 100 << 20, available: 1 << 20 });
        self.event(router::Event::Memory { total: 100 << 20, available: 90 << 20 });
    }

    /// An operator closes a vault.
    pub fn evict(&mut self, vault: VaultId) {
        self.event(router::Event::Evict(vault));
    }

    /// Gives an event to the router, and does what it wants done.
    fn event(&mut self, event: router::Event) {
        let mut events = vec![event];
        while let Some(event) = events.pop() {
            let Some(enclave) = &mut self.enclave else { return };
            let may_stop = match &event {
                router::Event::Evict(_) => MayStop::Any,
                router::Event::FromManager { slot, message: FromManager::Resume } => MayStop::This(*slot),
                _ => MayStop::Idle,
            };
            let mut actions = Vec::new();
            enclave.router.handle(event, self.shared.time.now(), &mut actions);
            for action in actions {
                self.perform(action, may_stop);
            }
        }
        self.check();
    }

    fn perform(&mut self, action: Action, may_stop: MayStop) {
        let findings = &self.shared.findings;
        match &action {
            Action::Send { slot, message } => {
                findings.trace(format_args!("node {}: to {}: {}", self.place.node, slot.0, name(message)));
            }
            Action::Put { slot, op, path, .. } => {
                findings.trace(format_args!("node {}: {} puts {path} ({})", self.place.node, slot.0, op.0));
            }
            Action::Log { event, value, .. } => {
                findings.trace(format_args!("node {}: {} {value:?}", self.place.node, event.as_str()));
            }
            Action::Answer { id, answer } => {
                let what = match answer {
                    Answer::Frame(_) => "a frame".to_owned(),
                    Answer::Refused(refusal) => refusal.code.to_string(),
                };
                findings.trace(format_args!("node {}: answers {id}: {what}", self.place.node));
            }
            _ => {}
        }
        match action {
            Action::Answer { id, answer } => self.answer(id, answer),
            Action::Spawn { slot, .. } => self.spawn(slot),
            Action::Send { slot, message } => self.send(slot, message, may_stop),
            Action::SendHello { slot, vault, static_key, id, deadline_ms, frame } => {
                let now = Clock::unix_seconds(&self.shared.time);
                let Some(enclave) = &self.enclave else { return };
                let credentials = evidence::credentials(&enclave.identity, vault, static_key, now);
                let message = ToManager::Request { id, deadline_ms, frame, credentials: Some(Box::new(credentials)) };
                self.send(slot, message, may_stop);
            }
            Action::Kill { slot } => self.end(slot, ManagerExit::Signal(9)),
            Action::Release { slot } => {
                let Some(enclave) = &self.enclave else { return };
                if enclave.processes.contains_key(&slot) {
                    findings.violation(format_args!("slot {} is given back while its process lives", slot.0));
                }
            }
            Action::LoadNewest { slot, op, vault } => self.read(slot, op, Read::Newest(vault)),
            Action::Load { slot, op, vault } => self.read(slot, op, Read::Load(vault)),
            Action::ReadBack { slot, op, path } => self.read(slot, op, Read::Object(path)),
            Action::WarmShardKey { shard, generation } => {
                let Some(enclave) = &self.enclave else { return };
                let keys = enclave.keys.clone();
                self.fresh = true;
                enclave.runtime.spawn(async move { keys.warm(shard, generation).await });
            }
            Action::VaultKey { slot, op, vault, wrapped } => self.vault_key(slot, op, vault, wrapped),
            Action::Put { slot, op, path, bytes } => self.put(slot, op, path, bytes.to_vec()),
            Action::Collect { vault, below } | Action::Purge { vault, tombstone: below } => {
                let after = self.dice.millis(1, 50);
                self.shared.time.after(after, Event::Collects { vault, below });
            }
            Action::Log { .. } | Action::Drained => {}
        }
    }

    fn check(&self) {
        let Some(enclave) = &self.enclave else { return };
        let now = self.shared.time.now();
        let overdue = enclave.open.iter().find(|(_, open)| open.deadline + GRACE < now);
        if let Some((id, _)) = overdue {
            self.shared.findings.violation(format_args!("request {id} has no answer by its deadline"));
        }
    }
}

fn name(message: &ToManager) -> String {
    match message {
        ToManager::Start { vault, newest, .. } => {
            format!(
                "start {vault} at {:?}",
                match newest {
                    Newest::Shown(newest) => Some(newest.version),
                    Newest::None | Newest::NotAsked => None,
                }
            )
        }
        ToManager::Request { id, frame, .. } => {
            let kind = DeviceFrame::peek(frame).map_or("malformed", |peek| match peek.kind {
                DeviceFrameKind::Hello => "hello",
                DeviceFrameKind::Finish => "finish",
                DeviceFrameKind::Sealed => "sealed",
            });
            format!("request {id}, {kind}")
        }
        ToManager::Opened { versions, .. } => {
            format!("opened, {} versions to {:?}", versions.len(), versions.last().map(|newest| newest.version))
        }
        ToManager::OpenRefused(refusal) => format!("open refused: {}", refusal.code),
        ToManager::CommitResult(result) => format!("{result:?}"),
        ToManager::Stop { park } => format!("stop, park {park}"),
    }
}
