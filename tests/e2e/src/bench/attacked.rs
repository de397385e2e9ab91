//! A vault's reads while another vault of the node is thrown bad frames, beside the same reads in calm, in turns.

use std::time::Duration;

use casemate_client::NatsTransport;

use super::row::{Row, Samples, Unit};
use super::vault::Maker;
use super::{Result, VALUE_BYTES};
use crate::Node;
use crate::load::{Attack, Flood};
use crate::owner::Owner;

/// Bad frames a second.
const RATE: u32 = 10_000;
/// Reads of one turn.
const TURN: u32 = 2_000;
/// How long an attack is on before it counts.
const SETTLE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(10);

/// The time within which 99 in 100 reads are answered, in microseconds, for each kind of attack, beside the calm.
pub(super) async fn measure(rounds: u32) -> Result<Vec<Row>> {
    let node = Node::start_with(super::LIMITS);
    let neighbour = Maker::new(&node).await?.create().await?;
    neighbour.put(&[7; VALUE_BYTES]).await?;
    let owner = Owner::new(&node);
    let transport = NatsTransport::from_client(async_nats::connect(node.nats_url()).await?);
    let attacked = owner.open_over(transport.clone(), owner.begin(), DEADLINE);
    attacked.create().await?;
    let mut rows = Vec::new();
    for attack in Attack::ALL {
        let (mut calm, mut under_attack) = (Samples::default(), Samples::default());
        for _ in 0..=rounds {
            // Each flood ends the session that it abuses.
            let session = owner.enter(&transport, &attacked.record()).await.id();
            for _ in 0..TURN {
                calm.add(neighbour.get().await?);
            }
            let _flood = Flood::begin(&node.nats_url(), attacked.id(), attack, session, RATE);
            tokio::time::sleep(SETTLE).await;
            for _ in 0..TURN {
                under_attack.add(neighbour.get().await?);
            }
        }
        rows.extend(Row::figure(row(attack), Unit::Microseconds, under_attack.p99(), calm.p99()));
    }
    // What the same flood costs by itself: sending it takes processors from everybody, whoever receives it.
    let (mut calm, mut beside) = (Samples::default(), Samples::default());
    for _ in 0..=rounds {
        for _ in 0..TURN {
            calm.add(neighbour.get().await?);
        }
        let _flood = Flood::elsewhere(&node.nats_url(), RATE);
        tokio::time::sleep(SETTLE).await;
        for _ in 0..TURN {
            beside.add(neighbour.get().await?);
        }
    }
    rows.extend(Row::figure("attacked_nobody", Unit::Microseconds, beside.p99(), calm.p99()));
    Ok(rows)
}

const fn row(attack: Attack) -> &'static str {
    match attack {
        Attack::Malformed => "attacked_neighbour_malformed",
        Attack::Forged => "attacked_neighbour_forged",
        Attack::UnknownSession => "attacked_neighbour_unknown",
        Attack::Unfinished => "attacked_neighbour_unfinished",
    }
}
