//! What becomes of the sessions of a vault whose place was needed.

use std::time::Duration;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind::{self, Finish, Sealed};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::Tuning;

use super::parking::{Parked, ParkedVaults};
use super::simulation::vault;
use super::slot::{STOP_LIMIT, STUCK_AFTER};
use super::tests::{Stage, welcome};
use super::*;
use crate::ipc::{FromManager, Newest, Notice, ToManager};
use crate::vault::parking::PARKED_BYTES;

const ROOM_FOR_ONE: u32 = 1;

fn stage() -> Stage {
    Stage::new(&Tuning { vault_limit: ROOM_FOR_ONE, ..Tuning::default() })
}

/// Has `vault` told to leave for `other`, which asks to be opened.
fn crowd(stage: &mut Stage, vault: VaultId, other: VaultId) -> SlotId {
    let slot = stage.slot(vault);
    let newcomer = stage.ready(other);
    stage.request(other, Finish);
    stage.from(newcomer, FromManager::Open { create: false });
    assert!(stage.has(|action| matches!(
        action,
        Action::Send { slot: to, message: ToManager::Stop { park: true } } if *to == slot
    )));
    newcomer
}

/// Lets `other` take the place of `vault`, which parks its sessions as `sealed`.
fn push_out(stage: &mut Stage, vault: VaultId, other: VaultId, sealed: &[u8]) -> SlotId {
    push_out_as(stage, vault, other, sealed, false)
}

/// Likewise, and parks the whole vault if `is_whole`.
fn push_out_as(stage: &mut Stage, vault: VaultId, other: VaultId, sealed: &[u8], is_whole: bool) -> SlotId {
    let slot = stage.slot(vault);
    let newcomer = crowd(stage, vault, other);
    let load = stage.op();
    stage.from(slot, FromManager::Parked { sealed: sealed.to_vec(), is_whole });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    stage.load_as(newcomer, load);
    newcomer
}

fn answer_all(stage: &mut Stage, slot: SlotId) {
    let waiting: Vec<_> = stage.router.slots.get(slot).unwrap().requests.keys().copied().collect();
    for id in waiting {
        stage.from(slot, FromManager::Reply { id, frame: vec![2] });
    }
}

fn handed(stage: &Stage) -> Option<(Newest, Option<Vec<u8>>)> {
    stage.out.iter().find_map(|action| match action {
        Action::Send { message: ToManager::Start { newest, parked, .. }, .. } => Some((newest.clone(), parked.clone())),
        _ => None,
    })
}

fn is_given(stage: &Stage, request: u64) -> bool {
    stage.has(|action| matches!(action, Action::Send { message: ToManager::Request { id, .. }, .. } if *id == request))
}

#[test]
fn a_frame_of_a_parked_session_brings_the_vault_back_without_a_handshake() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    let read = stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
    assert!(!stage.has(|action| matches!(action, Action::LoadNewest { .. })), "the store is asked once, for all of it");
    let slot = stage.slot(vault(1));
    assert!(is_given(&stage, read), "the frame is there before the process is");
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    // Its sessions are used up, whatever becomes of this process.
    stage.from(slot, FromManager::Open { create: false });
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    let again = stage.request(vault(1), Sealed);
    assert_eq!(stage.refusal(again), Some(ErrorCode::SessionUnknown));
}

#[test]
fn a_frame_that_does_not_open_uses_up_nothing() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    // Also one whose caller does not wait for the answer.
    for deadline in [Duration::from_secs(10), Duration::from_millis(1), Duration::from_secs(10)] {
        // Processes come at a rate.
        stage.after(Duration::from_secs(1));
        let forged = stage.request_within(vault(1), Sealed, deadline);
        assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
        let slot = stage.slot(vault(1));
        stage.event(Event::Spawned { slot, pid: 7 });
        stage.from(slot, FromManager::Ready { static_key: [8; 32] });
        stage.after(Duration::from_millis(2));
        stage.from(slot, FromManager::Noticed(Notice::BadFrame));
        stage.from(slot, FromManager::Reply { id: forged, frame: vec![0] });
        assert!(stage.is_killed(slot), "it keeps nobody waiting");
        stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    }
}

/// Attack: a forged frame just before one of the device's own.
#[test]
fn a_frame_that_comes_while_a_process_ends_waits_for_the_next() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    let forged = stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.event(Event::Spawned { slot, pid: 7 });
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Noticed(Notice::BadFrame));
    stage.from(slot, FromManager::Reply { id: forged, frame: vec![0] });
    assert!(stage.is_killed(slot));
    let unknown = stage.request_in(vault(1), Sealed, Some([77; 16]), Duration::from_secs(10));
    assert_eq!(stage.refusal(unknown), Some(ErrorCode::SessionUnknown));
    let own = stage.request(vault(1), Sealed);
    assert_eq!(stage.refusal(own), None);
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
    assert!(is_given(&stage, own));
}

