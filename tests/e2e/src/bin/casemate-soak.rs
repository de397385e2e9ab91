//! Keeps a node under half load for a long time and checks that nothing grows.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::time::Duration;

use casemate_e2e::soak::{self, Options, Sample};
use clap::Parser;

/// Keep a node of this build under half of the load that it can carry, reads and writes over vaults of which not all are resident, and
/// check that neither memory nor descriptors nor zombies nor latency grow.
#[derive(Debug, Parser)]
struct Cli {
    /// How long
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    minutes: u64,
}

#[expect(clippy::print_stderr, reason = "a program's main speaks to its user")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let on_terminal = std::io::stderr().is_terminal();
    eprintln!("{} minutes at half load", cli.minutes);
    let report = soak::run(Options { length: Duration::from_mins(cli.minutes) }, &|sample: &Sample| {
        if on_terminal {
            eprint!("\r\x1b[K{sample}");
            let _ = std::io::stderr().flush();
        } else {
            eprintln!("{sample}");
        }
    });
    if on_terminal {
        eprintln!();
    }
    eprintln!("{report}");
    if report.is_good() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
