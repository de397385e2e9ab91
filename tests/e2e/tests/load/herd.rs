//! The enclave starts anew, and hundreds of devices that have lost their sessions come back at once.

use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::secret::Secret;
use futures_util::future::join_all;
use futures_util::{StreamExt, stream};

use crate::neighbour::runtime;

const DEVICES: usize = 300;
/// Slow enough that not all of them can be let in at once.
const LIMITS: &str = "[limits]\ncreates_per_second = 1000\nopens_per_second = 100\nvault_limit = 600\n";

async fn device(node: &Node, client: &async_nats::Client) -> OwnedVault {
    let owner = Owner::new(node);
    let vault = owner.open_over(NatsTransport::from_client(client.clone()), owner.begin(), Duration::from_secs(30));
    vault.create().await.unwrap();
    vault.secret_put("a", Secret::from(&b"1"[..]), None).await.unwrap();
    vault
}

#[test]
fn it_is_spread_and_each_comes_in() {
    let mut node = Node::start_with(LIMITS);
    let runtime = runtime();
    let devices: Vec<OwnedVault> = runtime.block_on(async {
        let client = async_nats::connect(node.nats_url()).await.unwrap();
        let one = || device(&node, &client);
        stream::iter((0..DEVICES).map(|_| one())).buffer_unordered(8).collect().await
    });
    node.enclave = None;
    node.await_health(503);
    node.start_enclave();
    node.await_health(200);
    let start = Instant::now();
    runtime.block_on(join_all(
        devices.iter().map(async |vault| vault.secret_get("a", None).await.expect("each comes in")),
    ));
    let took = start.elapsed();
    // At 100 a second 300 take two seconds, with what may come at once.
    println!("{DEVICES} devices came back in {took:?}");
    assert!(took < Duration::from_secs(20), "{took:?}");
    let (_, health) = node.health().unwrap();
    // Nobody was opened twice because he was pushed out in between.
    let opened = health["vaults"]["opened"].as_u64().unwrap();
    assert!(opened <= DEVICES as u64 && health["vaults"]["crashed"] == 0, "{health}");
}
