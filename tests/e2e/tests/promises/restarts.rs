//! Any part may be killed and started again: what was answered is there, and devices come back by themselves.

use casemate_e2e::Node;

#[test]
fn answered_writes_survive_each_part() {
    let mut node = Node::start();
    let device = node.device_with_vault("owner");
    for (number, part) in ["enclave", "parent", "nats", "kms"].into_iter().enumerate() {
        let value = number.to_string();
        device.run_with_input(&["secret", "put", part], value.as_bytes()).ok();
        match part {
            "enclave" => node.enclave = None,
            "parent" => node.parent = None,
            "nats" => node.nats = None,
            _ => node.kms = None,
        }
        node.start_nats();
        node.start_kms();
        node.start_parent();
        node.start_enclave();
        node.await_health(200);
        assert_eq!(device.run(&["secret", "get", part, "--timeout", "20"]).ok(), value.as_bytes(), "after {part}");
    }
    assert_eq!(device.run(&["secret", "list", "--json"]).json()["secrets"].as_array().unwrap().len(), 4);
}

#[test]
fn health_tells_the_truth() {
    let mut node = Node::start();
    let (_, health) = node.health().unwrap();
    for part in
        ["status", "node", "version", "uptime", "enclave", "nats", "store", "kms", "vaults", "memory", "reasons"]
    {
        assert!(health.to_string().contains(&format!("\"{part}")), "{part} in {health}");
    }
    assert_eq!(node.http("GET", "/vault/health", "").unwrap().0, 200);
    assert_eq!(node.http("GET", "/ready", "").unwrap().0, 200);
    let (status, metrics) = node.http("GET", "/metrics", "").unwrap();
    assert!(status == 200 && metrics.contains("casemate_"), "{metrics}");
    assert_eq!(node.http("GET", "/nothing", "").unwrap().0, 404);
    node.enclave = None;
    assert!(node.await_health(503).as_secs() < 6);
    node.start_enclave();
    node.await_health(200);
    node.nats = None;
    assert!(node.await_health(503).as_secs() < 6);
    node.start_nats();
    node.await_health(200);
}

#[test]
fn a_rolled_back_store_is_refused_until_its_owner_accepts_it() {
    let mut node = Node::start();
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"old").ok();
    let backup = node.objects();
    device.run_with_input(&["secret", "put", "a"], b"new").ok();
    // The host stops the node and shows the older store.
    node.stop_all();
    for (name, _) in node.objects() {
        if !backup.iter().any(|(kept, _)| *kept == name) {
            std::fs::remove_file(node.path("store").join(name)).unwrap();
        }
    }
    node.start_all();
    assert_eq!(device.run(&["secret", "get", "a"]).code, 7);
    assert_eq!(device.run_with_input(&["secret", "put", "a"], b"newer").code, 7);
    device.run(&["vault", "accept-rollback", "--yes"]).ok();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"old");
    assert!(device.run(&["audit", "--json"]).json().to_string().contains("rollback_accepted"));
}
