//! Ten times as many signatures are asked for as can be made: how long those wait who are served, beside those of a node at a tenth of its load.

use std::time::Duration;

use super::Result;
use super::row::{Row, Unit};
use crate::load::{Answers, Volley, Work};
use crate::{Node, census};

/// Vaults that are asked.
const VAULTS: usize = 64;
/// What is fired to learn what the node can do, and how many a second.
const PROBE: (usize, f64) = (20_000, 20_000.0);
/// How long calm and overload are measured.
const SECONDS: f64 = 10.0;
/// Sealed beforehand, in memory: no more than this.
const MOST: f64 = 600_000.0;
const TIMES: f64 = 10.0;
/// Of ten times what can be done, the calm is this part.
const ONE_IN: usize = 100;
/// After which full speed is expected.
const PAUSE: Duration = Duration::from_secs(2);

/// The rows of overload.
pub(super) async fn measure() -> Result<Vec<Row>> {
    let node = Node::start_with(super::LIMITS);
    let mut volley = Volley::load(&node, VAULTS, Work::Sign).await;
    let capacity = volley.fire(PROBE.0, PROBE.1).await.rate();
    tokio::time::sleep(PAUSE).await;
    let calm = fire(&mut volley, capacity / TIMES).await;
    let before = memory(&node)?;
    let (count, rate) = volume(capacity * TIMES);
    let elsewhere = volley.fire_mostly_elsewhere(count, rate, ONE_IN).await;
    tokio::time::sleep(PAUSE).await;
    let before = before.min(memory(&node)?);
    let overloaded = fire(&mut volley, capacity * TIMES).await;
    let grown = memory(&node)? - before;
    tokio::time::sleep(PAUSE).await;
    let after = fire(&mut volley, capacity / TIMES).await;
    if overloaded.silent > 0 {
        return Err(format!("{} requests had no answer", overloaded.silent).into());
    }
    let wrong = overloaded.refused.len();
    if wrong > 0 {
        return Err(format!("{wrong} requests were refused otherwise, {:?} first", overloaded.refused[0]).into());
    }
    let p99 = |answers: &Answers| answers.quantile(0.99).as_secs_f64() * 1e6;
    let rows = [
        Row::figure("overload_p99", Unit::Microseconds, p99(&overloaded), Some(p99(&calm))),
        Row::figure("overload_elsewhere_p99", Unit::Microseconds, p99(&elsewhere), Some(p99(&calm))),
        Row::figure("overload_served", Unit::PerSecond, overloaded.rate(), Some(capacity)),
        Row::figure("overload_after_p99", Unit::Microseconds, p99(&after), Some(p99(&calm))),
        Row::figure("overload_memory", Unit::Kibibytes, grown, None),
    ];
    Ok(rows.into_iter().flatten().collect())
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
