//! Two branches of one vault are shown to two devices. Enrolling a second device is not built yet: the second home is a copy of the
//! first one's, which holds what the first held then and learns nothing of what it did since. To the vault both are one device.

use casemate_client::{Explain, VaultError};
use casemate_e2e::hostile::{Host, Owner};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::link::LogEvent;

fn is_a_fork(owner: &Owner) {
    for error in [owner.get("a").unwrap_err(), owner.put("a", "more").unwrap_err()] {
        assert!(matches!(&error, VaultError::Fork(_)), "a fork, not {error}");
        assert_eq!(error.code(), ErrorCode::ForkDetected.as_str());
    }
}

#[test]
fn each_device_refuses_the_others_branch() {
    let mut host = Host::start();
    let (bystander, one) = (host.owner(), host.owner());
    one.put("a", "common").unwrap();
    let other = one.copy(&host);
    let common = host.objects().clone();
    // To one device the host shows this branch …
    one.put("a", "one's").unwrap();
    let ones = host.objects().clone();
    // … and to the other that one, which parts from it at the last common version.
    host.evict(one.id());
    host.objects().show(one.id(), &common);
    other.put("a", "other's").unwrap();
    let others = host.objects().clone();
    assert_eq!(other.record().head().unwrap().version, one.record().head().unwrap().version);

    is_a_fork(&one);
    assert_eq!(host.refusals().fork, 2);
    assert_eq!(other.get("a").unwrap(), "other's");
    host.await_log(LogEvent::ForkDetected);

    host.objects().show(one.id(), &ones);
    host.restart_enclave();
    is_a_fork(&other);
    assert_eq!(host.refusals().fork, 2);
    assert_eq!(one.get("a").unwrap(), "one's");
    assert_eq!(host.objects().versions(one.id()), ones.versions(one.id()), "no branch grew by it");
    assert_ne!(ones.versions(one.id()), others.versions(one.id()));
    bystander.is_served();
}

#[test]
fn a_branch_that_has_grown_longer_is_no_more_believed() {
    let host = Host::start();
    let (bystander, one) = (host.owner(), host.owner());
    one.put("a", "common").unwrap();
    let other = one.copy(&host);
    let common = host.objects().clone();
    one.put("a", "one's").unwrap();
    host.evict(one.id());
    host.objects().show(one.id(), &common);
    for number in 0..20 {
        other.put("a", &number.to_string()).unwrap();
    }
    // The first device's head lies below the branch's newest version, and is not in its history.
    is_a_fork(&one);
    assert_eq!(host.refusals().fork, 2);
    bystander.is_served();
}

#[test]
fn a_branch_put_under_an_open_vault_is_not_continued() {
    let host = Host::start();
    let (bystander, one) = (host.owner(), host.owner());
    one.put("a", "common").unwrap();
    let other = one.copy(&host);
    let common = host.objects().clone();
    one.put("a", "one's").unwrap();
    host.evict(one.id());
    host.objects().show(one.id(), &common);
    for number in 0..3 {
        other.put("a", &number.to_string()).unwrap();
    }
    let longer = host.objects().clone();
    // The vault is opened over the common state; then the host shows the longer branch to the process that holds the shorter one.
    host.evict(one.id());
    host.objects().show(one.id(), &common);
    let third = one.copy(&host);
    assert!(matches!(third.get("a").unwrap_err(), VaultError::Rollback(_)));
    host.objects().show(one.id(), &longer);
    assert_eq!(other.get("a").unwrap(), "2", "read anew for the device that has seen it");
    is_a_fork(&one);
    bystander.is_served();
}
