//! A run: rounds, one after the other on each of a few nodes.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};

use super::check::Violation;
use super::dice::Dice;
use super::plan::{Blow, NAMES, OPERATIONS, Part, Plan, Strike, VAULTS, WRITERS};
use super::strike::{self, Progress};
use super::subject::{Subject, Tally, Through};
use crate::Node;

/// Rounds after which vaults are deleted and new ones made: what is kept of a vault, and judged each time, stays bounded.
const ROUNDS_OF_A_VAULT: u64 = 20;
/// Old versions are kept, so that the judge sees more than what a vault needs, and collected, so that collecting is under test too.
/// A write that the parent does not answer is asked after soon.
const CONFIGURATION: &str =
    "[limits]\nversions_kept = 64\nstore_timeout_ms = 2000\nopens_per_second = 10000\ncreates_per_second = 1000\n";

/// What to run.
#[derive(Debug, Clone)]
pub struct Options {
    /// Everything that is drawn follows from it.
    pub seed: u64,
    /// The first round.
    pub from: u64,
    /// How many.
    pub rounds: u64,
    /// Nodes side by side. A plan does not depend on it.
    pub lanes: u64,
    /// What may be hurt.
    pub parts: Vec<Part>,
}

impl Options {
    /// Rounds with these parts on one node.
    pub fn of(seed: u64, rounds: u64, parts: &[Part]) -> Self {
        Self { seed, from: 0, rounds, lanes: 1, parts: parts.to_vec() }
    }
}

/// What a run came to.
#[derive(Debug, Clone, Default)]
pub struct Report {
    /// Rounds without a violation.
    pub rounds: u64,
    /// Their operations.
    pub tally: Tally,
    /// Faults, by what they were.
    pub strikes: BTreeMap<String, u64>,
    /// How long it took.
    pub elapsed: Duration,
}

impl Report {
    /// Faults in all.
    pub fn faults(&self) -> u64 {
        self.strikes.values().sum()
    }

    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let Tally { writes, reads, unknown, failed, longest } = self.tally;
        json!({
            "rounds": self.rounds, "writes": writes, "reads": reads, "asked_again": unknown, "failed": failed,
            "longest_ms": u64::try_from(longest.as_millis()).unwrap_or(u64::MAX),
            "faults": self.strikes, "seconds": self.elapsed.as_secs(), "violations": 0,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Tally { writes, reads, unknown, failed, longest } = self.tally;
        write!(
            f,
            "{} rounds in {:.0?}: {} faults, {writes} writes and {reads} reads answered, {failed} calls failed, {unknown} outcomes \
             unknown at first, longest call {longest:.0?}",
            self.rounds,
            self.elapsed,
            self.faults(),
        )
    }
}

/// A round that went wrong.
#[derive(Debug)]
pub struct Failure {
    /// What was done.
    pub plan: Plan,
    /// What was wrong.
    pub violations: Vec<Violation>,
    /// Where the node's files lie, logs and store.
    pub directory: PathBuf,
}

impl Failure {
    /// The same for programs.
    pub fn to_json(&self) -> Value {
        let texts = |of: &mut dyn Iterator<Item = String>| of.collect::<Vec<_>>();
        json!({
            "seed": self.plan.seed, "round": self.plan.round,
            "plan": texts(&mut self.plan.strikes.iter().map(ToString::to_string)),
            "violations": texts(&mut self.violations.iter().map(ToString::to_string)),
            "directory": self.directory,
        })
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.plan)?;
        self.violations.iter().try_for_each(|violation| writeln!(f, "violation: {violation}"))?;
        write!(f, "the logs lie in {}", self.directory.join("log").display())
    }
}

/// What the lanes share.
struct Shared<'a> {
    options: &'a Options,
    next: AtomicU64,
    stop: AtomicBool,
    report: Mutex<Report>,
    failure: Mutex<Option<Failure>>,
    started: Instant,
    tell: &'a (dyn Fn(&Report) + Sync),
}

impl Shared<'_> {
    fn report(&self) -> MutexGuard<'_, Report> {
        self.report.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next round, until there are enough or one has failed.
    fn next(&self) -> Option<u64> {
        let round = self.next.fetch_add(1, Ordering::Relaxed);
        (round < self.options.rounds && !self.stop.load(Ordering::Relaxed)).then_some(self.options.from + round)
    }
}

