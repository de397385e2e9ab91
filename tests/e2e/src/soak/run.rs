//! A long run: the load, the looks at the node, the verdict.

use std::fmt;
use std::time::{Duration, Instant};

use super::judge::{self, Finding, Sample};
use super::load::{Load, RESIDENT};
use crate::process::Process;
use crate::{Node, census};

/// How often the node is looked at, at least and at most, and how many looks a run has in between.
const OFTEN: Duration = Duration::from_secs(3);
const SELDOM: Duration = Duration::from_secs(30);
const LOOKS: u32 = 120;
/// How long it is measured what the node can carry.
const FULL_LOAD: Duration = Duration::from_secs(5);
/// The share of it that the run asks for.
const HALF: f64 = 0.5;

/// What to run.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// How long.
    pub length: Duration,
}

/// What a run came to.
#[derive(Debug, Clone)]
pub struct Report {
    /// What the node could carry at the beginning, requests a second.
    pub capacity: f64,
    /// Every look.
    pub samples: Vec<Sample>,
    /// Requests that failed.
    pub failures: u64,
    /// What the first of them was told, and after how long.
    pub first_failure: Option<String>,
    /// What was wrong.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether nothing grew and nothing failed.
    pub const fn is_good(&self) -> bool {
        self.findings.is_empty() && self.failures == 0
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let requests: u64 = self.samples.iter().map(|sample| sample.requests).sum();
        let length = self.samples.last().map_or(Duration::ZERO, |sample| sample.at);
        writeln!(
            f,
            "{requests} requests in {length:.0?} at half of {:.0} a second, {} failed, {} looks",
            self.capacity,
            self.failures,
            self.samples.len()
        )?;
        self.first_failure.iter().try_for_each(|failure| writeln!(f, "  the first that failed: {failure}"))?;
        self.findings.iter().try_for_each(|finding| writeln!(f, "  {finding}"))?;
        f.write_str(if self.is_good() { "nothing grew" } else { "not as it should be" })
    }
}

impl fmt::Display for Sample {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:>5.0?}  {:>6} requests, p50 {:>7.1?}, p99 {:>7.1?};",
            self.at, self.requests, self.median, self.p99
        )?;
        self.memory.iter().try_for_each(|(part, bytes)| write!(f, " {part} {} KiB,", bytes / 1024))?;
        let descriptors: u64 = self.descriptors.values().sum();
        write!(f, " {descriptors} descriptors, {} zombies", self.zombies)
    }
}

/// Runs; `tell` hears of each look.
///
/// # Panics
/// When the node does not start, or a vault cannot be made on it.
pub fn run(options: Options, tell: &dyn Fn(&Sample)) -> Report {
    let configuration = format!("[limits]\nvault_limit = {RESIDENT}\nversions_kept = 4\ncreates_per_second = 1000\n");
    let node = Node::start_with(&configuration);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let load = runtime.block_on(Load::create(&node));
    let capacity = runtime.block_on(load.go_on(Instant::now() + FULL_LOAD, None));
    load.take();
    let (begun, between) = (Instant::now(), (options.length / LOOKS).clamp(OFTEN, SELDOM));
    let mut samples: Vec<Sample> = Vec::new();
    while begun.elapsed() < options.length {
        runtime.block_on(load.go_on(Instant::now() + between, Some(capacity * HALF)));
        let seen = load.take();
        let mut sample = look(&node);
        sample.at = begun.elapsed();
        (sample.requests, sample.median, sample.p99) = (seen.requests, seen.median, seen.p99);
        tell(&sample);
        samples.push(sample);
    }
    let findings = judge::judge(&samples);
    Report { capacity, failures: load.failures(), first_failure: load.first_failure(), samples, findings }
}

/// What the kernel says of the node now. A part that is not there is missing.
fn look(node: &Node) -> Sample {
    let pid = |process: &Option<Process>| process.as_ref().map(|process| process.pid().as_raw().unsigned_abs());
    let enclave = pid(&node.enclave).unwrap_or_default();
    let family = census::family(enclave).unwrap_or_default();
    let managers: Vec<u64> =
        census::managers(enclave).unwrap_or_default().into_iter().filter_map(census::proportional).collect();
    let zygote = family.iter().find(|member| member.parent == enclave).map(|member| member.pid);
    let parts = [
        ("nats-server", pid(&node.nats)),
        ("kms", pid(&node.kms)),
        ("parent", pid(&node.parent)),
        ("supervisor", Some(enclave)),
        ("zygote", zygote),
    ];
    let mut sample = Sample { zombies: zombies(&family), ..Sample::default() };
    for (part, pid) in parts {
        let Some(pid) = pid else { continue };
        sample.memory.extend(census::resident(pid).map(|bytes| (part, bytes)));
        let own = if part == "supervisor" { managers.len() as u64 } else { 0 };
        sample.descriptors.extend(census::descriptors(pid).map(|count| (part, count.saturating_sub(own))));
    }
    let count = managers.len() as u64;
    sample.memory.extend(managers.iter().sum::<u64>().checked_div(count).map(|bytes| ("one vault-manager", bytes)));
    sample
}

fn zombies(family: &[census::Member]) -> u64 {
    family.iter().filter(|member| member.is_zombie).count() as u64
}
