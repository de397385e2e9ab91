//! A vault is thrown ten thousand bad frames a second, of each kind: another vault hardly notices, and the attacked one is there again
//! when it is over.

use std::time::Duration;

use casemate_e2e::Node;
use casemate_e2e::load::{Attack, Flood};

use crate::neighbour::{Neighbour, assert_hardly_slower, runtime};

const RATE: u32 = 10_000;
const READS: usize = 1500;

#[test]
fn its_neighbour_is_served() {
    let node = Node::start();
    runtime().block_on(async {
        let (attacked, neighbour) = (Neighbour::move_in(&node).await, Neighbour::move_in(&node).await);
        let calm = neighbour.read(READS).await;
        let session = attacked.enter().await.id();
        for attack in Attack::ALL {
            let flood = Flood::begin(&node.nats_url(), attacked.vault.id(), attack, session, RATE);
            let under_attack = neighbour.read(READS).await;
            let rate = flood.rate();
            drop(flood);
            println!("{}: {rate:.0} frames a second", attack.name());
            assert_hardly_slower(&calm, &under_attack, attack.name());
            tokio::time::timeout(Duration::from_secs(10), attacked.read(10))
                .await
                .expect("the attacked vault is served");
        }
    });
    let (_, health) = node.health().unwrap();
    assert_eq!((&health["vaults"]["crashed"], &health["vaults"]["stuck"]), (&0.into(), &0.into()), "{health}");
}
