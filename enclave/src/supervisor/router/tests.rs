//! One behaviour a test: what the router does, told as a story of events.

use std::time::Duration;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind::{self, Finish, Hello, Sealed};
use casemate_protocol::frame::{SessionId, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{KeyObject, LogEvent, Tuning, VersionObject};
use casemate_protocol::secret::Secret;

use super::simulation::vault;
use super::slot::{HALF_OPEN_LIFE, STOP_LIMIT, STUCK_AFTER};
use super::*;
use crate::ipc::{CommitResult, FromManager, Newest, ToManager};

pub(super) const SECOND: Duration = Duration::from_secs(1);
/// The session that the process of every vault names first.
pub(super) const SESSION: SessionId = [5; 16];

pub(super) fn welcome(session: SessionId) -> Vec<u8> {
    VaultFrame::Welcome { session, noise: vec![1] }.encode().into()
}

/// A router and somebody who plays everything around it.
pub(super) struct Stage {
    pub(super) router: Router,
    pub(super) now: Duration,
    requests: u64,
    pub(super) out: Vec<Action>,
}

impl Stage {
    pub(super) fn new(tuning: &Tuning) -> Self {
        Self { router: Router::new(tuning, 1000, 2, Duration::ZERO), now: Duration::ZERO, requests: 0, out: Vec::new() }
    }

    pub(super) fn small() -> Self {
        Self::new(&Tuning { vault_limit: 2, queue_per_vault: 3, ..Tuning::default() })
    }

    pub(super) fn event(&mut self, event: Event) -> &[Action] {
        self.out.clear();
        self.router.handle(event, self.now, &mut self.out);
        &self.out
    }

    pub(super) fn after(&mut self, time: Duration) -> &[Action] {
        self.now += time;
        self.event(Event::Tick)
    }

    pub(super) fn request(&mut self, vault: VaultId, kind: DeviceFrameKind) -> u64 {
        self.request_within(vault, kind, Duration::from_secs(10))
    }

    pub(super) fn request_within(&mut self, vault: VaultId, kind: DeviceFrameKind, remaining: Duration) -> u64 {
        self.request_in(vault, kind, (kind != Hello).then_some(SESSION), remaining)
    }

    pub(super) fn request_in(
        &mut self,
        vault: VaultId,
        kind: DeviceFrameKind,
        session: Option<SessionId>,
        remaining: Duration,
    ) -> u64 {
        self.requests += 1;
        let id = self.requests;
        self.event(Event::Request { id, vault, remaining, kind, session, frame: vec![1; 100] });
        id
    }

    pub(super) fn from(&mut self, slot: SlotId, message: FromManager) -> &[Action] {
        self.event(Event::FromManager { slot, message })
    }

    pub(super) fn slot(&self, vault: VaultId) -> SlotId {
        self.router.vaults[&vault]
    }

    pub(super) fn refusal(&self, id: u64) -> Option<ErrorCode> {
        self.out.iter().find_map(|action| match action {
            Action::Answer { id: answered, answer: Answer::Refused(refusal) } if *answered == id => Some(refusal.code),
            _ => None,
        })
    }

    pub(super) fn op(&self) -> Op {
        let op = self.out.iter().rev().find_map(|action| match action {
            Action::LoadNewest { op, .. }
            | Action::Load { op, .. }
            | Action::VaultKey { op, .. }
            | Action::Put { op, .. }
            | Action::ReadBack { op, .. } => Some(*op),
            _ => None,
        });
        op.expect("a call to the outside")
    }

    /// A half-open vault that is ready for handshakes.
    pub(super) fn ready(&mut self, vault: VaultId) -> SlotId {
        let hello = self.request(vault, Hello);
        let (slot, op) = (self.slot(vault), self.op());
        self.event(Event::Spawned { slot, pid: 7 });
        let result = Ok(Some(VersionObject { version: 3, bytes: vec![3] }));
        self.event(Event::Newest { slot, op, result });
        self.from(slot, FromManager::Ready { static_key: [8; 32] });
        self.from(slot, FromManager::Reply { id: hello, frame: welcome(SESSION) });
        slot
    }

    /// An open vault at version 3.
    pub(super) fn open(&mut self, vault: VaultId) -> SlotId {
        let slot = self.ready(vault);
        let finish = self.request(vault, Finish);
        self.from(slot, FromManager::Open { create: false });
        self.load(slot);
        self.from(slot, FromManager::Reply { id: finish, frame: vec![2] });
        slot
    }

    pub(super) fn load(&mut self, slot: SlotId) {
        self.load_as(slot, self.op());
    }

    pub(super) fn load_as(&mut self, slot: SlotId, op: Op) {
        let loaded = Loaded {
            versions: vec![VersionObject { version: 3, bytes: vec![3] }],
            keys: vec![KeyObject { generation: 1, bytes: vec![1] }],
        };
        self.event(Event::Loaded { slot, op, result: Ok(loaded) });
        let op = self.op();
        let key = VaultKey { key: Secret::new(vec![1; 32]), generation: 1 };
        self.event(Event::VaultKey { slot, op, result: Ok(key) });
    }

    pub(super) fn has(&self, matches: impl Fn(&Action) -> bool) -> bool {
        self.out.iter().any(matches)
    }

    pub(super) fn is_killed(&self, slot: SlotId) -> bool {
        self.has(|action| matches!(action, Action::Kill { slot: killed } if *killed == slot))
    }

    pub(super) fn is_stopped(&self, slot: SlotId) -> bool {
        self.has(|action| matches!(action, Action::Send { slot: to, message: ToManager::Stop { .. } } if *to == slot))
    }

    pub(super) fn is_logged(&self, event: LogEvent) -> bool {
        self.has(|action| matches!(action, Action::Log { event: logged, .. } if *logged == event))
    }

    pub(super) fn commit_result(&self) -> Option<CommitResult> {
        self.out.iter().find_map(|action| match action {
            Action::Send { message: ToManager::CommitResult(result), .. } => Some(*result),
            _ => None,
        })
    }

    pub(super) fn exit(&mut self, slot: SlotId) {
        self.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    }
}

#[test]
fn from_hello_to_reply() {
    let mut stage = Stage::small();
    let a = vault(1);
    let hello = stage.request(a, Hello);
    let slot = stage.slot(a);
    assert!(stage.has(|action| matches!(action, Action::Spawn { .. })), "process and object are fetched together");
    let op = stage.op();
    stage.event(Event::Spawned { slot, pid: 7 });
    assert!(stage.out.is_empty());
    stage.event(Event::Newest { slot, op, result: Ok(Some(VersionObject { version: 3, bytes: vec![3] })) });
    assert!(stage.has(|action| matches!(
        action,
        Action::Send { message: ToManager::Start { newest: Newest::Shown(_), .. }, .. }
    )));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    let expected_key = [8; 32];
    assert!(stage.has(|action| matches!(action,
        Action::SendHello { id, vault, static_key, .. } if (*id, *vault, *static_key) == (hello, a, expected_key))));
    stage.from(slot, FromManager::Reply { id: hello, frame: welcome(SESSION) });
    assert!(stage.has(|action| matches!(action, Action::Answer { answer: Answer::Frame(_), .. })));

    let finish = stage.request(a, Finish);
    assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::Request { .. }, .. })));
    stage.from(slot, FromManager::Open { create: false });
    assert!(stage.has(|action| matches!(action, Action::WarmShardKey { .. })), "key service and store together");
    stage.load(slot);
    assert!(
        stage.has(|action| matches!(action, Action::Send { message: ToManager::Opened { generation: 1, .. }, .. }))
    );
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    let op = stage.op();
    stage.event(Event::PutDone { slot, op, put: Put::Created });
    assert_eq!(stage.commit_result(), Some(CommitResult::Committed));
    stage.from(slot, FromManager::Reply { id: finish, frame: vec![2] });
    assert!(stage.has(|action| matches!(action, Action::Answer { answer: Answer::Frame(_), .. })));
    let numbers = stage.router.numbers();
    assert_eq!((numbers.resident, numbers.half_open, numbers.opened, numbers.in_flight), (1, 0, 1, 0));
}