#[test]
fn a_process_that_never_says_anything_has_a_second() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.after(slot::RESUMING_LIFE);
    assert!(stage.is_killed(slot));
}

/// Attack: names of handshakes that end with a refusal, to push the names of devices out of what is remembered.
#[test]
fn a_strangers_names_are_not_parked() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    let slot = stage.ready(vault(1));
    for number in 0..20 {
        let hello = stage.request(vault(1), DeviceFrameKind::Hello);
        stage.from(slot, FromManager::Reply { id: hello, frame: welcome([number; 16]) });
        let finish = stage.request_in(vault(1), Finish, Some([number; 16]), Duration::from_secs(10));
        // Even of a process that does not say so.
        stage.from(slot, FromManager::Reply { id: finish, frame: vec![0] });
    }
    stage.after(slot::HALF_OPEN_LIFE);
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
}

#[test]
fn an_operator_who_closes_a_vault_that_is_leaving_is_obeyed() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    stage.event(Event::Evict(vault(1)));
    stage.from(slot, FromManager::Parked { sealed: b"sealed".to_vec(), is_whole: false });
    assert!(stage.router.parked.len() == 0);
}

#[test]
fn a_strangers_handshake_takes_no_session_from_its_device() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    let slot = stage.ready(vault(1));
    let read = stage.request(vault(1), Sealed);
    assert!(is_given(&stage, read));
    stage.after(slot::HALF_OPEN_LIFE);
    assert!(stage.is_killed(slot));
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
}

#[test]
fn what_comes_while_a_vault_leaves_waits_for_the_next_process() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    let read = stage.request(vault(1), Sealed);
    assert_eq!(stage.refusal(read), None);
    stage.from(slot, FromManager::Parked { sealed: b"sealed".to_vec(), is_whole: false });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
    assert!(is_given(&stage, read));
}

#[test]
fn a_process_that_never_was_has_executed_nothing() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    let read = stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.event(Event::SpawnFailed { slot });
    assert_eq!(stage.refusal(read), Some(ErrorCode::Busy));
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"sealed".to_vec()))));
}

#[test]
fn a_process_that_ends_without_parking_leaves_nobody_waiting() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    let read = stage.request(vault(1), Sealed);
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    assert_eq!(stage.refusal(read), Some(ErrorCode::SessionUnknown));
}

#[test]
fn a_vault_that_cannot_be_opened_now_parks_its_sessions_again() {
    let mut stage = stage();
    stage.open(vault(1));
    let busy = push_out(&mut stage, vault(1), vault(2), b"first");
    // The other vault has work in flight: there is no place.
    stage.request(vault(2), Sealed);
    let read = stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Open { create: false });
    assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::OpenRefused(_), .. })));
    assert!(!stage.is_killed(busy));
    // It tells its callers first.
    stage.from(slot, FromManager::Reply { id: read, frame: vec![0] });
    assert!(!stage.is_killed(slot), "a frame has opened: it has something to leave");
    stage.from(slot, FromManager::Parked { sealed: b"second".to_vec(), is_whole: false });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"second".to_vec()))));
}

#[test]
fn nothing_is_parked_out_of_turn_or_beyond_the_bound() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    stage.from(slot, FromManager::Parked { sealed: b"unasked".to_vec(), is_whole: false });
    assert!(stage.is_killed(slot));
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    let slot = stage.ready(vault(1));
    stage.from(slot, FromManager::Parked { sealed: b"never handed any".to_vec(), is_whole: false });
    assert!(stage.is_killed(slot));

    let mut stage = self::stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    stage.from(slot, FromManager::Parked { sealed: vec![0; PARKED_BYTES + 1], is_whole: false });
    assert!(stage.is_killed(slot) && stage.is_logged(LogEvent::ManagerProtocol) && stage.router.parked.len() == 0);
}

/// An operator who closes a vault, a drain and the idle time end sessions: no key outlives what an operator was told.
#[test]
fn a_vault_that_nobody_wants_open_is_forgotten() {
    let idle = Tuning::default().idle_ms;
    let mut stage = stage();
    stage.open(vault(1));
    stage.event(Event::Evict(vault(1)));
    assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::Stop { park: false }, .. })));

    let mut stage = self::stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    stage.event(Event::Evict(vault(1)));
    let read = stage.request(vault(1), Sealed);
    assert_eq!(stage.refusal(read), Some(ErrorCode::SessionUnknown));

    let mut stage = self::stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    stage.after(Duration::from_millis(idle));
    assert!(stage.router.parked.len() == 0, "resident or parked, its idle time is over");

    let mut stage = self::stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    stage.event(Event::Drain);
    assert!(stage.router.parked.len() == 0);
}

