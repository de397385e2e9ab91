//! A vault-manager that makes a forbidden system call dies of it, disturbs nobody, and is told of where an operator looks.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::captured::make_forbidden_call;

#[test]
fn it_dies_and_operators_learn_of_it() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let node = Node::start();
    let (device, bystander) = (node.device_with_vault("owner"), node.device_with_vault("bystander"));
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let neighbour = node.manager_of(&bystander.vault());
    let sandbox_killed = || node.health().map(|(_, health)| health["vaults"]["sandbox_killed"].clone());
    assert_eq!(sandbox_killed(), Some(0.into()));

    let manager = node.manager_of(&device.vault());
    make_forbidden_call(manager);

    let end = Instant::now() + Duration::from_secs(15);
    while sandbox_killed() != Some(1.into()) {
        assert!(Instant::now() < end, "{:?}", node.health());
        std::thread::sleep(Duration::from_millis(20));
    }
    let (status, health) = node.health().unwrap();
    assert_eq!((status, &health["vaults"]["crashed"]), (200, &0.into()), "an attack, and no crash");
    let metrics = node.http("GET", "/metrics", "").unwrap().1;
    let alarm = "casemate_vault_events_total{event=\"sandbox_killed\"} 1";
    assert!(metrics.lines().any(|line| line == alarm), "{metrics}");
    let told = node.untrusting_device("operator").run(&["node", "status"]).ok();
    let told = String::from_utf8(told).unwrap();
    let line = told.lines().find(|line| line.starts_with("vaults.sandbox_killed")).unwrap();
    assert!(line.ends_with(" 1"), "{line}");

    // Nobody else noticed, and the vault opens anew.
    bystander.run_with_input(&["secret", "put", "b"], b"2").ok();
    assert_eq!(node.manager_of(&bystander.vault()), neighbour);
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");
    assert_ne!(node.manager_of(&device.vault()), manager);
}
