//! What holds for real vault-manager processes: their walls, their life and death, their randomness, the time they take.
//!
//! The test program is itself the zygote of the vault-managers that it tests, so it has a `main` of its own. Without root the
//! layers that need it are waived and what depends on them is skipped, by name.
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a test program")]

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

mod deeds;
mod layers;
mod lifecycle;
mod randomness;
mod tenants;
mod walls;

type Test = (&'static str, fn());

fn main() -> ExitCode {
    casemate_enclave::zygote::enter_if_zygote(|| {}, deeds::run);
    if std::env::args().nth(1).as_deref() == Some(lifecycle::SUPERVISOR) {
        lifecycle::be_a_supervisor();
    }
    if std::env::args().nth(1).as_deref() == Some(walls::POOR_SUPERVISOR) {
        walls::be_a_poor_supervisor(std::env::args().skip(2));
    }
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with('-')).collect();
    let listing = std::env::args().any(|argument| argument == "--list");
    let tests = [walls::TESTS, layers::TESTS, lifecycle::TESTS, randomness::TESTS].concat();
    let (mut run, mut failed) = (0, 0);
    for (name, test) in tests {
        if !wanted.is_empty() && !wanted.iter().any(|part| name.contains(part.as_str())) {
            continue;
        }
        if listing {
            println!("{name}: test");
            continue;
        }
        let begun = Instant::now();
        let passed = catch_unwind(AssertUnwindSafe(test)).is_ok();
        run += 1;
        failed += u32::from(!passed);
        println!("test {name} ... {} ({:?})", if passed { "ok" } else { "FAILED" }, begun.elapsed());
    }
    // In the words of the usual harness, for whoever sums them up.
    let verdict = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {verdict}. {} passed; {failed} failed; 0 ignored", run - failed);
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