#[test]
fn a_process_may_be_ready_before_the_store_answers() {
    let mut stage = Stage::small();
    let hello = stage.request(vault(1), Hello);
    let (slot, op) = (stage.slot(vault(1)), stage.op());
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    assert!(stage.out.is_empty());
    stage.event(Event::Newest { slot, op, result: Ok(None) });
    assert!(stage.has(|action| matches!(action, Action::SendHello { id, .. } if *id == hello)));
    assert!(matches!(stage.out[0], Action::Send { message: ToManager::Start { .. }, .. }), "first who it is");
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    assert!(stage.is_killed(slot), "once");
}

#[test]
fn a_session_without_a_process_is_unknown_and_makes_none() {
    let mut stage = Stage::small();
    for kind in [Finish, Sealed] {
        let id = stage.request(vault(1), kind);
        assert_eq!(stage.refusal(id), Some(ErrorCode::SessionUnknown));
        assert_eq!(stage.out.len(), 1);
    }
}

#[test]
fn an_id_without_objects_is_read_once() {
    let mut stage = Stage::small();
    let a = vault(1);
    stage.request(a, Hello);
    let (slot, op) = (stage.slot(a), stage.op());
    stage.event(Event::Newest { slot, op, result: Ok(None) });
    stage.after(HALF_OPEN_LIFE);
    assert!(stage.is_killed(slot));
    stage.exit(slot);
    let hello = stage.request(a, Hello);
    assert!(
        !stage.has(|action| matches!(action, Action::LoadNewest { .. })),
        "the negative cache stands in for the store"
    );
    let slot = stage.slot(a);
    assert!(
        stage.has(|action| matches!(
            action,
            Action::Send { message: ToManager::Start { newest: Newest::None, .. }, .. }
        ))
    );
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Reply { id: hello, frame: welcome(SESSION) });
    stage.request(a, Finish);
    stage.from(slot, FromManager::Open { create: true });
    assert!(!stage.router.negative.holds(a, stage.now), "a creation clears it");
}

