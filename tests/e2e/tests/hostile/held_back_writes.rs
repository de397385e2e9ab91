//! A write is held back and released after a newer one.

use std::time::Duration;

use casemate_client::VaultError;
use casemate_e2e::hostile::{Deed, Host, Puppet, put};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind;
use casemate_protocol::reply::Answer;
use casemate_protocol::request::Request;
use casemate_protocol::{codec, frame::VaultFrame};

#[test]
fn a_sealed_write_that_comes_after_a_newer_one_is_superseded() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let held = device.seal_next(&put("a", "old"));
    device.put(&host, "a", "new").expect("written");
    let objects = host.objects().clone();
    let answer = host.carry(device.vault, &held);
    assert_eq!(device.read(&answer), Err(ErrorCode::Superseded));
    assert_eq!(*host.objects(), objects, "never executed");
    assert_eq!(device.get(&host, "a"), Ok("new".to_owned()));
    // Asked again under its number: the same, after a restart too.
    let number = device.sequence - 2;
    assert_eq!(device.ask(&host, Some(number), &put("a", "old")), Err(ErrorCode::Superseded));
    host.evict(device.vault);
    assert_eq!(device.enter(&host, Some(number), &put("a", "old")), Err(ErrorCode::Superseded));
    assert_eq!(*host.objects(), objects);
    bystander.is_served();
}

#[test]
fn a_write_in_a_handshake_that_is_ended_late_is_superseded() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let (session, _) = device.greet(&host);
    let number = device.sequence;
    device.sequence += 1;
    let first = Request { sequence: Some(number), head: device.head, operation: put("a", "old") };
    let held = device.finish_with(session, Some(&codec::encode(&first)));
    let held_session = device.session.take();
    let newer = device.sequence;
    device.enter(&host, Some(newer), &put("a", "new")).expect("written in another session");
    let objects = host.objects().clone();
    let answer = host.carry(device.vault, &held);
    device.session = held_session;
    assert_eq!(device.read(&answer), Err(ErrorCode::Superseded));
    assert_eq!(*host.objects(), objects, "never executed");
    bystander.is_served();
}

#[test]
fn the_same_write_again_has_its_first_outcome() {
    let host = Host::start();
    let mut device = Puppet::with_vault(&host);
    let number = device.sequence;
    let first = device.put(&host, "a", "1").expect("written");
    let objects = host.objects().clone();
    for _ in 0..3 {
        assert_eq!(device.ask(&host, Some(number), &put("a", "1")), Ok(first.clone()));
    }
    host.evict(device.vault);
    assert_eq!(device.enter(&host, Some(number), &put("a", "1")), Ok(first));
    assert_eq!(*host.objects(), objects, "written once");
    // Its number with another content is nobody's honest write.
    assert_eq!(device.ask(&host, Some(number), &put("a", "2")), Err(ErrorCode::InvalidArgument));
    assert_eq!(*host.objects(), objects);
}

#[test]
fn a_device_that_gave_up_a_write_is_not_surprised_by_it_later() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner().hurried(Duration::from_millis(1500)));
    owner.get("nothing").unwrap_err();
    owner.wire.meddle(|kind, _| if kind == DeviceFrameKind::Sealed { Deed::Keep } else { Deed::Carry });
    let given_up = owner.put("a", "old").unwrap_err();
    assert!(matches!(given_up, VaultError::OutcomeUnknown), "{given_up}");
    let held = owner.wire.frames().pop().unwrap();
    owner.wire.carry_on();
    let revision = owner.put("a", "new").expect("written");
    let objects = host.objects().clone();
    let released = host.carry(owner.id(), &held);
    assert!(matches!(released, VaultFrame::Sealed { .. }), "judged inside the session: {released:?}");
    assert_eq!(*host.objects(), objects, "never executed");
    assert_eq!(owner.get("a").unwrap(), "new");
    // Wanted again, it is a new write, and says so by its revision.
    assert_eq!(owner.put("a", "old").unwrap(), revision + 1);
    assert_eq!(owner.get("a").unwrap(), "old");
    bystander.is_served();
}

#[test]
fn below_the_window_nothing_is_claimed() {
    let host = Host::start();
    let mut device = Puppet::with_vault(&host);
    let held = device.seal_next(&put("a", "old"));
    for _ in 0..64 {
        assert!(matches!(device.put(&host, "b", "new"), Ok(Answer::Written { .. })));
    }
    let objects = host.objects().clone();
    let answer = host.carry(device.vault, &held);
    assert_eq!(device.read(&answer), Err(ErrorCode::OutcomeUnknown));
    assert_eq!(*host.objects(), objects, "never executed");
}
