//! A device speaks another version of the protocol.

use casemate_e2e::hostile::{Host, Puppet};
use casemate_protocol::error::ErrorCode;

/// A frame's map with one key and value more.
fn with_field(frame: &[u8], key: &[u8], value: u8) -> Vec<u8> {
    let mut frame = frame.to_vec();
    assert!((0xa0..0xb7).contains(&frame[0]), "a short map");
    frame[0] += 1;
    [&frame, key, &[value]].concat()
}

#[test]
fn versions_and_critical_fields_that_are_not_known_are_refused() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let hello = device.hello();
    // The first field is the version, a byte.
    assert_eq!(hello[1..3], [0x00, casemate_protocol::PROTOCOL_VERSION]);
    let mut counted = 0;
    for version in [0, 2, 23] {
        let mut other = hello.clone();
        other[2] = version;
        let answer = host.carry(device.vault, &other);
        counted += 1;
        assert_eq!(device.read(&answer), Err(ErrorCode::UnsupportedVersion), "version {version}");
        assert_eq!(host.refusals().bad_frame, counted);
    }
    // Key 64 must be understood; key 63 need not.
    let answer = host.carry(device.vault, &with_field(&hello, &[0x18, 64], 0));
    assert_eq!(device.read(&answer), Err(ErrorCode::UnsupportedVersion), "a critical field");
    assert_eq!(host.refusals().bad_frame, counted + 1);
    let welcome = host.carry(device.vault, &with_field(&hello, &[0x18, 63], 0));
    device.welcome(&welcome).expect("an optional field is ignored");
    bystander.is_served();
}
