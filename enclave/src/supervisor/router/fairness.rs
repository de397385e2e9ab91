//! What strangers, and owners who misbehave, can take from others: told as stories of events.

use std::time::Duration;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind::{Finish, Hello, Sealed};
use casemate_protocol::frame::SessionId;
use casemate_protocol::link::Tuning;

use super::simulation::vault;
use super::slot::HALF_OPEN_LIFE;
use super::tests::{SECOND, SESSION, Stage, welcome};
use super::*;
use crate::ipc::{CommitResult, FromManager, Notice, ToManager};
use crate::vault::sessions::{HANDSHAKE_AGE, HANDSHAKES};

const TEN_SECONDS: Duration = Duration::from_secs(10);

fn session(number: usize) -> SessionId {
    let mut session = [0; 16];
    session[..8].copy_from_slice(&number.to_be_bytes());
    session
}

/// A frame that the vault-manager calls no good.
fn bad_frame(stage: &mut Stage, vault: VaultId, slot: SlotId) {
    let id = stage.request(vault, Sealed);
    stage.from(slot, FromManager::Noticed(Notice::BadFrame));
    stage.from(slot, FromManager::Reply { id, frame: vec![2] });
}

/// A request that the vault-manager answers, for which it may say more unasked.
fn answered(stage: &mut Stage, vault: VaultId, slot: SlotId) {
    let id = stage.request(vault, Sealed);
    stage.from(slot, FromManager::Reply { id, frame: vec![2] });
}

#[test]
fn a_frame_of_no_session_wakes_nobody() {
    let mut stage = Stage::small();
    stage.open(vault(1));
    for kind in [Finish, Sealed] {
        let id = stage.request_in(vault(1), kind, Some(session(7)), TEN_SECONDS);
        assert_eq!(stage.refusal(id), Some(ErrorCode::SessionUnknown));
        assert_eq!(stage.out.len(), 1);
    }
    assert_eq!(stage.router.refusals().session_unknown, 2, "and is counted");
    stage.request(vault(1), Sealed);
    assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::Request { .. }, .. })));
}

#[test]
fn only_who_proves_a_right_keeps_a_vault_resident() {
    let mut stage = Stage::new(&Tuning { idle_ms: 60_000, ..Tuning::default() });
    let (forged, used) = (stage.open(vault(1)), stage.open(vault(2)));
    for _ in 0..6 {
        stage.after(9 * SECOND);
        bad_frame(&mut stage, vault(1), forged);
        let id = stage.request(vault(2), Sealed);
        stage.from(used, FromManager::Reply { id, frame: vec![2] });
    }
    stage.after(9 * SECOND);
    assert!(stage.is_stopped(forged) && !stage.is_stopped(used));
}

#[test]
fn a_stranger_takes_no_place_in_the_order_of_use() {
    let mut stage = Stage::small();
    let (older, newer) = (stage.open(vault(1)), stage.open(vault(2)));
    bad_frame(&mut stage, vault(1), older);
    let third = stage.ready(vault(3));
    stage.request(vault(3), Finish);
    stage.from(third, FromManager::Open { create: false });
    assert!(stage.is_stopped(older) && !stage.is_stopped(newer));
}

#[test]
fn forgeries_under_a_known_name_end_the_name() {
    let mut stage = Stage::new(&Tuning::default());
    let slot = stage.open(vault(1));
    let mut reached = 0;
    for _ in 0..10_000 {
        let id = stage.request(vault(1), Sealed);
        if stage.refusal(id) == Some(ErrorCode::SessionUnknown) {
            continue;
        }
        reached += 1;
        stage.from(slot, FromManager::Noticed(Notice::BadFrame));
        stage.from(slot, FromManager::Reply { id, frame: vec![2] });
    }
    assert!((100..2000).contains(&reached), "{reached}");
    // Its owner makes another one.
    let hello = stage.request(vault(1), Hello);
    stage.from(slot, FromManager::Reply { id: hello, frame: welcome(session(8)) });
    let finish = stage.request_in(vault(1), Finish, Some(session(8)), TEN_SECONDS);
    assert_eq!(stage.refusal(finish), None);
}

#[test]
fn unfinished_handshakes_push_none_out_before_its_time() {
    let mut stage = Stage::new(&Tuning::default());
    let slot = stage.open(vault(1));
    let mut began: Vec<Duration> = Vec::new();
    let mut refused = 0;
    for _ in 0..10_000 {
        stage.after(Duration::from_millis(2));
        let hello = stage.request(vault(1), Hello);
        if stage.refusal(hello) == Some(ErrorCode::Busy) {
            refused += 1;
        } else {
            stage.from(slot, FromManager::Reply { id: hello, frame: welcome(session(began.len())) });
            began.push(stage.now);
        }
        let alive = began.iter().filter(|at| stage.now < **at + HANDSHAKE_AGE).count();
        assert!(alive <= HANDSHAKES, "the vault-manager keeps no more than {HANDSHAKES}");
    }
    assert!(refused > 9000, "{refused}");
    // Who has a session goes on.
    let id = stage.request_in(vault(1), Sealed, Some(SESSION), TEN_SECONDS);
    assert_eq!(stage.refusal(id), None);
}