/// Runs; `tell` hears after each round.
///
/// # Errors
/// The first round that went wrong.
///
/// # Panics
/// When a node cannot be started in the first place.
pub fn run(options: &Options, tell: &(dyn Fn(&Report) + Sync)) -> Result<Report, Box<Failure>> {
    let shared = Shared {
        options,
        next: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        report: Mutex::default(),
        failure: Mutex::default(),
        started: Instant::now(),
        tell,
    };
    thread::scope(|scope| {
        for _ in 0..options.lanes.clamp(1, options.rounds.max(1)) {
            scope.spawn(|| lane(&shared));
        }
    });
    match shared.failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some(failure) => Err(Box::new(failure)),
        None => Ok(shared.report.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}

/// One node and the rounds on it.
fn lane(shared: &Shared<'_>) {
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    let mut node = Node::start_with(CONFIGURATION);
    let mut subjects = Vec::new();
    let mut rounds = 0;
    while let Some(round) = shared.next() {
        if rounds % ROUNDS_OF_A_VAULT == 0 {
            subjects = runtime.block_on(renew(&node, &subjects));
        }
        rounds += 1;
        let plan = Plan::new(shared.options.seed, round, &shared.options.parts);
        let (done, violations) = perform(&mut node, &runtime, &subjects, &plan);
        if violations.is_empty() {
            let mut report = shared.report();
            report.rounds += 1;
            report.elapsed = shared.started.elapsed();
            for subject in &subjects {
                report.tally.add(&subject.take_tally());
            }
            for strike in done {
                *report.strikes.entry(kind(&strike)).or_default() += 1;
            }
            (shared.tell)(&report);
            continue;
        }
        shared.stop.store(true, Ordering::Relaxed);
        let mut failure = shared.failure.lock().unwrap_or_else(PoisonError::into_inner);
        if failure.is_none() {
            *failure = Some(Failure { plan, violations, directory: node.keep() });
        }
        return;
    }
}

fn kind(Strike { part, blow, .. }: &Strike) -> String {
    let blow = match blow {
        Blow::Kill => "killed",
        Blow::Pause(_) => "stopped",
        Blow::Away(_) => "away",
    };
    format!("{part} {blow}")
}

async fn renew(node: &Node, old: &[Subject]) -> Vec<Subject> {
    join_all(old.iter().map(Subject::delete)).await;
    join_all((0..VAULTS).map(|_| Subject::create(node))).await
}

/// One round: the load and, beside it, the faults; then the judgement.
fn perform(node: &mut Node, runtime: &Runtime, subjects: &[Subject], plan: &Plan) -> (Vec<Strike>, Vec<Violation>) {
    let progress = Progress::default();
    let hurt = thread::scope(|scope| {
        let striker = scope.spawn(|| strike::carry_out(node, plan, &progress));
        runtime.block_on(load(subjects, plan, &progress));
        progress.finish();
        striker.join()
    });
    let done = match hurt {
        Ok(done) => done,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            return (Vec::new(), vec![Violation::Ended(text.unwrap_or_else(|| "a part cannot be started".to_owned()))]);
        }
    };
    let mut violations: Vec<_> =
        node.ended_parts().into_iter().map(|part| Violation::Ended(format!("{part} ended by itself"))).collect();
    if violations.is_empty() {
        violations = runtime.block_on(join_all(subjects.iter().map(|subject| subject.judge(node)))).concat();
    }
    (done, violations)
}

/// The operations of a round: of each vault several tasks that write and read through one session, and one that reads through another.
async fn load(subjects: &[Subject], plan: &Plan, progress: &Progress) {
    let tasks = subjects.iter().zip(0..).flat_map(|(subject, vault)| {
        (0..=WRITERS).map(move |task| {
            let mut dice = Dice::new(plan.seed, &[plan.round, vault, task]);
            let through = if task == WRITERS { Through::Reader } else { Through::Writer };
            async move {
                for _ in 0..OPERATIONS {
                    let name = dice.below(NAMES);
                    if dice.below(16) == 0 {
                        subject.disconnect(through);
                    }
                    if through == Through::Writer && dice.below(3) != 0 {
                        subject.write(name).await;
                    } else {
                        subject.read(through, name).await;
                    }
                    progress.operation();
                }
            }
        })
    });
    join_all(tasks).await;
}
