//! A vault's reads while another vault of the node is thrown bad frames, beside the same reads in calm and while the same frames go where
//! nobody listens, in turns.

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
/// Reads of one turn, and turns of each kind in a round.
const TURN: u32 = 2_000;
const TURNS: u32 = 2;
/// How long an attack is on, or over, before it counts.
const SETTLE: Duration = Duration::from_millis(500);
const DEADLINE: Duration = Duration::from_secs(10);

/// The time within which 99 in 100 reads of a turn are answered, in microseconds, the median turn's (a machine of which its host takes a
/// part for a second says nothing in that one only): for each kind of attack, beside the calm and beside the same flood at
/// a subject where nobody listens, because whoever receives it, sending it takes processors from everybody; and for that flood.
/// Each turn is beside those just before it: a machine that is slow for a minute is so on both sides.
pub(super) async fn measure(rounds: u32) -> Result<Vec<Row>> {
    let node = Node::start_with(super::LIMITS);
    let neighbour = Maker::new(&node).await?.create().await?;
    neighbour.put(&[7; VALUE_BYTES]).await?;
    let owner = Owner::new(&node);
    let transport = NatsTransport::from_client(async_nats::connect(node.nats_url()).await?);
    let attacked = owner.open_over(transport.clone(), owner.begin(), DEADLINE);
    attacked.create().await?;
    let turn = async || {
        let mut samples = Samples::default();
        for _ in 0..TURN {
            samples.add(neighbour.get().await?);
        }
        Ok::<_, Box<dyn std::error::Error>>(samples.p99().expect("a turn has reads"))
    };
    let mut attacks = Attack::ALL.map(|attack| (attack, Vec::new()));
    for _ in 0..=rounds * TURNS {
        for (attack, turns) in &mut attacks {
            tokio::time::sleep(SETTLE).await;
            let calm = turn().await?;
            let nobody = {
                let _flood = Flood::elsewhere(&node.nats_url(), *attack, RATE);
                tokio::time::sleep(SETTLE).await;
                turn().await?
            };
            // Each flood ends the session that it abuses.
            let session = owner.enter(&transport, &attacked.record()).await.id();
            let _flood = Flood::begin(&node.nats_url(), attacked.id(), *attack, session, RATE);
            tokio::time::sleep(SETTLE).await;
            turns.push(Turns { calm, nobody, attacked: turn().await? });
        }
    }
    let nobody =
        attacks.iter().flat_map(|(_, turns)| turns).map(|turns| (turns.nobody, turns.calm)).collect::<Vec<_>>();
    let flood = Row::pairs("attacked_nobody", Unit::Microseconds, &nobody);
    let each = attacks.iter().flat_map(|(attack, turns)| {
        let [name, beside_nobody] = rows(*attack);
        let pairs =
            |beside: fn(&Turns) -> f64| turns.iter().map(|turns| (turns.attacked, beside(turns))).collect::<Vec<_>>();
        [
            Row::pairs(name, Unit::Microseconds, &pairs(|turns| turns.calm)),
            Row::pairs(beside_nobody, Unit::Microseconds, &pairs(|turns| turns.nobody)),
        ]
    });
    Ok(each.chain([flood]).flatten().collect())
}

/// What turns in a row came to, in microseconds.
#[derive(Debug)]
struct Turns {
    calm: f64,
    nobody: f64,
    attacked: f64,
}

/// The names of an attack's rows: beside the calm, and beside the flood that nobody receives.
const fn rows(attack: Attack) -> [&'static str; 2] {
    match attack {
        Attack::Malformed => ["attacked_neighbour_malformed", "attacked_malformed_beside_nobody"],
        Attack::Forged => ["attacked_neighbour_forged", "attacked_forged_beside_nobody"],
        Attack::UnknownSession => ["attacked_neighbour_unknown", "attacked_unknown_beside_nobody"],
        Attack::Unfinished => ["attacked_neighbour_unfinished", "attacked_unfinished_beside_nobody"],
    }
}
