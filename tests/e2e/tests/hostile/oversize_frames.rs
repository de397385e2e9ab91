//! Frames and calls that are larger than they may be.

use casemate_e2e::hostile::{Host, Misdeed, Puppet};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, SealedRun};
use casemate_protocol::limits::{DEADLINE_DEFAULT, FRAME_BYTES};
use casemate_protocol::link::{Class, REQUEST_BYTES};

#[test]
fn the_limit_holds_to_the_byte() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let sealed = |ciphertext: Vec<u8>| {
        let run = SealedRun { counter: 1, ciphertext };
        DeviceFrame::Sealed { session: [7; 16], run }.encode(DEADLINE_DEFAULT)
    };
    let overhead = sealed(vec![0; FRAME_BYTES / 2]).len() - FRAME_BYTES / 2;
    let largest = sealed(vec![0; FRAME_BYTES - overhead]);
    assert_eq!(largest.len(), FRAME_BYTES);
    assert_eq!(host.refuses(device.vault, &largest), ErrorCode::SessionUnknown, "looked at");
    let larger = sealed(vec![0; FRAME_BYTES - overhead + 1]);
    assert_eq!(host.refuses(device.vault, &larger), ErrorCode::TooLarge);
    // In the session's own name: a run of as many parts as there may be, none of them genuine.
    let frame = device.seal_bytes(b"x");
    let DeviceFrame::Sealed { session, .. } = DeviceFrame::decode(&frame).unwrap() else { panic!("sealed") };
    let run = SealedRun { counter: 9, ciphertext: vec![0; FRAME_BYTES - overhead] };
    let forged = DeviceFrame::Sealed { session, run }.encode(DEADLINE_DEFAULT);
    assert_eq!(host.refuses(device.vault, &forged), ErrorCode::Malformed);
    let hello = DeviceFrame::Hello { noise: vec![9; 60_000] }.encode(DEADLINE_DEFAULT);
    assert_eq!(host.refuses(device.vault, &hello), ErrorCode::Malformed);
    assert_eq!((host.refusals().bad_frame, host.refusals().session_unknown), (3, 1));
    bystander.is_served();
}

#[test]
fn a_call_over_its_classes_limit_ends_the_connection_before_it_is_read() {
    let host = Host::start();
    let bystander = host.owner();
    // The first record of a message that announces one byte too many.
    let announced = u32::try_from(REQUEST_BYTES + 1).unwrap();
    let mut record = vec![0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0, 1, 1];
    record.extend_from_slice(&announced.to_be_bytes());
    record.push(0);
    host.misbehave(Class::Requests, Misdeed::AfterHello(record));
    assert_eq!(host.refusals().link_broken, 1);
    bystander.is_served();
}
