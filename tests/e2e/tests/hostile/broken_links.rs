//! The parent breaks the rules of the link: in its hello, in its records, in what it answers, in how much it asks.

use casemate_e2e::census;
use casemate_e2e::hostile::{Host, Misdeed, Puppet};
use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::limits::{RECORD_BYTES, WINDOW_REQUESTS};
use casemate_protocol::link::{Class, HelloReply, RequestCall, RequestReply};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Handshakes that may be begun at once with one vault, and fewer.
const HELLOS_OF_A_VAULT: usize = 32;
const CLASSES: [Class; 3] = [Class::Control, Class::Requests, Class::Blobs];

/// A record: payload length, stream, flags (1 first, 2 last, 4 reply), payload.
fn record(stream: u64, flags: u8, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [length.as_slice(), &stream.to_be_bytes(), &[flags], payload].concat()
}

/// The payload of a message's first record.
fn first(total: u32, bytes: &[u8]) -> Vec<u8> {
    [total.to_be_bytes().as_slice(), bytes].concat()
}

#[test]
fn no_false_hello_begins_a_connection() {
    let host = Host::start();
    let bystander = host.owner();
    let reply = |version| HelloReply { version, build: "hostile".to_owned(), refused: None };
    let lies = [
        Misdeed::hello(&codec::encode(&reply(Some(0)))),
        Misdeed::hello(&codec::encode(&reply(Some(7)))),
        Misdeed::hello(&codec::encode(&reply(None))),
        Misdeed::hello(b"HTTP/1.1 200 OK"),
        Misdeed::hello(&[]),
        Misdeed::InsteadOfHello(vec![0xff; 64]),
        Misdeed::InsteadOfHello(vec![0, 0, 4, 1]),
    ];
    let counted = lies.len() as u64;
    for ((number, lie), class) in (1..).zip(lies).zip(CLASSES.into_iter().cycle()) {
        host.misbehave(class, lie.clone());
        assert_eq!(host.refusals().link_broken, number, "{lie:?} on {class:?}");
    }
    // A refusal is no breach; it is dialled again.
    let refused = HelloReply { refused: Some("\u{1b}[2J no".repeat(40)), ..reply(None) };
    host.misbehave(Class::Blobs, Misdeed::hello(&codec::encode(&refused)));
    assert_eq!(host.refusals().link_broken, counted);
    bystander.is_served();
}

#[test]
fn the_first_broken_record_ends_the_connection() {
    let host = Host::start();
    let bystander = host.owner();
    let longest = u32::try_from(RECORD_BYTES).unwrap();
    let lies = [
        ("unknown flags", record(1, 0xf8, &first(1, b"x"))),
        ("a payload over 64 KiB", [(longest + 1).to_be_bytes().as_slice(), &[0; 8], &[3]].concat()),
        ("a message over its limit", record(1, 1, &first(u32::MAX, b"x"))),
        ("no room for the length", record(1, 3, &[0, 0, 0])),
        ("shorter than it says", record(1, 3, &first(2, b"x"))),
        ("longer than it says", record(1, 3, &first(1, b"xy"))),
        ("a piece of no message", record(1, 0, b"x")),
        ("an empty piece", [record(1, 1, &first(9, b"x")), record(1, 0, b"")].concat()),
        ("one message begun twice", [record(1, 1, &first(9, b"x")), record(1, 1, &first(9, b"x"))].concat()),
        ("a last piece too early", [record(1, 1, &first(9, b"x")), record(1, 2, b"y")].concat()),
        ("an answer to no call", record(999_999, 7, &first(1, b"x"))),
    ];
    for ((number, (what, bytes)), class) in (1..).zip(lies).zip(CLASSES.into_iter().cycle()) {
        host.misbehave(class, Misdeed::AfterHello(bytes));
        assert_eq!(host.refusals().link_broken, number, "{what} on {class:?}");
    }
    bystander.is_served();
}

#[test]
fn more_unfinished_messages_than_the_window_end_the_connection() {
    let host = Host::start();
    let bystander = host.owner();
    let begun: Vec<u8> =
        (0..=u64::try_from(WINDOW_REQUESTS).unwrap()).flat_map(|number| record(number, 1, &first(9, b"x"))).collect();
    for (number, class) in (1..).zip(CLASSES) {
        host.misbehave(class, Misdeed::AfterHello(begun.clone()));
        assert_eq!(host.refusals().link_broken, number);
    }
    bystander.is_served();
}

#[test]
fn more_calls_than_the_window_end_the_connection_and_not_the_supervisor() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let host = Host::start();
    let bystander = host.owner();
    // A zygote that makes no process keeps every call to a new vault open.
    let enclave = host.node.enclave.as_ref().unwrap().pid().as_raw().unsigned_abs();
    let zygote = census::family(enclave).unwrap().into_iter().find(|member| member.parent == enclave).unwrap();
    let zygote = Pid::from_raw(zygote.pid.try_into().unwrap());
    kill(zygote, Signal::SIGSTOP).unwrap();
    // An honest parent counts its window and stops there.
    let mut stranger = Puppet::new();
    let beyond: Vec<u8> = (0..=WINDOW_REQUESTS)
        .flat_map(|number| {
            if number % HELLOS_OF_A_VAULT == 0 {
                stranger = Puppet::new();
            }
            let call = RequestCall::Vault { vault: stranger.vault, deadline_ms: 1000, frame: stranger.hello() };
            let call = codec::encode(&call);
            record(number as u64, 3, &first(u32::try_from(call.len()).unwrap(), &call))
        })
        .collect();
    host.misbehave(Class::Requests, Misdeed::AfterHello(beyond));
    assert_eq!(host.refusals().link_broken, 1);
    // What was begun fills the node until its second is over.
    bystander.is_served();
    kill(zygote, Signal::SIGCONT).unwrap();
    host.owner().is_served();
    assert_eq!(host.health().vaults.crashed, 0);
}

#[test]
fn calls_that_are_none_are_answered_and_counted() {
    let host = Host::start();
    let bystander = host.owner();
    for (number, body) in (1..).zip([&b"\xff"[..], b"\x00", b"\x82\x09\x80", b"made up"]) {
        let answer = host.call_requests(body.to_vec());
        let RequestReply::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.code, ErrorCode::Malformed);
        assert_eq!(host.refusals().bad_frame, number);
    }
    for nonce in [0, 7, 65, 4096] {
        let answer = host.call_requests(codec::encode(&RequestCall::Attest { nonce: vec![1; nonce] }));
        let RequestReply::Refused(refusal) = answer else { panic!("{answer:?}") };
        assert_eq!(refusal.code, ErrorCode::InvalidArgument);
    }
    assert!(matches!(
        host.call_requests(codec::encode(&RequestCall::Attest { nonce: vec![1; 8] })),
        RequestReply::Evidence(_)
    ));
    bystander.is_served();
}
