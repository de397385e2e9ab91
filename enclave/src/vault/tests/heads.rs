//! Who is let in, and what a host gains by lying: nothing.

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrame;
use casemate_protocol::head::Head;
use casemate_protocol::reply::Answer;
use casemate_protocol::request::{Operation, Request, accept_rollback_bytes, request_hash};
use ed25519_dalek::Signer;

use super::harness::{Device, World, code, get, put, value};
use crate::ipc::Notice;

#[test]
fn a_stranger_gets_nothing() {
    let world = World::new();
    let (node, owner) = world.created();
    drop(node);
    let mut node = world.node(owner.vault);
    let mut stranger = Device::with([66; 32], owner.vault);
    let request = stranger.request(Operation::Status);
    assert_eq!(code(stranger.connect(&mut node, Some(&request))), ErrorCode::NotAuthorised);
    assert_eq!(node.notices, [Notice::Stranger]);
    // The same against a vault that is open.
    let mut owner = owner;
    let request = owner.request(Operation::Status);
    assert!(owner.connect(&mut node, Some(&request)).is_ok());
    let request = stranger.request(Operation::Status);
    assert_eq!(code(stranger.connect(&mut node, Some(&request))), ErrorCode::NotAuthorised);
}

#[test]
fn a_vault_that_is_not_there() {
    let world = World::new();
    let mut device = Device::owner();
    let mut node = world.node(device.vault);
    let request = device.request(Operation::Status);
    assert_eq!(code(device.connect(&mut node, Some(&request))), ErrorCode::NotFound);
    // Somebody else's key does not give this id.
    let mut thief = Device::with([66; 32], device.vault);
    let request = thief.request(thief.create_operation());
    assert_eq!(code(thief.connect(&mut node, Some(&request))), ErrorCode::NotFound);
}

#[test]
fn another_lock_key_opens_nothing() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("a", b"1")).unwrap();
    let right = device.lock_key;
    for fresh in [false, true] {
        if fresh {
            node = world.node(device.vault);
        }
        device.lock_key = [99; 32];
        let request = device.request(get("a"));
        let refusal = device.connect(&mut node, Some(&request)).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::LockTurned);
        assert_eq!(refusal.lock_copy.unwrap().lock_number, 1, "the caller's copy comes along");
        device.lock_key = right;
        let request = device.request(get("a"));
        assert_eq!(value(device.connect(&mut node, Some(&request))), b"1");
    }
}

#[test]
fn an_older_state_is_a_rollback() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let old = world.store.borrow().clone();
    device.ask(&mut node, put("a", b"1")).unwrap();
    *world.store.borrow_mut() = old;
    let mut node = world.node(device.vault);
    for operation in [get("a"), put("a", b"2")] {
        let request = device.request(operation);
        assert_eq!(code(device.connect(&mut node, Some(&request))), ErrorCode::RollbackDetected);
    }
    assert!(node.notices.contains(&Notice::Rollback));
    assert_eq!(world.store.borrow().versions.len(), 1, "nothing was written over the gap");
}

#[test]
fn another_history_is_a_fork() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let old = world.store.borrow().clone();
    device.ask(&mut node, put("a", b"1")).unwrap();
    let held = device.head;
    // The host restores the old state and lets the vault go another way with a device that has seen nothing newer.
    *world.store.borrow_mut() = old;
    let mut node = world.node(device.vault);
    device.head = None;
    let request = device.request(put("a", b"2"));
    assert!(device.connect(&mut node, Some(&request)).is_ok());
    device.ask(&mut node, put("a", b"3")).unwrap();
    for operation in [get("a"), put("a", b"4")] {
        let mut request = device.request(operation);
        request.head = held;
        assert_eq!(code(device.send(&mut node, &request)), ErrorCode::ForkDetected);
    }
    assert!(node.notices.contains(&Notice::Fork));
}

#[test]
fn a_forged_head_is_refused() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let head = device.head.unwrap();
    let mut request = device.request(Operation::Status);
    request.head = Some(Head { version: 9, ..head });
    assert_eq!(code(device.send(&mut node, &request)), ErrorCode::HeadInvalid);
}

#[test]
fn a_newer_version_in_the_store_is_taken_up() {
    let world = World::new();
    let (mut first, mut device) = world.created();
    let mut second = world.node(device.vault);
    let mut other = Device::owner();
    other.sequence = 100;
    let request = other.request(put("a", b"1"));
    assert!(other.connect(&mut second, Some(&request)).is_ok());
    // The first process still holds version 1; the device has seen version 2.
    device.head = other.head;
    assert_eq!(value(device.ask(&mut first, get("a"))), b"1");
}

