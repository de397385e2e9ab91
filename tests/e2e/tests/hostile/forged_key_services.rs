//! Somebody answers in the key service's place, or it answers what it cannot answer.

use casemate_e2e::Node;
use casemate_e2e::hostile::{Host, Owner, Puppet};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::link::LogEvent;
use serde_json::Value;

#[test]
fn an_impostor_with_another_certificate_is_told_nothing() {
    let mut impostor = Node::prepare("");
    impostor.start_kms();
    let host = Host::start();
    host.relay_to(impostor.kms_address());
    let mut device = Puppet::new();
    assert_eq!(device.create(&host), Err(ErrorCode::Unavailable));
    let counts: Value = serde_json::from_str(&impostor.kms_control(&["counts"])).unwrap();
    assert_eq!(counts["counts"], serde_json::json!({}), "TLS ended before a request was sent");
    assert!(host.health().kms.failures > 0);
    host.await_log(LogEvent::KeyServiceFailed);
    assert!(host.objects().0.is_empty(), "no key of the impostor's is kept");
    host.relay_to(host.node.kms_address());
    Puppet::in_shard(device.vault.shard(), false).create(&host).expect("the real one is believed");
}

#[test]
fn answers_that_the_key_service_cannot_give_are_not_believed() {
    let host = Host::start();
    let bystander = host.owner();
    let mut shards = vec![bystander.id().shard()];
    for (number, mode) in (1..).zip(["plaintext", "wrong-key-id", "swap-recipient", "garbage"]) {
        let mut device = Puppet::new();
        while shards.contains(&device.vault.shard()) {
            device = Puppet::new();
        }
        shards.push(device.vault.shard());
        host.node.kms_control(&[mode]);
        assert_eq!(device.create(&host), Err(ErrorCode::Unavailable), "{mode}");
        assert_eq!(host.health().kms.forged, number, "{mode}");
        assert!(host.objects().versions(device.vault).is_empty(), "{mode}");
        bystander.is_served();
        host.node.kms_control(&["healthy"]);
    }
    host.await_log(LogEvent::KeyServiceForged);
    // The key service is believed again as soon as it is itself.
    let owner = Owner::new(&host);
    owner.create();
    owner.is_served();
}
