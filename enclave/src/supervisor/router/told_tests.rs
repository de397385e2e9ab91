//! What the router tells of the time that requests take, and of single vaults.

use std::time::Duration;

use casemate_protocol::frame::DeviceFrameKind::{Finish, Hello, Sealed};
use casemate_protocol::link::{KeyObject, Tuning, VersionObject};
use casemate_protocol::resident::VaultsBy;
use casemate_protocol::secret::Secret;
use casemate_protocol::stage::Stage as Timed;

use super::simulation::vault;
use super::tests::{SESSION, Stage, welcome};
use super::*;
use crate::ipc::FromManager;

const MS: Duration = Duration::from_millis(1);

fn many() -> Stage {
    Stage::new(&Tuning { vault_limit: 200, ..Tuning::default() })
}

/// How often a stage was timed, and the sum in microseconds.
fn times(stage: &Stage, timed: Timed) -> (u64, u64) {
    let told = stage.router.stages().told();
    let times = &told[timed as usize];
    (times.counts.iter().sum(), times.sum_us)
}

#[test]
fn each_stage_of_a_request_is_timed_once() {
    let mut stage = many();
    let a = vault(1);
    let hello = stage.request(a, Hello);
    let (slot, op) = (stage.slot(a), stage.op());
    stage.event(Event::Spawned { slot, pid: 7 });
    stage.event(Event::Newest { slot, op, result: Ok(Some(VersionObject { version: 3, bytes: vec![3] })) });
    stage.now += 2 * MS;
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    stage.now += MS;
    stage.from(slot, FromManager::Reply { id: hello, frame: welcome(SESSION) });
    assert_eq!((times(&stage, Timed::Spawn), times(&stage, Timed::Wait)), ((1, 2000), (1, 2000)));
    assert_eq!(times(&stage, Timed::Vault), (1, 1000));

    let finish = stage.request(a, Finish);
    stage.from(slot, FromManager::Open { create: false });
    let op = stage.op();
    stage.now += 3 * MS;
    let loaded = Loaded {
        versions: vec![VersionObject { version: 3, bytes: vec![3] }],
        keys: vec![KeyObject { generation: 1, bytes: vec![1] }],
    };
    stage.event(Event::Loaded { slot, op, result: Ok(loaded) });
    let op = stage.op();
    stage.now += 4 * MS;
    let key = VaultKey { key: Secret::new(vec![1; 32]), generation: 1 };
    stage.event(Event::VaultKey { slot, op, result: Ok(key) });
    stage.from(slot, FromManager::Reply { id: finish, frame: vec![2] });
    assert_eq!(times(&stage, Timed::Load), (1, 3000));
    assert_eq!(times(&stage, Timed::Key), (1, 4000));
    assert_eq!(times(&stage, Timed::Open), (1, 7000));
    assert_eq!((times(&stage, Timed::Wait), times(&stage, Timed::Vault)), ((2, 2000), (2, 8000)));

    let write = stage.request(a, Sealed);
    stage.from(slot, FromManager::Commit { version: 4, object: vec![4] });
    let op = stage.op();
    stage.now += 5 * MS;
    stage.event(Event::PutDone { slot, op, put: Put::Created });
    stage.from(slot, FromManager::Reply { id: write, frame: vec![2] });
    assert_eq!((times(&stage, Timed::Commit), times(&stage, Timed::Vault)), ((1, 5000), (3, 13_000)));
    assert_eq!((times(&stage, Timed::Spawn), times(&stage, Timed::Open)), ((1, 2000), (1, 7000)), "once");
}

#[test]
fn what_waits_for_the_next_process_has_waited_since_it_came() {
    let mut stage = many();
    let slot = stage.open(vault(1));
    let before = times(&stage, Timed::Wait);
    stage.event(Event::Evict(vault(1)));
    stage.request(vault(1), Hello);
    stage.now += 7 * MS;
    stage.exit(slot);
    let (slot, op) = (stage.slot(vault(1)), stage.op());
    stage.event(Event::Newest { slot, op, result: Ok(None) });
    stage.now += 2 * MS;
    stage.from(slot, FromManager::Ready { static_key: [8; 32] });
    assert_eq!(times(&stage, Timed::Wait), (before.0 + 1, before.1 + 9000));
}

