//! A slow store: a gate stands on the enclave's way to it.

use std::time::{Duration, Instant};

use casemate_e2e::{Device, Node};

use crate::gate::{Gate, Way};

/// What a call may take beyond its deadline: a process is started and evidence is judged around it.
const GRACE: Duration = Duration::from_secs(1);

fn gated(configuration: &str) -> (Node, Gate) {
    let mut node = Node::prepare(configuration);
    node.start_nats();
    node.start_kms();
    node.start_parent();
    let front = node.path("gate.sock");
    let gate = Gate::open(&front, &node.path("link.sock"));
    node.start_enclave_at(&front);
    node.await_health(200);
    (node, gate)
}

fn revisions(device: &Device, name: &str) -> usize {
    device.run(&["secret", "history", name, "--json"]).json()["revisions"].as_array().unwrap().len()
}

fn versions(node: &Node, vault: &str) -> usize {
    node.objects().iter().filter(|(name, _)| name.starts_with("v1/vaults/") && name.contains(vault)).count()
}

/// Holds the store up during a write; gives what the store had of the vault before, and while the writer was told.
fn write_while_held(node: &Node, gate: &Gate, device: &Device, other: &Device, way: Way) -> (usize, usize) {
    let vault = device.vault();
    let before = versions(node, &vault);
    gate.hold(way);
    let started = Instant::now();
    let waiting = {
        let device = device.clone();
        std::thread::spawn(move || device.run_with_input(&["secret", "put", "a", "--timeout", "3"], b"2"))
    };
    let mut served = 0;
    while !waiting.is_finished() {
        assert_eq!(other.run(&["secret", "get", "b", "--timeout", "2"]).ok(), b"other", "who is open goes on reading");
        served += 1;
    }
    let told = waiting.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(3) + GRACE, "no longer than the deadline: {:?}", started.elapsed());
    assert_eq!(told.code, 9, "not acknowledged, and not denied: {}", told.stderr);
    assert!(told.stderr.contains("again"), "says what to do: {}", told.stderr);
    assert!(served > 3, "{served} reads");
    (before, versions(node, &vault))
}

#[test]
fn what_is_stored_and_not_answered_is_not_acknowledged_and_done_once() {
    let (node, gate) = gated("[limits]\nstore_timeout_ms = 500\n");
    let (device, other) = (node.device_with_vault("owner"), node.device_with_vault("other"));
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    other.run_with_input(&["secret", "put", "b"], b"other").ok();
    let (before, meanwhile) = write_while_held(&node, &gate, &device, &other, Way::FromStore);
    assert_eq!(meanwhile, before + 1, "it is stored, and nobody was told");
    gate.release();
    // Asked again under the same number.
    device.run_with_input(&["secret", "put", "a", "--timeout", "20"], b"2").ok();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"2");
    assert_eq!(revisions(&device, "a"), 2, "once");
}

#[test]
fn what_reaches_the_store_late_is_not_acknowledged_and_done_once() {
    let (node, gate) = gated("[limits]\nstore_timeout_ms = 500\n");
    let (device, other) = (node.device_with_vault("owner"), node.device_with_vault("other"));
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    other.run_with_input(&["secret", "put", "b"], b"other").ok();
    let (before, meanwhile) = write_while_held(&node, &gate, &device, &other, Way::ToStore);
    assert_eq!(meanwhile, before, "nothing has reached the store");
    // The held call arrives now, long after its writer was told that nobody knows.
    gate.release();
    device.run_with_input(&["secret", "put", "a", "--timeout", "20"], b"2").ok();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"2");
    assert_eq!(revisions(&device, "a"), 2, "once");
}

#[test]
fn a_store_that_is_slow_within_its_limit_makes_writes_slow_and_nothing_else() {
    const DELAY: Duration = Duration::from_millis(700);
    let (node, gate) = gated("");
    let device = node.device_with_vault("owner");
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    gate.delay(DELAY);
    let started = Instant::now();
    device.run_with_input(&["secret", "put", "a"], b"2").ok();
    assert!(started.elapsed() >= DELAY, "an answer waits for the store: {:?}", started.elapsed());
    let started = Instant::now();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"2");
    assert!(started.elapsed() < DELAY, "a read does not: {:?}", started.elapsed());
}
