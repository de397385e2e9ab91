//! Sessions that go on in another process.

use std::time::Duration;

use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, SealedRun, VaultFrame};
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::reply::{Answer, AuditEvent};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::session::Initiator;

use super::harness::{Device, Node, World, code, get, put, value};
use crate::ipc::{Newest, Notice, ToManager};
use crate::vault::parking::{PARKED_BYTES, WHOLE_BYTES};

impl World {
    fn resumed(&self, node: &Node<'_>) -> Node<'_> {
        self.resumed_at(node, Newest::NotAsked)
    }

    fn resumed_at(&self, node: &Node<'_>, newest: Newest) -> Node<'_> {
        let parked = node.parked.clone().expect("it has parked");
        Node::resume(node.vault, &self.store, &self.clock, &self.randomness, parked, newest)
    }
}

fn parked(world: &World) -> (Node<'_>, Device) {
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("name", b"value")).unwrap();
    node.tell(ToManager::Stop { park: true });
    assert!(node.manager.has_ended());
    (node, device)
}

fn make_large(node: &mut Node<'_>, device: &mut Device) {
    for name in ["one", "two", "three"] {
        device.ask(node, put(name, &vec![7; limits::SECRET_BYTES])).unwrap();
    }
}

/// Another node, and another program of the same device, in a session with it.
fn elsewhere<'a>(world: &'a World, node: &Node<'_>, device: &Device) -> (Node<'a>, Device) {
    let (mut elsewhere, mut twin) = (world.node(node.vault), device.clone_at(node));
    twin.connect(&mut elsewhere, None).unwrap();
    (elsewhere, twin)
}

/// A vault that is too large to be parked whole: of it the sessions, the root key and the head are.
fn parked_without_its_state(world: &World) -> (Node<'_>, Device) {
    let (mut node, mut device) = world.created();
    make_large(&mut node, &mut device);
    device.ask(&mut node, put("name", b"value")).unwrap();
    node.tell(ToManager::Stop { park: true });
    assert!(node.manager.has_ended() && !node.parked_whole);
    (node, device)
}

/// The store and the key service are asked for nothing: not even an empty store is noticed, as by a vault that stayed.
#[test]
fn a_vault_that_is_parked_whole_needs_nothing_else() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    assert!(node.parked_whole);
    world.store.borrow_mut().versions.clear();
    let mut next = world.resumed(&node);
    assert_eq!(value(device.ask(&mut next, get("name"))), b"value");
    assert_eq!((next.opens, next.resumes), (0, 1));
    assert!(next.notices.is_empty());
}

/// Whatever a vault has been through, the one that goes on from what was parked writes the history that it would have written.
#[test]
fn the_history_goes_on_where_it_was_left() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    // Deltas do not outweigh a snapshot with this in it: it is their number that asks for the next.
    device.ask(&mut node, put("large", &vec![7; limits::SECRET_BYTES])).unwrap();
    for round in 0..3 * limits::DELTAS_PER_SNAPSHOT {
        let name = format!("name-{}", round % 5);
        device.ask(&mut node, put(&name, round.to_string().as_bytes())).unwrap();
        node.tell(ToManager::Stop { park: true });
        assert!(node.parked_whole);
        node = world.resumed(&node);
        assert_eq!(value(device.ask(&mut node, get(&name))), round.to_string().as_bytes());
    }
    // From the store, which shows what was written: each version follows the one before it.
    let mut elsewhere = world.node(node.vault);
    device.connect(&mut elsewhere, None).unwrap();
    for back in 0..5 {
        let round = 3 * limits::DELTAS_PER_SNAPSHOT - 1 - back;
        let name = format!("name-{}", round % 5);
        assert_eq!(value(device.ask(&mut elsewhere, get(&name))), round.to_string().as_bytes());
    }
    assert!(elsewhere.notices.is_empty());
}

/// As much as there can be of everything: the supervisor takes it for an attack above its bound, and a vault's sessions would be lost.
#[test]
fn the_most_that_is_parked_is_within_the_bound() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    for (name, bytes) in [("one", limits::SECRET_BYTES), ("two", limits::SECRET_BYTES), ("three", WHOLE_BYTES / 4)] {
        device.ask(&mut node, put(name, &vec![7; bytes])).unwrap();
    }
    // Each leaves a session, and an entry that waits for the next version.
    for _ in 0..40 {
        device.clone_at(&node).connect(&mut node, None).unwrap();
    }
    node.tell(ToManager::Stop { park: true });
    let sealed = node.parked.as_ref().map_or(0, Vec::len);
    assert!(node.parked_whole && sealed > WHOLE_BYTES * 9 / 10 && sealed <= PARKED_BYTES, "{sealed} bytes");
}

