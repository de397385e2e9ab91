//! One bit of a frame is another one, on either way.

use casemate_e2e::hostile::{Deed, Host, Owner, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind, VaultFrame};
use casemate_protocol::limits::DEADLINE_DEFAULT;
use casemate_protocol::session::SessionError;

#[test]
fn no_flipped_bit_of_a_sealed_request_is_executed() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let frame = device.seal(None, &get("a"));
    let DeviceFrame::Sealed { session, run } = DeviceFrame::decode(&frame).unwrap() else { panic!("sealed") };
    let refuses = |session: [u8; 16], counter, ciphertext: Vec<u8>, code| {
        let run = casemate_protocol::frame::SealedRun { counter, ciphertext };
        let changed = DeviceFrame::Sealed { session, run }.encode(DEADLINE_DEFAULT);
        assert_eq!(host.refuses(device.vault, &changed), code);
    };
    for at in 0..run.ciphertext.len() {
        refuses(session, run.counter, flipped(&run.ciphertext, at), ErrorCode::Malformed);
    }
    for bit in 0..64 {
        refuses(session, run.counter ^ (1 << bit), run.ciphertext.clone(), counter_code(bit));
    }
    for at in 0..16 {
        refuses(
            flipped(&session, at).try_into().unwrap(),
            run.counter,
            run.ciphertext.clone(),
            ErrorCode::SessionUnknown,
        );
    }
    let counted = host.refusals();
    let past_the_end = (0..64).filter(|bit| counter_code(*bit) == ErrorCode::SessionUnknown).count();
    assert_eq!(counted.bad_frame, (run.ciphertext.len() + 64 - past_the_end) as u64);
    assert_eq!(counted.session_unknown, (16 + past_the_end) as u64);
    // None of them left a trace: the frame itself is still answered.
    let answer = host.carry(device.vault, &frame);
    device.read(&answer).expect("the honest frame");
    bystander.is_served();
}

/// A counter beyond a session's last one says that the session has ended, whoever says it.
fn counter_code(bit: u32) -> ErrorCode {
    if bit >= 20 { ErrorCode::SessionUnknown } else { ErrorCode::Malformed }
}

#[test]
fn no_flipped_bit_of_a_handshake_makes_a_session() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    // Message 1 is one public key: whatever it is, message 2 opens for nobody who did not send it.
    let hello = device.hello();
    let DeviceFrame::Hello { noise } = DeviceFrame::decode(&hello).unwrap() else { panic!("a hello") };
    let changed = DeviceFrame::Hello { noise: flipped(&noise, 7) }.encode(DEADLINE_DEFAULT);
    let welcome = host.carry(device.vault, &changed);
    assert_eq!(device.welcome(&welcome).unwrap_err(), SessionError::Handshake);
    // Message 2.
    for at in (0..4000).step_by(211) {
        let hello = device.hello();
        let VaultFrame::Welcome { session, noise } = host.carry(device.vault, &hello) else { panic!("a welcome") };
        let changed = VaultFrame::Welcome { session, noise: flipped(&noise, at % noise.len()) };
        assert_eq!(device.welcome(&changed).unwrap_err(), SessionError::Handshake, "byte {at}");
    }
    assert_eq!(host.refusals().bad_frame, 0);
    // Message 3.
    let mut refused = 0;
    for at in (0..160).step_by(13) {
        let (session, _) = device.greet(&host);
        let finish = device.finish_with(session, None);
        let DeviceFrame::Finish { session, noise } = DeviceFrame::decode(&finish).unwrap() else { panic!("a finish") };
        let noise = flipped(&noise, at % noise.len());
        let changed = DeviceFrame::Finish { session, noise }.encode(DEADLINE_DEFAULT);
        assert_eq!(host.refuses(device.vault, &changed), ErrorCode::Malformed, "byte {at}");
        // A handshake can be ended once, well or badly.
        assert_eq!(host.refuses(device.vault, &finish), ErrorCode::SessionUnknown);
        refused += 1;
    }
    assert_eq!((host.refusals().bad_frame, host.refusals().session_unknown), (refused, refused));
    device.enter(&host, None, &get("a")).expect_err("nothing is written yet");
    bystander.is_served();
}

#[test]
fn a_device_believes_no_flipped_answer_and_asks_again() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), Owner::new(&host));
    owner.create();
    let revision = owner.put("a", "1").unwrap();
    for kind in [DeviceFrameKind::Sealed, DeviceFrameKind::Finish, DeviceFrameKind::Hello] {
        if kind != DeviceFrameKind::Sealed {
            owner.disconnect();
        }
        let before = owner.wire.count(DeviceFrameKind::Hello);
        owner.wire.meddle_once(kind, Deed::Change(Box::new(|answer| flipped(&answer, answer.len() - 5))));
        assert_eq!(owner.get("a").unwrap(), "1", "{kind:?}");
        assert!(owner.wire.count(DeviceFrameKind::Hello) > before, "it made a new session after {kind:?}");
        owner.wire.carry_on();
    }
    // A write whose answer was changed was done, once.
    owner
        .wire
        .meddle_once(DeviceFrameKind::Sealed, Deed::Change(Box::new(|answer| flipped(&answer, answer.len() - 5))));
    assert_eq!(owner.put("a", "2").unwrap(), revision + 1);
    assert_eq!(host.objects().versions(owner.id()).len() as u64, owner.record().head().unwrap().version);
    bystander.is_served();
}

fn flipped(bytes: &[u8], at: usize) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1;
    bytes
}
