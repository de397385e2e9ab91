//! Every order of events within bounds: an answered write is never lost, nothing is done twice, nobody is shown less than before, what
//! has work in flight is not evicted, and once nothing goes wrong any more everybody is answered.
//!
//! Each promise is shown to be one that can be broken: for each fault that can be put into the model, the promise that finds it.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test program.

use std::collections::HashSet;
use std::fmt::Write;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::Mutex;

use casemate_model::{Bounds, Mutation, Operation, Promise, Sign, Step, World};
use stateright::{Checker, Expectation, HasDiscoveries, Model, Property};

use Operation::{Get, Put};

/// From every state, whatever went wrong until then.
const PROGRESS: &str = "everybody is answered once nothing goes wrong any more";
/// Steps of a way to the end; the longest is far below.
const LONGEST_WAY: usize = 500;
/// States from which the end is known to be reached are remembered in so many sets, so that threads rarely wait for each other.
const SETS: u64 = 64;

/// What the checker explores.
struct Vault {
    bounds: Bounds,
    mutation: Option<Mutation>,
    ends_well: Vec<Mutex<HashSet<u64>>>,
}

impl Vault {
    fn new(scripts: &'static [&'static [Operation]], trouble: u8, mutation: Option<Mutation>) -> Self {
        let ends_well = (0..SETS).map(|_| Mutex::default()).collect();
        Self { bounds: Bounds { scripts, trouble }, mutation, ends_well }
    }

    fn set(&self, hash: u64) -> &Mutex<HashSet<u64>> {
        &self.ends_well[usize::try_from(hash % SETS).unwrap()]
    }

    /// Whether everybody is answered if from here on nothing goes wrong and nobody hurries. The way there is gone once: whatever state is
    /// on it ends well too.
    fn ends_well(&self, world: &World) -> bool {
        let mut way = Vec::new();
        let mut world = world.clone();
        while !world.is_done() && world.broken.is_none() {
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&world);
            if self.set(hash).lock().unwrap().contains(&hash) {
                break;
            }
            way.push(hash);
            match world.calm() {
                Some(step) if way.len() <= LONGEST_WAY => world = world.after(step),
                Some(_) | None => return false,
            }
        }
        for hash in way {
            self.set(hash).lock().unwrap().insert(hash);
        }
        true
    }
}

impl Model for Vault {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        [false, true].map(|resident| World::new(self.bounds, self.mutation, resident)).into()
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        world.steps(steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        Some(world.after(step))
    }

    fn properties(&self) -> Vec<Property<Self>> {
        /// A property is a plain function: each promise and each sign gets one.
        macro_rules! properties {
            (always $($promise:ident)*; sometimes $($sign:ident)*) => { vec![
                Property::always(PROGRESS, |vault: &Self, world: &World| vault.ends_well(world)),
                $(Property::always(Promise::$promise.text(), |_: &Self, world: &World| world.broken != Some(Promise::$promise)),)*
                $(Property::sometimes(Sign::$sign.text(), |_: &Self, world: &World| Sign::$sign.shows(world)),)*
            ] };
        }
        properties!(
            always Answered Kept Once Forward Heads Durable OneBody Dropped Idle Believed Obedient;
            sometimes Done Evicted Resumed NoPlace Finishing Remembered Shared Reloading Overtaken OtherWriter Unknown LatePut ReadBack PutAgain Adrift
        )
    }
}

/// The steps that lead to a state.
fn tale(steps: impl IntoIterator<Item = Step>) -> String {
    steps.into_iter().fold(String::new(), |mut tale, step| {
        writeln!(tale, "    {step:?}").unwrap();
        tale
    })
}

