//! The benchmark: rows, rounds, and the table. Every row stands beside the bare limit of the same run, measured in turns with it, so
//! that what else the machine does weighs on both.

mod attacked;
pub mod brood;
mod cold;
mod cpu;
pub mod echo;
mod evidence;
mod overload;
mod residents;
mod row;
mod spawn;
mod store;
mod storm;
mod vault;
mod wide;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use clap::ValueEnum;
use tokio::runtime::Runtime;

use crate::Node;
use row::{Row, Samples, Unit};
use wide::Wide;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Requests of one turn of a fast row; echo and vault take turns.
const TURN: u32 = 100;
/// Turns of one round.
const TURNS: u32 = 20;
/// Writes of one round.
const WRITES: u32 = 300;
/// Cold starts of one round.
const COLD: u32 = 60;
/// Documents judged in one round.
const EVIDENCE: u32 = 60;
/// The secret that is read.
const VALUE_BYTES: usize = 128;
/// Nothing here is to run into the limits that keep strangers small.
const LIMITS: &str = "[limits]\nopens_per_second = 100000\ncreates_per_second = 10000\n";

/// What is measured together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Group {
    /// One client's warm reads, beside the echo
    WarmGet,
    /// 64 reads in flight over 64 vaults, beside as many echoes
    #[value(name = "warm-get-64")]
    WarmGet64,
    /// Durable writes, beside an fsynced create of the same bytes
    DurablePut,
    /// Cold starts with the key cached, beside a read of the object
    ColdStart,
    /// Judging one Nitro document
    NitroVerify,
    /// Judging one SEV-SNP report, one SGX quote and one TDX quote, and one of them that a cache knows
    EvidenceVerify,
    /// Calls to the key service during 1,000 cold starts in one shard
    KmsCalls,
    /// What a vault-manager costs until it is ready
    Spawn,
    /// Memory of an idle resident vault, at 2,000
    Density,
    /// 10,000 resident vaults, or as many as the machine lets there be
    #[value(name = "resident-10000")]
    Resident10000,
    /// Twice as many vaults as there is room for, beside as many with room for all
    EvictionStorm,
    /// Reads while another vault is thrown bad frames, beside the calm
    AttackedNeighbour,
    /// Ten times as much is asked as can be done
    Overload,
}

impl Group {
    /// Whether it is measured in rounds with others, on a node that they share.
    const fn is_fast(self) -> bool {
        match self {
            Self::WarmGet
            | Self::WarmGet64
            | Self::DurablePut
            | Self::ColdStart
            | Self::NitroVerify
            | Self::EvidenceVerify
            | Self::KmsCalls => true,
            Self::Spawn
            | Self::Density
            | Self::Resident10000
            | Self::EvictionStorm
            | Self::AttackedNeighbour
            | Self::Overload => false,
        }
    }
}

/// Measures everything, or these groups; prints the table and writes `out`.
///
/// # Errors
/// When a part does not start, or a request fails.
pub fn run(runtime: &Runtime, rounds: u32, only: &[Group], out: &Path) -> Result<()> {
    let groups = if only.is_empty() { Group::value_variants() } else { only };
    let mut measured = Measured::default();
    let before = cpu::Machine::now()?;
    if groups.iter().any(|group| group.is_fast()) {
        let mut node = Node::start_with(LIMITS);
        runtime.block_on(measure(&node, rounds, groups, &mut measured))?;
        if groups.contains(&Group::KmsCalls) {
            measured.kms_calls = Some(runtime.block_on(cold::kms_calls(&mut node))?);
        }
    }
    let slow = measure_alone(runtime, rounds, groups)?;
    measured.stolen = Some(cpu::Machine::now()?.stolen_since(before));
    let mut rows = measured.finish();
    rows.extend(slow);
    row::print(&rows);
    row::write(&rows, out)?;
    Ok(())
}

/// The groups that have the machine to themselves, each on a node of its own.
fn measure_alone(runtime: &Runtime, rounds: u32, groups: &[Group]) -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    if groups.contains(&Group::Spawn) {
        rows.extend(spawn::measure()?);
    }
    if groups.contains(&Group::Density) || groups.contains(&Group::Resident10000) {
        rows.extend(runtime.block_on(residents::measure(groups))?);
    }
    if groups.contains(&Group::EvictionStorm) {
        rows.extend(runtime.block_on(storm::measure(rounds))?);
    }
    if groups.contains(&Group::AttackedNeighbour) {
        rows.extend(runtime.block_on(attacked::measure(rounds))?);
    }
    if groups.contains(&Group::Overload) {
        rows.extend(runtime.block_on(overload::measure(rounds))?);
    }
    Ok(rows)
}