#[test]
fn a_late_reply_is_timed_too() {
    let mut stage = many();
    let slot = stage.open(vault(1));
    let before = times(&stage, Timed::Vault);
    let late = stage.request_within(vault(1), Sealed, MS);
    stage.after(3 * MS);
    stage.from(slot, FromManager::Reply { id: late, frame: vec![2] });
    assert_eq!(times(&stage, Timed::Vault), (before.0 + 1, before.1 + 3000));
}

/// A vault that has answered so many requests, each after so long.
fn used(stage: &mut Stage, number: u64, requests: u64, took: Duration) -> SlotId {
    let slot = stage.open(vault(number));
    for _ in 0..requests {
        let id = stage.request(vault(number), Sealed);
        stage.now += took;
        stage.from(slot, FromManager::Reply { id, frame: vec![2] });
    }
    slot
}

#[test]
fn vaults_are_listed_by_what_is_asked_the_largest_first() {
    let mut stage = many();
    let heavy = used(&mut stage, 1, 0, MS);
    let frequent = used(&mut stage, 2, 300, MS / 20);
    let slow = used(&mut stage, 3, 1, 100 * MS);
    let busy = used(&mut stage, 4, 0, MS);
    for (slot, bytes) in [(heavy, 1 << 20), (frequent, 1 << 19), (slow, 1 << 18)] {
        stage.router.weighed(slot, bytes);
    }
    stage.request(vault(4), Sealed);
    stage.request(vault(4), Sealed);
    stage.now += 3 * Duration::from_secs(1);
    let first = |by| stage.router.vaults(by, 1, stage.now).first().map(|view| view.vault);
    assert_eq!(first(VaultsBy::Memory), Some(vault(1)));
    assert_eq!(first(VaultsBy::Rate), Some(vault(2)));
    assert_eq!(first(VaultsBy::Latency), Some(vault(3)));
    assert_eq!(first(VaultsBy::Queue), Some(vault(4)));
    assert_eq!(first(VaultsBy::Idle), Some(vault(1)), "of equals the first name");
    let all = stage.router.vaults(VaultsBy::Memory, 10, stage.now);
    assert_eq!(all.iter().map(|view| view.vault).collect::<Vec<_>>(), [1, 2, 3, 4].map(vault));
    assert_eq!((all[3].memory, all[3].in_flight, all[3].queued), (None, 2, 0));
    assert!(stage.router.vaults(VaultsBy::Memory, 0, stage.now).is_empty());
    let _ = busy;
}

#[test]
fn what_is_told_of_a_vault_is_coarse() {
    let mut stage = many();
    used(&mut stage, 1, 300, Duration::from_micros(70));
    stage.now += Duration::from_millis(2900);
    let [view] = stage.router.vaults(VaultsBy::Memory, 10, stage.now).try_into().unwrap();
    assert_eq!(view.idle, Duration::from_secs(2));
    assert_eq!((view.lately, view.latency_us), (512, Some(128)));
    stage.now += Duration::from_mins(1);
    let [view] = stage.router.vaults(VaultsBy::Memory, 10, stage.now).try_into().unwrap();
    assert_eq!((view.lately, view.latency_us), (0, None));
}

#[test]
fn all_processes_are_weighed_in_turn_a_few_at_a_time() {
    let mut stage = many();
    for number in 0..40 {
        // So many at once are not opened for strangers.
        stage.now += Duration::from_secs(1);
        stage.open(vault(number));
    }
    let mut seen = BTreeMap::new();
    for _ in 0..6 {
        let some = stage.router.to_weigh();
        assert!(some.len() <= 16);
        for (slot, _) in some {
            *seen.entry(slot).or_insert(0) += 1;
        }
    }
    assert_eq!(seen.len(), 40, "each within three turns");
    assert!(seen.values().all(|count| *count == 2), "{seen:?}");
    // One that is gone by then weighs nothing.
    stage.router.weighed(SlotId(999), 5);
    stage.router.weighed(SlotId(0), 0);
    assert_eq!(stage.router.vaults(VaultsBy::Memory, 1, stage.now)[0].memory, None);
}
