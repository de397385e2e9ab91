//! Each target's corpus, replayed: what seeds say of themselves holds, and neither they nor mutations of them cost more memory
//! than the target may take.
//!
//! A corpus is `<package>/fuzz/corpus/<target>`, one input a file. A file whose name begins with `refused` must be refused,
//! every other must be taken: a corpus whose inputs stopped at the first check would test nothing.

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::PathBuf;

use casemate_fuzzing::{Meter, Target, peak_of};

#[path = "../../../attestation/fuzz/targets.rs"]
mod attestation;
#[path = "../../../client/fuzz/targets.rs"]
mod client;
#[path = "../../../eif/fuzz/targets.rs"]
mod eif;
#[path = "../../../enclave/fuzz/targets.rs"]
mod enclave;
#[path = "../../../parent/fuzz/targets.rs"]
mod parent;
#[path = "../../../protocol/fuzz/targets.rs"]
mod protocol;

#[global_allocator]
static METER: Meter = Meter;

const PACKAGES: [(&str, &[Target]); 6] = [
    ("protocol", protocol::TARGETS),
    ("attestation", attestation::TARGETS),
    ("enclave", enclave::TARGETS),
    ("client", client::TARGETS),
    ("parent", parent::TARGETS),
    ("eif", eif::TARGETS),
];

fn folder(package: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..").join(package).join("fuzz/corpus")
}

fn names(folder: &PathBuf) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let name = |entry: std::io::Result<fs::DirEntry>| entry.expect("a readable folder").file_name();
    entries.map(|entry| name(entry).into_string().expect("a name in ASCII")).collect()
}

fn seeds(package: &str, target: &Target) -> Vec<(String, Vec<u8>)> {
    let folder = folder(package).join(target.name);
    names(&folder)
        .into_iter()
        .map(|name| (name.clone(), fs::read(folder.join(&name)).expect("a readable seed")))
        .collect()
}

fn each() -> impl Iterator<Item = (&'static str, &'static Target)> {
    PACKAGES.into_iter().flat_map(|(package, targets)| targets.iter().map(move |target| (package, target)))
}

#[test]
fn each_target_has_a_corpus_and_each_corpus_a_target() {
    let mut all = BTreeSet::new();
    for (package, targets) in PACKAGES {
        let wanted: BTreeSet<String> = targets.iter().map(|target| target.name.to_owned()).collect();
        assert_eq!(names(&folder(package)), wanted, "{package}");
        assert!(wanted.iter().all(|name| all.insert(name.clone())), "names are unique among packages");
    }
}

#[test]
fn seeds_are_what_their_names_say() {
    let mut wrong = Vec::new();
    for (package, target) in each() {
        let seeds = seeds(package, target);
        assert!(seeds.iter().any(|(name, _)| !name.starts_with("refused")), "{}: nothing is taken", target.name);
        for (name, bytes) in seeds {
            if target.take(&bytes) == name.starts_with("refused") {
                wrong.push(format!("{}/{name}", target.name));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Each seed, cut short, and with bytes changed and repeated, as a fuzzer would but the same at each run.
#[test]
fn mutations_keep_every_promise() {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        // Marsaglia's xorshift: quick, and the same everywhere.
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state % below.max(1) as u64).expect("below a usize")
    };
    for (package, target) in each() {
        let seeds = seeds(package, target);
        for _ in 0..10_000 {
            let mut bytes = seeds[random(seeds.len())].1.clone();
            for _ in 0..=random(4) {
                let (at, value) = (random(bytes.len()), u8::try_from(random(256)).expect("a byte"));
                match random(4) {
                    0 => bytes.truncate(at),
                    1 => bytes.insert(at.min(bytes.len()), value),
                    2 if at < bytes.len() => bytes.extend_from_within(at..),
                    _ if at < bytes.len() => bytes[at] = value,
                    _ => {}
                }
            }
            bytes.truncate(16 * 1024);
            target.take(&bytes);
        }
    }
}

/// The measure itself: what it must see, and that a target that takes too much is stopped.
#[test]
fn memory_is_measured() {
    const GREEDY: Target =
        Target { name: "greedy", run: |bytes| vec![0_u8; bytes.len() * 3].is_empty(), per_byte: 2, fixed: 100 };
    let ((), peak) = peak_of(|| drop((vec![0_u8; 5000], Vec::<u8>::with_capacity(3000))));
    assert!((8000..8200).contains(&peak), "{peak}");
    let ((), peak) = peak_of(|| (0..4).for_each(|_| drop(vec![0_u8; 5000])));
    assert!((5000..5200).contains(&peak), "what was given back does not count: {peak}");
    let (_, grown) = peak_of(|| {
        let mut grown = vec![1_u8; 4000];
        grown.resize(8000, 0);
        grown.len()
    });
    assert!(grown >= 12_000, "growing holds both: {grown}");

    assert!(!GREEDY.take(&[0; 100]));
    let refused = catch_unwind(|| GREEDY.take(&[0; 101])).unwrap_err();
    assert!(refused.downcast_ref::<String>().unwrap().contains("greedy: 101 bytes made it allocate 303, allowed 302"));
}
