//! A device does things in another order than the protocol's.

use casemate_e2e::hostile::{Host, Puppet, get, put};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, SealedRun};
use casemate_protocol::head::Head;
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::reply::Answer;
use casemate_protocol::request::Operation;

fn sealed(session: [u8; 16]) -> Vec<u8> {
    let run = SealedRun { counter: 0, ciphertext: vec![3; 200] };
    DeviceFrame::Sealed { session, run }.encode(DEADLINE_DEFAULT)
}

#[test]
fn without_a_handshake_there_is_no_session() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let nobody = Puppet::new();
    let finish = DeviceFrame::Finish { session: [7; 16], noise: vec![1; 200] }.encode(DEADLINE_DEFAULT);
    let mut counted = 0;
    for vault in [device.vault, nobody.vault] {
        for frame in [&sealed([7; 16]), &finish] {
            let answer = host.carry(vault, frame);
            assert_eq!(device.read(&answer), Err(ErrorCode::SessionUnknown));
            counted += 1;
            assert_eq!(host.refusals().session_unknown, counted);
        }
    }
    // Sealed into a handshake that is not finished.
    let (session, _) = device.greet(&host);
    let answer = host.carry(device.vault, &sealed(session));
    assert_eq!(device.read(&answer), Err(ErrorCode::SessionUnknown));
    assert_eq!(host.refusals().session_unknown, counted + 1);
    bystander.is_served();
}

#[test]
fn a_second_hello_is_a_second_session_and_the_first_goes_on() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let first = device.session.take();
    for _ in 0..40 {
        device.greet(&host);
    }
    device.enter(&host, None, &get("a")).expect("unfinished ones are in nobody's way");
    device.session = first;
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    bystander.is_served();
}

#[test]
fn a_vault_is_created_once_and_by_its_owner() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let objects = host.objects().clone();
    assert_eq!(device.create(&host), Err(ErrorCode::AlreadyExists), "a second time");
    assert_eq!(*host.objects(), objects);
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    // A name that this device's key and salt do not give.
    let mut thief = Puppet::new();
    thief.vault = Puppet::new().vault;
    assert_eq!(thief.create(&host), Err(ErrorCode::NotFound));
    // Anything but a creation of a vault that is not there.
    let mut early = Puppet::new();
    assert_eq!(early.enter(&host, Some(1), &put("a", "1")), Err(ErrorCode::NotFound));
    assert_eq!(early.enter(&host, None, &Operation::Status), Err(ErrorCode::NotFound));
    assert_eq!(*host.objects(), objects);
    early.create(&host).expect("and then it is created all the same");
    bystander.is_served();
}

#[test]
fn a_mutation_has_a_number_and_numbers_rise() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    assert_eq!(device.ask(&host, None, &put("a", "1")), Err(ErrorCode::InvalidArgument), "without a number");
    assert_eq!(device.ask(&host, Some(0), &put("a", "1")), Err(ErrorCode::Superseded), "below the creation's");
    let last = device.ask(&host, Some(u64::MAX), &put("a", "1"));
    assert!(matches!(last, Ok(Answer::Written { .. })), "{last:?}");
    // It has used its last number: it harmed itself, and nothing else.
    assert_eq!(device.ask(&host, Some(5), &put("a", "2")), Err(ErrorCode::Superseded));
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    host.evict(device.vault);
    device.enter(&host, None, &get("a")).expect("it opens again");
    assert_eq!(host.health().vaults.crashed, 0);
    bystander.is_served();
}

#[test]
fn a_head_that_this_vault_did_not_make_is_refused() {
    let host = Host::start();
    let (bystander, mut device, other) = (host.owner(), Puppet::with_vault(&host), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let own = device.head.unwrap();
    let forged = [
        other.head.unwrap(),
        Head { tag: [0; 32], ..own },
        Head { version: own.version + 1, ..own },
        Head { version: u64::MAX, ..own },
        Head { version: 0, ..own },
        Head { hash: [0; 32], ..own },
    ];
    for (number, head) in (1..).zip(forged) {
        device.head = Some(head);
        assert_eq!(device.get(&host, "a"), Err(ErrorCode::HeadInvalid), "{head:?}");
        assert_eq!(device.put(&host, "a", "planted"), Err(ErrorCode::HeadInvalid), "{head:?}");
        assert_eq!(host.refusals().head_invalid, 2 * number);
        assert_eq!(host.objects().versions(device.vault).len(), 2, "nothing was written");
    }
    device.head = Some(own);
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    bystander.is_served();
}
