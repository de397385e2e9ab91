//! One schedule, from its seed to its judgement.

use std::sync::Arc;
use std::time::Duration;

use casemate_enclave::outside::PutOutcome;
use casemate_enclave::supervisor::router::Put;
use casemate_protocol::id::VaultId;
use casemate_standins::SeededRandomness;

use crate::dice::Dice;
use crate::event::{Event, Trouble};
use crate::findings::{Findings, Listener, Violation};
use crate::history;
use crate::kms::Kms;
use crate::network::{Network, Wire};
use crate::node::{Node, Shared};
use crate::program::{Fate, Program};
use crate::store::Store;
use crate::tasks::Tasks;
use crate::time::{Due, Time};
use crate::weather::Weather;

/// After the trouble is over, everybody knows everything by then: an earlier call may take its longest time-out to end.
const SETTLES_WITHIN: Duration = Duration::from_secs(90);
/// More things than these do not happen in the longest schedule: somebody goes round in circles.
const STEPS: u64 = 400_000;

/// What became of one schedule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// What must not have happened, in its order.
    pub violations: Vec<Violation>,
    /// Lines of the trace.
    pub lines: u64,
    /// SHA-256 of the trace.
    pub trace: [u8; 32],
    /// Writes that were answered.
    pub writes: u64,
    /// Reads that were answered.
    pub reads: u64,
    /// Vaults opened, evicted.
    pub opened: u64,
    /// Vaults evicted.
    pub evicted: u64,
    /// Calls to the key service.
    pub kms_calls: u64,
    /// Simulated time.
    pub lasted: Duration,
}

/// Plays the schedule of a seed.
pub fn play(seed: u64) -> Report {
    run(seed, None)
}

/// Plays the schedule of a seed and tells the trace as it comes.
pub fn play_told(seed: u64, listener: Listener) -> Report {
    run(seed, Some(listener))
}

struct World<'a> {
    shared: &'a Shared,
    network: Network,
    nodes: Vec<Node<'a>>,
    programs: Vec<(Program, u64)>,
    tasks: Tasks,
    dice: Dice,
}

fn run(seed: u64, listener: Option<Listener>) -> Report {
    let mut dice = Dice::new(seed);
    let time = Time::default();
    let findings = Findings::new(time.clone(), listener);
    let weather = Weather::draw(&mut dice);
    findings.trace(format_args!("{weather:?}"));
    let shared = Shared {
        time: time.clone(),
        findings: findings.clone(),
        weather: weather.clone(),
        store: Store::new(findings.clone()),
        kms: Kms::new(time.clone(), weather.clone(), findings, dice.fork()),
        randomness: Arc::new(SeededRandomness::new(dice.bits())),
    };
    let network = Network::new(time.clone(), weather.clone(), dice.fork());
    let nodes = (0..weather.nodes).map(|node| Node::new(node, &shared, dice.fork())).collect();
    let mut world =
        World { shared: &shared, network, nodes, programs: Vec::new(), tasks: Tasks::default(), dice: dice.fork() };
    for number in 0..weather.programs {
        let wire = Wire { network: world.network.clone(), home: number % weather.nodes };
        let program = Program::new(number, wire, shared.clone(), dice.fork());
        let task = world.tasks.spawn(program.clone().live());
        world.programs.push((program, task));
    }
    for trouble in &weather.troubles {
        let at = dice.between(Duration::ZERO, weather.calm_at);
        time.after(at, Event::Trouble(*trouble));
    }
    time.after(weather.calm_at, Event::Calm);
    world.go_on();
    world.report(seed)
}

impl<'a> World<'a> {
    /// Lets one thing happen after the other until everybody has finished.
    fn go_on(&mut self) {
        let (shared, time) = (self.shared, &self.shared.time);
        let end = shared.weather.calm_at + SETTLES_WITHIN;
        self.tasks.run();
        for _ in 0..STEPS {
            if shared.findings.is_violated() || self.is_finished() {
                return;
            }
            let wake = self.nodes.iter().filter_map(Node::next_wake).min();
            let next = [time.next(), wake].into_iter().flatten().min().unwrap_or(end);
            if next >= end {
                return self.stuck();
            }
            let due = time.advance(next);
            let woken = matches!(due, Some(Due::Wake(_)));
            match due {
                Some(Due::Event(event)) => self.happens(event),
                Some(Due::Wake(waker)) => {
                    if let Some(waker) = waker.lock().ok().and_then(|mut waker| waker.take()) {
                        waker.wake();
                    }
                }
                None => {}
            }
            let now = time.now();
            for node in &mut self.nodes {
                node.run_tasks(woken);
                if node.next_wake().is_some_and(|wake| wake <= now) {
                    node.tick();
                }
            }
            self.tasks.run();
        }
        shared.findings.violation(format_args!("the schedule goes on for ever"));
    }

