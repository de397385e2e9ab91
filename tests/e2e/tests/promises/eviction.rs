//! Resident vaults are bounded, the least recently used leaves first, and an idle one leaves by itself. Who had to make room notices nothing.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::owner::Owner;
use casemate_protocol::secret::Secret;

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

/// Two devices whose vaults take each other's place at each request, by the library in this process, which tells nobody when it makes a new
/// session; the node counts whom it had to tell that his session is unknown.
#[test]
fn a_device_keeps_its_session() {
    const TURNS: u64 = 20;
    let node = Node::start_with("[limits]\nvault_limit = 1\nopens_per_second = 100\n");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let (first, second) = (Owner::new(&node), Owner::new(&node));
        let open = async |owner: &Owner| {
            let vault = owner.open(&node.nats_url(), owner.begin(), Duration::from_secs(10)).await;
            vault.create().await.unwrap();
            vault
        };
        let (first, second) = (open(&first).await, open(&second).await);
        for turn in 0..TURNS {
            for vault in [&first, &second] {
                vault.secret_put("turn", Secret::new(turn.to_be_bytes().to_vec()), None).await.unwrap();
                assert_eq!(*vault.secret_get("turn", None).await.unwrap().value, turn.to_be_bytes());
            }
        }
    });
    // What the parent tells may be a second old.
    let start = Instant::now();
    let health = loop {
        let (_, health) = node.health().unwrap();
        let told = |name: &str| health["vaults"][name].as_u64().unwrap();
        if told("opened") >= 2 * TURNS && told("parked") == 1 {
            break health;
        }
        assert!(start.elapsed() < Duration::from_secs(15), "{health}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(health["refusals"]["session_unknown"], 0, "{health}");
    let (_, metrics) = node.http("GET", "/metrics", "").unwrap();
    assert!(metrics.lines().any(|line| line == "casemate_vaults{state=\"parked\"} 1"), "{metrics}");
}
