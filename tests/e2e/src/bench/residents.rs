//! Many resident vaults on one node: what each of them costs, beside a child that has nothing to do, and how many there can be.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, TryStreamExt, stream};

use super::brood::Brood;
use super::row::{Row, Unit};
use super::vault::{Bench, Maker};
use super::wide::median;
use super::{Group, Result, VALUE_BYTES};
use crate::{Node, census};

/// As many vaults as the machine lets there be, for as long as the benchmark takes.
const LIMITS: &str = "[limits]\nvault_limit = 100000\nidle_ms = 86400000\nopens_per_second = 100000\n\
                      creates_per_second = 100000\n";
/// Vaults of which the cost of one is told.
const MANY: usize = 2_000;
/// Vaults that there are to be at most.
const MOST: usize = 10_000;
/// Vaults that are made, or asked, at the same time.
const AT_ONCE: usize = 32;
/// Vaults between two looks at the machine's memory.
const STEP: usize = 100;
/// What the machine's memory may still move by in [`REST`], in bytes, and how long it may take until it moves no more.
const STILL: u64 = 1024 * 1024;
const REST: Duration = Duration::from_secs(2);
const RESTLESS: Duration = Duration::from_mins(1);
const KIB: f64 = 1024.0;

/// Measures these groups on a node of their own.
pub(super) async fn measure(groups: &[Group]) -> Result<Vec<Row>> {
    let bare = if groups.contains(&Group::Density) { Some(bare().await?) } else { None };
    settle().await?;
    let node = Node::start_with(LIMITS);
    let mut crowd = Crowd::start(&node).await?;
    let mut rows = Vec::new();
    if let Some((proportional, taken)) = bare {
        crowd.grow(MANY).await?;
        rows.extend(Row::figure("pss_per_vault", Unit::Kibibytes, crowd.proportional()?, Some(proportional)));
        rows.extend(Row::figure("available_per_vault", Unit::Kibibytes, crowd.taken(), taken));
    }
    if groups.contains(&Group::Resident10000) {
        crowd.grow(MOST.min(crowd.limit()?)).await?;
        let (proportional, taken) = (crowd.proportional()?, crowd.taken());
        crowd.answers().await?;
        rows.extend(Row::figure("resident_10000", Unit::Vaults, count(crowd.managers()?.len()), None));
        rows.extend(Row::figure("resident_10000_pss", Unit::Kibibytes, proportional, None));
        rows.extend(Row::figure("resident_10000_available", Unit::Kibibytes, taken, None));
    }
    Ok(rows)
}

/// Waits until the machine's memory stands still: the kernel takes seconds to have back what many processes had that have just ended.
async fn settle() -> Result<()> {
    let until = Instant::now() + RESTLESS;
    let mut before = census::available()?;
    while Instant::now() < until {
        tokio::time::sleep(REST).await;
        let now = census::available()?;
        if now.abs_diff(before) < STILL {
            break;
        }
        before = now;
    }
    Ok(())
}

/// What a child costs that has nothing to do, as many of them as vaults: KiB that belong to one, and that are gone of the machine for one.
async fn bare() -> Result<(f64, Option<f64>)> {
    settle().await?;
    let mut brood = Brood::start()?;
    let mut looks = Vec::new();
    for born in 0..MANY {
        if born % STEP == 0 {
            looks.push((count(born), number(census::available()?)));
        }
        brood.bear()?;
    }
    Ok((number(brood.proportional()?) / KIB, slope(&looks).map(|bytes| -bytes / KIB)))
}

/// The vaults of a node, all of them resident.
struct Crowd<'a> {
    node: &'a Node,
    maker: Maker,
    vaults: Vec<Bench>,
    /// How many there were, and what could be had of the machine then, this process left out: in vaults and bytes.
    looks: Vec<(f64, f64)>,
}

impl<'a> Crowd<'a> {
    async fn start(node: &'a Node) -> Result<Self> {
        let mut crowd = Self { node, maker: Maker::new(node).await?, vaults: Vec::new(), looks: Vec::new() };
        // What the first vaults make the parts set aside, all share.
        crowd.make(AT_ONCE).await?;
        Ok(crowd)
    }

