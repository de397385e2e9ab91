//! Thousands of schedules, each from one seed: whatever goes wrong in them, nothing that was answered is lost or done twice, nothing is
//! shown that is not durable, nothing goes back, and everybody gets on once the trouble is over.
//!
//! `CASEMATE_SCHEDULES=N` plays N of them; `casemate-simulate --seed S` tells one step by step.

#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test program.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use casemate_simulation::{Report, play};

/// Schedules of one run of the tests, unless `CASEMATE_SCHEDULES` says otherwise.
const SCHEDULES: u64 = 200;
/// Seeds beyond these that are known to tell a broken product from a sound one: a newer head that is taken for known (233), another
/// writer's object that is taken for one's own (530), somebody who is called a stranger before his vault has a state (1192, 4129).
const TELLING: [u64; 4] = [233, 530, 1192, 4129];

/// Plays seeds on all processors.
fn play_all(seeds: &[u64]) -> Vec<Report> {
    let next = AtomicU64::new(0);
    let reports = Mutex::new(Vec::new());
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(seed) = seeds.get(usize::try_from(next.fetch_add(1, Ordering::Relaxed)).unwrap()) {
                    let report = play(*seed);
                    reports.lock().unwrap().push(report);
                }
            });
        }
    });
    let mut reports = reports.into_inner().unwrap();
    reports.sort_unstable_by_key(|report| report.seed);
    reports
}

fn assert_unbroken(reports: &[Report]) {
    let broken: Vec<_> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    for report in &broken {
        println!("seed {}: {}", report.seed, report.violations[0]);
    }
    assert!(
        broken.is_empty(),
        "{} of {} schedules broke something; `casemate-simulate --seed S` tells one",
        broken.len(),
        reports.len()
    );
}

#[test]
fn nothing_answered_is_lost_whatever_goes_wrong() {
    let schedules = std::env::var("CASEMATE_SCHEDULES").map_or(SCHEDULES, |count| count.parse().expect("a number"));
    let seeds: Vec<_> = (1..=schedules).chain(TELLING).collect();
    let reports = play_all(&seeds);
    assert_unbroken(&reports);
    // A world in which nothing happens would hold too.
    let sum = |count: fn(&Report) -> u64| reports.iter().map(count).sum::<u64>();
    assert!(sum(|report| report.writes) > 5 * schedules, "{}", sum(|report| report.writes));
    assert!(sum(|report| report.reads) > 2 * schedules, "{}", sum(|report| report.reads));
    assert!(sum(|report| report.evicted) > schedules, "{}", sum(|report| report.evicted));
    assert!(sum(|report| report.opened) > 3 * schedules, "{}", sum(|report| report.opened));
}

#[test]
fn a_seed_is_a_schedule_byte_for_byte() {
    let seeds: Vec<_> = (1..=20).collect();
    let (first, second) = (play_all(&seeds), play_all(&seeds));
    assert_eq!(first, second);
    assert!(first.windows(2).all(|pair| pair[0].trace != pair[1].trace), "and another seed is another one");
}
