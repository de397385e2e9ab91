//! What the enclave refuses, and what the parent does, shows where an operator looks: with every real part in its place.

use std::time::{Duration, Instant};

use casemate_e2e::programs::program;
use casemate_e2e::{Device, Node};
use casemate_link::{Address, connect, dial_hello};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::link::{Class, Hello, LINK_MAX, LINK_MIN};
use casemate_protocol::subject::Subjects;
use serde_json::Value;

/// Waits until a metric has a value.
fn await_metric(node: &Node, metric: &str, value: u64) {
    let (end, line) = (Instant::now() + Duration::from_secs(15), format!("{metric} {value}"));
    let mut page = String::new();
    while Instant::now() < end {
        page = node.http("GET", "/metrics", "").map(|(_, page)| page).unwrap_or_default();
        if page.lines().any(|found| found == line) {
            return;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    let found: Vec<_> = page.lines().filter(|found| found.starts_with(metric)).collect();
    panic!("{line} did not come; there is {found:?}");
}

#[test]
fn metrics_and_health_tell_it() {
    let node = Node::start();
    let (device, bystander) = (node.device_with_vault("owner"), node.device_with_vault("bystander"));
    device.run_with_input(&["secret", "put", "a"], b"1").ok();
    let vault: VaultId = device.vault().parse().unwrap();

    // Somebody with access to NATS.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let client = runtime.block_on(async_nats::connect(node.nats_url())).unwrap();
    let ask = |subject: String, bytes: &'static [u8]| {
        let answer = runtime.block_on(client.request(subject, bytes.into())).unwrap();
        let VaultFrame::Refused(refusal) = VaultFrame::decode(&answer.payload).unwrap() else { panic!("a refusal") };
        refusal
    };
    let subject = Subjects::default().vault(vault);
    assert_eq!(ask(subject.clone(), b"\xff").code, ErrorCode::Malformed);
    await_metric(&node, "casemate_requests_total{outcome=\"malformed\"}", 1);
    // A genuine name below another shard's subject.
    let other = Shard(vault.shard().0.wrapping_add(1));
    let misplaced = subject.replace(&format!(".{}.", vault.shard()), &format!(".{other}."));
    let hello = casemate_e2e::hostile::Puppet::new().hello().leak();
    let refusal = ask(misplaced, hello);
    assert_eq!((refusal.code, refusal.field.as_deref()), (ErrorCode::InvalidArgument, Some("subject")));
    await_metric(&node, "casemate_requests_total{outcome=\"malformed\"}", 2);

    // Somebody who can write the store: one bit of the newest version.
    device.run(&["node", "evict", &vault.to_string()]).ok();
    let newest = node.path("store").join(casemate_protocol::path::vault_version(vault, 2));
    let truth = std::fs::read(&newest).unwrap();
    let mut changed = truth.clone();
    *changed.last_mut().unwrap() ^= 1;
    std::fs::write(&newest, changed).unwrap();
    let refused = device.run(&["secret", "get", "a", "--json"]);
    let said: Value =
        serde_json::from_slice(&refused.stdout).or_else(|_| serde_json::from_str(&refused.stderr)).unwrap();
    assert!(said.to_string().contains("state_corrupt"), "{said}");
    await_metric(&node, "casemate_refusals_total{kind=\"state_corrupt\"}", 1);
    let (_, health) = node.health().unwrap();
    assert_eq!(health["refusals"]["state_corrupt"], 1, "{health}");
    let status = device.run(&["node", "status", "--json"]).json();
    assert_eq!(status["refusals"]["state_corrupt"], 1, "{status}");
    std::fs::write(&newest, truth).unwrap();
    assert_eq!(device.run(&["secret", "get", "a"]).ok(), b"1");

    // Somebody who can reach the link's socket: not of this boot, and of no version that is spoken.
    let link = Address::Unix(node.path("link.sock"));
    let hello = |class, min, max| Hello { min, max, build: "x".to_owned(), boot_id: [9; 16], class, relay: None };
    for hello in [
        hello(Class::Requests, LINK_MIN, LINK_MAX),
        hello(Class::Blobs, LINK_MIN, LINK_MAX),
        hello(Class::Relay, LINK_MIN, LINK_MAX),
        hello(Class::Control, LINK_MAX + 1, LINK_MAX + 5),
    ] {
        let dialled = runtime.block_on(async { dial_hello(connect(&link).await.unwrap(), &hello).await });
        assert!(dialled.is_err(), "{hello:?}");
    }

    // The released client, in front of development evidence.
    let home = node.path("home-released");
    let released = Device::new(program("casemate"), home, vec![("CASEMATE_NATS_URL", node.nats_url())]);
    released.run(&["trust", "add", &node.path("authority/trust.toml").display().to_string()]).ok();
    let refused = released.run(&["vault", "create", "--json"]);
    assert_eq!(refused.code, 6, "{}", refused.stderr);
    let said = [String::from_utf8_lossy(&refused.stdout).into_owned(), refused.stderr].concat();
    assert!(said.contains("evidence_refused"), "{said}");

    bystander.run_with_input(&["secret", "put", "b"], b"2").ok();
    assert_eq!(bystander.run(&["secret", "get", "b"]).ok(), b"2");
}