#[test]
fn what_was_read_for_one_device_is_no_rollback_for_another() {
    let world = World::new();
    let (mut first, mut device) = world.created();
    let mut late = Device::owner();
    assert!(late.connect(&mut first, None).is_ok());
    let mut second = world.node(device.vault);
    let mut writer = Device::owner();
    writer.sequence = 100;
    let request = writer.request(put("a", b"1"));
    assert!(writer.connect(&mut second, Some(&request)).is_ok());
    // The first process reads the store anew, for a device that has seen version 2.
    device.head = writer.head;
    first.auto_open = false;
    let early = device.request(get("a"));
    let early_id = device.send_unanswered(&mut first, &early);
    // Before it has what was read, a device comes that has seen version 3.
    assert!(writer.ask(&mut second, put("a", b"2")).is_ok());
    late.head = writer.head;
    let request = late.request(get("a"));
    let late_id = late.send_unanswered(&mut first, &request);
    first.auto_open = true;
    first.finish_open();
    let hash = |request: &Request| request_hash(request.sequence, &request.operation);
    assert_eq!(value(device.receive(&mut first, early_id, hash(&early))), b"1");
    assert_eq!(
        value(late.receive(&mut first, late_id, hash(&request))),
        b"2",
        "the store was read once more, for this one"
    );
    assert_eq!(first.notices, []);
}

#[test]
fn only_a_signature_accepts_a_rollback() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let old = world.store.borrow().clone();
    device.ask(&mut node, put("a", b"1")).unwrap();
    let held = device.head.unwrap();
    *world.store.borrow_mut() = old;
    let mut node = world.node(device.vault);
    device.head = None;
    let request = device.request(Operation::Status);
    assert!(device.connect(&mut node, Some(&request)).is_ok());
    let found = device.head.unwrap();
    let signed = accept_rollback_bytes(device.vault, &held, &found);
    let good = device.signing.sign(&signed).to_bytes();
    let accept = |held, found, signature| Operation::AcceptRollback { held, found, signature };
    assert_eq!(code(device.ask(&mut node, accept(held, found, [0; 64]))), ErrorCode::InvalidArgument);
    let foreign = Head { tag: [0; 32], ..held };
    assert_eq!(code(device.ask(&mut node, accept(foreign, found, good))), ErrorCode::HeadInvalid);
    assert_eq!(code(device.ask(&mut node, accept(held, held, good))), ErrorCode::Conflict);
    let request = device.request(accept(held, found, good));
    assert_eq!(device.send(&mut node, &request), Ok(Answer::Nothing));
    let accepted = device.head.unwrap();
    assert_eq!(accepted.version, found.version + 1);
    // Asked again, as after a lost answer, it gets that answer, though the vault's head is no more what was found.
    assert_eq!(device.send(&mut node, &request), Ok(Answer::Nothing));
    assert_eq!(device.head, Some(accepted));
    assert_eq!(code(device.ask(&mut node, accept(held, found, good))), ErrorCode::Conflict);
}

#[test]
fn replayed_and_forged_frames() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let request = device.request(put("a", b"1"));
    let frame = device.seal(&request);
    let first = node.send(&frame);
    assert!(node.replies.remove(&first).is_some());
    let version = device.head.unwrap().version + 1;
    let again = node.send(&frame);
    let hash = request_hash(request.sequence, &request.operation);
    assert_eq!(code(device.receive(&mut node, again, hash)), ErrorCode::Malformed);
    let DeviceFrame::Sealed { session, mut run } = device.seal(&request) else { unreachable!() };
    run.ciphertext[20] ^= 1;
    let forged = node.send(&DeviceFrame::Sealed { session, run });
    assert_eq!(code(device.receive(&mut node, forged, hash)), ErrorCode::Malformed);
    assert_eq!(node.notices, [Notice::BadFrame, Notice::BadFrame]);
    assert_eq!(world.store.borrow().versions.len() as u64, version);
}

#[test]
fn a_head_older_than_the_kept_history_needs_a_person() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let first = device.head;
    device.ask(&mut node, put("a", b"1")).unwrap();
    let second = device.head;
    for _ in 0..casemate_protocol::limits::HEAD_HASHES {
        device.ask(&mut node, put("a", b"2")).unwrap();
    }
    let mut request = device.request(get("a"));
    request.head = second;
    assert_eq!(value(device.send(&mut node, &request)), b"2", "the last 1,024 are known");
    let mut request = device.request(get("a"));
    request.head = first;
    assert_eq!(code(device.send(&mut node, &request)), ErrorCode::HistoryUnknown);
}
