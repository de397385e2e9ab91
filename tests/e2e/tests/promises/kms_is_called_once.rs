//! KMS is called once for many cold starts in one shard.

use casemate_e2e::Node;
use serde_json::Value;

fn calls(node: &Node) -> u64 {
    let counts: Value = serde_json::from_str(&node.kms_control(&["counts"])).expect("JSON");
    let calls = counts["counts"].as_object().unwrap_or_else(|| panic!("{counts}"));
    calls
        .values()
        .map(|outcomes| match outcomes {
            Value::Object(outcomes) => outcomes.values().filter_map(Value::as_u64).sum(),
            other => other.as_u64().unwrap_or(0),
        })
        .sum()
}

#[test]
fn many_cold_starts_one_call() {
    let node = Node::start();
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let vault = device.vault();
    let before = calls(&node);
    assert!(before >= 1, "the shard key was made");
    for _ in 0..20 {
        device.run(&["node", "evict", &vault]).ok();
        assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");
    }
    assert_eq!(calls(&node), before, "no call for twenty cold starts");
    // KMS gone: what is cached goes on opening vaults.
    node.kms_control(&["away"]);
    device.run(&["node", "evict", &vault]).ok();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");
    // A vault of a shard that is not cached is refused, and told when to try again.
    let other = node.device("other");
    let refused = other.run(&["vault", "create", "--json", "--timeout", "3"]);
    assert!(refused.code == 8 || refused.code == 0, "unavailable, unless it has the same shard: {}", refused.stderr);
    node.kms_control(&["healthy"]);
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");
}