#[test]
fn strangers_share_a_small_pool_and_take_no_residents_place() {
    let mut stage = Stage::small();
    let resident = stage.open(vault(1));
    stage.after(SECOND);
    let first = stage.request(vault(10), Hello);
    for number in 11..14 {
        stage.request(vault(number), Hello);
    }
    assert_eq!(stage.router.half_open.len(), 4);
    let early = stage.request(vault(14), Hello);
    assert_eq!(stage.refusal(early), Some(ErrorCode::Busy), "no more at once than there is room for");
    let oldest = stage.slot(vault(10));
    stage.after(SECOND);
    stage.request(vault(14), Hello);
    assert!(stage.is_killed(oldest) && !stage.is_killed(resident) && !stage.is_stopped(resident));
    assert_eq!(stage.refusal(first), Some(ErrorCode::Busy));
    assert_eq!((stage.router.half_open.len(), stage.router.residents.len()), (4, 1));
    stage.after(HALF_OPEN_LIFE);
    assert_eq!((stage.router.half_open.len(), stage.router.residents.len()), (0, 1));
}

#[test]
fn the_least_recently_used_idle_vault_leaves_and_never_a_busy_one() {
    let mut stage = Stage::small();
    let (a, b) = (stage.open(vault(1)), stage.open(vault(2)));
    let busy = stage.request(vault(1), Sealed);
    let c = stage.ready(vault(3));
    stage.request(vault(3), Finish);
    stage.from(c, FromManager::Open { create: false });
    assert!(stage.is_stopped(b) && !stage.is_stopped(a), "the older one works");
    stage.load(c);
    let _ = stage.request(vault(3), Sealed);
    let d = stage.ready(vault(4));
    stage.request(vault(4), Finish);
    stage.from(d, FromManager::Open { create: false });
    let refused = |action: &Action| matches!(action, Action::Send { message: ToManager::OpenRefused(refusal), .. } if refusal.code == ErrorCode::Busy);
    assert!(stage.has(refused) && !stage.is_stopped(a) && !stage.is_stopped(c), "all work: the newcomer waits");
    stage.from(a, FromManager::Reply { id: busy, frame: vec![2] });
    stage.from(d, FromManager::Open { create: false });
    assert!(stage.is_stopped(a));
}

