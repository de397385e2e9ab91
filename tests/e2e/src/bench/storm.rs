//! Twice as many vaults as there is room for, used as people use things: a few all the time, most of them seldom. Beside it as many
//! requests, drawn in the same way, on a node with room for all.

use std::cell::Cell;
use std::time::Instant;

use futures_util::future::try_join_all;
use futures_util::{StreamExt, TryStreamExt, stream};

use super::row::{Row, Unit};
use super::vault::{Bench, Maker};
use super::wide::median;
use super::{Result, VALUE_BYTES};
use crate::Node;
use crate::chaos::dice::Dice;

/// Vaults that may be resident.
const CAPACITY: usize = 500;
/// Vaults that are used.
const VAULTS: usize = 2 * CAPACITY;
/// Requests in flight.
const IN_FLIGHT: u64 = 64;
/// Requests in one round.
const REQUESTS: u64 = 200 * IN_FLIGHT;
/// Vaults that are made at the same time.
const AT_ONCE: usize = 16;
/// What all choices follow from.
const SEED: u64 = 1;

/// The rates with and without evictions, by as many rounds of each in turn, and the share of requests that found their vault closed.
pub(super) async fn measure(rounds: u32) -> Result<Vec<Row>> {
    let (tight, wide) = (Half::start(CAPACITY).await?, Half::start(VAULTS).await?);
    let (mut with, mut without) = (Vec::new(), Vec::new());
    let mut misses = 0;
    // The first round settles who is resident, and is not counted.
    for round in 0..=u64::from(rounds) {
        let opened = tight.opened()?;
        let (rate_with, rate_without) = (tight.round(round).await?, wide.round(round).await?);
        if round > 0 {
            with.push(rate_with);
            without.push(rate_without);
            misses += tight.opened()? - opened;
        }
    }
    let share = percent(misses, u64::from(rounds) * REQUESTS);
    let rows = [
        Row::figure("eviction_storm", Unit::PerSecond, median(&with), median(&without)),
        Row::figure("eviction_storm_misses", Unit::Percent, share, None),
    ];
    Ok(rows.into_iter().flatten().collect())
}

/// One of the two nodes.
struct Half {
    node: Node,
    vaults: Vec<Bench>,
    popularity: Zipf,
}

impl Half {
    async fn start(capacity: usize) -> Result<Self> {
        let node = Node::start_with(&format!("{}vault_limit = {capacity}\n", super::LIMITS));
        let maker = Maker::new(&node).await?;
        let one = async || {
            let vault = maker.create().await?;
            vault.put(&[7; VALUE_BYTES]).await?;
            Ok::<_, Box<dyn std::error::Error>>(vault)
        };
        let vaults = stream::iter((0..VAULTS).map(|_| one())).buffer_unordered(AT_ONCE).try_collect().await?;
        Ok(Self { node, vaults, popularity: Zipf::of(VAULTS) })
    }

    /// Requests a second. Whoever is answered goes on until all have been made, so that as many are in flight at the end as at the beginning.
    async fn round(&self, round: u64) -> Result<f64> {
        let made = &Cell::new(0);
        let lanes = (0..IN_FLIGHT).map(|lane| async move {
            let mut dice = Dice::new(SEED, &[round, lane]);
            while made.get() < REQUESTS {
                made.set(made.get() + 1);
                self.vaults[self.popularity.draw(&mut dice)].get().await?;
            }
            Ok::<_, Box<dyn std::error::Error>>(())
        });
        let start = Instant::now();
        try_join_all(lanes).await?;
        Ok(f64::from(u32::try_from(REQUESTS)?) / start.elapsed().as_secs_f64())
    }

    fn opened(&self) -> Result<u64> {
        let (_, health) = self.node.health().ok_or("the node answers")?;
        health["vaults"]["opened"].as_u64().ok_or_else(|| "health counts openings".into())
    }
}

/// Zipf's law with exponent 1: the second is used half as often as the first, the third a third as often.
struct Zipf(Vec<f64>);

impl Zipf {
    fn of(ranks: usize) -> Self {
        let mut sum = 0.0;
        let weights = (1..=u32::try_from(ranks).unwrap_or(u32::MAX)).map(|rank| {
            sum += 1.0 / f64::from(rank);
            sum
        });
        Self(weights.collect())
    }

    /// A rank, counted from zero.
    fn draw(&self, dice: &mut Dice) -> usize {
        let last = self.0.last().copied().unwrap_or_default();
        let drawn = f64::from(u32::try_from(dice.roll() >> 32).unwrap_or_default()) / f64::from(u32::MAX) * last;
        self.0.partition_point(|sum| *sum < drawn).min(self.0.len().saturating_sub(1))
    }
}

#[expect(clippy::cast_precision_loss, reason = "requests of a run")]
fn percent(part: u64, of: u64) -> f64 {
    100.0 * part as f64 / of.max(1) as f64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_is_used_twice_as_often_as_the_second() {
        let (zipf, mut dice) = (Zipf::of(100), Dice::new(1, &[]));
        let mut drawn = vec![0_u32; 100];
        for _ in 0..100_000 {
            drawn[zipf.draw(&mut dice)] += 1;
        }
        let ratio = f64::from(drawn[0]) / f64::from(drawn[1]);
        assert!((1.9..2.1).contains(&ratio), "{ratio}");
        assert!(drawn.iter().all(|times| *times > 0));
    }
}