/// Who has come and who was refused waits for the next version to be told of, whichever process writes it.
#[test]
fn what_is_to_be_audited_goes_over() {
    for large in [false, true] {
        let world = World::new();
        let (mut node, mut device) = world.created();
        if large {
            make_large(&mut node, &mut device);
        }
        let mut twin = device.clone_at(&node);
        twin.connect(&mut node, None).unwrap();
        for _ in 0..2 {
            node.tell(ToManager::Stop { park: true });
            assert_eq!(node.parked_whole, !large);
            node = world.resumed(&node);
            device.ask(&mut node, get("nothing")).unwrap_err();
        }
        device.ask(&mut node, put("name", b"value")).unwrap();
        let audit = Operation::Audit { after: None };
        let Ok(Answer::Audit { entries, .. }) = device.ask(&mut node, audit) else { panic!("no audit") };
        let count = |event| entries.iter().filter(|entry| entry.event == event).count();
        assert_eq!((count(AuditEvent::SessionOpened), count(AuditEvent::Refused)), (1, 0));
    }
}

/// What was parked whole is what a resident would have: who knows of a newer version makes it read the store, and no version is written
/// beside another one.
#[test]
fn another_nodes_versions_are_found_as_by_a_vault_that_stayed() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let (mut elsewhere, mut twin) = elsewhere(&world, &node, &device);
    twin.ask(&mut elsewhere, put("name", b"newer")).unwrap();

    let mut next = world.resumed(&node);
    // Who has not heard of it is answered as before.
    assert_eq!(value(device.ask(&mut next, get("name"))), b"value");
    device.head = twin.head;
    assert_eq!(value(device.ask(&mut next, get("name"))), b"newer");
    assert_eq!((next.opens, next.resumes), (1, 1));

    next.tell(ToManager::Stop { park: true });
    twin.ask(&mut elsewhere, put("name", b"newest")).unwrap();
    let mut third = world.resumed(&next);
    device.sequence = twin.sequence;
    assert_eq!(code(device.ask(&mut third, put("name", b"another"))), ErrorCode::Moved);
    assert!(third.manager.has_ended() && third.parked.is_none());
}

/// There was no place for the vault that came back, and its first frame has it read anew: who asked is told to come again, and nothing is
/// lost of what was parked.
#[test]
fn a_vault_that_is_told_to_stop_while_it_is_read_anew_leaves_what_it_had() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let (mut elsewhere, mut twin) = elsewhere(&world, &node, &device);
    twin.ask(&mut elsewhere, put("name", b"newer")).unwrap();
    device.head = twin.head;
    let mut next = world.resumed(&node);
    next.auto_open = false;
    let request = device.request(get("name"));
    let id = next.send(&device.seal(&request));
    assert!(next.has_asked_to_open() && !next.replies.contains_key(&id));
    next.tell(ToManager::Stop { park: true });
    assert!(next.manager.has_ended() && next.replies.contains_key(&id) && next.parked_whole);
    let answer = device.receive(&mut next, id, request_hash(request.sequence, &request.operation));
    assert_eq!(code(answer), ErrorCode::Draining);
    let mut third = world.resumed(&next);
    assert_eq!(value(device.ask(&mut third, get("name"))), b"newer");
}

/// Attack: a stranger begins a handshake, and sends a frame under its name, to have keys brought into memory.
#[test]
fn the_name_of_a_handshake_takes_nothing_up() {
    let world = World::new();
    let (node, _) = parked(&world);
    let (version, bytes) = world.store.borrow().versions.last_key_value().map(|(v, b)| (*v, b.clone())).unwrap();
    let mut next = world.resumed_at(&node, Newest::Shown(VersionObject { version, bytes }));
    let (_, noise) = Initiator::start(&[77; 32], node.vault);
    let hello = next.send(&DeviceFrame::Hello { noise });
    let Some(VaultFrame::Welcome { session, .. }) = next.replies.remove(&hello) else { panic!("no welcome") };
    let mut frame = |session| {
        let run = SealedRun { counter: 0, ciphertext: vec![0; 64] };
        next.send(&DeviceFrame::Sealed { session, run });
        next.manager.held.is_some()
    };
    assert!(!frame(session));
    assert!(frame([1; 16]), "a name that is not known here may be that of a parked session");
}

/// A handshake's opening is refused: what was parked is used up by then, and is parked again.
#[test]
fn a_refused_handshake_throws_nothing_away() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let (version, bytes) = world.store.borrow().versions.last_key_value().map(|(v, b)| (*v, b.clone())).unwrap();
    let mut next = world.resumed_at(&node, Newest::Shown(VersionObject { version, bytes }));
    next.refuses_to_open = Some(ErrorCode::Busy);
    let mut twin = device.clone_at(&node);
    assert_eq!(code(twin.connect(&mut next, None)), ErrorCode::Busy);
    assert!(next.manager.has_ended() && next.parked_whole);
    let mut third = world.resumed(&next);
    assert_eq!(value(device.ask(&mut third, get("name"))), b"value");
}