/// Tries everything within bounds: no promise is broken, and each of `signs` is seen.
fn holds(scripts: &'static [&'static [Operation]], trouble: u8, signs: &[Sign]) {
    let checker = Vault::new(scripts, trouble, None).checker().threads(threads()).spawn_bfs().join();
    println!(
        "{scripts:?}, trouble {trouble}: {} states, {} transitions, depth {}",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth()
    );
    assert!(checker.is_done(), "the checker stopped before it had tried everything");
    let mut found = checker.discoveries();
    for sign in signs {
        assert!(found.contains_key(sign.text()), "never seen: {}", sign.text());
    }
    found.retain(|name, _| checker.model().property(name).expectation == Expectation::Always);
    if let Some((name, path)) = found.into_iter().next() {
        panic!("not so that {name}\n{}", tale(path.into_actions()));
    }
}

fn threads() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// What two devices with a trouble show.
const SIGNS: [Sign; 14] = [
    Sign::Done,
    Sign::Evicted,
    Sign::Resumed,
    Sign::NoPlace,
    Sign::Finishing,
    Sign::Remembered,
    Sign::Reloading,
    Sign::Overtaken,
    Sign::OtherWriter,
    Sign::Unknown,
    Sign::LatePut,
    Sign::ReadBack,
    Sign::PutAgain,
    Sign::Adrift,
];

#[test]
fn nothing_answered_is_lost_and_nobody_waits_for_ever() {
    holds(&[&[Put, Get], &[Put]], 1, &SIGNS);
}

#[test]
fn one_device_and_two_troubles() {
    holds(&[&[Put, Get]], 2, &[Sign::Done, Sign::Remembered, Sign::OtherWriter, Sign::Unknown, Sign::LatePut]);
}

#[test]
fn writes_that_share_a_version() {
    holds(&[&[Put], &[Put], &[Put]], 0, &[Sign::Done, Sign::Shared, Sign::OtherWriter, Sign::Finishing]);
}

#[test]
#[ignore = "long: minutes, and gigabytes of memory"]
fn one_device_and_three_troubles() {
    holds(&[&[Put, Get]], 3, &[Sign::Done, Sign::Remembered, Sign::OtherWriter, Sign::Unknown, Sign::LatePut]);
}

#[test]
#[ignore = "long: minutes, and gigabytes of memory"]
fn two_devices_that_read_what_they_wrote() {
    holds(&[&[Put, Get], &[Put, Get]], 1, &SIGNS);
}

#[test]
fn each_fault_is_found_by_the_promise_that_it_breaks() {
    let found_by = |mutation| match mutation {
        Mutation::AnswersBeforeCreated | Mutation::TakesExistsForCreated => Promise::Answered.text(),
        Mutation::ReadsOverlay => Promise::Durable.text(),
        Mutation::IgnoresHeads => Promise::Heads.text(),
        Mutation::NeverReloads | Mutation::ReloadsForLatecomers => Promise::Believed.text(),
        Mutation::OutlivesItsVault | Mutation::ParksWhatItLost => Promise::Dropped.text(),
        Mutation::ForgetsOutcomes => Promise::Once.text(),
        Mutation::TakesUnclearForNotSent | Mutation::ReopensOverLatePut => Promise::OneBody.text(),
        Mutation::ForgetsLatePut => PROGRESS,
        Mutation::EvictsBusy => Promise::Idle.text(),
        Mutation::Overwrites => Promise::Kept.text(),
    };
    for mutation in Mutation::ALL {
        let needs_trouble = matches!(
            mutation,
            Mutation::ForgetsOutcomes
                | Mutation::TakesUnclearForNotSent
                | Mutation::ReopensOverLatePut
                | Mutation::ForgetsLatePut
                | Mutation::ParksWhatItLost
        );
        let name = found_by(mutation);
        let vault = Vault::new(&[&[Put, Get], &[Put, Get]], needs_trouble.into(), Some(mutation));
        let found = HasDiscoveries::AnyOf([name].into());
        let checker = vault.checker().threads(threads()).finish_when(found).spawn_bfs().join();
        let path = checker.discoveries().remove(name).unwrap_or_else(|| panic!("{mutation:?} is not found"));
        println!("{mutation:?}, after {} states: not so that {name}", checker.unique_state_count());
        println!("{}", tale(path.into_actions()));
    }
}
