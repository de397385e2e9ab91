//! How versions are made: order, retries, unclear outcomes, orphans, snapshots, deletion.

use casemate_protocol::error::ErrorCode;
use casemate_protocol::object::{Kind, Object};
use casemate_protocol::reply::Answer;
use casemate_protocol::request::{Operation, request_hash};

use super::harness::{Device, World, code, get, put, value};
use crate::ipc::{CommitResult, Notice, ToManager};

#[test]
fn an_answer_means_it_is_durable() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    node.auto_commit = false;
    let request = device.request(put("a", b"1"));
    let id = device.send_unanswered(&mut node, &request);
    assert!(!node.replies.contains_key(&id));
    assert_eq!(code(device.ask(&mut node, get("a"))), ErrorCode::NotFound, "reads come from committed state only");
    node.finish_commit();
    let hash = request_hash(request.sequence, &request.operation);
    assert_eq!(device.receive(&mut node, id, hash), Ok(Answer::Written { revision: 1 }));
    assert_eq!(value(device.ask(&mut node, get("a"))), b"1");
}

#[test]
fn requests_that_arrive_while_a_write_is_in_flight_share_the_next_version() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    node.auto_commit = false;
    let requests: Vec<_> = (0_u8..10).map(|i| device.request(put("a", &[i]))).collect();
    let ids: Vec<_> = requests.iter().map(|request| device.send_unanswered(&mut node, request)).collect();
    assert_eq!(node.commits.len(), 2, "create, and the first of the ten");
    node.finish_commit();
    assert_eq!(node.commits.len(), 3, "the other nine together");
    node.finish_commit();
    for ((revision, id), request) in (1..).zip(ids).zip(requests) {
        let hash = request_hash(request.sequence, &request.operation);
        assert_eq!(device.receive(&mut node, id, hash), Ok(Answer::Written { revision }));
    }
    assert_eq!(device.head.unwrap().version, 3);
    assert_eq!(value(device.ask(&mut node, get("a"))), [9]);
}

#[test]
fn a_retry_gets_the_first_outcome_even_after_a_restart() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let request = device.request(put("a", b"1"));
    assert_eq!(device.send(&mut node, &request), Ok(Answer::Written { revision: 1 }));
    assert_eq!(device.send(&mut node, &request), Ok(Answer::Written { revision: 1 }));
    let mut node = world.node(device.vault);
    assert_eq!(device.connect(&mut node, Some(&request)), Ok(Answer::Written { revision: 1 }));
    assert_eq!(device.head.unwrap().version, 2);
    let late = device.request(put("a", b"late"));
    device.ask(&mut node, put("a", b"2")).unwrap();
    assert_eq!(code(device.send(&mut node, &late)), ErrorCode::Superseded);
    assert_eq!(value(device.ask(&mut node, get("a"))), b"2");
}

#[test]
fn creating_again_gives_the_stored_outcome() {
    let world = World::new();
    let (node, mut device) = world.created();
    drop(node);
    let mut node = world.node(device.vault);
    device.sequence = 0;
    let request = device.request(device.create_operation());
    assert_eq!(device.connect(&mut node, Some(&request)), Ok(Answer::Nothing));
    assert_eq!(world.store.borrow().versions.len(), 1);
}

#[test]
fn an_orphan_is_accepted_and_answers_the_retry() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    node.auto_commit = false;
    let request = device.request(put("a", b"1"));
    device.send_unanswered(&mut node, &request);
    // The object became durable, the process died before anybody was told.
    let (version, object) = node.commits.last().cloned().unwrap();
    world.store.borrow_mut().versions.insert(version, object);
    let mut node = world.node(device.vault);
    assert_eq!(device.connect(&mut node, Some(&request)), Ok(Answer::Written { revision: 1 }));
}

#[test]
fn another_writer_ends_this_process() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let mut other_node = world.node(device.vault);
    let mut other = Device::owner();
    other.sequence = 100;
    let request = other.request(put("a", b"other"));
    assert!(other.connect(&mut other_node, Some(&request)).is_ok());
    assert_eq!(code(device.ask(&mut node, put("a", b"mine"))), ErrorCode::Moved);
    assert!(node.manager.has_ended());
    let mut node = world.node(device.vault);
    let request = device.request(get("a"));
    assert_eq!(value(device.connect(&mut node, Some(&request))), b"other");
}

