//! A world around the router, played by seed: devices, vault-managers, a store and a key service that behave, dawdle, fail, crash and break
//! the rules, in simulated time. After every step it checks what must hold whatever happens.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrameKind, SessionId, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{KeyObject, Tuning, VersionObject};
use casemate_protocol::secret::Secret;
use proptest::prelude::*;

use super::slot::State;
use super::*;
use crate::ipc::{FromManager, Newest, Notice, ToManager};

/// A small deterministic source of choices.
pub(super) struct Dice(u64);

impl Dice {
    pub(super) fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % sides
    }

    fn chance(&mut self, percent: u64) -> bool {
        self.roll(100) < percent
    }
}

pub(super) fn vault(number: u64) -> VaultId {
    let mut bytes = [0; 20];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    VaultId::from_bytes(bytes)
}

/// A simulated vault-manager.
#[derive(Debug, Default)]
struct Manager {
    started: bool,
    open: bool,
    held: Vec<u64>,
    hellos: BTreeSet<u64>,
    /// Sessions that it has named.
    sessions: Vec<SessionId>,
    committing: bool,
    committed: u64,
    stopping: bool,
    silent: bool,
    /// What it was handed of the process before it, by number, until it goes on from there.
    handed: Option<u64>,
    /// Its vault's version, if it was handed all of it.
    whole_at: Option<u64>,
    resumed: bool,
    /// It parks its sessions before it ends.
    parks: bool,
    /// It ends by itself.
    leaving: bool,
}

#[derive(Debug)]
struct Caller {
    deadline: Duration,
    sealed: bool,
}

/// What a simulated vault-manager left.
#[derive(Debug)]
struct Parked {
    vault: VaultId,
    sessions: Vec<SessionId>,
    /// The vault's version, if all of it was left.
    whole_at: Option<u64>,
}

/// Everything around the router.
struct World {
    router: Router,
    dice: Dice,
    now: Duration,
    /// Events on their way, by time and order.
    coming: BTreeMap<(Duration, u64), Event>,
    order: u64,
    callers: HashMap<u64, Caller>,
    answered: BTreeSet<u64>,
    next_request: u64,
    managers: HashMap<SlotId, (VaultId, Manager)>,
    store: HashMap<VaultId, BTreeMap<u64, Vec<u8>>>,
    keys: BTreeSet<VaultId>,
    puts_under_way: HashMap<VaultId, BTreeSet<Op>>,
    /// Slots whose write was given up during this step.
    gave_up: BTreeSet<SlotId>,
    /// What was parked, by number.
    parked: Vec<Parked>,
    /// Numbers from which a process has gone on.
    used_up: BTreeSet<u64>,
    trouble: u64,
}

impl World {
    fn new(seed: u64, tuning: &Tuning, trouble: u64) -> Self {
        Self {
            router: Router::new(tuning, 1000, 2, Duration::ZERO),
            dice: Dice(seed),
            now: Duration::ZERO,
            coming: BTreeMap::new(),
            order: 0,
            callers: HashMap::new(),
            answered: BTreeSet::new(),
            next_request: 0,
            managers: HashMap::new(),
            store: HashMap::new(),
            keys: BTreeSet::new(),
            puts_under_way: HashMap::new(),
            gave_up: BTreeSet::new(),
            parked: Vec::new(),
            used_up: BTreeSet::new(),
            trouble,
        }
    }

    fn later(&mut self, within_ms: u64, event: Event) {
        let after = Duration::from_micros(1 + self.dice.roll(within_ms * 1000));
        self.order += 1;
        self.coming.insert((self.now + after, self.order), event);
    }

    /// A process has ended: nothing of it is heard any more.
    fn gone(&mut self, slot: SlotId) -> bool {
        self.coming.retain(|_, event| match event {
            Event::Spawned { slot: other, .. } | Event::FromManager { slot: other, .. } => *other != slot,
            _ => true,
        });
        self.managers.remove(&slot).is_some()
    }

