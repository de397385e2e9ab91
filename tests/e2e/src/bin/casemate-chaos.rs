//! Hurts a running node, round after round, and checks that nothing is lost.

use std::io::{IsTerminal, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_e2e::chaos::{self, Options, Part, Report};
use clap::{Parser, ValueEnum};

/// Between two lines about the progress, where there is no terminal.
const ROUNDS_A_LINE: u64 = 50;

/// Hurt a running node of this build at points that follow from a seed, under a load of known writes and reads, and check what was
/// seen: nothing lost, nothing doubled, no gap, no fork, nothing older than what was shown before, nobody left waiting.
#[derive(Debug, Parser)]
struct Cli {
    /// Rounds
    #[arg(long, default_value_t = 100)]
    rounds: u64,
    /// The seed from which every plan follows; drawn and printed if it is not given
    #[arg(long)]
    seed: Option<u64>,
    /// The first round: `--from R --rounds 1` has the plan of round R again
    #[arg(long, default_value_t = 0)]
    from: u64,
    /// Nodes side by side
    #[arg(long, default_value_t = 2)]
    lanes: u64,
    /// Hurt only these (repeat it for several)
    #[arg(long = "part", value_enum)]
    parts: Vec<Hurt>,
    /// The result as JSON on standard output
    #[arg(long)]
    json: bool,
}

/// A part as the command line names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Hurt {
    Manager,
    Supervisor,
    Parent,
    Nats,
    Kms,
}

impl From<Hurt> for Part {
    fn from(part: Hurt) -> Self {
        match part {
            Hurt::Manager => Self::Manager,
            Hurt::Supervisor => Self::Supervisor,
            Hurt::Parent => Self::Parent,
            Hurt::Nats => Self::Nats,
            Hurt::Kms => Self::Kms,
        }
    }
}

#[expect(clippy::print_stderr, clippy::print_stdout, reason = "a program's main speaks to its user")]
fn main() -> ExitCode {
    let cli = Cli::parse();
    let seed = cli.seed.unwrap_or_else(drawn);
    let mut parts: Vec<Part> = cli.parts.into_iter().map(Part::from).collect();
    if parts.is_empty() {
        parts = Part::ALL.to_vec();
    }
    let options = Options { seed, from: cli.from, rounds: cli.rounds, lanes: cli.lanes, parts };
    eprintln!("seed {seed}: {} rounds on {} nodes", options.rounds, options.lanes.clamp(1, options.rounds.max(1)));
    let on_terminal = std::io::stderr().is_terminal();
    let shown = AtomicU64::new(0);
    let result = chaos::run(&options, &|report: &Report| {
        if on_terminal {
            eprint!("\r\x1b[K{report}");
            let _ = std::io::stderr().flush();
        } else if report.rounds >= shown.load(Ordering::Relaxed) + ROUNDS_A_LINE {
            shown.store(report.rounds, Ordering::Relaxed);
            eprintln!("{report}");
        }
    });
    if on_terminal {
        eprintln!();
    }
    match result {
        Ok(report) => {
            if cli.json {
                println!("{}", report.to_json());
            }
            eprintln!("{report}");
            for (what, count) in &report.strikes {
                eprintln!("  {count:>6} {what}");
            }
            eprintln!("no violation");
            ExitCode::SUCCESS
        }
        Err(failure) => {
            if cli.json {
                println!("{}", failure.to_json());
            }
            eprintln!("{failure}\nthe same plan again: --seed {seed} --from {} --rounds 1", failure.plan.round);
            ExitCode::FAILURE
        }
    }
}

/// A seed that no run had before.
fn drawn() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or_default()
}
