//! One node: a real router, real vault-managers, a real keyring, and between them what the shell and the kernel do in the real one:
//! messages that take time, processes that come and go, calls to the outside that end or do not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use casemate_enclave::ipc::{CommitResult, FromManager, Notice, ToManager};
use casemate_enclave::keys::shards::{ShardKeyring, ShardKeyringParts};
use casemate_enclave::keys::wrap::WrappedVaultKey;
use casemate_enclave::outside::{BlobStore, Clock, Randomness};
use casemate_enclave::supervisor::identity::Identity;
use casemate_enclave::supervisor::log::Log;
use casemate_enclave::supervisor::router::{
    self, Action, Answer, ManagerExit, Op, Put, RequestId, Router, SlotId, StoreFailed,
};
use casemate_enclave::supervisor::vault_keys::VaultKeys;
use casemate_enclave::vault::manager::Manager;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::KeyObject;
use casemate_protocol::path;
use tokio::runtime::{Builder, Runtime};

use crate::dice::Dice;
use crate::event::{CallId, Event, Place, Read, Tell};
use crate::evidence;
use crate::findings::Findings;
use crate::kms::{Kms, NodeKms};
use crate::store::{self, NodeStore, PutFate, Store};
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
        let mut node = Self { place, shared, dice, enclave: None, next_process: 0, opened: 0, evicted: 0 };
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
        let randomness = Arc::clone(&shared.randomness);
        self.enclave = Some(Enclave {
            router: Router::new(&shared.weather.tuning, 1000, shared.time.now()),
            processes: BTreeMap::new(),
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

    /// Lets the keyring's tasks run as far as they can.
    pub fn run_tasks(&mut self) {
        if let Some(enclave) = &self.enclave {
            enclave.runtime.block_on(async {
                for _ in 0..3 {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    // ---- the bridge ---------------------------------------------------------------------------------------------------------

    /// A device's frame reaches the bridge.
    pub fn frame(&mut self, call: CallId, vault: VaultId, frame: Vec<u8>) {
        let now = self.shared.time.now();
        let Some(enclave) = self.enclave.as_mut().filter(|enclave| enclave.link_down_until <= now) else {
            return self
                .reply(call, VaultFrame::Refused(Refusal::retry(ErrorCode::Unavailable, 1000)).encode().to_vec());
        };
        let peek = match DeviceFrame::peek(&frame) {
            Ok(peek) => peek,
            Err(code) => return self.reply(call, VaultFrame::Refused(code.into()).encode().to_vec()),
        };
        enclave.next_request += 1;
        let id = enclave.next_request;
        enclave.open.insert(id, Open { call, deadline: now + peek.deadline });
        self.event(router::Event::Request { id, vault, remaining: peek.deadline, kind: peek.kind, frame });
    }

    fn reply(&mut self, call: CallId, frame: Vec<u8>) {
        let weather = &self.shared.weather;
        if weather.strikes(&mut self.dice, weather.loses) {
            return;
        }
        let late = weather.strikes(&mut self.dice, weather.delays);
        let after = if late { self.dice.millis(5, 4_000) } else { self.dice.millis(0, 2) };
        self.shared.time.after(after, Event::Answer { call, frame });
    }

    /// The link to the parent is cut and comes back: nobody hears the answers to what was under way, and what the store did is unknown.
    pub fn cut_link(&mut self) {
        let down = self.dice.millis(1, 1_500);
        let now = self.shared.time.now();
        let place = self.place;
        let Some(enclave) = &mut self.enclave else { return };
        enclave.link_down_until = now + down;
        for open in enclave.open.values_mut() {
            open.call = 0;
        }
        for (op, slot) in std::mem::take(&mut enclave.puts) {
            self.shared.time.after(Duration::ZERO, Event::PutEnds { place, slot, op, put: Put::Unclear });
        }
        for (op, (slot, read)) in std::mem::take(&mut enclave.reads) {
            self.shared.time.after(Duration::ZERO, Event::Router(place, failed(slot, op, &read)));
        }
    }

    // ---- the router ---------------------------------------------------------------------------------------------------------

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
            let by_operator = matches!(event, router::Event::Evict(_));
            let mut actions = Vec::new();
            enclave.router.handle(event, self.shared.time.now(), &mut actions);
            for action in actions {
                self.perform(action, by_operator);
            }
        }
        self.check();
    }

    fn perform(&mut self, action: Action, by_operator: bool) {
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
            Action::Send { slot, message } => self.send(slot, message, by_operator),
            Action::SendHello { slot, vault, static_key, id, deadline_ms, frame } => {
                let now = Clock::unix_seconds(&self.shared.time);
                let Some(enclave) = &self.enclave else { return };
                let credentials = evidence::credentials(&enclave.identity, vault, static_key, now);
                let message = ToManager::Request { id, deadline_ms, frame, credentials: Some(Box::new(credentials)) };
                self.send(slot, message, by_operator);
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

    fn answer(&mut self, id: RequestId, answer: Answer) {
        let findings = &self.shared.findings;
        let Some(enclave) = &mut self.enclave else { return };
        if !enclave.answered.insert(id) {
            findings.violation(format_args!("request {id} is answered twice"));
        }
        let Some(open) = enclave.open.remove(&id) else {
            return findings.violation(format_args!("an answer to no request: {id}"));
        };
        let frame = match answer {
            Answer::Frame(frame) => frame,
            Answer::Refused(refusal) => VaultFrame::Refused(refusal).encode().to_vec(),
        };
        self.reply(open.call, frame);
    }

    // ---- processes ----------------------------------------------------------------------------------------------------------

    fn spawn(&mut self, slot: SlotId) {
        let place = self.place;
        let takes = self.dice.millis(0, 3);
        let shared = self.shared;
        self.next_process += 1;
        let Some(enclave) = &mut self.enclave else { return };
        if enclave.processes.contains_key(&slot) {
            return shared.findings.violation(format_args!("slot {} has two processes", slot.0));
        }
        let number = self.next_process;
        let now = shared.time.now();
        let process = Process {
            number,
            // It is told who it is with its first message.
            vault: VaultId::from_bytes([0; VaultId::BYTES]),
            manager: Manager::new(&shared.time, &*shared.randomness),
            hears_at: now + takes,
            speaks_at: now + takes,
            hangs: false,
            dead: false,
            holds: BTreeSet::new(),
            commits: false,
            gave_up: false,
        };
        enclave.processes.insert(slot, process);
        shared.time.after(takes, Event::Router(place, router::Event::Spawned { slot, pid: 1 }));
        self.speak(slot);
    }

    fn send(&mut self, slot: SlotId, message: ToManager, by_operator: bool) {
        let takes = self.dice.between(Duration::from_micros(5), Duration::from_micros(200));
        let (place, findings, time) = (self.place, &self.shared.findings, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        match &message {
            ToManager::Start { vault, .. } => process.vault = *vault,
            ToManager::Request { id, .. } => {
                process.holds.insert(*id);
            }
            ToManager::CommitResult(result) => {
                process.commits = false;
                process.gave_up = matches!(result, CommitResult::OtherWriter | CommitResult::Unknown);
            }
            ToManager::Stop if !process.gave_up && !by_operator => {
                if !process.holds.is_empty() || process.commits {
                    findings.violation(format_args!("vault {} is evicted with work in flight", process.vault));
                }
            }
            ToManager::Stop | ToManager::Opened { .. } | ToManager::OpenRefused(_) => {}
        }
        process.hears_at = process.hears_at.max(time.now() + takes);
        let after = process.hears_at.saturating_sub(time.now());
        time.after(after, Event::Hear { place, slot, process: process.number, message });
    }

    fn process(&mut self, place: Place, slot: SlotId, number: u64) -> Option<&mut Process<'a>> {
        let current = self.is_current(place);
        let process = self.enclave.as_mut()?.processes.get_mut(&slot)?;
        (current && process.number == number).then_some(process)
    }

    /// A message reaches a vault-manager.
    pub fn hear(&mut self, place: Place, slot: SlotId, number: u64, message: ToManager) {
        let Some(process) = self.process(place, slot, number) else { return };
        if process.hangs || process.dead || process.manager.has_ended() {
            return;
        }
        process.manager.handle(message);
        self.speak(slot);
    }

    /// What a vault-manager has to say is on its way, and its end behind it.
    fn speak(&mut self, slot: SlotId) {
        let takes = self.dice.between(Duration::from_micros(20), Duration::from_micros(500));
        let (place, time) = (self.place, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        process.speaks_at = process.speaks_at.max(time.now() + takes);
        let after = process.speaks_at.saturating_sub(time.now());
        for message in process.manager.take_output() {
            time.after(after, Event::Said { place, slot, process: process.number, message });
        }
        if process.manager.has_ended() && !process.dead {
            process.dead = true;
            time.after(after, Event::Gone { place, slot, process: process.number, exit: ManagerExit::Status(0) });
        }
    }

    /// A message of a vault-manager reaches the router.
    pub fn said(&mut self, place: Place, slot: SlotId, number: u64, message: FromManager) {
        let one_node = self.shared.weather.nodes == 1;
        let findings = self.shared.findings.clone();
        let Some(process) = self.process(place, slot, number) else { return };
        match &message {
            FromManager::Reply { id, .. } => {
                process.holds.remove(id);
            }
            FromManager::Commit { version, .. } => {
                process.commits = true;
                findings.trace(format_args!("node {}: {} commits {version}", place.node, slot.0));
            }
            // Nobody lies in this world; with two nodes one may find the other's versions.
            FromManager::Noticed(notice @ (Notice::Rollback | Notice::StateCorrupt)) => {
                findings.violation(format_args!("vault {} calls an honest store {notice:?}", process.vault));
            }
            FromManager::Noticed(notice @ Notice::Fork) if one_node => {
                findings.violation(format_args!("vault {} calls an honest store {notice:?}", process.vault));
            }
            _ => {}
        }
        self.event(router::Event::FromManager { slot, message });
    }

    /// Ends a process; what it said before still arrives.
    fn end(&mut self, slot: SlotId, exit: ManagerExit) {
        let takes = self.dice.between(Duration::from_micros(50), Duration::from_millis(5));
        let (place, time) = (self.place, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        if process.dead {
            return;
        }
        process.dead = true;
        let at = process.speaks_at.max(time.now() + takes);
        let after = at.saturating_sub(time.now());
        time.after(after, Event::Gone { place, slot, process: process.number, exit });
    }

    /// A process is reaped.
    pub fn gone(&mut self, place: Place, slot: SlotId, number: u64, exit: ManagerExit) {
        if self.process(place, slot, number).is_none() {
            return;
        }
        if let Some(enclave) = &mut self.enclave {
            enclave.processes.remove(&slot);
        }
        self.shared.findings.trace(format_args!("node {}: {} is gone: {exit:?}", place.node, slot.0));
        self.event(router::Event::Exited { slot, exit });
    }

    fn slot_of(&self, vault: VaultId) -> Option<SlotId> {
        let processes = &self.enclave.as_ref()?.processes;
        processes.iter().find(|(_, process)| process.vault == vault && !process.dead).map(|(slot, _)| *slot)
    }

    /// kill -9 of a vault's process.
    pub fn kill_manager(&mut self, vault: VaultId) {
        if let Some(slot) = self.slot_of(vault) {
            self.end(slot, ManagerExit::Signal(9));
        }
    }

    /// A vault's process stops doing anything.
    pub fn hang_manager(&mut self, vault: VaultId) {
        let slot = self.slot_of(vault);
        if let Some(process) = slot.and_then(|slot| self.enclave.as_mut()?.processes.get_mut(&slot)) {
            process.hangs = true;
        }
    }

    // ---- the store and the keys ---------------------------------------------------------------------------------------------

    fn read(&mut self, slot: SlotId, op: Op, read: Read) {
        let (there, back, fails) = store::read_fate(&mut self.dice, &self.shared.weather);
        if let Some(enclave) = &mut self.enclave {
            enclave.reads.insert(op, (slot, read.clone()));
        }
        // The store is looked at in between, so that what is on its way at the same time may or may not be seen.
        let place = self.place;
        self.shared.time.after(there + back / 2, Event::Reads { place, slot, op, read, fails });
    }

    /// A read has reached the store, and its answer the router.
    pub fn reads(&mut self, place: Place, slot: SlotId, op: Op, read: &Read, fails: bool) {
        let waited_for =
            self.is_current(place) && self.enclave.as_mut().is_some_and(|enclave| enclave.reads.remove(&op).is_some());
        if !waited_for {
            return;
        }
        let store = &self.shared.store;
        self.event(match read {
            _ if fails => failed(slot, op, read),
            Read::Newest(vault) => router::Event::Newest { slot, op, result: Ok(store.newest(*vault)) },
            Read::Load(vault) => router::Event::Loaded { slot, op, result: Ok(store.load(*vault)) },
            Read::Object(path) => router::Event::ReadBack { slot, op, result: Ok(store.get(path)) },
        });
    }

    fn put(&mut self, slot: SlotId, op: Op, path: String, bytes: Vec<u8>) {
        let fate = store::put_fate(&mut self.dice, &self.shared.weather);
        let (place, time) = (self.place, &self.shared.time);
        if let Some(enclave) = &mut self.enclave {
            enclave.puts.insert(op, slot);
        }
        let tell = |after, answered| Some(Tell { place, slot, op, after, answered });
        let ends = |after, put| time.after(after, Event::PutEnds { place, slot, op, put });
        match fate {
            PutFate::Answered(there, after) => {
                time.after(there, Event::Arrives { path, bytes, tell: tell(after, true) });
            }
            PutFate::AnswerLost(there, after) => {
                time.after(there, Event::Arrives { path, bytes, tell: tell(after, false) });
            }
            PutFate::ArrivesLate(end, late) => {
                ends(end, Put::Unclear);
                time.after(end + late, Event::Arrives { path, bytes, tell: None });
            }
            PutFate::Lost(after) => ends(after, Put::Unclear),
            PutFate::FalseExists(after) => ends(after, Put::Exists),
            PutFate::NotSent => ends(Duration::from_micros(10), Put::NotSent),
        }
    }

    /// A put ends for the router.
    pub fn put_ends(&mut self, place: Place, slot: SlotId, op: Op, put: Put) {
        if !self.is_current(place) {
            return;
        }
        if let Some(enclave) = &mut self.enclave {
            enclave.puts.remove(&op);
        }
        self.shared.findings.trace(format_args!("node {}: put {} ends: {put:?}", place.node, op.0));
        self.event(router::Event::PutDone { slot, op, put });
    }

    fn vault_key(&mut self, slot: SlotId, op: Op, vault: VaultId, wrapped: Vec<KeyObject>) {
        let Some(enclave) = &self.enclave else { return };
        let (keys, shared, place) = (enclave.keys.clone(), self.shared.clone(), self.place);
        enclave.runtime.spawn(async move {
            let asked = shared.time.now();
            let result = keys.vault_key(vault, &wrapped).await;
            if result.is_ok() {
                check_key_age(&shared, place, vault, asked);
            }
            shared.time.after(Duration::ZERO, Event::Router(place, router::Event::VaultKey { slot, op, result }));
        });
    }

    // ---- what must hold -----------------------------------------------------------------------------------------------------

    fn check(&self) {
        let Some(enclave) = &self.enclave else { return };
        let now = self.shared.time.now();
        let overdue = enclave.open.iter().find(|(_, open)| open.deadline + GRACE < now);
        if let Some((id, _)) = overdue {
            self.shared.findings.violation(format_args!("request {id} has no answer by its deadline"));
        }
    }

    /// Requests and processes that are left, once nobody asks for anything.
    pub fn leftovers(&self) -> usize {
        self.enclave.as_ref().map_or(0, |enclave| enclave.open.len() + enclave.puts.len())
    }
}

/// No vault is opened with a shard key that the key service has not confirmed within the hard limit.
fn check_key_age(shared: &Shared, place: Place, vault: VaultId, asked: Duration) {
    let object = shared.store.get(&path::vault_key(vault, 1));
    let Some(wrapped) = object.and_then(|bytes| WrappedVaultKey::from_bytes(&bytes).ok()) else {
        return shared.findings.violation(format_args!("the key of {vault} is used and stands nowhere"));
    };
    let confirmed = shared.kms.confirmed(place, wrapped.shard_blob());
    if confirmed.is_none_or(|confirmed| confirmed + shared.weather.policy.hard_limit < asked) {
        shared.findings.violation(format_args!("{vault} is opened with a key past its hard limit"));
    }
}

fn failed(slot: SlotId, op: Op, read: &Read) -> router::Event {
    match read {
        Read::Newest(_) => router::Event::Newest { slot, op, result: Err(StoreFailed) },
        Read::Load(_) => router::Event::Loaded { slot, op, result: Err(StoreFailed) },
        Read::Object(_) => router::Event::ReadBack { slot, op, result: Err(StoreFailed) },
    }
}

fn name(message: &ToManager) -> String {
    match message {
        ToManager::Start { vault, newest, .. } => {
            format!("start {vault} at {:?}", newest.as_ref().map(|newest| newest.version))
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
        ToManager::Stop => "stop".to_owned(),
    }
}