#[test]
fn an_unclear_outcome_is_said_and_the_state_dropped() {
    for (result, wanted, ends) in [
        (CommitResult::Unknown, ErrorCode::OutcomeUnknown, true),
        (CommitResult::OtherWriter, ErrorCode::Moved, true),
        (CommitResult::NotSent, ErrorCode::Unavailable, false),
    ] {
        let world = World::new();
        let (mut node, mut device) = world.created();
        node.auto_commit = false;
        let request = device.request(put("a", b"1"));
        let queued = device.request(put("b", b"1"));
        let ids = [device.send_unanswered(&mut node, &request), device.send_unanswered(&mut node, &queued)];
        node.tell(ToManager::CommitResult(result));
        let hash = request_hash(request.sequence, &request.operation);
        assert_eq!(code(device.receive(&mut node, ids[0], hash)), wanted);
        let hash = request_hash(queued.sequence, &queued.operation);
        assert!(device.receive(&mut node, ids[1], hash).is_err());
        assert_eq!(node.manager.has_ended(), ends);
    }
}

#[test]
fn stop_answers_what_is_in_flight() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    node.auto_commit = false;
    let request = device.request(put("a", b"1"));
    let id = device.send_unanswered(&mut node, &request);
    node.tell(ToManager::Stop { park: false });
    assert!(!node.manager.has_ended());
    node.finish_commit();
    let hash = request_hash(request.sequence, &request.operation);
    assert_eq!(device.receive(&mut node, id, hash), Ok(Answer::Written { revision: 1 }));
    assert!(node.manager.has_ended());
}

#[test]
fn snapshots_bound_the_chain_and_old_versions_go() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("big", &vec![1; 60_000])).unwrap();
    for i in 0..60_u8 {
        device.ask(&mut node, put("a", &[i])).unwrap();
        let loaded = world.store.borrow().load();
        assert!(loaded.len() <= 17, "a snapshot and at most 16 deltas");
        let below = node.collected.unwrap_or(0);
        assert!(loaded[0].version >= below);
    }
    let kinds: Vec<_> =
        world.store.borrow().versions.values().map(|bytes| Object::parse(bytes).unwrap().header.kind).collect();
    assert!(kinds.contains(&Kind::Snapshot) && kinds.contains(&Kind::Delta));
    assert!(kinds.len() < 40, "collected: {}", kinds.len());
    let mut node = world.node(device.vault);
    let request = device.request(get("a"));
    assert_eq!(value(device.connect(&mut node, Some(&request))), [59]);
}

#[test]
fn deletion_leaves_a_tombstone_for_good() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("a", b"1")).unwrap();
    let delete = device.request(Operation::DeleteVault);
    assert_eq!(device.send(&mut node, &delete), Ok(Answer::Nothing));
    assert_eq!(device.head.unwrap().version, 3);
    assert_eq!(world.store.borrow().versions.keys().collect::<Vec<_>>(), [&3]);
    assert_eq!(code(device.ask(&mut node, get("a"))), ErrorCode::Deleted);
    let mut node = world.node(device.vault);
    for operation in [get("a"), device.create_operation()] {
        let request = device.request(operation);
        assert_eq!(code(device.connect(&mut node, Some(&request))), ErrorCode::Deleted);
    }
}

#[test]
fn damaged_objects_are_refused() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("big", &[1; 500])).unwrap();
    device.ask(&mut node, put("a", b"1")).unwrap();
    let whole = world.store.borrow().clone();
    let kinds: Vec<_> = whole.versions.values().map(|bytes| Object::parse(bytes).unwrap().header.kind).collect();
    assert_eq!(kinds, [Kind::Snapshot, Kind::Snapshot, Kind::Delta]);
    for version in [2, 3] {
        let len = whole.versions[&version].len();
        for at in (0..len).step_by(7) {
            let mut damaged = whole.clone();
            damaged.versions.get_mut(&version).unwrap()[at] ^= 1;
            *world.store.borrow_mut() = damaged;
            let mut node = world.node(device.vault);
            let mut device = copy(&device);
            let request = device.request(get("a"));
            let refused = device.connect(&mut node, Some(&request)).unwrap_err().code;
            let allowed =
                [ErrorCode::StateCorrupt, ErrorCode::NotAuthorised, ErrorCode::LockTurned, ErrorCode::Deleted];
            assert!(allowed.contains(&refused), "version {version}, byte {at}: {refused}");
        }
    }
    // Two versions exchanged, and one left out.
    let mut swapped = whole.clone();
    let (a, b) = (whole.versions[&2].clone(), whole.versions[&3].clone());
    swapped.versions.insert(2, b);
    swapped.versions.insert(3, a);
    *world.store.borrow_mut() = swapped;
    let mut node = world.node(device.vault);
    assert_eq!(node.notices, [Notice::StateCorrupt]);
    let request = device.request(get("a"));
    assert_eq!(code(device.connect(&mut node, Some(&request))), ErrorCode::StateCorrupt);
}

fn copy(device: &Device) -> Device {
    let mut copy = Device::owner();
    copy.head = device.head;
    copy.sequence = device.sequence;
    copy
}