#[test]
fn unused_vaults_are_closed() {
    let mut stage = Stage::new(&Tuning { idle_ms: 60_000, ..Tuning::default() });
    let (a, b) = (stage.open(vault(1)), stage.open(vault(2)));
    stage.after(40 * SECOND);
    let id = stage.request(vault(2), Sealed);
    stage.from(b, FromManager::Reply { id, frame: vec![2] });
    stage.after(20 * SECOND);
    assert!(stage.is_stopped(a) && !stage.is_stopped(b));
    stage.after(STOP_LIMIT);
    assert!(stage.is_killed(a), "one that does not stop is killed");
}

#[test]
fn time_is_up() {
    let mut stage = Stage::small();
    let a = vault(1);
    let hello = stage.request_within(a, Hello, SECOND);
    stage.after(SECOND);
    assert_eq!(stage.refusal(hello), Some(ErrorCode::DeadlineExceeded), "never begun");
    let slot = stage.slot(a);
    stage.after(HALF_OPEN_LIFE);
    stage.exit(slot);
    let slot = stage.open(a);
    let sealed = stage.request_within(a, Sealed, SECOND);
    stage.after(SECOND);
    assert_eq!(stage.refusal(sealed), Some(ErrorCode::OutcomeUnknown), "begun");
    assert!(!stage.is_killed(slot), "a short deadline is no reason to kill");
    stage.from(slot, FromManager::Reply { id: sealed, frame: vec![2] });
    assert!(stage.out.is_empty(), "told already");
    stage.after(STUCK_AFTER);
    assert!(!stage.is_killed(slot));
}

#[test]
fn a_stuck_process_is_killed_and_its_callers_told() {
    let mut stage = Stage::small();
    let (a, b) = (vault(1), vault(2));
    let (stuck, well) = (stage.open(a), stage.open(b));
    let first = stage.request(a, Sealed);
    stage.after(9 * SECOND);
    let second = stage.request(a, Sealed);
    let third = stage.request(b, Sealed);
    stage.from(well, FromManager::Reply { id: third, frame: vec![2] });
    assert!(stage.has(|action| matches!(action, Action::Answer { .. })), "others are served meanwhile");
    stage.after(SECOND);
    assert_eq!(stage.refusal(first), Some(ErrorCode::OutcomeUnknown));
    assert_eq!(stage.refusal(second), Some(ErrorCode::OutcomeUnknown));
    assert!(stage.is_killed(stuck) && stage.is_logged(LogEvent::ManagerStuck));
    assert_eq!(stage.router.numbers().stuck, 1);
    let hello = stage.request(a, Hello);
    assert_eq!(stage.refusal(hello), None, "waits for the next process");
    stage.event(Event::Exited { slot: stuck, exit: ManagerExit::Signal(9) });
    assert!(stage.has(|action| matches!(action, Action::Spawn { .. })));
    assert_eq!(stage.router.numbers().crashed, 0);
}

#[test]
fn who_waits_for_the_store_is_not_stuck() {
    let mut stage = Stage::new(&Tuning { store_timeout_ms: 30_000, ..Tuning::default() });
    let slot = stage.open(vault(1));
    let sealed = stage.request(vault(1), Sealed);
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    let op = stage.op();
    stage.after(20 * SECOND);
    assert_eq!(stage.refusal(sealed), Some(ErrorCode::OutcomeUnknown));
    assert!(!stage.is_killed(slot));
    stage.event(Event::PutDone { slot, op, put: Put::Created });
    assert_eq!(stage.commit_result(), Some(CommitResult::Committed));
    stage.after(STUCK_AFTER.saturating_sub(SECOND));
    assert!(!stage.is_killed(slot));
    stage.after(SECOND);
    assert!(stage.is_killed(slot), "now it had its time");
}