#[test]
fn a_device_notices_nothing() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let mut next = world.resumed(&node);
    assert_eq!(value(device.ask(&mut next, get("name"))), b"value");
    device.ask(&mut next, put("name", b"other")).unwrap();
    next.tell(ToManager::Stop { park: true });
    let mut third = world.resumed(&next);
    assert_eq!(value(device.ask(&mut third, get("name"))), b"other");
    assert!(third.notices.is_empty());
}

#[test]
fn nothing_is_parked_for_a_vault_that_is_to_be_closed_or_has_no_session() {
    let world = World::new();
    let (mut node, _) = world.created();
    node.tell(ToManager::Stop { park: false });
    assert!(node.manager.has_ended() && node.parked.is_none());
    let mut node = world.node(node.vault);
    node.tell(ToManager::Stop { park: true });
    assert!(node.manager.has_ended() && node.parked.is_none());
}

/// A frame that was answered before its session was parked is not answered again.
#[test]
fn a_replay_is_one_in_the_next_process_too() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let request = device.request(get("name"));
    let frame = device.seal(&request);
    node.send(&frame);
    node.tell(ToManager::Stop { park: true });
    let mut next = world.resumed(&node);
    let id = next.send(&frame);
    assert!(
        matches!(next.replies.remove(&id), Some(VaultFrame::Refused(refusal)) if refusal.code == ErrorCode::Malformed)
    );
    assert_eq!(next.notices, [Notice::BadFrame]);
    assert!(next.parked.is_none() && !next.has_asked_to_open());
}

/// Before the frame has opened nothing was asked of the key service, and nothing was sealed: what was parked is as good as before.
#[test]
fn a_forged_frame_uses_up_nothing() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let mut next = world.resumed(&node);
    let request = device.request(get("name"));
    let mut forged = device.seal(&request);
    if let DeviceFrame::Sealed { run, .. } = &mut forged {
        run.ciphertext[0] ^= 1;
    }
    next.send(&forged);
    assert_eq!(next.notices, [Notice::BadFrame]);
    assert!(!next.has_asked_to_open());
    let mut third = world.resumed(&node);
    assert_eq!(value(device.ask(&mut third, get("name"))), b"value");
}

/// Attack: a store that goes back behind what this node has answered with. A device whose head is older could not tell.
#[test]
fn a_store_that_went_back_is_found_out_before_a_device_that_knows_asks() {
    let world = World::new();
    let (node, mut device) = parked_without_its_state(&world);
    world.store.borrow_mut().versions.pop_last();
    device.head = None;
    let mut next = world.resumed(&node);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::RollbackDetected);
    assert_eq!(next.notices, [Notice::Rollback]);
    assert!(next.manager.has_ended() && next.parked.is_none());

    for refusal in [None, Some(ErrorCode::NotFound)] {
        let world = World::new();
        let (node, mut device) = parked_without_its_state(&world);
        world.store.borrow_mut().versions.clear();
        let mut next = world.resumed(&node);
        next.refuses_to_open = refusal;
        assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::RollbackDetected);
        assert_eq!(next.notices, [Notice::Rollback]);
        assert!(next.parked.is_none());
    }
}

#[test]
fn another_branch_is_found_out_too() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    make_large(&mut node, &mut device);
    let first = world.store.borrow().clone();
    let mut twin = device.clone_at(&node);
    device.ask(&mut node, put("name", b"value")).unwrap();
    node.tell(ToManager::Stop { park: true });
    *world.store.borrow_mut() = first;
    let mut other = world.node(node.vault);
    let request = twin.request(put("name", b"another"));
    twin.connect(&mut other, Some(&request)).unwrap();
    device.head = None;
    let mut next = world.resumed(&node);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::ForkDetected);
    assert_eq!(next.notices, [Notice::Fork]);
}

#[test]
fn what_another_node_wrote_meanwhile_is_read() {
    let world = World::new();
    let (node, mut device) = parked_without_its_state(&world);
    let (mut elsewhere, mut twin) = elsewhere(&world, &node, &device);
    twin.ask(&mut elsewhere, put("name", b"newer")).unwrap();
    let mut next = world.resumed(&node);
    assert_eq!(value(device.ask(&mut next, get("name"))), b"newer");
}

/// The store, the key service or the node's limits say no: the session goes on later, in yet another process.
#[test]
fn a_vault_that_cannot_be_opened_now_keeps_its_sessions() {
    let world = World::new();
    let (node, mut device) = parked_without_its_state(&world);
    let mut next = world.resumed(&node);
    next.refuses_to_open = Some(ErrorCode::Unavailable);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::Unavailable);
    assert!(next.manager.has_ended());
    let mut third = world.resumed(&next);
    assert_eq!(value(device.ask(&mut third, get("name"))), b"value");
}

