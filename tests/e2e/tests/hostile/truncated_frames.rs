//! A frame is cut short.

use casemate_e2e::hostile::{Host, Puppet, put};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, SealedRun};
use casemate_protocol::limits::DEADLINE_DEFAULT;

#[test]
fn no_part_of_a_frame_is_a_frame() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let frame = device.seal_next(&put("a", "1"));
    for length in 0..frame.len() {
        assert_eq!(host.refuses(device.vault, &frame[..length]), ErrorCode::Malformed, "{length} bytes");
    }
    // Whole CBOR around a shorter run.
    let DeviceFrame::Sealed { session, run } = DeviceFrame::decode(&frame).unwrap() else { panic!("sealed") };
    for length in 0..run.ciphertext.len() {
        let run = SealedRun { counter: run.counter, ciphertext: run.ciphertext[..length].to_vec() };
        let changed = DeviceFrame::Sealed { session, run }.encode(DEADLINE_DEFAULT);
        assert_eq!(host.refuses(device.vault, &changed), ErrorCode::Malformed, "{length} bytes");
    }
    assert_eq!(host.refusals().bad_frame, (frame.len() + run.ciphertext.len()) as u64);
    assert_eq!(host.objects().versions(device.vault).len(), 1, "nothing was written");
    let answer = host.carry(device.vault, &frame);
    device.read(&answer).expect("the whole frame");
    bystander.is_served();
}