#[test]
fn a_crash_is_told_counted_and_healed() {
    let mut stage = Stage::small();
    let a = vault(1);
    let slot = stage.open(a);
    let (sealed, hello) = (stage.request(a, Sealed), stage.request(a, Hello));
    stage.event(Event::Exited { slot, exit: ManagerExit::SandboxKilled });
    assert_eq!(stage.refusal(sealed), Some(ErrorCode::OutcomeUnknown));
    assert_eq!(stage.refusal(hello), Some(ErrorCode::Unavailable));
    assert!(stage.is_logged(LogEvent::ManagerSandboxKilled));
    let numbers = stage.router.numbers();
    assert_eq!((numbers.sandbox_killed, numbers.crashed), (1, 0));
    let slot = stage.open(a);
    assert_eq!(stage.router.numbers().opened, 2);
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(6) });
    assert!(stage.is_logged(LogEvent::ManagerCrashed));
    let numbers = stage.router.numbers();
    assert_eq!((numbers.sandbox_killed, numbers.crashed), (1, 1));
}

#[test]
fn a_forbidden_call_on_the_way_out_is_an_alarm_too() {
    let mut stage = Stage::small();
    let slot = stage.open(vault(1));
    stage.event(Event::Evict(vault(1)));
    stage.event(Event::Exited { slot, exit: ManagerExit::SandboxKilled });
    assert!(stage.is_logged(LogEvent::ManagerSandboxKilled));
    let numbers = stage.router.numbers();
    assert_eq!((numbers.sandbox_killed, numbers.crashed), (1, 0));
}

#[test]
fn a_crash_on_the_way_out_is_one_and_an_eviction_is_counted_once() {
    let mut stage = Stage::small();
    let slot = stage.open(vault(1));
    stage.event(Event::Evict(vault(1)));
    stage.event(Event::Evict(vault(1)));
    assert_eq!(stage.router.numbers().evicted, 1);
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(6) });
    assert_eq!(stage.router.numbers().crashed, 1);
    // Who was killed has not crashed.
    let slot = stage.open(vault(2));
    stage.event(Event::Broken { slot });
    let counted = stage.router.numbers().crashed;
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    assert_eq!(stage.router.numbers().crashed, counted);
}

#[test]
fn whoever_breaks_the_rules_is_killed() {
    let breaks = [
        FromManager::Ready { static_key: [1; 32] },
        FromManager::Reply { id: 999, frame: Vec::new() },
        FromManager::Commit { version: 3, object: vec![1] },
        FromManager::Commit { version: 4, object: Vec::new() },
        FromManager::Commit { version: 4, object: vec![0; casemate_protocol::limits::OBJECT_BYTES + 1] },
        FromManager::Collect { below: 4 },
        FromManager::Purge { tombstone: 2 },
    ];
    for message in breaks {
        let mut stage = Stage::small();
        let slot = stage.open(vault(1));
        let sealed = stage.request(vault(1), Sealed);
        stage.from(slot, message.clone());
        assert!(stage.is_killed(slot) && stage.is_logged(LogEvent::ManagerProtocol), "{message:?}");
        assert_eq!(stage.refusal(sealed), Some(ErrorCode::OutcomeUnknown));
    }
    let mut stage = Stage::small();
    let slot = stage.open(vault(1));
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    stage.from(slot, FromManager::Commit { version: 5, object: vec![5] });
    assert!(stage.is_killed(slot), "one at a time");
}

#[test]
fn another_vaults_request_cannot_be_answered() {
    let mut stage = Stage::small();
    let (a, b) = (stage.open(vault(1)), stage.open(vault(2)));
    let theirs = stage.request(vault(2), Sealed);
    stage.from(a, FromManager::Reply { id: theirs, frame: vec![6] });
    assert!(stage.is_killed(a) && !stage.is_killed(b));
    assert!(!stage.has(|action| matches!(action, Action::Answer { .. })));
}

#[test]
fn a_strangers_process_stores_nothing_and_deletes_only_behind_a_tombstone() {
    let mut stage = Stage::small();
    stage.request(vault(1), Hello);
    let slot = stage.slot(vault(1));
    stage.from(slot, FromManager::Purge { tombstone: 0 });
    assert!(stage.out.is_empty(), "not before it was told what is there");
    let slot = stage.ready(vault(2));
    stage.from(slot, FromManager::Collect { below: 3 });
    stage.from(slot, FromManager::Purge { tombstone: 3 });
    assert!(stage.out.is_empty(), "what is there is no tombstone");
    stage.router.slots.get_mut(slot).expect("it is there").shows_tombstone = true;
    stage.from(slot, FromManager::Purge { tombstone: 3 });
    assert!(stage.has(|action| matches!(action, Action::Purge { tombstone: 3, .. })));
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    assert!(stage.is_killed(slot));
}

