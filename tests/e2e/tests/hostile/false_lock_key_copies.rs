//! A header shows a false copy of the lock key: sealed to the device as a true one would be, by somebody who chose the key.

use casemate_client::{Explain, VaultError};
use casemate_e2e::hostile::{Host, Owner};
use casemate_enclave::system::OsRandomness;
use casemate_enclave::vault::lock::seal_copy;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::lock::{LockCopy, recipient_tag};
use casemate_protocol::object::{Header, Object};

/// The host's own lock key.
const FALSE: [u8; 32] = [66; 32];

/// A next version as a turn of the lock key would make it, but for what the host cannot make: commitment and body.
fn forged(host: &Host, owner: &Owner, copy: LockCopy) -> (u64, Vec<u8>) {
    let newest = host.objects().versions(owner.id()).pop().unwrap();
    let header = Object::parse(&newest.bytes).unwrap().header;
    let version = header.version + 1;
    let forged = Header {
        version,
        base: version,
        kind: casemate_protocol::object::Kind::Snapshot,
        previous: casemate_protocol::object::hash(&newest.bytes),
        root_commitment: [1; 32],
        lock_number: header.lock_number + 1,
        copies: vec![copy],
        ..header
    };
    let mut object = forged.encode_prefix();
    object.extend_from_slice(&[2; 512]);
    (version, object)
}

#[test]
fn the_device_keeps_its_own_lock_key() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "1").unwrap();
    let held = owner.record();
    let truth = host.objects().clone();
    let copy = seal_copy(owner.id(), 2, &FALSE, &owner.device().public_key(), &OsRandomness).unwrap();
    let (version, object) = forged(&host, &owner, copy);
    host.evict(owner.id());
    host.objects().set_version(owner.id(), version, object);

    let error = owner.get("a").unwrap_err();
    assert!(matches!(error, VaultError::LockedOut), "locked out, not {error}");
    assert_eq!(error.code(), ErrorCode::LockTurned.as_str());
    // Its own key and then the one of the copy: each was presented, and opened nothing.
    assert_eq!(host.refusals().lock_turned, 2);
    let kept = owner.record();
    assert!(kept.lock_key() == held.lock_key() && kept.head() == held.head(), "nothing opened under the false one");

    *host.objects() = truth;
    host.evict(owner.id());
    assert_eq!(owner.get("a").unwrap(), "1");
    assert_eq!(owner.record().lock_key(), held.lock_key());
    bystander.is_served();
}

#[test]
fn a_copy_for_nobody_makes_the_owner_a_stranger_and_costs_it_nothing() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "1").unwrap();
    let (held, truth) = (owner.record(), host.objects().clone());
    let mut copy = seal_copy(owner.id(), 2, &FALSE, &owner.device().public_key(), &OsRandomness).unwrap();
    // Listed, and sealed to another key.
    let other = seal_copy(owner.id(), 2, &FALSE, &casemate_protocol::session::public_key(&[5; 32]), &OsRandomness);
    copy.ciphertext = other.unwrap().ciphertext;
    let (version, object) = forged(&host, &owner, copy.clone());
    host.evict(owner.id());
    host.objects().set_version(owner.id(), version, object);
    assert!(matches!(owner.get("a").unwrap_err(), VaultError::LockedOut));
    assert_eq!(host.refusals().lock_turned, 1);
    // Not listed at all.
    copy.recipient = recipient_tag(owner.id(), &[9; 32]);
    host.evict(owner.id());
    *host.objects() = truth.clone();
    let (version, object) = forged(&host, &owner, copy);
    host.objects().set_version(owner.id(), version, object);
    assert_eq!(owner.get("a").unwrap_err().code(), ErrorCode::NotAuthorised.as_str());
    assert_eq!(host.refusals().stranger, 1);

    *host.objects() = truth;
    host.evict(owner.id());
    assert_eq!(owner.get("a").unwrap(), "1");
    assert_eq!(owner.record().lock_key(), held.lock_key());
    bystander.is_served();
}
