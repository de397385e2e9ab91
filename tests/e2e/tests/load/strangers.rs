//! A vault is flooded with frames of sessions that it does not have: the parent lets the enclave refuse some of them and then refuses the
//! others itself, and the vault's own devices notice nothing.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::load::{Attack, Flood};
use casemate_protocol::limits::WINDOW_REQUESTS;

use crate::neighbour::{Neighbour, runtime};

const RATE: u32 = 10_000;
const FRAMES: u64 = 10_000;

fn ended(node: &Node, outcome: &str) -> u64 {
    let (_, page) = node.http("GET", "/metrics", "").unwrap();
    let name = format!("casemate_requests_total{{outcome=\"{outcome}\"}} ");
    page.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

#[test]
fn most_of_them_never_reach_the_enclave() {
    let node = Node::start();
    runtime().block_on(async {
        for attack in [Attack::UnknownSession, Attack::Forged, Attack::Unfinished] {
            let vault = Neighbour::move_in(&node).await;
            let (mut own, session) = (vault.enter().await, vault.enter().await.id());
            let (refused_before, strangers_before) = (ended(&node, "refused"), ended(&node, "stranger"));
            let begun = Instant::now();
            let flood = Flood::begin(&node.nats_url(), vault.vault.id(), attack, session, RATE);
            while flood.sent() < FRAMES {
                assert!(vault.read_in(&mut own).await, "{}", attack.name());
                if attack != Attack::Unfinished {
                    vault.enter().await;
                }
            }
            let sent = flood.end();
            let seconds = begun.elapsed().as_secs() + 1;
            // Until a name ends 1,024 frames may fail under it, and 64 a second; then the enclave refuses 256, and 64 a second, and what
            // was on its way.
            let let_through = 1024 + 256 + 128 * seconds + WINDOW_REQUESTS as u64;
            let end = Instant::now() + Duration::from_secs(10);
            let kept_out = loop {
                let kept_out = ended(&node, "stranger") - strangers_before;
                if kept_out + let_through >= sent || Instant::now() > end {
                    break kept_out;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let refused = ended(&node, "refused") - refused_before;
            println!("{}: of {sent} frames {kept_out} were kept out, {refused} refused", attack.name());
            assert!(kept_out + let_through >= sent, "{}", attack.name());
            assert!(refused <= let_through, "{}: {refused}", attack.name());
        }
    });
}