#[test]
fn an_unclear_put_is_read_back_and_another_writer_ends_the_process() {
    let mut stage = Stage::small();
    let slot = stage.open(vault(1));
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    let op = stage.op();
    stage.event(Event::PutDone { slot, op, put: Put::Unclear });
    let op = stage.op();
    stage.event(Event::ReadBack { slot, op, result: Ok(Some(vec![5])) });
    assert_eq!(stage.commit_result(), Some(CommitResult::OtherWriter));
    assert!(stage.is_stopped(slot) && stage.is_logged(LogEvent::VaultMoved));
}

#[test]
fn a_vault_is_not_opened_again_before_its_last_put_has_ended() {
    let mut stage = Stage::small();
    let a = vault(1);
    let slot = stage.open(a);
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    let put = stage.op();
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(6) });
    let hello = stage.request(a, Hello);
    assert_eq!(stage.refusal(hello), None);
    assert!(!stage.has(|action| matches!(action, Action::Spawn { .. })), "the put may still land");
    stage.event(Event::PutDone { slot, op: put, put: Put::Unclear });
    assert!(stage.has(|action| matches!(action, Action::Spawn { .. })));
}

#[test]
fn what_cannot_be_opened_says_why() {
    let version = || VersionObject { version: 1, bytes: vec![1] };
    let key = || KeyObject { generation: 1, bytes: vec![1] };
    let cases = [
        (false, Ok(Loaded::default()), ErrorCode::NotFound),
        (false, Ok(Loaded { versions: Vec::new(), keys: vec![key()] }), ErrorCode::NotFound),
        (false, Ok(Loaded { versions: vec![version()], keys: Vec::new() }), ErrorCode::StateCorrupt),
        (true, Ok(Loaded { versions: vec![version()], keys: Vec::new() }), ErrorCode::StateCorrupt),
        (false, Err(StoreFailed), ErrorCode::Unavailable),
    ];
    for (create, result, code) in cases {
        let mut stage = Stage::small();
        let slot = stage.ready(vault(1));
        stage.request(vault(1), Finish);
        stage.from(slot, FromManager::Open { create });
        let op = stage.op();
        stage.event(Event::Loaded { slot, op, result });
        let refused = |action: &Action| matches!(action, Action::Send { message: ToManager::OpenRefused(refusal), .. } if refusal.code == code);
        assert!(stage.has(refused), "{code}");
        assert_eq!((stage.router.residents.len(), stage.router.half_open.len()), (0, 1));
    }
}

#[test]
fn a_late_result_is_not_taken_for_another_calls() {
    let mut stage = Stage::small();
    let slot = stage.ready(vault(1));
    stage.request(vault(1), Finish);
    stage.from(slot, FromManager::Open { create: false });
    let op = stage.op();
    stage.event(Event::Loaded { slot, op: Op(op.0 + 100), result: Err(StoreFailed) });
    assert!(stage.out.is_empty());
    stage.load_as(slot, op);
    assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::Opened { .. }, .. })));
}

#[test]
fn one_vaults_queue_is_bounded() {
    let mut stage = Stage::small();
    stage.open(vault(1));
    let ids: Vec<_> = (0..4)
        .map(|_| {
            let id = stage.request(vault(1), Sealed);
            stage.refusal(id)
        })
        .collect();
    assert_eq!(ids, [None, None, None, Some(ErrorCode::Busy)]);
}

#[test]
fn creations_and_cold_starts_are_rationed() {
    let mut stage = Stage::new(&Tuning { creates_per_second: 1, opens_per_second: 2, ..Tuning::default() });
    let mut codes = Vec::new();
    for number in 0..4 {
        let slot = stage.ready(vault(number));
        stage.request(vault(number), Finish);
        stage.from(slot, FromManager::Open { create: number < 2 });
        codes.push(stage.out.iter().find_map(|action| match action {
            Action::Send { message: ToManager::OpenRefused(refusal), .. } => Some(refusal.code),
            _ => None,
        }));
    }
    assert_eq!(codes, [None, Some(ErrorCode::RateLimited), None, Some(ErrorCode::Busy)]);
    assert!(stage.router.admit_attest(stage.now).is_ok());
}