    /// Latency of the outside: mostly short, sometimes longer than any time-out.
    fn latency(&mut self) -> u64 {
        if self.dice.chance(self.trouble) { 12_000 } else { 5 }
    }

    fn request(&mut self) {
        self.next_request += 1;
        let id = self.next_request;
        let kind = match self.dice.roll(4) {
            0 | 1 => DeviceFrameKind::Hello,
            2 => DeviceFrameKind::Finish,
            _ => DeviceFrameKind::Sealed,
        };
        let remaining = Duration::from_millis([1, 50, 3000, 10_000][usize::try_from(self.dice.roll(4)).unwrap()]);
        let frame = vec![0; usize::try_from(1 + self.dice.roll(2000)).unwrap()];
        let vault = vault(self.dice.roll(12));
        let session = (kind != DeviceFrameKind::Hello).then(|| self.session_of(vault));
        let event = Event::Request { id, vault, remaining, kind, session, frame };
        self.callers.insert(id, Caller { deadline: self.now + remaining, sealed: kind != DeviceFrameKind::Hello });
        self.handle(event);
    }

    /// A session that the vault's process has named, or made up by a stranger.
    fn session_of(&mut self, vault: VaultId) -> SessionId {
        let made_up = [u8::try_from(self.dice.roll(256)).unwrap(); 16];
        let choice = self.dice.roll(1 << 32);
        let living = self.managers.values().find(|(of, _)| *of == vault).map(|(_, manager)| &manager.sessions);
        let parked = self.parked.iter().rev().find(|parked| parked.vault == vault).map(|parked| &parked.sessions);
        let sessions = living.filter(|sessions| !sessions.is_empty()).or(parked);
        match sessions {
            Some(sessions) if !choice.is_multiple_of(8) => sessions[usize::try_from(choice).unwrap() % sessions.len()],
            Some(_) | None => made_up,
        }
    }

    fn handle(&mut self, event: Event) {
        let idle_before: BTreeSet<_> =
            self.router.slots.iter().filter(|(_, slot)| slot.is_idle()).map(|(id, _)| id).collect();
        let evicting = matches!(event, Event::Request { .. } | Event::Memory { .. } | Event::Tick | Event::Tuning(_))
            || matches!(event, Event::FromManager { message: FromManager::Open { .. } | FromManager::Resume, .. });
        // Whoever goes on where there is no place answers what it was asked, and leaves.
        let resumes = match &event {
            Event::FromManager { slot, message: FromManager::Resume } => Some(*slot),
            _ => None,
        };
        let mut out = Vec::new();
        self.gave_up.clear();
        self.router.handle(event, self.now, &mut out);
        for action in out {
            if let Action::Send { slot, message: ToManager::Stop { .. } } = &action
                && evicting
            {
                let gave_up = self.gave_up.contains(slot);
                assert!(
                    idle_before.contains(slot) || gave_up || resumes == Some(*slot),
                    "a vault with work in flight was evicted"
                );
            }
            self.perform(action);
        }
        self.check();
    }

