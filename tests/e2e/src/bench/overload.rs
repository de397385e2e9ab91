//! Ten times as many signatures are asked for as can be made: how long those wait who are served, beside those of a node at a tenth of its load.

use std::time::Duration;

use super::Result;
use super::row::{Row, Unit};
use super::wide::median;
use crate::load::{Answers, Volley, Work};
use crate::{Node, census};

/// Vaults that are asked.
const VAULTS: usize = 64;
/// What is fired to learn what the node can do, and how many a second: no more is found. All of a volley is sealed beforehand, so a minute
/// at [`TIMES`] as many takes some 4 GB at most, and about one on two processors.
const PROBE: (usize, f64) = (20_000, 20_000.0);
/// How long each part of a round is measured, seconds.
const PART: f64 = 4.0;
/// How long overload must be borne, once.
const MINUTE: f64 = 60.0;
const TIMES: f64 = 10.0;
/// Of ten times what can be done, the calm is this part.
const ONE_IN: usize = 100;
/// After which full speed is expected.
const PAUSE: Duration = Duration::from_secs(2);

/// What was seen in each round.
#[derive(Debug, Default)]
struct Seen {
    /// The time within which 99 in 100 were served, microseconds.
    calm: Vec<f64>,
    elsewhere: Vec<f64>,
    overloaded: Vec<f64>,
    after: Vec<f64>,
    /// Served a second, of ten times what can be done and of the probe.
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
    let capacity = median(&seen.capacity);
    let once = capacity.unwrap_or_default();
    let minute = p99(&fire(&mut volley, once * TIMES, MINUTE).await)?;
    let grown = memory(&node)? - before;
    tokio::time::sleep(PAUSE).await;
    let after_minute = p99(&fire(&mut volley, once / TIMES, PART).await)?;
    let calm = median(&seen.calm);
    let p99 = |name, p99s: &[f64]| Row::figure(name, Unit::Microseconds, median(p99s), calm);
    let rows = [
        p99("overload_p99", &seen.overloaded),
        p99("overload_minute_p99", &[minute]),
        p99("overload_minute_after_p99", &[after_minute]),
        p99("overload_elsewhere_p99", &seen.elsewhere),
        Row::figure("overload_served", Unit::PerSecond, median(&seen.served), capacity),
        p99("overload_after_p99", &seen.after),
        Row::figure("overload_memory", Unit::Kibibytes, grown, None),
    ];
    Ok(rows.into_iter().flatten().collect())
}

async fn round(volley: &mut Volley, seen: &mut Seen) -> Result<()> {
    let capacity = volley.fire(PROBE.0, PROBE.1).await.rate();
    tokio::time::sleep(PAUSE).await;
    seen.calm.push(p99(&fire(volley, capacity / TIMES, PART).await)?);
    let rate = capacity * TIMES;
    seen.elsewhere.push(p99(&volley.fire_mostly_elsewhere(count(rate, PART), rate, ONE_IN).await)?);
    let overloaded = fire(volley, rate, PART).await;
    tokio::time::sleep(PAUSE).await;
    seen.after.push(p99(&fire(volley, capacity / TIMES, PART).await)?);
    seen.overloaded.push(p99(&overloaded)?);
    seen.served.push(overloaded.rate());
    seen.capacity.push(capacity);
    Ok(())
}

/// The time within which 99 in 100 of the served were, microseconds; an error when one was not answered, or refused for another reason than
/// that there are too many.
fn p99(answers: &Answers) -> Result<f64> {
    match (answers.silent, answers.refused.first()) {
        (0, None) => Ok(answers.quantile(0.99).as_secs_f64() * 1e6),
        (silent, first) => Err(format!("{silent} requests had no answer, and the first refusal is {first:?}").into()),
    }
}

async fn fire(volley: &mut Volley, rate: f64, seconds: f64) -> Answers {
    volley.fire(count(rate, seconds), rate).await
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count of requests")]
fn count(rate: f64, seconds: f64) -> usize {
    (rate * seconds) as usize
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
