//! Resident vaults are bounded, the least recently used leaves first, and an idle one leaves by itself.

use std::time::{Duration, Instant};

use casemate_e2e::Node;

#[test]
fn the_least_recently_used_leaves_first() {
    let node = Node::start_with("[limits]\nvault_limit = 2\n");
    let devices: Vec<_> = ["a", "b", "c"].into_iter().map(|name| node.device_with_vault(name)).collect();
    let vaults: Vec<_> = devices.iter().map(casemate_e2e::Device::vault).collect();
    // `vault` asks for the status, so the order of use is a, b, c.
    let resident: Vec<_> = node.vaults().iter().map(|entry| entry["vault"].as_str().unwrap().to_owned()).collect();
    assert!(resident.len() <= 2 && !resident.contains(&vaults[0]) && resident.contains(&vaults[2]), "{resident:?}");
    for device in devices.iter().chain(&devices) {
        device.run(&["vault", "status"]).ok();
        assert!(node.vaults().len() <= 2);
    }
}

#[test]
fn an_idle_vault_leaves_by_itself() {
    let node = Node::start_with("[limits]\nidle_ms = 1000\n");
    let device = node.device_with_vault("a");
    let start = Instant::now();
    while !node.vaults().is_empty() {
        assert!(start.elapsed() < Duration::from_secs(15), "{:?}", node.vaults());
        std::thread::sleep(Duration::from_millis(100));
    }
    device.run(&["vault", "status"]).ok();
}
