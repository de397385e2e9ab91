use super::*;
use crate::chaos::history::{Held, Stored};

const NAME: u64 = 1;

fn write(value: u64, moments: (Moment, Moment), outcome: Outcome) -> Write {
    Write { name: NAME, value, begun: moments.0, ended: moments.1, outcome }
}

fn read(moments: (Moment, Moment), found: Option<(u64, u64)>) -> Read {
    let found = found.map(|(value, revision)| Found { value: Some(value), revision });
    Read { name: NAME, begun: moments.0, ended: moments.1, found }
}

fn stored(version: u64) -> Stored {
    Stored { version, hash: [u8::try_from(version).unwrap(); 32], previous: [u8::try_from(version - 1).unwrap(); 32] }
}

/// Two writes, one denied, one that was unknown for a while, and reads between them.
fn sound() -> (History, Ending) {
    let history = History {
        writes: vec![
            write(10, (1, 2), Outcome::Written(1)),
            write(11, (5, 6), Outcome::NotDone),
            write(12, (7, 20), Outcome::Written(2)),
        ],
        reads: vec![
            read((0, 3), None),
            read((3, 4), Some((10, 1))),
            // While the second write was unknown: either is right, and never back.
            read((8, 9), Some((10, 1))),
            read((10, 11), Some((12, 2))),
            read((21, 22), Some((12, 2))),
        ],
        heads: vec![Held { version: 2, hash: [2; 32] }, Held { version: 3, hash: [3; 32] }],
        slowest: Some(Call { took: Duration::from_secs(1) + GRACE, deadline: Duration::from_secs(1) }),
        accusations: Vec::new(),
    };
    (history, Ending { secrets: vec![(NAME, vec![2, 1])], stored: vec![stored(1), stored(2), stored(3)] })
}

#[track_caller]
fn found_by(break_it: impl FnOnce(&mut History, &mut Ending), expected: impl Fn(&Violation) -> bool) {
    let (mut history, mut ending) = sound();
    break_it(&mut history, &mut ending);
    let wrong = check(&history, &ending);
    assert!(wrong.iter().any(expected), "{wrong:?}");
}

#[test]
fn a_sound_history_is_sound() {
    let (history, ending) = sound();
    assert_eq!(check(&history, &ending), []);
    assert_eq!(check(&History::default(), &Ending::default()), []);
}

#[test]
fn a_lost_write_is_found() {
    found_by(
        |_, ending| ending.secrets[0].1 = vec![1],
        |wrong| matches!(wrong, Violation::Lost(write) if write.value == 12),
    );
    found_by(|_, ending| ending.secrets.clear(), |wrong| matches!(wrong, Violation::Lost(write) if write.value == 10));
}

#[test]
fn what_a_vault_keeps_no_longer_is_not_lost() {
    let mut history = History::default();
    for revision in 1..=20 {
        history.writes.push(write(revision, (revision * 2, revision * 2 + 1), Outcome::Written(revision)));
    }
    let kept = |from: u64| Ending { secrets: vec![(NAME, (from..=20).rev().collect())], stored: Vec::new() };
    assert_eq!(check(&history, &kept(12)), []);
    assert!(matches!(check(&history, &kept(13))[..], [Violation::Lost(Write { value: 12, .. })]));
}

#[test]
fn a_doubled_write_is_found() {
    // By its count, by two reads, by a read against its answer.
    found_by(|_, ending| ending.secrets[0].1.insert(0, 3), |wrong| *wrong == Violation::Unclaimed { revision: 3 });
    found_by(
        |history, _| history.reads.push(read((30, 31), Some((12, 3)))),
        |wrong| *wrong == Violation::Doubled { value: 12, first: 2, second: 3 },
    );
    found_by(
        |history, _| history.writes[2].outcome = Outcome::Written(3),
        |wrong| *wrong == Violation::Doubled { value: 12, first: 3, second: 2 },
    );
    found_by(
        |history, _| history.writes[0].outcome = Outcome::Written(2),
        |wrong| *wrong == Violation::Shared { revision: 2 },
    );
}