    fn perform(&mut self, action: Action) {
        match action {
            Action::Answer { id, answer } => {
                assert!(self.answered.insert(id), "request {id} was answered twice");
                let caller = self.callers.remove(&id).expect("an answer to a request that was made");
                assert!(self.now <= caller.deadline.max(self.now), "late");
                if let Answer::Refused(refusal) = answer {
                    // Only a request that was given to a process can have taken effect.
                    assert!(caller.sealed || refusal.code != ErrorCode::OutcomeUnknown);
                }
            }
            Action::Spawn { slot, .. } => {
                assert!(!self.managers.contains_key(&slot), "a slot has two tenants");
                let vault = self.router.slots.get(slot).unwrap().vault;
                let none = self.puts_under_way.get(&vault).is_none_or(BTreeSet::is_empty);
                assert!(none, "opened before a put had ended");
                if self.dice.chance(self.trouble) {
                    self.later(5, Event::SpawnFailed { slot });
                } else {
                    let silent = self.dice.chance(self.trouble);
                    self.managers.insert(slot, (vault, Manager { silent, ..Manager::default() }));
                    self.later(5, Event::Spawned { slot, pid: slot.0 + 100 });
                    if !silent {
                        // Its word may come before the zygote's, and before it was told anything.
                        self.later(8, Event::FromManager { slot, message: FromManager::Ready { static_key: [9; 32] } });
                    }
                }
            }
            Action::Send { slot, message } => self.manager_hears(slot, message),
            Action::SendHello { slot, id, .. } => {
                if let Some((_, manager)) = self.managers.get_mut(&slot) {
                    manager.held.push(id);
                    manager.hellos.insert(id);
                }
            }
            Action::Kill { slot } => {
                if self.gone(slot) {
                    self.later(20, Event::Exited { slot, exit: ManagerExit::Signal(9) });
                }
            }
            Action::Release { slot } => assert!(!self.managers.contains_key(&slot), "a live process lost its slot"),
            Action::LoadNewest { slot, op, vault } => {
                let newest = self.store.get(&vault).and_then(|versions| versions.last_key_value());
                let newest = newest.map(|(version, bytes)| VersionObject { version: *version, bytes: bytes.clone() });
                let result = if self.dice.chance(self.trouble) { Err(StoreFailed) } else { Ok(newest) };
                let latency = self.latency();
                self.later(latency, Event::Newest { slot, op, result });
            }
            Action::Load { slot, op, vault } => {
                let versions = self.store.get(&vault).into_iter().flatten();
                let versions = versions
                    .map(|(version, bytes)| VersionObject { version: *version, bytes: bytes.clone() })
                    .collect();
                let key = self.keys.contains(&vault).then(|| KeyObject { generation: 1, bytes: vec![1] });
                let loaded = Loaded { versions, keys: key.into_iter().collect() };
                let result = if self.dice.chance(self.trouble) { Err(StoreFailed) } else { Ok(loaded) };
                let latency = self.latency();
                self.later(latency, Event::Loaded { slot, op, result });
            }
            Action::VaultKey { slot, op, vault, .. } => {
                let result = if self.dice.chance(self.trouble) {
                    Err(Refusal::new(ErrorCode::Unavailable))
                } else {
                    self.keys.insert(vault);
                    Ok(VaultKey { key: Secret::new(vec![7; 32]), generation: 1 })
                };
                let latency = self.latency();
                self.later(latency, Event::VaultKey { slot, op, result });
            }
            Action::Put { slot, op, path, bytes } => self.put(slot, op, &path, &bytes),
            Action::ReadBack { slot, op, path } => {
                let (vault, version) = parse(&path);
                let found = self.store.get(&vault).and_then(|versions| versions.get(&version)).cloned();
                let result = if self.dice.chance(self.trouble) { Err(StoreFailed) } else { Ok(found) };
                let latency = self.latency();
                self.later(latency, Event::ReadBack { slot, op, result });
            }
            Action::Collect { .. }
            | Action::Purge { .. }
            | Action::WarmShardKey { .. }
            | Action::Log { .. }
            | Action::Drained => {}
        }
    }

    fn put(&mut self, slot: SlotId, op: Op, path: &str, bytes: &[u8]) {
        let (vault, version) = parse(path);
        assert_eq!(self.router.slots.get(slot).map(|slot| slot.vault), Some(vault), "a put under another's name");
        let under_way = self.puts_under_way.entry(vault).or_default();
        assert!(under_way.is_empty(), "two puts of one vault at once");
        under_way.insert(op);
        let present = self.store.entry(vault).or_default().contains_key(&version);
        let (arrives, put) = match (self.dice.chance(self.trouble), present) {
            (true, _) if self.dice.chance(50) => (true, Put::Unclear),
            (true, _) => {
                (false, [Put::Unclear, Put::Exists, Put::NotSent][usize::try_from(self.dice.roll(3)).unwrap()])
            }
            (false, true) => (false, Put::Exists),
            (false, false) => (true, Put::Created),
        };
        if arrives && !present {
            self.store.entry(vault).or_default().insert(version, bytes.to_vec());
        } else if !present && self.dice.chance(self.trouble) {
            self.store.entry(vault).or_default().insert(version, b"another writer's".to_vec());
        }
        let latency = self.latency();
        self.later(latency, Event::PutDone { slot, op, put });
    }