#[test]
fn a_wrong_lock_key_costs_an_opening_now_and_then() {
    let mut stage = Stage::new(&Tuning::default());
    let slot = stage.ready(vault(1));
    let mut opened = 0;
    for _ in 0..100 {
        let finish = stage.request(vault(1), Finish);
        stage.from(slot, FromManager::Open { create: false });
        if stage.has(|action| matches!(action, Action::Load { .. })) {
            opened += 1;
            stage.load(slot);
            stage.from(slot, FromManager::Noticed(Notice::LockTurned));
        }
        stage.from(slot, FromManager::Reply { id: finish, frame: vec![2] });
        stage.after(Duration::from_millis(20));
        let hello = stage.request(vault(1), Hello);
        stage.from(slot, FromManager::Reply { id: hello, frame: welcome(SESSION) });
    }
    assert!((2..20).contains(&opened), "{opened}");
    let other = stage.open(vault(2));
    assert!(!stage.is_killed(other) && stage.router.numbers().resident >= 1, "and costs others nothing");
}

#[test]
fn a_herd_is_spread_and_nobody_is_pushed_out() {
    let mut stage = Stage::new(&Tuning { opens_per_second: 100, ..Tuning::default() });
    let mut waits = Vec::new();
    for number in 0..300 {
        stage.request(vault(number), Hello);
        waits.extend(stage.out.iter().find_map(|action| match action {
            Action::Answer { answer: Answer::Refused(refusal), .. } => refusal.retry_after_ms,
            _ => None,
        }));
        assert!(!stage.has(|action| matches!(action, Action::Kill { .. })));
    }
    assert_eq!(stage.router.half_open.len(), 50, "the pool is full");
    waits.sort_unstable();
    waits.dedup();
    assert_eq!(waits.len(), 250, "each is told a time of his own");
    assert!(*waits.last().unwrap() <= 3000);
}

#[test]
fn those_who_are_refused_together_are_told_different_times() {
    let mut stage = Stage::new(&Tuning { queue_per_vault: 1, ..Tuning::default() });
    stage.open(vault(1));
    stage.request(vault(1), Sealed);
    let mut times: Vec<u32> = (0..100)
        .filter_map(|_| {
            stage.request(vault(1), Sealed);
            stage.out.iter().find_map(|action| match action {
                Action::Answer { answer: Answer::Refused(refusal), .. } => refusal.retry_after_ms,
                _ => None,
            })
        })
        .collect();
    times.sort_unstable();
    times.dedup();
    assert_eq!(times.len(), 100);
}

#[test]
fn the_stuck_and_those_who_wait_for_the_store_do_not_count_as_work() {
    let mut stage = Stage::new(&Tuning { queue_per_vault: 1024, ..Tuning::default() });
    let (stuck, writing) = (stage.open(vault(1)), stage.open(vault(2)));
    stage.open(vault(3));
    let busy = (0..300).filter(|_| {
        let id = stage.request(vault(1), Sealed);
        stage.refusal(id) == Some(ErrorCode::Busy)
    });
    assert!(busy.count() > 100, "one vault is given no more than can be worked on");
    stage.after(Duration::from_millis(200));
    let other = stage.request(vault(3), Sealed);
    assert_eq!(stage.refusal(other), None, "who does not answer does not work");
    for _ in 0..100 {
        stage.request(vault(2), Sealed);
    }
    stage.from(writing, FromManager::Commit { version: 4, object: vec![4] });
    stage.after(Duration::from_millis(20));
    for _ in 0..30 {
        let other = stage.request(vault(3), Sealed);
        assert_eq!(stage.refusal(other), None);
    }
    assert!(!stage.is_killed(stuck));
}

#[test]
fn a_process_that_asks_again_and_again_uses_up_its_own_ration() {
    let mut stage = Stage::new(&Tuning { opens_per_second: 100, ..Tuning::default() });
    let slot = stage.open(vault(1));
    let mut asked = 0;
    for _ in 0..90 {
        answered(&mut stage, vault(1), slot);
        stage.from(slot, FromManager::Open { create: false });
        if stage.has(|action| matches!(action, Action::Load { .. })) {
            asked += 1;
            stage.load(slot);
        } else {
            assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::OpenRefused(_), .. })));
        }
    }
    assert!(asked < 20, "{asked} openings");
    // There are some left for others.
    stage.open(vault(2));
    let deletions = (0..500)
        .filter(|_| {
            answered(&mut stage, vault(1), slot);
            stage.from(slot, FromManager::Collect { below: 1 });
            stage.has(|action| matches!(action, Action::Collect { .. }))
        })
        .count();
    assert!((1..100).contains(&deletions), "{deletions} deletions");
    // Its end is cleaned up all the same, once.
    stage.from(slot, FromManager::Purge { tombstone: 3 });
    assert!(stage.has(|action| matches!(action, Action::Purge { .. })));
    stage.from(slot, FromManager::Purge { tombstone: 3 });
    assert!(stage.out.is_empty());
    assert!(!stage.is_killed(slot));
}