#[test]
fn memory_evicts_idle_ones_until_the_low_water_mark() {
    let mut stage = Stage::new(&Tuning::default());
    let slots: Vec<_> = (0..3).map(|number| stage.open(vault(number))).collect();
    stage.request(vault(0), Sealed);
    stage.event(Event::Memory { total: 100 << 20, available: 14 << 20 });
    assert!(stage.is_logged(LogEvent::MemoryPressure));
    assert!(!stage.is_stopped(slots[0]) && stage.is_stopped(slots[1]) && stage.is_stopped(slots[2]));
    stage.event(Event::Memory { total: 100 << 20, available: 20 << 20 });
    assert!(stage.router.is_short_of_memory(), "until the low-water mark");
    stage.event(Event::Memory { total: 100 << 20, available: 30 << 20 });
    assert!(!stage.router.is_short_of_memory());
}

#[test]
fn an_operator_closes_a_vault_and_the_next_hello_opens_it() {
    let mut stage = Stage::small();
    let a = vault(1);
    let slot = stage.open(a);
    let sealed = stage.request(a, Sealed);
    stage.event(Event::Evict(a));
    assert!(stage.is_stopped(slot));
    let refused = stage.request(a, Sealed);
    assert_eq!(stage.refusal(refused), Some(ErrorCode::SessionUnknown), "no new work");
    stage.from(slot, FromManager::Reply { id: sealed, frame: vec![2] });
    assert!(
        stage.has(|action| matches!(action, Action::Answer { answer: Answer::Frame(_), .. })),
        "old work is finished"
    );
    let hello = stage.request(a, Hello);
    stage.exit(slot);
    assert!(stage.has(|action| matches!(action, Action::Spawn { .. })));
    assert_eq!(stage.refusal(hello), None);
    stage.event(Event::Evict(vault(77)));
    assert!(stage.out.is_empty());
}

#[test]
fn draining_finishes_refuses_and_says_when_it_is_done() {
    let mut stage = Stage::small();
    let a = stage.open(vault(1));
    let sealed = stage.request(vault(1), Sealed);
    stage.event(Event::Drain);
    assert!(stage.is_stopped(a) && stage.is_logged(LogEvent::Draining));
    let refused = stage.request(vault(2), Hello);
    assert_eq!(stage.refusal(refused), Some(ErrorCode::Draining));
    assert!(stage.router.admit_attest(stage.now).is_err());
    stage.from(a, FromManager::Commit { version: 4, object: vec![4] });
    let op = stage.op();
    stage.event(Event::PutDone { slot: a, op, put: Put::Created });
    stage.from(a, FromManager::Reply { id: sealed, frame: vec![2] });
    assert!(stage.has(|action| matches!(action, Action::Answer { answer: Answer::Frame(_), .. })));
    stage.exit(a);
    assert!(stage.has(|action| matches!(action, Action::Drained)));
}

#[test]
fn the_whole_nodes_window_is_bounded() {
    let mut stage = Stage::new(&Tuning { vault_limit: 700, opens_per_second: 10_000, ..Tuning::default() });
    let (greedy, all) = (600, 620);
    for number in 0..all {
        stage.now += Duration::from_millis(1);
        let slot = stage.open(vault(number));
        // Who waits for the store works on nothing.
        stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    }
    let refused = |stage: &mut Stage, number| {
        let id = stage.request(vault(number), Sealed);
        stage.refusal(id) == Some(ErrorCode::Busy)
    };
    let last = (0..2 * greedy).find(|number| refused(&mut stage, number % greedy));
    assert!(last.is_some_and(|last| (1000..casemate_protocol::limits::WINDOW_REQUESTS as u64).contains(&last)));
    // There is some room yet, for those who hold nothing, and then there is none.
    let let_in = (greedy..all).take_while(|number| !refused(&mut stage, *number)).count();
    assert!((1..20).contains(&let_in), "{let_in}");
    assert_eq!(stage.router.deadlines.len(), casemate_protocol::limits::WINDOW_REQUESTS);
}
