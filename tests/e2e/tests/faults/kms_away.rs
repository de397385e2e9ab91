//! KMS throttles, fails, answers garbage or is away, for longer than its keys live without it: cached shards go on serving, others are
//! refused with a time to try again, and health says `kms: degraded`.

use std::time::{Duration, Instant};

use casemate_client::VaultError;
use casemate_e2e::Node;
use casemate_e2e::owner::Owner;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::id::Shard;

const PATIENCE: Duration = Duration::from_secs(30);
/// Longer than the handshake and shorter than a test should take: a device without its key waits that long.
const DEADLINE: Duration = Duration::from_millis(1500);

fn await_kms(node: &Node, wanted: &str) {
    let patience = Instant::now() + PATIENCE;
    loop {
        let (status, health) = node.health().unwrap();
        assert_eq!(status, 200, "an outage of KMS takes no node out: {health}");
        if health["kms"]["state"] == wanted {
            let is_degraded = health["status"] == "degraded";
            assert_eq!(is_degraded, wanted != "ok", "{health}");
            return;
        }
        assert!(Instant::now() < patience, "{health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn outage(mode: &str) {
    // The shortest time to live that an enclave takes: after a second KMS has to confirm each key.
    let node = Node::start_with("[limits]\nshard_key_ttl_ms = 1000\n");
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let vault = device.vault();
    let cached: Shard = vault.parse::<casemate_protocol::id::VaultId>().unwrap().shard();
    node.kms_control(&[mode]);
    await_kms(&node, "degraded");

    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(2) {
        device.run(&["node", "evict", &vault]).ok();
        assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1", "opened with the cached key, past its time to live");
        device.run_with_input(&["secret", "put", "a"], b"1").ok();
    }

    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let owner = Owner::new(&node);
        let record = std::iter::repeat_with(|| owner.begin()).find(|record| record.vault().shard() != cached).unwrap();
        let other = owner.open(&node.nats_url(), record.clone(), DEADLINE).await;
        let started = Instant::now();
        match other.create().await {
            Err(VaultError::TimedOut { last }) => {
                assert!(last.contains(ErrorCode::Unavailable.meaning()), "{mode}: {last}");
                assert!(last.contains("try again after"), "{mode}: with a time: {last}");
            }
            other => panic!("{mode}: {other:?}"),
        }
        assert!(started.elapsed() < DEADLINE + Duration::from_millis(500), "{:?}", started.elapsed());
        node.kms_control(&["healthy"]);
        owner.open(&node.nats_url(), record, PATIENCE).await.create().await.unwrap();
    });
    await_kms(&node, "ok");
}

#[test]
fn throttling() {
    outage("throttle");
}

#[test]
fn failing() {
    outage("fail");
}

#[test]
fn garbage() {
    outage("garbage");
}

#[test]
fn away() {
    outage("away");
}
