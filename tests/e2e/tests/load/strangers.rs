//! A vault is flooded with frames of sessions that it does not have: the parent lets the enclave refuse some of them and then refuses the
//! others itself, and the vault's own devices notice nothing.

use std::time::{Duration, Instant};

use casemate_e2e::Node;
use casemate_e2e::load::{Attack, Flood};

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
            let mut live = async || {
                vault.read_in(&mut own).await.unwrap_or_else(|fault| panic!("{}: {fault:?}", attack.name()));
                if attack != Attack::Unfinished {
                    vault.enter().await;
                }
            };
            let kept_out_before = ended(&node, "stranger");
            let flood = Flood::begin(&node.nats_url(), vault.vault.id(), attack, session, RATE);
            let end = Instant::now() + Duration::from_mins(1);
            while ended(&node, "stranger") < kept_out_before + FRAMES / 10 {
                assert!(Instant::now() < end, "{}: all of them reach the enclave", attack.name());
                live().await;
            }
            // The name has ended, the enclave was asked as much as it may be at once, and has answered most of it.
            let (begun, sent_before) = (Instant::now(), flood.sent());
            let (kept_out_before, refused_before) = (ended(&node, "stranger"), ended(&node, "refused"));
            let mut reads = 0;
            while flood.sent() < sent_before + FRAMES {
                live().await;
                reads += 1;
            }
            let sent = flood.end() - sent_before;
            // The enclave is asked 64 times a second more, answers what was on its way, and refuses own frames while it is busy.
            let let_through = 64 * (begun.elapsed().as_secs() + 1) + 256;
            let end = Instant::now() + Duration::from_secs(10);
            let kept_out = loop {
                let kept_out = ended(&node, "stranger") - kept_out_before;
                if kept_out + let_through >= sent || Instant::now() > end {
                    break kept_out;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            };
            let refused = ended(&node, "refused") - refused_before;
            let name = attack.name();
            println!("{name}: of {sent} frames {kept_out} were kept out, {refused} refused; {reads} own reads");
            assert!(kept_out + let_through >= sent, "{name}");
            assert!(refused <= let_through, "{name}: {refused}");
        }
    });
}