#[test]
fn no_more_are_parked_than_may_be_resident() {
    let mut stage = stage();
    stage.open(vault(0));
    for number in 0..10 {
        // New openings come at a rate.
        stage.after(Duration::from_secs(1));
        let slot = push_out(&mut stage, vault(number), vault(number + 1), b"sealed");
        answer_all(&mut stage, slot);
    }
    assert_eq!(stage.router.parked.len(), 1);
}

#[test]
fn a_vault_that_was_parked_whole_goes_on_without_the_store() {
    let mut stage = stage();
    stage.open(vault(1));
    let other = push_out_as(&mut stage, vault(1), vault(2), b"whole", true);
    answer_all(&mut stage, other);
    let read = stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"whole".to_vec()))));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Resume);
    let asks =
        |action: &Action| matches!(action, Action::Load { .. } | Action::VaultKey { .. } | Action::WarmShardKey { .. });
    assert!(!stage.has(asks), "nothing is asked for");
    assert!(stage.has(|action| matches!(
        action,
        Action::Send { slot: to, message: ToManager::Stop { park: true } } if *to == other
    )));
    stage.from(slot, FromManager::Reply { id: read, frame: vec![2] });
    assert!(stage.router.holds(vault(1)));
    // Its next version is the one after that which it left.
    let version = stage.router.slots.get(slot).unwrap().committed + 1;
    stage.from(slot, FromManager::Commit { version, object: vec![1] });
    assert!(stage.has(|action| matches!(action, Action::Put { .. })) && !stage.is_killed(slot));
    assert_eq!(stage.router.parked.get(&vault(1)).map(|_| ()), None, "it is used up");
}

/// There is no place, and none is made: it answers what it was asked and leaves again with its sessions.
#[test]
fn a_vault_that_goes_on_where_no_place_is_answers_and_leaves() {
    let mut stage = stage();
    stage.open(vault(1));
    let busy = push_out_as(&mut stage, vault(1), vault(2), b"first", true);
    answer_all(&mut stage, busy);
    // The other vault has work in flight.
    stage.request(vault(2), Sealed);
    let read = stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Resume);
    assert!(!stage.is_killed(busy));
    assert!(stage.has(|action| matches!(
        action,
        Action::Send { slot: to, message: ToManager::Stop { park: true } } if *to == slot
    )));
    stage.from(slot, FromManager::Reply { id: read, frame: vec![2] });
    assert!(stage.has(|action| matches!(action, Action::Answer { id, answer: Answer::Frame(_) } if *id == read)));
    stage.from(slot, FromManager::Parked { sealed: b"second".to_vec(), is_whole: true });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"second".to_vec()))));
}

/// Attack: a process that is on its way out and stays silent, while its device waits for a minute. The places of those who leave are few.
#[test]
fn who_leaves_has_a_few_seconds_whatever_his_device_says() {
    for writes in [false, true] {
        let mut stage = stage();
        stage.open(vault(1));
        let busy = push_out_as(&mut stage, vault(1), vault(2), b"first", true);
        answer_all(&mut stage, busy);
        stage.request_within(vault(2), Sealed, Duration::from_mins(1));
        stage.request_within(vault(1), Sealed, Duration::from_mins(1));
        let slot = stage.slot(vault(1));
        stage.from(slot, FromManager::Ready { static_key: [8; 32] });
        stage.from(slot, FromManager::Resume);
        assert!(stage.is_stopped(slot));
        if writes {
            // That gives it the time that the write takes, and no more.
            stage.from(slot, FromManager::Commit { version: 4, object: vec![1] });
            let op = stage.op();
            stage.event(Event::PutDone { slot, op, put: Put::Created });
        }
        stage.after(STUCK_AFTER);
        assert!(!stage.is_killed(slot), "{writes}");
        stage.after(STOP_LIMIT);
        assert!(stage.is_killed(slot), "{writes}");
    }
}

/// Attack: a process that says it goes on with a vault that it was not handed.
#[test]
fn nobody_resumes_out_of_turn() {
    let mut stage = stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sessions");
    stage.request(vault(1), Sealed);
    let slot = stage.slot(vault(1));
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.from(slot, FromManager::Resume);
    assert!(stage.is_killed(slot) && stage.is_logged(LogEvent::ManagerProtocol));
    assert_eq!(stage.router.parked.len(), 0, "what led it astray leads nobody else");

    let mut stage = self::stage();
    let slot = stage.ready(vault(1));
    stage.from(slot, FromManager::Resume);
    assert!(stage.is_killed(slot));
    let slot = stage.open(vault(2));
    stage.from(slot, FromManager::Resume);
    assert!(stage.is_killed(slot));
}