#[test]
fn a_denied_write_that_is_there_is_found() {
    found_by(
        |history, _| history.reads.push(read((5, 6), Some((11, 2)))),
        |wrong| matches!(wrong, Violation::Denied(write) if write.value == 11),
    );
    found_by(|_, ending| ending.secrets[0].1.insert(0, 3), |wrong| *wrong == Violation::Unclaimed { revision: 3 });
}

#[test]
fn an_outcome_that_nobody_tells_is_found() {
    found_by(
        |history, _| history.writes[1].outcome = Outcome::Unresolved,
        |wrong| matches!(wrong, Violation::Unresolved(write) if write.value == 11),
    );
}

#[test]
fn a_value_that_nobody_wrote_is_found() {
    let invented = |wrong: &Violation| matches!(wrong, Violation::Invented(_));
    found_by(|history, _| history.reads.push(read((30, 31), Some((99, 2)))), invented);
    found_by(|history, _| history.reads[4].found = Some(Found { value: None, revision: 2 }), invented);
    // Of another secret.
    found_by(|history, _| history.reads.push(Read { name: 2, ..read((30, 31), Some((12, 2))) }), invented);
}

#[test]
fn a_stale_read_is_found() {
    let stale = |known: u64, found: u64| move |wrong: &Violation| *wrong == Violation::Stale { found, known };
    found_by(|history, _| history.reads.push(read((23, 24), Some((10, 1)))), stale(2, 1));
    // Older than what another session had read while the write was unknown.
    found_by(|history, _| history.reads.push(read((12, 13), Some((10, 1)))), stale(2, 1));
    found_by(|history, _| history.reads.push(read((3, 4), None)), stale(1, 0));
    // A write that was executed on an older state.
    found_by(|history, _| history.writes.push(write(13, (23, 24), Outcome::Written(2))), stale(2, 2));
}

#[test]
fn a_gap_is_found() {
    found_by(
        |_, ending| ending.stored.retain(|stored| stored.version != 2),
        |wrong| *wrong == Violation::Gap { version: 2 },
    );
}

#[test]
fn a_broken_chain_is_found() {
    found_by(|_, ending| ending.stored[2].previous = [9; 32], |wrong| *wrong == Violation::Broken { version: 3 });
}

#[test]
fn a_forked_head_is_found() {
    // Two devices hold two, a device and the store do, also of a version that was collected meanwhile.
    let forked = |version: u64| move |wrong: &Violation| *wrong == Violation::Forked { version };
    let hold =
        |version: u64| move |history: &mut History, _: &mut Ending| history.hold(Held { version, hash: [9; 32] });
    found_by(hold(3), forked(3));
    found_by(
        |history, ending| {
            drop(ending.stored.drain(..2));
            hold(2)(history, ending);
        },
        forked(2),
    );
    found_by(
        |history, ending| {
            ending.stored.clear();
            hold(2)(history, ending);
        },
        forked(2),
    );
}

#[test]
fn a_store_that_lost_its_newest_version_is_found() {
    found_by(|_, ending| ending.stored.truncate(2), |wrong| *wrong == Violation::Vanished { version: 3 });
}

#[test]
fn a_caller_that_waited_too_long_is_found() {
    let call = Call { took: Duration::from_millis(1501), deadline: Duration::from_secs(1) };
    found_by(|history, _| history.took(call), |wrong| *wrong == Violation::Late(call));
    // The longest beyond its own deadline counts, not the longest.
    found_by(
        |history, _| {
            history.took(call);
            history.took(Call { took: Duration::from_secs(9), deadline: Duration::from_secs(10) });
        },
        |wrong| *wrong == Violation::Late(call),
    );
}

#[test]
fn an_answer_that_must_not_be_is_found() {
    found_by(
        |history, _| history.accusations.push("rollback".to_owned()),
        |wrong| *wrong == Violation::Accused("rollback".to_owned()),
    );
}
