//! Judges a history: whether anything was lost, doubled, forked, or shown older than it was. Pure.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use casemate_protocol::limits::SECRET_HISTORY;

use super::history::{Call, Ending, Found, History, Moment, Outcome, Read, Write};

/// How much longer than its deadline a call may take before that counts: what a busy machine needs to wake a process.
pub const GRACE: Duration = Duration::from_millis(500);

/// What must not be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Violation {
    /// A write was answered, and its revision is not there.
    Lost(Write),
    /// A write that was denied is there.
    Denied(Write),
    /// A device asked again and again and was never told.
    Unresolved(Write),
    /// One write has two revisions, by what reads have shown.
    Doubled {
        /// Its value.
        value: u64,
        /// One of them.
        first: u64,
        /// The other.
        second: u64,
    },
    /// Two writes were given one revision.
    Shared {
        /// The revision.
        revision: u64,
    },
    /// The vault counts a revision that belongs to no write: one was executed twice, or one that was denied.
    Unclaimed {
        /// The revision.
        revision: u64,
    },
    /// A value that nobody wrote, or not to this secret, or not as this revision.
    Invented(Read),
    /// A read, or a write's revision, older than what an earlier answer had shown.
    Stale {
        /// The revision that was shown.
        found: u64,
        /// The revision that had been shown before it was asked for.
        known: u64,
    },
    /// The store has no such version between others.
    Gap {
        /// The missing version.
        version: u64,
    },
    /// A version does not name the object before it.
    Broken {
        /// The version.
        version: u64,
    },
    /// Two objects were one version: in two heads, or in a head and the store.
    Forked {
        /// The version.
        version: u64,
    },
    /// A device holds a head that the store does not reach.
    Vanished {
        /// The head's version.
        version: u64,
    },
    /// A caller waited longer than he was ready to.
    Late(Call),
    /// An answer that a node may not give, however it is hurt.
    Accused(String),
    /// A part of the node ended by itself or could not be started again.
    Ended(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(write) => write!(f, "lost: answered and not there: {write:?}"),
            Self::Denied(write) => write!(f, "said not to be done, and it is there: {write:?}"),
            Self::Unresolved(write) => write!(f, "nobody says what became of it: {write:?}"),
            Self::Doubled { value, first, second } => {
                write!(f, "doubled: value {value} stands as revision {first} and as {second}")
            }
            Self::Shared { revision } => write!(f, "two writes were answered with revision {revision}"),
            Self::Unclaimed { revision } => {
                write!(f, "doubled or denied: revision {revision} belongs to no write that was answered")
            }
            Self::Invented(read) => write!(f, "nobody wrote this: {read:?}"),
            Self::Stale { found, known } => write!(f, "stale: revision {found} was shown after revision {known}"),
            Self::Gap { version } => write!(f, "the store has no version {version} between others"),
            Self::Broken { version } => write!(f, "version {version} does not follow from the one before it"),
            Self::Forked { version } => write!(f, "forked: two objects were version {version}"),
            Self::Vanished { version } => write!(f, "a device holds version {version}, the store does not reach it"),
            Self::Late(Call { took, deadline }) => write!(f, "a caller with {deadline:?} waited {took:?}"),
            Self::Accused(text) => write!(f, "an answer that must not be: {text}"),
            Self::Ended(text) => write!(f, "a part does not run: {text}"),
        }
    }
}

/// Everything that is wrong with a vault.
pub fn check(history: &History, ending: &Ending) -> Vec<Violation> {
    let mut wrong: Vec<_> = history.accusations.iter().cloned().map(Violation::Accused).collect();
    wrong.extend(history.slowest.filter(|call| call.took > call.deadline + GRACE).map(Violation::Late));
    outcomes(history, &mut wrong);
    values(history, &mut wrong);
    ending_holds(history, ending, &mut wrong);
    order(history, &mut wrong);
    versions(history, ending, &mut wrong);
    wrong
}

/// Each write has one outcome, and no two the same revision.
fn outcomes(history: &History, wrong: &mut Vec<Violation>) {
    let mut revisions = BTreeSet::new();
    for write in &history.writes {
        match write.outcome {
            Outcome::Written(revision) if !revisions.insert(revision) => wrong.push(Violation::Shared { revision }),
            Outcome::Written(_) | Outcome::NotDone => {}
            Outcome::Unresolved => wrong.push(Violation::Unresolved(*write)),
        }
    }
}

/// Every value that was read is one that was written, to this secret and as this revision.
fn values(history: &History, wrong: &mut Vec<Violation>) {
    let writes: BTreeMap<u64, &Write> = history.writes.iter().map(|write| (write.value, write)).collect();
    let mut shown: BTreeMap<u64, u64> = BTreeMap::new();
    for read in &history.reads {
        let Some(Found { value, revision }) = read.found else { continue };
        let Some(write) = value.and_then(|value| writes.get(&value)).filter(|write| write.name == read.name) else {
            wrong.push(Violation::Invented(*read));
            continue;
        };
        let first = *shown.entry(write.value).or_insert(revision);
        if first != revision {
            wrong.push(Violation::Doubled { value: write.value, first, second: revision });
        }
        match write.outcome {
            Outcome::Written(answered) if answered != revision => {
                wrong.push(Violation::Doubled { value: write.value, first: answered, second: revision });
            }
            Outcome::NotDone => wrong.push(Violation::Denied(**write)),
            Outcome::Written(_) | Outcome::Unresolved => {}
        }
    }
}