#[test]
fn sessions_end_with_their_lock_key() {
    let world = World::new();
    let (node, mut device) = parked_without_its_state(&world);
    // What a turned lock key looks like from here: a newer header that commits to another root.
    let turned = {
        let other = World::new();
        let mut device = Device::owner();
        device.lock_key = [99; 32];
        let mut node = other.node(device.vault);
        device.create(&mut node);
        for _ in 0..8 {
            device.ask(&mut node, put("name", b"value")).unwrap();
        }
        other.store.borrow().clone()
    };
    world.store.borrow_mut().versions = turned.versions;
    let mut next = world.resumed(&node);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::SessionUnknown);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::SessionUnknown);
    assert!(!next.manager.has_ended(), "a handshake finds it half-open");
}

#[test]
fn a_vault_that_was_deleted_meanwhile_says_so() {
    let world = World::new();
    let (node, mut device) = parked_without_its_state(&world);
    let (mut elsewhere, mut twin) = elsewhere(&world, &node, &device);
    twin.ask(&mut elsewhere, Operation::DeleteVault).unwrap();
    let mut next = world.resumed(&node);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::Deleted);
    // Whoever comes by a handshake sees the tombstone first; nothing of what was parked is taken up then.
    let (version, bytes) = world.store.borrow().versions.last_key_value().map(|(v, b)| (*v, b.clone())).unwrap();
    let mut tombstone = world.resumed_at(&node, Newest::Shown(VersionObject { version, bytes }));
    assert_eq!(code(device.ask(&mut tombstone, get("name"))), ErrorCode::SessionUnknown);
}

/// A handshake and a parked session come to the same process.
#[test]
fn a_handshake_beside_a_parked_session() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let (version, bytes) = world.store.borrow().versions.last_key_value().map(|(v, b)| (*v, b.clone())).unwrap();
    let mut next = world.resumed_at(&node, Newest::Shown(VersionObject { version, bytes }));
    let mut twin = device.clone_at(&node);
    let request = twin.request(get("name"));
    assert_eq!(value(twin.connect(&mut next, Some(&request))), b"value");
    assert_eq!(value(device.ask(&mut next, get("name"))), b"value");
    // And where the store was not asked before, a handshake is told to come again.
    let mut resumed = world.resumed(&node);
    let refused = twin.connect(&mut resumed, None);
    assert_eq!(code(refused), ErrorCode::Busy);
}

/// A frame of a parked session that comes while a handshake has asked for the vault waits for it as well.
#[test]
fn a_parked_session_while_a_handshake_has_the_vault_opened() {
    let world = World::new();
    let (node, mut device) = parked(&world);
    let (version, bytes) = world.store.borrow().versions.last_key_value().map(|(v, b)| (*v, b.clone())).unwrap();
    let mut next = world.resumed_at(&node, Newest::Shown(VersionObject { version, bytes }));
    next.auto_open = false;
    let mut twin = device.clone_at(&node);
    let (early, late) = (twin.request(get("name")), device.request(get("name")));
    let early_id = twin.connect_unanswered(&mut next, Some(&early));
    let late_id = device.send_unanswered(&mut next, &late);
    assert!(next.replies.is_empty());
    next.finish_open();
    let hash = |request: &Request| request_hash(request.sequence, &request.operation);
    assert_eq!(value(twin.receive(&mut next, early_id, hash(&early))), b"value");
    assert_eq!(value(device.receive(&mut next, late_id, hash(&late))), b"value");
    assert_eq!((next.opens, next.notices.len()), (1, 0));
}

/// Garbage instead of what was parked, or what another zygote's process parked: a process like any other.
#[test]
fn what_does_not_open_is_not_taken_up() {
    let world = World::new();
    let (mut node, mut device) = parked(&world);
    if let Some(sealed) = node.parked.as_mut() {
        sealed[20] ^= 1;
    }
    let mut next = world.resumed(&node);
    assert_eq!(code(device.ask(&mut next, get("name"))), ErrorCode::SessionUnknown);
    assert!(!next.has_asked_to_open());
}

/// Attack: a session that is kept alive by being parked again and again.
#[test]
fn a_session_is_as_old_as_it_is() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    for _ in 0..23 {
        world.clock.advance(Duration::from_hours(1));
        device.ask(&mut node, get("name")).unwrap_err();
        node.tell(ToManager::Stop { park: true });
        node = world.resumed(&node);
    }
    world.clock.advance(Duration::from_hours(1));
    assert_eq!(code(device.ask(&mut node, get("name"))), ErrorCode::SessionUnknown);
}
