//! `casemate node diagnose` says what is wrong and what to do next, and nothing that is secret.

use casemate_e2e::Node;

#[test]
fn a_well_node_and_each_part_away() {
    let mut node = Node::start();
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"a-secret-that-is-nowhere-else").ok();
    let text = device.run(&["node", "diagnose"]).text();
    for word in ["✓ enclave", "✓ nats", "5 messages there and back", "✓ store", "✓ kms", "PCR0", "versions", "evidence"]
    {
        assert!(text.contains(word), "{word} in\n{text}");
    }
    let answer = device.run(&["node", "diagnose", "--json"]).json();
    assert!(answer["findings"].as_array().unwrap().iter().all(|finding| finding["ok"] == true), "{answer}");
    for secret in ["a-secret-that-is-nowhere-else", "wJalrXUtnFEMI", "a-session-token-for-tests"] {
        assert!(!answer.to_string().contains(secret));
    }

    node.nats = None;
    node.await_health(503);
    let ran = device.run(&["node", "diagnose", "--json"]);
    assert_eq!(ran.code, 8);
    let answer: serde_json::Value = serde_json::from_slice(&ran.stdout).unwrap();
    let faults: Vec<_> =
        answer["findings"].as_array().unwrap().iter().filter(|finding| finding["ok"] == false).collect();
    assert_eq!(faults.len(), 1, "{faults:?}");
    assert_eq!(faults[0]["part"], "nats");
    assert!(faults[0]["next"].as_str().unwrap().contains("runbooks/nats-disconnection.md"));
    assert!(answer["latest_errors"].to_string().contains("connection to NATS ended"), "{answer}");
    assert_eq!(answer["health"]["status"], "unhealthy");
    node.start_nats();
    node.await_health(200);

    node.enclave = None;
    node.await_health(503);
    let ran = device.run(&["node", "diagnose"]);
    let text = String::from_utf8(ran.stdout).unwrap();
    assert!(ran.code == 8 && text.contains("✗ enclave") && text.contains("next: It restarts by itself"), "{text}");
    node.start_enclave();
    node.await_health(200);

    node.parent = None;
    let ran = device.run(&["node", "diagnose"]);
    assert!(ran.code == 8 && ran.stderr.contains("Check that casemate-parent runs"), "{}", ran.stderr);
}