    fn manager_hears(&mut self, slot: SlotId, message: ToManager) {
        if let ToManager::CommitResult(result) = &message {
            if *result == crate::ipc::CommitResult::Committed {
                // What is known to be there may be put again without harm.
                let vault = self.router.slots.get(slot).map(|slot| slot.vault);
                vault.and_then(|vault| self.puts_under_way.remove(&vault));
            } else {
                self.gave_up.insert(slot);
            }
        }
        let Some((vault, manager)) = self.managers.get_mut(&slot) else { return };
        match message {
            ToManager::Start { newest, parked, .. } => {
                manager.started = true;
                if let Newest::Shown(newest) = newest {
                    manager.committed = newest.version;
                }
                if let Some(number) = parked {
                    let number = u64::from_be_bytes(number.try_into().unwrap());
                    let parked = &self.parked[usize::try_from(number).unwrap()];
                    assert_eq!(parked.vault, *vault, "another vault's sessions");
                    manager.sessions.clone_from(&parked.sessions);
                    manager.handed = Some(number);
                    manager.whole_at = parked.whole_at;
                }
            }
            ToManager::Request { id, .. } => {
                assert!(manager.started && !manager.stopping, "a request to a process that does not take any");
                manager.held.push(id);
            }
            ToManager::Opened { versions, .. } => {
                manager.open = true;
                manager.committed = versions.last().map_or(0, |newest| newest.version);
            }
            ToManager::OpenRefused(_) => {
                manager.open = false;
                manager.leaving = manager.resumed;
                manager.parks = manager.resumed;
            }
            ToManager::CommitResult(result) => {
                assert!(manager.committing, "a result without a commit");
                manager.committing = false;
                if result == crate::ipc::CommitResult::Committed {
                    manager.committed += 1;
                }
            }
            ToManager::Stop { park } => {
                manager.stopping = true;
                manager.parks = park;
            }
        }
    }