    fn is_finished(&self) -> bool {
        self.programs.iter().all(|(program, _)| program.is_finished())
    }

    fn stuck(&self) {
        let stuck = self.programs.iter().filter(|(program, _)| !program.is_finished());
        let stuck: Vec<_> = stuck.map(|(program, _)| program.vault().to_string()).collect();
        let findings = &self.shared.findings;
        findings
            .violation(format_args!("all trouble is over for {SETTLES_WITHIN:?}, and these do not get on: {stuck:?}"));
    }

    fn happens(&mut self, event: Event) {
        let findings = &self.shared.findings;
        match event {
            Event::Frame { call, node, vault, frame } => self.nodes[node].frame(call, vault, frame),
            Event::Answer { call, frame } => self.network.answer(call, frame),
            Event::Router(place, event) => self.nodes[place.node].router(place, event),
            Event::Hear { place, slot, process, message } => self.nodes[place.node].hear(place, slot, process, message),
            Event::Said { place, slot, process, message } => self.nodes[place.node].said(place, slot, process, message),
            Event::Gone { place, slot, process, exit } => self.nodes[place.node].gone(place, slot, process, exit),
            Event::Arrives { path, bytes, tell } => {
                let outcome = self.shared.store.create(&path, bytes);
                let Some(tell) = tell else { return };
                let put = match outcome {
                    _ if !tell.answered => Put::Unclear,
                    PutOutcome::Created => Put::Created,
                    PutOutcome::Exists => Put::Exists,
                };
                let (place, slot, op) = (tell.place, tell.slot, tell.op);
                self.shared.time.after(tell.after, Event::PutEnds { place, slot, op, put });
            }
            Event::PutEnds { place, slot, op, put } => self.nodes[place.node].put_ends(place, slot, op, put),
            Event::Reads { place, slot, op, read, fails } => {
                self.nodes[place.node].reads(place, slot, op, &read, fails);
            }
            Event::Collects { vault, below } => self.shared.store.collect(vault, below),
            Event::Trouble(trouble) => self.trouble(trouble),
            Event::Restart(program) => {
                findings.trace(format_args!("program {program} is started again"));
                let (program, task) = &mut self.programs[program];
                *task = self.tasks.spawn(program.clone().live());
            }
            Event::Boot(node) => self.nodes[node].boot(),
            Event::Calm => {
                findings.trace(format_args!("all trouble is over"));
                self.shared.weather.calm_down();
            }
        }
    }

    fn trouble(&mut self, trouble: Trouble) {
        let Shared { time, findings, .. } = self.shared;
        findings.trace(format_args!("{trouble:?}"));
        let again = self.dice.millis(1, 2_000);
        match trouble {
            Trouble::ManagerDies(program) => self.each_node(program, Node::kill_manager),
            Trouble::ManagerHangs(program) => self.each_node(program, Node::hang_manager),
            Trouble::EnclaveDies(node) => {
                self.nodes[node].crash();
                time.after(again, Event::Boot(node));
            }
            Trouble::LinkCut(node) => self.nodes[node].cut_link(),
            Trouble::ProgramDies(program) => {
                let task = self.programs[program].1;
                if self.tasks.is_running(task) {
                    self.tasks.kill(task);
                    time.after(again, Event::Restart(program));
                }
            }
            Trouble::MemoryShort(node) => self.nodes[node].short_of_memory(),
            Trouble::OperatorEvicts(program) => self.each_node(program, Node::evict),
        }
    }

    /// Does something to a program's vault, on whichever node it is.
    fn each_node(&mut self, program: usize, act: impl Fn(&mut Node<'a>, VaultId)) {
        let vault = self.programs[program].0.vault();
        for node in &mut self.nodes {
            act(node, vault);
        }
    }

    fn report(self, seed: u64) -> Report {
        let shared = self.shared;
        let (mut writes, mut reads) = (0, 0);
        for (program, _) in &self.programs {
            history::judge(shared, program);
            let done = program.writes().iter().filter(|write| matches!(write.fate, Fate::Done(_))).count();
            writes += done as u64;
            reads += program.reads().len() as u64;
        }
        let numbers = self.nodes.iter().map(Node::numbers);
        let (opened, evicted) = numbers.fold((0, 0), |sum, node| (sum.0 + node.0, sum.1 + node.1));
        let (violations, lines, trace) = shared.findings.close();
        let (kms_calls, lasted) = (shared.kms.calls(), shared.time.now());
        Report { seed, violations, lines, trace, writes, reads, opened, evicted, kms_calls, lasted }
    }
}
