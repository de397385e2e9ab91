//! A few rounds of the fault harness in which one part alone is hurt.

use casemate_e2e::chaos::{self, Options, Part, Report};

/// Rounds of a test.
pub(crate) const ROUNDS: u64 = 8;

/// Hurts `part` at points that follow from `seed`, under a load of writes and reads, and expects every promise of the harness's judge to
/// hold: answered writes are there, none is doubled, no caller waits beyond its deadline.
pub(crate) fn hold(seed: u64, part: Part) -> Report {
    let report = chaos::run(&Options::of(seed, ROUNDS, &[part]), &|_| {}).unwrap_or_else(|failure| panic!("{failure}"));
    assert_eq!(report.rounds, ROUNDS);
    assert!(report.faults() >= ROUNDS, "the part was hurt: {report}");
    assert!(report.tally.writes >= ROUNDS * 20, "there was a load: {report}");
    report
}