    /// Lets one vault-manager do something.
    fn manager_acts(&mut self) {
        let mut slots: Vec<_> = self.managers.keys().copied().collect();
        slots.sort_unstable();
        if slots.is_empty() {
            return;
        }
        let slot = slots[usize::try_from(self.dice.roll(slots.len() as u64)).unwrap()];
        if self.dice.chance(self.trouble) {
            match self.dice.roll(5) {
                0 => {
                    self.gone(slot);
                    return self.handle(Event::Exited { slot, exit: ManagerExit::Status(1) });
                }
                1 => return self.handle(Event::Broken { slot }),
                2 => {
                    let message = FromManager::Reply { id: 1_000_000, frame: Vec::new() };
                    return self.handle(Event::FromManager { slot, message });
                }
                3 => {
                    return self.handle(Event::FromManager { slot, message: FromManager::Noticed(Notice::Fork) });
                }
                _ => {
                    if let Some((_, manager)) = self.managers.get_mut(&slot) {
                        manager.silent = true;
                    }
                }
            }
        }
        let choice = self.dice.roll(4);
        let Some((of, manager)) = self.managers.get_mut(&slot) else { return };
        // Before it said that it is ready it says nothing.
        let serving = self.router.slots.get(slot).is_some_and(|slot| {
            slot.serving_key().is_some() || matches!(slot.state, State::Closing(slot::Closing::Stopping { .. }))
        });
        if manager.silent || !serving {
            return;
        }
        let opening = self.router.slots.get(slot).is_some_and(|slot| matches!(slot.state, State::Opening(_)));
        let message = match choice {
            0 if !manager.open && !opening && !manager.stopping && !manager.leaving => {
                if let Some(number) = manager.handed.take() {
                    assert!(self.used_up.insert(number), "two processes go on from one place");
                    manager.resumed = true;
                }
                if let Some(version) = manager.whole_at.filter(|_| manager.resumed) {
                    manager.open = true;
                    manager.committed = version;
                    let newest = self.store.get(of).and_then(|versions| versions.last_key_value());
                    assert_eq!(newest.map(|(newest, _)| *newest), Some(version), "an old state is served");
                    FromManager::Resume
                } else {
                    FromManager::Open { create: !manager.resumed }
                }
            }
            1 if manager.open && !opening && !manager.committing => {
                manager.committing = true;
                FromManager::Commit {
                    version: manager.committed + 1,
                    object: vec![u8::try_from(slot.0 % 250).unwrap(); 8],
                }
            }
            _ if (manager.stopping || manager.leaving)
                && manager.held.is_empty()
                && !manager.committing
                && manager.parks
                && !manager.sessions.is_empty() =>
            {
                manager.parks = false;
                // One that was let in leaves all of its vault, if that is not too large; one that was not, what it was handed.
                let whole_at = if manager.open { Some(manager.committed) } else { manager.whole_at };
                let whole_at = whole_at.filter(|version| *version > 0 && !self.dice.chance(300));
                self.parked.push(Parked { vault: *of, sessions: manager.sessions.clone(), whole_at });
                let number = u64::try_from(self.parked.len() - 1).unwrap();
                FromManager::Parked { sealed: number.to_be_bytes().to_vec(), is_whole: whole_at.is_some() }
            }
            _ if (manager.stopping || manager.leaving) && manager.held.is_empty() && !manager.committing => {
                self.gone(slot);
                return self.handle(Event::Exited { slot, exit: ManagerExit::Status(0) });
            }
            _ => match manager.held.pop() {
                Some(id) if manager.hellos.remove(&id) => {
                    let mut session = [0; 16];
                    session[..8].copy_from_slice(&id.to_be_bytes());
                    manager.sessions.push(session);
                    let frame = VaultFrame::Welcome { session, noise: vec![1] }.encode().into();
                    FromManager::Reply { id, frame }
                }
                Some(id) => FromManager::Reply { id, frame: vec![1] },
                None => return,
            },
        };
        if matches!(message, FromManager::Reply { .. }) && self.dice.chance(10) {
            // Whoever asked has shown no right to.
            let notice = [Notice::BadFrame, Notice::Stranger, Notice::LockTurned];
            let message = FromManager::Noticed(notice[usize::try_from(self.dice.roll(3)).unwrap()]);
            self.handle(Event::FromManager { slot, message });
        }
        self.handle(Event::FromManager { slot, message });
    }

    /// Goes on to the next thing that happens, at most `step` away.
    fn step(&mut self, step: Duration) {
        let end = self.now + step;
        let wake = self.router.next_wake();
        let coming = self.coming.first_key_value().map(|((at, _), _)| *at);
        match coming {
            Some(at) if at <= end && at <= wake => {
                self.now = self.now.max(at);
                let (_, event) = self.coming.pop_first().expect("just seen");
                if let Event::PutDone { op, .. } = &event {
                    self.puts_under_way.values_mut().for_each(|under_way| {
                        under_way.remove(op);
                    });
                }
                self.handle(event);
            }
            _ if wake <= end => {
                self.now = self.now.max(wake);
                self.handle(Event::Tick);
            }
            _ => self.now = end,
        }
    }