#[derive(Debug, Default)]
struct Measured {
    echo: Samples,
    get: Samples,
    echo_64: Wide,
    get_64: Wide,
    create: Samples,
    put: Samples,
    read: Samples,
    cold: Samples,
    evidence: evidence::Measured,
    kms_calls: Option<u64>,
    /// What the machine's host took for others: with much of it the figures say little, and the ratios somewhat more.
    stolen: Option<f64>,
}

impl Measured {
    fn finish(&self) -> Vec<Row> {
        let system = [
            Row::time("nats_echo", &self.echo, None),
            Row::time("warm_get", &self.get, Some(&self.echo)),
            Row::figure("warm_get_64", Unit::PerSecond, self.get_64.rate(), self.echo_64.rate()),
            Row::figure("warm_get_64_cpu", Unit::Microseconds, self.get_64.cpu(), self.echo_64.cpu()),
            Row::time("warm_get_64_latency", &self.get_64.latency, Some(&self.echo_64.latency)),
            Row::time("fsynced_create", &self.create, None),
            Row::time("durable_put", &self.put, Some(&self.create)),
            Row::time("store_read", &self.read, None),
            Row::time("cold_start", &self.cold, Some(&self.read)),
        ];
        let machine = [
            Row::count("kms_calls_per_1000_cold_starts", self.kms_calls),
            Row::figure("stolen_time", Unit::Percent, self.stolen, None),
        ];
        system.into_iter().chain(self.evidence.rows()).chain(machine).flatten().collect()
    }
}

async fn measure(node: &Node, rounds: u32, groups: &[Group], rows: &mut Measured) -> Result<()> {
    let maker = vault::Maker::new(node).await?;
    // One that stays warm, and one that is written and evicted.
    let (vault, other) = (maker.create().await?, maker.create().await?);
    vault.put(&[7; VALUE_BYTES]).await?;
    other.put(&[7; VALUE_BYTES]).await?;
    let echo = echo::Echo::start(node, maker.client(), vault.request_bytes().await?).await?;
    let crowd = wide::Crowd::create(&maker).await?;
    let evidence = evidence::Evidence::find(node)?;
    // The first round warms everything up and is not counted.
    for round in 0..=rounds {
        let mut unused = Measured::default();
        let rows = if round == 0 { &mut unused } else { &mut *rows };
        for group in groups {
            match group {
                Group::WarmGet => warm_get(&vault, &echo, rows).await?,
                Group::WarmGet64 => {
                    crowd.echo(&echo, &mut rows.echo_64).await?;
                    crowd.get(&mut rows.get_64).await?;
                }
                Group::DurablePut => durable_put(node, &other, round, rows).await?,
                Group::ColdStart => cold_start(node, &other, rows).await?,
                Group::NitroVerify => evidence.judge_nitro(EVIDENCE, &mut rows.evidence)?,
                Group::EvidenceVerify => evidence.judge_others(EVIDENCE, &mut rows.evidence)?,
                // Measured by themselves.
                Group::KmsCalls
                | Group::Spawn
                | Group::Density
                | Group::Resident10000
                | Group::EvictionStorm
                | Group::AttackedNeighbour
                | Group::Overload => {}
            }
        }
    }
    Ok(())
}

async fn warm_get(vault: &vault::Bench, echo: &echo::Echo, rows: &mut Measured) -> Result<()> {
    for _ in 0..TURNS {
        for _ in 0..TURN {
            rows.echo.add(echo.ask().await?);
        }
        for _ in 0..TURN {
            rows.get.add(vault.get().await?);
        }
    }
    Ok(())
}

async fn durable_put(node: &Node, vault: &vault::Bench, round: u32, rows: &mut Measured) -> Result<()> {
    let object = vault.newest_object(node)?;
    for number in 0..WRITES {
        rows.create.add(store::create(&node.path("store"), round * WRITES + number, &object)?);
        rows.put.add(vault.put(&[8; VALUE_BYTES]).await?);
    }
    Ok(())
}

async fn cold_start(node: &Node, vault: &vault::Bench, rows: &mut Measured) -> Result<()> {
    for _ in 0..COLD {
        rows.read.add(store::read_newest(node, vault.id())?);
        vault.evict(node)?;
        rows.cold.add(vault.get().await?);
    }
    Ok(())
}

/// Nanoseconds, as the histograms hold them.
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
