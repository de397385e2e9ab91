//! Frames come in another order, twice, or long after.

use casemate_e2e::hostile::{Host, Puppet, get, put};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::limits::REPLAY_WINDOW;
use casemate_protocol::reply::Answer;

#[test]
fn order_does_not_matter_within_the_window_and_nothing_counts_twice() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let written = device.put(&host, "a", "1");
    assert!(matches!(written, Ok(Answer::Written { .. })), "{written:?}");
    let frames: Vec<_> = (0..4).map(|_| device.seal(None, &get("a"))).collect();
    for frame in [&frames[3], &frames[1], &frames[2], &frames[0]] {
        let answer = host.carry(device.vault, frame);
        device.read(&answer).expect("each is answered once, in whatever order");
    }
    for frame in &frames {
        let answer = host.carry(device.vault, frame);
        assert_eq!(device.read(&answer), Err(ErrorCode::Malformed), "a second time");
    }
    assert_eq!(host.refusals().bad_frame, 4);
    bystander.is_served();
}

#[test]
fn a_replayed_write_is_written_once() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let frame = device.seal_next(&put("a", "1"));
    let answer = host.carry(device.vault, &frame);
    device.read(&answer).expect("written");
    let objects = host.objects().clone();
    let answer = host.carry(device.vault, &frame);
    assert_eq!(device.read(&answer), Err(ErrorCode::Malformed));
    host.evict(device.vault);
    let answer = host.carry(device.vault, &frame);
    assert_eq!(device.read(&answer), Err(ErrorCode::SessionUnknown), "its session ended with the process");
    device.enter(&host, None, &get("a")).expect("the vault is open again");
    let answer = host.carry(device.vault, &frame);
    assert_eq!(device.read(&answer), Err(ErrorCode::SessionUnknown));
    assert_eq!(*host.objects(), objects, "nothing was written again");
    assert_eq!((host.refusals().bad_frame, host.refusals().session_unknown), (1, 2));
    bystander.is_served();
}

#[test]
fn a_frame_older_than_the_window_is_too_old() {
    let host = Host::start();
    let mut device = Puppet::with_vault(&host);
    device.put(&host, "a", "1").unwrap();
    let (held, kept) = (device.seal(None, &get("a")), device.seal(None, &get("a")));
    for _ in 0..REPLAY_WINDOW - 1 {
        device.get(&host, "a").unwrap();
    }
    let answer = host.carry(device.vault, &kept);
    device.read(&answer).expect("the oldest that the window holds");
    let answer = host.carry(device.vault, &held);
    assert_eq!(device.read(&answer), Err(ErrorCode::Malformed));
    assert_eq!(host.refusals().bad_frame, 1);
}

#[test]
fn a_replayed_handshake_ends_in_no_session() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let hello = device.hello();
    let welcome = host.carry(device.vault, &hello);
    let (session, _) = device.welcome(&welcome).unwrap();
    let finish = device.finish_with(session, None);
    let answer = host.carry(device.vault, &finish);
    device.read(&answer).expect("let in");
    // The same messages again: another session is begun, and message 3 ends neither.
    let again = host.carry(device.vault, &hello);
    assert_ne!(again, welcome);
    let answer = host.carry(device.vault, &finish);
    assert_eq!(device.read(&answer), Err(ErrorCode::SessionUnknown));
    assert_eq!(host.refusals().session_unknown, 1);
    bystander.is_served();
}
