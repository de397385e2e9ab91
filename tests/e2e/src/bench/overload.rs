//! Ten times as many signatures are asked for as can be made: how long those wait who are served, beside those of a node at a tenth of its load.

use std::time::Duration;

use super::Result;
use super::row::{Row, Samples, Unit};
use super::wide::median;
use crate::load::{Answers, Volley, Work};
use crate::{Node, census};

/// Vaults that are asked.
const VAULTS: usize = 64;
/// What is fired to learn what the node can do, and how many a second.
const PROBE: (usize, f64) = (20_000, 20_000.0);
/// How long each part of a round is measured.
const SECONDS: f64 = 4.0;
/// Sealed beforehand, in memory: no more than this.
const MOST: f64 = 300_000.0;
const TIMES: f64 = 10.0;
/// Of ten times what can be done, the calm is this part.
const ONE_IN: usize = 100;
/// After which full speed is expected.
const PAUSE: Duration = Duration::from_secs(2);

/// What was seen in all rounds.
#[derive(Debug, Default)]
struct Seen {
    calm: Samples,
    elsewhere: Samples,
    overloaded: Samples,
    after: Samples,
    /// Served a second, beyond what can be done and when no more than that is asked; of each round.
    served: Vec<f64>,
    capacity: Vec<f64>,
}

/// The rows of overload.
pub(super) async fn measure(rounds: u32) -> Result<Vec<Row>> {
    let node = Node::start_with(super::LIMITS);
    let mut volley = Volley::load(&node, VAULTS, Work::Sign).await;
    // What the first overload makes them take, they keep.
    round(&mut volley, &mut Seen::default()).await?;
    let before = memory(&node)?;
    let mut seen = Seen::default();
    for _ in 0..rounds {
        round(&mut volley, &mut seen).await?;
    }
    let grown = memory(&node)? - before;
    let calm = seen.calm.p99();
    let p99 = |name, samples: &Samples| Row::figure(name, Unit::Microseconds, samples.p99(), calm);
    let rows = [
        p99("overload_p99", &seen.overloaded),
        p99("overload_elsewhere_p99", &seen.elsewhere),
        Row::figure("overload_served", Unit::PerSecond, median(&seen.served), median(&seen.capacity)),
        p99("overload_after_p99", &seen.after),
        Row::figure("overload_memory", Unit::Kibibytes, grown, None),
    ];
    Ok(rows.into_iter().flatten().collect())
}

async fn round(volley: &mut Volley, seen: &mut Seen) -> Result<()> {
    let capacity = volley.fire(PROBE.0, PROBE.1).await.rate();
    tokio::time::sleep(PAUSE).await;
    add(&mut seen.calm, &fire(volley, capacity / TIMES).await);
    let (count, rate) = volume(capacity * TIMES);
    add(&mut seen.elsewhere, &volley.fire_mostly_elsewhere(count, rate, ONE_IN).await);
    let overloaded = fire(volley, capacity * TIMES).await;
    tokio::time::sleep(PAUSE).await;
    add(&mut seen.after, &fire(volley, capacity / TIMES).await);
    if overloaded.silent > 0 {
        return Err(format!("{} requests had no answer", overloaded.silent).into());
    }
    if let Some(first) = overloaded.refused.first() {
        return Err(format!("{} requests were refused otherwise, {first:?} first", overloaded.refused.len()).into());
    }
    add(&mut seen.overloaded, &overloaded);
    seen.served.push(overloaded.rate());
    seen.capacity.push(capacity);
    Ok(())
}

fn add(samples: &mut Samples, answers: &Answers) {
    answers.served.iter().for_each(|took| samples.add(*took));
}

async fn fire(volley: &mut Volley, rate: f64) -> Answers {
    let (count, rate) = volume(rate);
    volley.fire(count, rate).await
}

/// How many requests at this rate, and the rate.
fn volume(rate: f64) -> (usize, f64) {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
    ((rate * SECONDS).min(MOST) as usize, rate)
}

/// KiB that parent and enclave have, vault-managers included.
#[expect(clippy::cast_precision_loss, reason = "bytes of a machine")]
fn memory(node: &Node) -> Result<f64> {
    let mut bytes = 0;
    for part in [&node.parent, &node.enclave].into_iter().flatten() {
        let family = census::family(part.pid().as_raw().unsigned_abs())?;
        bytes += family.iter().filter_map(|member| census::proportional(member.pid)).sum::<u64>();
    }
    Ok(bytes as f64 / 1024.0)
}
