//! What becomes of the sessions of a vault whose place was needed.

use std::time::Duration;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind::{self, Finish, Sealed};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::Tuning;

use super::simulation::vault;
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
    let slot = stage.slot(vault);
    let newcomer = crowd(stage, vault, other);
    let load = stage.op();
    stage.from(slot, FromManager::Parked { sealed: sealed.to_vec() });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    stage.load_as(newcomer, load);
    newcomer
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
    stage.from(slot, FromManager::Parked { sealed: b"sealed".to_vec() });
    assert!(stage.router.parked.is_empty());
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
    stage.from(slot, FromManager::Parked { sealed: b"sealed".to_vec() });
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
    stage.from(slot, FromManager::Parked { sealed: b"second".to_vec() });
    stage.event(Event::Exited { slot, exit: ManagerExit::Status(0) });
    stage.request(vault(1), Sealed);
    assert_eq!(handed(&stage), Some((Newest::NotAsked, Some(b"second".to_vec()))));
}

#[test]
fn nothing_is_parked_out_of_turn_or_beyond_the_bound() {
    let mut stage = stage();
    let slot = stage.open(vault(1));
    stage.from(slot, FromManager::Parked { sealed: b"unasked".to_vec() });
    assert!(stage.is_killed(slot));
    stage.event(Event::Exited { slot, exit: ManagerExit::Signal(9) });
    let slot = stage.ready(vault(1));
    stage.from(slot, FromManager::Parked { sealed: b"never handed any".to_vec() });
    assert!(stage.is_killed(slot));

    let mut stage = self::stage();
    let slot = stage.open(vault(1));
    crowd(&mut stage, vault(1), vault(2));
    stage.from(slot, FromManager::Parked { sealed: vec![0; PARKED_BYTES + 1] });
    assert!(stage.is_killed(slot) && stage.is_logged(LogEvent::ManagerProtocol) && stage.router.parked.is_empty());
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
    assert!(stage.router.parked.is_empty(), "resident or parked, its idle time is over");

    let mut stage = self::stage();
    stage.open(vault(1));
    push_out(&mut stage, vault(1), vault(2), b"sealed");
    stage.event(Event::Drain);
    assert!(stage.router.parked.is_empty());
}

#[test]
fn no_more_are_parked_than_may_be_resident() {
    let mut stage = stage();
    stage.open(vault(0));
    for number in 0..10 {
        // New openings come at a rate.
        stage.after(Duration::from_secs(1));
        let slot = push_out(&mut stage, vault(number), vault(number + 1), b"sealed");
        let waiting: Vec<_> = stage.router.slots.get(slot).unwrap().requests.keys().copied().collect();
        for id in waiting {
            stage.from(slot, FromManager::Reply { id, frame: vec![2] });
        }
    }
    assert_eq!(stage.router.parked.len(), 1);
}