    fn check(&self) {
        let router = &self.router;
        for (id, caller) in &self.callers {
            assert!(caller.deadline > self.now || caller.deadline >= router.next_wake(), "request {id} is overdue");
        }
        assert!(router.residents.len() <= router.limits.vaults.max(1), "more residents than the limit");
        assert!(router.slots.len() <= router.limits.vaults + router.limits.half_open + CLOSING_SLOTS);
        assert_eq!(router.deadlines.len(), self.callers.len());
        let mut waiting = 0;
        let mut bytes = 0;
        for (id, slot) in router.slots.iter() {
            assert!(slot.requests.len() <= router.limits.queue);
            waiting +=
                slot.requests.values().filter(|pending| !matches!(pending.stage, slot::Stage::Overdue(_))).count();
            bytes += slot
                .requests
                .values()
                .filter(|pending| !matches!(pending.stage, slot::Stage::Overdue(_)))
                .map(|pending| pending.bytes)
                .sum::<usize>();
            assert_eq!(slot.bytes, slot.requests.values().map(|pending| pending.bytes).sum::<usize>());
            let resident = matches!(slot.state, State::Opening(_) | State::Open { .. });
            assert_eq!(router.residents.contains(id), resident);
            let half_open = matches!(slot.state, State::HalfOpen(_));
            assert_eq!(router.half_open.iter().filter(|other| **other == id).count(), usize::from(half_open));
            assert!(!half_open || self.now < slot.half_open_until, "half-open for too long");
            assert_eq!(slot.wake, slot.next_wake());
            assert_eq!(router.vaults.get(&slot.vault), Some(&id));
        }
        assert_eq!(waiting, router.deadlines.len());
        assert_eq!(bytes, router.in_flight_bytes);
        assert_eq!(router.vaults.len(), router.slots.len());
    }
}

fn parse(path: &str) -> (VaultId, u64) {
    let mut segments = path.rsplit('/');
    let version = casemate_protocol::path::parse_version(segments.next().unwrap()).unwrap();
    (segments.next().unwrap().parse().unwrap(), version)
}

fn tuning() -> Tuning {
    Tuning {
        vault_limit: 4,
        queue_per_vault: 4,
        idle_ms: 3000,
        opens_per_second: 1000,
        creates_per_second: 1000,
        ..Tuning::default()
    }
}

fn play(seed: u64, trouble: u64, steps: u64) -> World {
    let mut world = World::new(seed, &tuning(), trouble);
    for _ in 0..steps {
        match world.dice.roll(10) {
            0 | 1 => world.request(),
            2..=5 => world.manager_acts(),
            6 if world.dice.chance(5) => {
                let available = world.dice.roll(100);
                world.handle(Event::Memory { total: 100, available });
            }
            7 if world.dice.chance(5) => {
                let vault = vault(world.dice.roll(12));
                world.handle(Event::Evict(vault));
            }
            _ => {
                let step = Duration::from_millis(world.dice.roll(200));
                world.step(step);
            }
        }
    }
    world
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn holds_in_calm_and_in_trouble(seed in any::<u64>(), trouble in prop_oneof![Just(0_u64), Just(2), Just(15)]) {
        let mut world = play(seed, trouble, 3000);
        // In the end everybody was answered, and a drained router is empty.
        world.handle(Event::Drain);
        let end = world.now + Duration::from_mins(2);
        while world.now < end {
            world.manager_acts();
            world.step(Duration::from_millis(100));
        }
        prop_assert!(world.callers.is_empty());
        prop_assert!(world.router.drained, "slots left: {:?}", world.router.slots);
        prop_assert!(world.router.vaults.is_empty() && world.router.wakes.is_empty() && world.router.deadlines.is_empty());
    }
}

#[test]
fn a_calm_world_does_its_work() {
    let world = play(1, 0, 20_000);
    let numbers = world.router.numbers();
    assert!(numbers.opened > 20 && numbers.evicted > 5, "{numbers:?}");
    assert_eq!(numbers.crashed, 0);
    assert!(world.store.values().any(|versions| versions.len() > 3));
}
