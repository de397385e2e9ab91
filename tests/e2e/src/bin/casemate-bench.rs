//! Measures the running system beside the bare limit, in one run: a NATS echo of the same size, an fsynced create of the same bytes.

use std::path::PathBuf;
use std::process::ExitCode;

use casemate_e2e::bench::{self, Group, brood, echo};
use casemate_enclave::{vault, zygote};
use casemate_memory::{Heap, keep_blocks};
use clap::{Parser, Subcommand};

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Measure a node of this build. Prints a table and writes the same as JSON.
#[derive(Debug, Parser)]
struct Cli {
    /// Rounds; each measures every row once, bare limit and vault in turn
    #[arg(long, default_value_t = 5)]
    rounds: u32,
    /// Measure these groups only
    #[arg(long, value_delimiter = ',')]
    only: Vec<Group>,
    /// Where the JSON goes
    #[arg(long, default_value = "target/bench.json")]
    out: PathBuf,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, Subcommand)]
enum Part {
    /// The other end of the echo; the benchmark starts it by itself
    #[command(hide = true)]
    Echo {
        /// The NATS server
        url: String,
    },
    /// Children that have nothing to do; likewise
    #[command(hide = true)]
    Brood,
}

#[expect(clippy::print_stderr, reason = "a program's main speaks to its user")]
fn main() -> ExitCode {
    // One row measures with this program as the zygote.
    zygote::enter_if_zygote(vault::rehearsal::rehearse, vault::process::run);
    keep_blocks();
    let cli = Cli::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let done = match cli.part {
        Some(Part::Echo { url }) => runtime.block_on(echo::respond(&url)),
        Some(Part::Brood) => brood::brood(),
        None => bench::run(&runtime, cli.rounds, &cli.only, &cli.out),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
