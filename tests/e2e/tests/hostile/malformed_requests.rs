//! A device seals what is no request.

use casemate_e2e::hostile::{Host, Puppet, get, put};
use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::reply::Outcome;
use casemate_protocol::request::Request;

/// Bytes that are no request of this version.
fn malformed() -> Vec<(&'static str, Vec<u8>)> {
    let request = codec::encode(&Request { sequence: Some(99), head: None, operation: put("a", "planted") });
    let mut trailing = request.clone();
    trailing.push(0);
    vec![
        ("nothing", Vec::new()),
        ("a break alone", vec![0xff]),
        ("a text", b"\x65hello".to_vec()),
        ("an endless map", vec![0xbf, 0xff]),
        ("a map that announces 2^64 - 1 entries", vec![0xbb, 255, 255, 255, 255, 255, 255, 255, 255]),
        ("a byte string that announces 2^63 bytes", vec![0x5b, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("arrays in arrays", vec![0x81; 5000]),
        ("tags in tags", vec![0xc1; 5000]),
        ("a float", vec![0xfb, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("a request cut short", request[..request.len() - 1].to_vec()),
        ("a request and a byte", trailing),
        ("an unknown operation", vec![0xa1, 0x02, 0x82, 0x18, 0xfe, 0xa0]),
        ("a field twice", [&[0xa2, 0x00, 0x01, 0x00, 0x02][..]].concat()),
        ("random", (0..=255).collect()),
    ]
}

#[test]
fn each_is_refused_inside_the_session_and_the_vault_is_unharmed() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let objects = host.objects().clone();
    for (number, (what, bytes)) in (1..).zip(malformed()) {
        let frame = device.seal_bytes(&bytes);
        let answer = host.carry(device.vault, &frame);
        let reply = device.open(&answer).expect("an authentic answer");
        let Outcome::Refused(refusal) = reply.outcome else { panic!("{what}") };
        assert_eq!((refusal.code, reply.request_hash), (ErrorCode::Malformed, [0; 32]), "{what}");
        assert_eq!(host.refusals().bad_frame, number, "{what}");
    }
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()), "in the same session");
    device.put(&host, "b", "2").expect("and it writes");
    assert!(host.objects().0.len() == objects.0.len() + 1 && host.health().vaults.crashed == 0);
    bystander.is_served();
}

#[test]
fn each_is_refused_as_a_first_request_too() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let objects = host.objects().clone();
    for (number, (what, bytes)) in (1..).zip(malformed()) {
        let (session, _) = device.greet(&host);
        let frame = device.finish_with(session, Some(&bytes));
        let answer = host.carry(device.vault, &frame);
        assert_eq!(device.read(&answer), Err(ErrorCode::Malformed), "{what}");
        assert_eq!(host.refusals().bad_frame, number, "{what}");
    }
    assert_eq!(*host.objects(), objects);
    device.enter(&host, None, &get("a")).expect("it is let in with a request that is one");
    assert_eq!(host.health().vaults.crashed, 0);
    bystander.is_served();
}

#[test]
fn frames_that_are_none_reach_no_vault() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    for (number, (what, bytes)) in (1..).zip(malformed()) {
        let answer = host.carry(device.vault, &bytes);
        assert_eq!(device.read(&answer), Err(ErrorCode::Malformed), "{what}");
        assert_eq!(host.refusals().bad_frame, number, "{what}");
    }
    device.get(&host, "a").expect_err("nothing is written");
    bystander.is_served();
}
