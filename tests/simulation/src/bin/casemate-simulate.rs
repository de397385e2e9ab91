//! Plays schedules: one seed, told step by step, or many, counted.
#![allow(clippy::print_stdout)] // It speaks to a terminal.

use std::process::ExitCode;
use std::time::Instant;

use casemate_simulation::{play, play_told};
use clap::Parser;

/// Plays the whole system by seed and says what broke.
#[derive(Debug, Parser)]
#[command(name = "casemate-simulate")]
struct Arguments {
    /// The first seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How many schedules, from that seed on. One is told step by step.
    #[arg(long, default_value_t = 1)]
    schedules: u64,
    /// Go on after a schedule that broke something.
    #[arg(long)]
    keep_going: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let begun = Instant::now();
    let (mut broken, mut writes, mut opened, mut evicted) = (0_u64, 0, 0, 0);
    for seed in arguments.seed..arguments.seed + arguments.schedules {
        let report =
            if arguments.schedules == 1 { play_told(seed, Box::new(|line| print!("{line}"))) } else { play(seed) };
        writes += report.writes;
        opened += report.opened;
        evicted += report.evicted;
        if !report.violations.is_empty() {
            broken += 1;
            for violation in &report.violations {
                println!("seed {seed} {violation}");
            }
            if !arguments.keep_going {
                break;
            }
        }
        if arguments.schedules == 1 {
            println!("{report:?}");
        }
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!(
        "{} schedules from seed {} in {seconds:.1} s, {broken} of them broken",
        arguments.schedules, arguments.seed
    );
    println!("{writes} writes answered, {opened} vaults opened, {evicted} evicted");
    if broken == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
