//! The store shows an earlier state of a vault, or none.

use std::time::Duration;

use casemate_client::{Explain, Kind, VaultError};
use casemate_e2e::hostile::Host;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::limits::HEAD_HASHES;
use casemate_protocol::link::{BlobCall, BlobReply, LogEvent};

#[test]
fn an_older_version_after_a_restart_is_a_rollback() {
    let mut host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "old").unwrap();
    let backup = host.objects().clone();
    owner.put("a", "new").unwrap();
    host.objects().show(owner.id(), &backup);
    let shown = host.objects().clone();
    host.restart_enclave();
    for error in [owner.get("a").unwrap_err(), owner.put("a", "newer").unwrap_err()] {
        let VaultError::Rollback(heads) = &error else { panic!("a rollback, not {error}") };
        assert_eq!((heads.held.version, heads.found.map(|found| found.version)), (3, Some(2)));
        assert_eq!(error.code(), ErrorCode::RollbackDetected.as_str());
    }
    assert_eq!(*host.objects(), shown, "nothing was written over the older state");
    assert_eq!(host.refusals().rollback, 2);
    host.await_log(LogEvent::RollbackDetected);
    bystander.is_served();
}

#[test]
fn a_device_that_holds_a_head_believes_no_absence() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "1").unwrap();
    let vanished = |counted| {
        let error = owner.get("a").unwrap_err();
        let VaultError::Rollback(heads) = &error else { panic!("a rollback, not {error}") };
        assert_eq!((heads.held.version, heads.found, error.kind()), (2, None, Kind::Rollback));
        assert_eq!(host.refusals().vanished, counted);
    };
    // Everything is shown but at the load.
    host.evict(owner.id());
    let id = owner.id();
    host.lie(move |call, honest| match call {
        BlobCall::Load(vault) if *vault == id => BlobReply::Loaded { versions: Vec::new(), keys: Vec::new() },
        _ => honest,
    });
    vanished(1);
    host.tell_the_truth();
    assert_eq!(owner.get("a").unwrap(), "1", "the truth is believed at once");
    // Nothing is there at all.
    host.evict(owner.id());
    host.objects().forget(owner.id());
    vanished(2);
    vanished(3);
    assert!(host.objects().versions(owner.id()).is_empty(), "nothing re-creates by itself");
    bystander.is_served();
}

#[test]
fn a_head_older_than_the_kept_history_needs_a_person() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner());
    owner.put("a", "0").unwrap();
    let long_away = owner.copy(&host);
    for number in 0..=HEAD_HASHES {
        owner.put("a", &number.to_string()).unwrap();
    }
    let error = long_away.get("a").unwrap_err();
    let VaultError::HistoryUnknown(heads) = &error else { panic!("history unknown, not {error}") };
    assert_eq!(heads.held.version, 2);
    assert_eq!(error.code(), ErrorCode::HistoryUnknown.as_str());
    assert_eq!(host.refusals().history_unknown, 1);
    assert_eq!(owner.get("a").unwrap(), HEAD_HASHES.to_string());
    bystander.is_served();
}

#[test]
fn a_store_that_says_nothing_makes_nobody_believe_anything() {
    let host = Host::start();
    let (bystander, owner) = (host.owner(), host.owner().hurried(Duration::from_secs(2)));
    owner.get("a").unwrap_err();
    let id = owner.id();
    host.lie(move |call, honest| match call {
        BlobCall::Newest(vault) | BlobCall::Load(vault) if *vault == id => BlobReply::Failed("no".to_owned()),
        _ => honest,
    });
    host.evict(owner.id());
    let error = owner.get("a").unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error}");
    assert!(host.health().store_failures > 0);
    host.tell_the_truth();
    bystander.is_served();
}