#[test]
fn what_all_have_parked_is_bounded() {
    let mut parked = ParkedVaults::default();
    let large = |bytes| Parked {
        sealed: vec![0; bytes],
        whole_at: None,
        sessions: sessions::Sessions::default(),
        until: Duration::MAX,
    };
    for number in 0..10 {
        parked.put(vault(number), large(100));
        parked.trim(8, 450);
    }
    assert_eq!(parked.len(), 4);
    assert!(parked.get(&vault(5)).is_none() && parked.get(&vault(6)).is_some());
    // Another one of the same vault takes its place.
    parked.put(vault(9), large(200));
    parked.trim(8, 450);
    assert_eq!(parked.len(), 3);
    parked.take(&vault(9)).unwrap();
    parked.put(vault(1), large(250));
    parked.trim(8, 450);
    assert_eq!(parked.len(), 3);
}

/// Memory that is short is not kept by vaults that have left.
#[test]
fn what_is_parked_goes_when_memory_is_short() {
    let mut stage = stage();
    for number in 0..4 {
        let (sealed, sessions) = (vec![0; 100], sessions::Sessions::default());
        stage.router.parked.put(vault(number), Parked { sealed, whole_at: None, sessions, until: Duration::MAX });
    }
    stage.router.limits.vaults = 10;
    stage.event(Event::Memory { total: 1000, available: 900 });
    assert_eq!(stage.router.numbers().parked, 4);
    stage.event(Event::Memory { total: 1000, available: 10 });
    assert_eq!(stage.router.numbers().parked, 2, "the older half has gone");
    assert!(!stage.router.has_parked(vault(1)) && stage.router.has_parked(vault(2)));
}

/// Attack: a process that parks, and writes once more: what it parked is older than what the store has from here on.
#[test]
fn nothing_that_is_older_than_a_write_is_gone_on_with() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    stage.from(slot, FromManager::Parked { sealed: b"whole".to_vec(), is_whole: true });
    assert_eq!(stage.router.parked.len(), 1);
    let version = stage.router.slots.get(slot).unwrap().committed + 1;
    stage.from(slot, FromManager::Commit { version, object: vec![1] });
    assert_eq!(stage.router.parked.len(), 0);
}

/// Attack: a process that is told to stop, and writes on and on.
#[test]
fn nobody_writes_for_ever_who_was_told_to_stop() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    let mut writes = 0;
    while !stage.is_killed(slot) {
        let version = stage.router.slots.get(slot).unwrap().committed + 1;
        stage.from(slot, FromManager::Commit { version, object: vec![1] });
        let op = stage.op();
        stage.after(Duration::from_secs(2));
        if stage.is_killed(slot) {
            break;
        }
        stage.event(Event::PutDone { slot, op, put: Put::Created });
        writes += 1;
        assert!(writes < 100);
    }
}

/// Attack: vaults that come back where no place is and take their time to leave. They are in no pool, and not without bound.
#[test]
fn those_who_find_no_place_are_bounded() {
    let mut stage = Stage::new(&Tuning { vault_limit: ROOM_FOR_ONE, opens_per_second: 100_000, ..Tuning::default() });
    let resident = vault(1000);
    stage.open(resident);
    stage.request(resident, Sealed);
    let mut sessions = sessions::Sessions::default();
    sessions.name([7; 16], Duration::ZERO);
    sessions.prove([7; 16], Duration::ZERO);
    let mut refused = 0;
    for number in 0..80 {
        stage.after(Duration::from_millis(10));
        let (sealed, sessions) = (b"whole".to_vec(), sessions.clone());
        stage.router.parked.put(vault(number), Parked { sealed, whole_at: Some(1), sessions, until: Duration::MAX });
        let read = stage.request_in(vault(number), Sealed, Some([7; 16]), Duration::from_secs(10));
        if stage.refusal(read) == Some(ErrorCode::Busy) {
            assert!(stage.router.has_parked(vault(number)), "nothing is lost");
            refused += 1;
            continue;
        }
        let slot = stage.slot(vault(number));
        stage.from(slot, FromManager::Ready { static_key: [8; 32] });
        stage.from(slot, FromManager::Resume);
    }
    assert_eq!(refused, 80 - CLOSING_SLOTS);
}