/// Processes that keep what they are given, each as long as its device lets it.
#[test]
fn a_few_vaults_do_not_fill_the_nodes_window() {
    let mut stage = Stage::new(&Tuning { opens_per_second: 1000, ..Tuning::default() });
    for number in 0..16 {
        stage.open(vault(number));
    }
    // Not faster than what is silent is left out of account.
    for _ in 0..64 {
        stage.now += SECOND / 5;
        for number in 0..16 {
            stage.request_within(vault(number), Sealed, SECOND * 60);
        }
    }
    let held = stage.router.deadlines.len();
    assert!((500..800).contains(&held), "{held} requests");
    let slot = stage.open(vault(100));
    let id = stage.request(vault(100), Sealed);
    assert!(stage.has(|action| matches!(action, Action::Send { slot: asked, .. } if *asked == slot)));
    assert_eq!(stage.refusal(id), None);
}

/// A process that writes versions for itself, and one that its devices help.
#[test]
fn who_writes_without_end_fills_no_store() {
    let mut stage = Stage::new(&Tuning::default());
    let slot = stage.open(vault(1));
    let write = |stage: &mut Stage, slot, version, bytes| {
        stage.from(slot, FromManager::Commit { version, object: vec![4; bytes] });
        let stored = stage.has(|action| matches!(action, Action::Put { .. }));
        if stored {
            let op = stage.op();
            stage.event(Event::PutDone { slot, op, put: Put::Created });
        }
        stored
    };
    let unasked = (4..1000).take_while(|version| write(&mut stage, slot, *version, 1)).count();
    assert!((1..=32).contains(&unasked), "{unasked} versions");
    assert!(stage.is_killed(slot));

    let slot = stage.open(vault(2));
    let mut stored = 0;
    for _ in 0..1000 {
        answered(&mut stage, vault(2), slot);
        stage.now += SECOND / 100;
        if write(&mut stage, slot, 4 + stored, 1 << 20) {
            stored += 1;
        } else {
            let result = |action: &Action| {
                matches!(action, Action::Send { message: ToManager::CommitResult(CommitResult::NotSent), .. })
            };
            assert!(stage.has(result));
        }
    }
    // Ten seconds.
    assert!((200..400).contains(&stored), "{stored} MiB");
    assert!(!stage.is_killed(slot));
}

#[test]
fn a_process_that_speaks_without_end_is_killed() {
    let unasked = [
        FromManager::Noticed(Notice::Rollback),
        FromManager::Open { create: false },
        FromManager::Collect { below: 1 },
    ];
    for message in unasked {
        let mut stage = Stage::new(&Tuning::default());
        let slot = stage.open(vault(1));
        let mut said = 0;
        while !stage.has(|action| matches!(action, Action::Kill { .. })) {
            stage.from(slot, message.clone());
            if stage.has(|action| matches!(action, Action::Load { .. })) {
                stage.load(slot);
            }
            said += 1;
            assert!(said < 100, "{message:?}");
        }
        assert!(said > 50, "{message:?}: {said}");
    }
    // On its way out as well.
    for message in [FromManager::Noticed(Notice::BadFrame), FromManager::Reply { id: 999, frame: vec![2] }] {
        let mut stage = Stage::new(&Tuning::default());
        let slot = stage.open(vault(1));
        stage.event(Event::Drain);
        let killed = (0..100).any(|_| {
            stage.from(slot, message.clone());
            stage.has(|action| matches!(action, Action::Kill { .. }))
        });
        assert!(killed, "{message:?}");
    }
}

#[test]
fn a_half_open_process_gains_little_time_by_asking() {
    let mut stage = Stage::new(&Tuning { vault_limit: 1, ..Tuning::default() });
    let busy = stage.open(vault(1));
    let asks = stage.ready(vault(2));
    let mut held = stage.request(vault(1), Sealed);
    for _ in 0..120 {
        stage.after(SECOND / 2);
        if stage.is_killed(asks) {
            let little = HALF_OPEN_LIFE + SECOND / 2..HALF_OPEN_LIFE + 3 * SECOND;
            assert!(little.contains(&stage.now), "it had the time that it needs to tell its callers: {:?}", stage.now);
            return;
        }
        let next = stage.request(vault(1), Sealed);
        stage.from(busy, FromManager::Reply { id: held, frame: vec![2] });
        held = next;
        answered(&mut stage, vault(2), asks);
        stage.from(asks, FromManager::Open { create: false });
        assert!(stage.has(|action| matches!(action, Action::Send { message: ToManager::OpenRefused(_), .. })));
    }
    panic!("half-open for a minute");
}
