//! A genuine image is given another trust configuration: at its start, or while it runs.

use casemate_client::judge::Distrust;
use casemate_client::{Explain, VaultError};
use casemate_e2e::hostile::{Host, Plan};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::DeviceFrameKind;
use casemate_protocol::link::{ControlCall, ControlReply, LogEvent, Tuning};

/// The cluster's own KMS key, and a release key of the host's: it would accept the host's images as peers.
fn with_a_key_of_the_hosts() -> Plan {
    Plan { release_keys: vec![[6; 32]], ..Plan::default() }
}

#[test]
fn it_is_another_cluster_for_devices_and_for_the_key_service() {
    let mut host = Host::start();
    let owner = host.owner();
    owner.put("a", "1").unwrap();
    host.plan(&with_a_key_of_the_hosts());
    host.restart_enclave();
    let sent = owner.wire.count(DeviceFrameKind::Finish);
    let error = owner.get("a").unwrap_err();
    let found = host.health().cluster.unwrap();
    let VaultError::Distrusted(Distrust::Cluster { found: shown, .. }) = &error else { panic!("{error}") };
    assert_eq!((shown.0, error.code().as_str()), (found, "other_cluster"));
    assert_eq!(owner.wire.count(DeviceFrameKind::Finish), sent, "no lock key left the device");
    // A device that were fooled would not help: the key service binds each shard's key to the cluster.
    let fooled = owner.copy(&host).fooled(found);
    let error = fooled.get("a").unwrap_err();
    assert!(matches!(&error, VaultError::Refused(refusal) if refusal.code == ErrorCode::StateCorrupt), "{error}");
    assert_eq!(host.refusals().state_corrupt, 1);
    // The true configuration again: nothing was lost.
    host.plan(&Plan::default());
    host.restart_enclave();
    assert_eq!(owner.get("a").unwrap(), "1");
}

#[test]
fn the_first_one_holds_until_the_enclave_ends() {
    let host = Host::start();
    let owner = host.owner();
    let cluster = host.health().cluster;
    for number in 1..=2 {
        let answer = host.offer(&with_a_key_of_the_hosts());
        assert!(matches!(&answer, ControlReply::Refused(ErrorCode::AlreadyExists, _)), "{answer:?}");
        assert_eq!(host.refusals().reconfiguration, number);
    }
    host.await_log(LogEvent::ReconfigureRefused);
    for trust_configuration in [Vec::new(), vec![0xa4; 5000], b"not one".to_vec()] {
        let answer = host.order(&ControlCall::Configure { trust_configuration, tuning: Tuning::default() });
        assert!(matches!(&answer, ControlReply::Refused(ErrorCode::InvalidArgument, _)), "{answer:?}");
    }
    assert_eq!(host.health().cluster, cluster);
    // What a device judges is made anew for each session.
    owner.disconnect();
    host.evict(owner.id());
    owner.is_served();
    assert_eq!(host.offer(&Plan::default()), ControlReply::Done, "the same one again");
}
