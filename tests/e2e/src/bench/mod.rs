//! The benchmark: rows, rounds, and the table.

pub mod echo;
mod row;
mod store;
mod vault;

use std::error::Error;
use std::path::Path;
use std::time::Duration;

use tokio::runtime::Runtime;

use crate::Node;
use row::Row;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// Requests of one round of a fast row.
const FAST: u32 = 2000;
/// Writes of one round.
const WRITES: u32 = 300;
/// Cold starts of one round.
const COLD: u32 = 60;
/// The secret that is read.
const VALUE_BYTES: usize = 128;

/// Measures everything; prints the table and writes `out`.
///
/// # Errors
/// When a part does not start, or a request fails.
pub fn run(runtime: &Runtime, rounds: u32, out: &Path) -> Result<()> {
    let node = Node::start_with("[limits]\nopens_per_second = 100000\ncreates_per_second = 10000\n");
    let mut rows = Rows::default();
    runtime.block_on(measure(&node, rounds, &mut rows))?;
    let rows = rows.finish();
    row::print(&rows);
    row::write(&rows, out)?;
    Ok(())
}

#[derive(Debug, Default)]
struct Rows {
    echo: row::Samples,
    get: row::Samples,
    create: row::Samples,
    put: row::Samples,
    read: row::Samples,
    cold: row::Samples,
}

impl Rows {
    fn finish(&self) -> Vec<Row> {
        vec![
            Row::new("nats_echo", &self.echo, None),
            Row::new("warm_get", &self.get, Some(&self.echo)),
            Row::new("fsynced_create", &self.create, None),
            Row::new("durable_put", &self.put, Some(&self.create)),
            Row::new("store_read", &self.read, None),
            Row::new("cold_start", &self.cold, Some(&self.read)),
        ]
    }
}

async fn measure(node: &Node, rounds: u32, rows: &mut Rows) -> Result<()> {
    let client = async_nats::connect(node.nats_url()).await?;
    let _responder = echo::Responder::start(node, &client).await?;
    let vault = vault::Bench::create(node, client.clone()).await?;
    vault.put(&[7; VALUE_BYTES]).await?;
    // The first round warms everything up and is not counted.
    for round in 0..=rounds {
        let mut unused = Rows::default();
        let rows = if round == 0 { &mut unused } else { &mut *rows };
        for _ in 0..FAST {
            rows.echo.add(echo::ask(&client).await?);
        }
        for _ in 0..FAST {
            rows.get.add(vault.get().await?);
        }
        let object = vault.newest_object(node)?;
        for number in 0..WRITES {
            rows.create.add(store::create(&node.path("store"), round * WRITES + number, &object)?);
        }
        for _ in 0..WRITES {
            rows.put.add(vault.put(&[8; VALUE_BYTES]).await?);
        }
        for _ in 0..COLD {
            rows.read.add(store::read_newest(node, vault.id())?);
            vault.evict(node)?;
            rows.cold.add(vault.get().await?);
        }
    }
    Ok(())
}

/// Microseconds, as the histograms hold them (in nanoseconds).
fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}