    /// Makes vaults until there are so many, and looks at the machine's memory now and then.
    async fn grow(&mut self, until: usize) -> Result<()> {
        while self.vaults.len() < until {
            self.make(STEP.min(until - self.vaults.len())).await?;
            let own = census::resident(std::process::id()).ok_or("this process is there")?;
            self.looks.push((count(self.vaults.len()), number(census::available()? + own)));
        }
        let resident = self.managers()?.len();
        if resident == until { Ok(()) } else { Err(format!("{resident} of {until} vaults are resident").into()) }
    }

    /// Makes vaults, each with a secret that was written and read.
    async fn make(&mut self, wanted: usize) -> Result<()> {
        let maker = &self.maker;
        let one = async || {
            let vault = maker.create().await?;
            vault.put(&[7; VALUE_BYTES]).await?;
            vault.get().await?;
            Ok::<_, Box<dyn std::error::Error>>(vault)
        };
        let new: Vec<Bench> = stream::iter((0..wanted).map(|_| one())).buffer_unordered(AT_ONCE).try_collect().await?;
        self.vaults.extend(new);
        Ok(())
    }

    /// Every vault answers, and none of them had to be opened for it.
    async fn answers(&self) -> Result<()> {
        let before = self.managers()?;
        stream::iter(self.vaults.iter().map(Bench::get)).buffer_unordered(AT_ONCE).try_collect::<Vec<_>>().await?;
        if before == self.managers()? { Ok(()) } else { Err("vaults were opened again to answer".into()) }
    }

    /// KiB that belong to one vault-manager, as the kernel shares out what several have.
    fn proportional(&self) -> Result<f64> {
        let managers = self.managers()?;
        let bytes: u64 = managers.iter().filter_map(|pid| census::proportional(*pid)).sum();
        Ok(number(bytes) / count(managers.len()) / KIB)
    }

    /// KiB of the machine that are gone for each vault, kernel and all parts of the node included, this client excluded.
    fn taken(&self) -> Option<f64> {
        Some(-slope(&self.looks)? / KIB)
    }

    fn managers(&self) -> Result<BTreeSet<u32>> {
        let enclave = self.node.enclave.as_ref().ok_or("the enclave runs")?;
        Ok(census::managers(enclave.pid().as_raw().unsigned_abs())?.into_iter().collect())
    }

    /// How many vaults the node lets there be.
    fn limit(&self) -> Result<usize> {
        let (_, health) = self.node.health().ok_or("the node answers")?;
        let limit = health["vaults"]["limit"].as_u64().ok_or("health tells the limit")?;
        Ok(usize::try_from(limit)?)
    }
}

#[expect(clippy::cast_precision_loss, reason = "bytes of a machine, below 2^53")]
fn number(of: u64) -> f64 {
    of as f64
}

#[expect(clippy::cast_precision_loss, reason = "vaults of a machine")]
fn count(of: usize) -> f64 {
    of as f64
}

/// What one more of the first adds to the second: the median over all pairs, which a jump or two do not move (Theil and Sen). What else
/// the machine does while the benchmark runs shows as such.
fn slope(points: &[(f64, f64)]) -> Option<f64> {
    let pairs =
        points.iter().enumerate().flat_map(|(at, first)| points[at + 1..].iter().map(move |second| (first, second)));
    let slopes: Vec<f64> = pairs.map(|(first, second)| (second.1 - first.1) / (second.0 - first.0)).collect();
    median(&slopes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jump_does_not_move_the_slope() {
        let points: Vec<_> = (0..20_u32).map(|at| (f64::from(at), f64::from(1000 - 3 * at))).collect();
        assert_eq!(slope(&points), Some(-3.0));
        let jumped: Vec<_> = points.iter().map(|(at, of)| (*at, if *at < 3.0 { of - 500.0 } else { *of })).collect();
        assert_eq!(slope(&jumped), Some(-3.0));
        assert_eq!(slope(&points[..1]), None);
    }
}