/// In the end the vault has the writes that were answered and no others: revisions count each write once, so their numbers are those
/// of the answers, without a hole, and what is kept of a secret is the newest of its own.
fn ending_holds(history: &History, ending: &Ending, wrong: &mut Vec<Violation>) {
    let answered: BTreeMap<u64, &Write> = history
        .writes
        .iter()
        .filter_map(|write| match write.outcome {
            Outcome::Written(revision) => Some((revision, write)),
            Outcome::NotDone | Outcome::Unresolved => None,
        })
        .collect();
    let kept: BTreeMap<u64, &Vec<u64>> = ending.secrets.iter().map(|(name, kept)| (*name, kept)).collect();
    let newest = kept.values().filter_map(|kept| kept.first()).chain(answered.keys()).max().copied().unwrap_or(0);
    wrong.extend(
        (1..=newest)
            .filter(|revision| !answered.contains_key(revision))
            .map(|revision| Violation::Unclaimed { revision }),
    );
    let mut expected: BTreeMap<u64, Vec<(u64, &Write)>> = BTreeMap::new();
    for (revision, write) in answered.iter().rev() {
        let of_name = expected.entry(write.name).or_default();
        // The present revision and the former ones that a vault keeps.
        if of_name.len() <= SECRET_HISTORY {
            of_name.push((*revision, write));
        }
    }
    for (name, expected) in expected {
        let kept = kept.get(&name).map_or(&[][..], |kept| kept);
        wrong.extend(
            expected.iter().filter(|(revision, _)| !kept.contains(revision)).map(|(_, write)| Violation::Lost(**write)),
        );
    }
}

/// What an answer has shown is never unseen again: a read shows at least what was known of its secret when it was begun, and a write
/// gets a revision above all that was known of the vault.
fn order(history: &History, wrong: &mut Vec<Violation>) {
    let mut of_name: BTreeMap<u64, Known> = BTreeMap::new();
    let mut of_vault = Known::default();
    for write in &history.writes {
        if let Outcome::Written(revision) = write.outcome {
            of_name.entry(write.name).or_default().add(write.ended, revision);
            of_vault.add(write.ended, revision);
        }
    }
    for read in &history.reads {
        if let Some(found) = read.found {
            of_name.entry(read.name).or_default().add(read.ended, found.revision);
            of_vault.add(read.ended, found.revision);
        }
    }
    for read in &history.reads {
        let found = read.found.map_or(0, |found| found.revision);
        let known = of_name.get_mut(&read.name).map_or(0, |known| known.before(read.begun));
        if found < known {
            wrong.push(Violation::Stale { found, known });
        }
    }
    for write in &history.writes {
        let Outcome::Written(found) = write.outcome else { continue };
        let known = of_vault.before(write.begun);
        if found <= known {
            wrong.push(Violation::Stale { found, known });
        }
    }
}

/// Which revision was known when.
#[derive(Debug, Default)]
struct Known {
    ends: Vec<(Moment, u64)>,
    is_sorted: bool,
}

impl Known {
    fn add(&mut self, ended: Moment, revision: u64) {
        self.ends.push((ended, revision));
        self.is_sorted = false;
    }

    /// The highest revision that an answer had shown before `moment`.
    fn before(&mut self, moment: Moment) -> u64 {
        if !self.is_sorted {
            self.ends.sort_unstable();
            let mut highest = 0;
            for (_, revision) in &mut self.ends {
                highest = highest.max(*revision);
                *revision = highest;
            }
            self.is_sorted = true;
        }
        let place = self.ends.partition_point(|(ended, _)| *ended < moment);
        place.checked_sub(1).map_or(0, |place| self.ends[place].1)
    }
}

/// The store holds one unbroken chain, and it is the one that the devices have seen.
fn versions(history: &History, ending: &Ending, wrong: &mut Vec<Violation>) {
    for two in ending.stored.windows(2) {
        let (before, after) = (two[0], two[1]);
        if after.version != before.version + 1 {
            wrong.push(Violation::Gap { version: before.version + 1 });
        } else if after.previous != before.hash {
            wrong.push(Violation::Broken { version: after.version });
        }
    }
    let mut hashes: BTreeMap<u64, [u8; 32]> =
        ending.stored.iter().map(|stored| (stored.version, stored.hash)).collect();
    // The oldest version in the store tells of one more.
    if let Some(oldest) = ending.stored.first().filter(|oldest| oldest.version > 1) {
        hashes.insert(oldest.version - 1, oldest.previous);
    }
    let newest = ending.stored.last().map_or(0, |stored| stored.version);
    for head in &history.heads {
        if head.version > newest {
            wrong.push(Violation::Vanished { version: head.version });
        }
        if *hashes.entry(head.version).or_insert(head.hash) != head.hash {
            wrong.push(Violation::Forked { version: head.version });
        }
    }
}

#[cfg(test)]
#[path = "check_tests.rs"]
mod tests;
