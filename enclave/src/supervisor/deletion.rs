//! Deleting what is no longer needed: old versions, oldest first, and after a tombstone the key objects, last.
//!
//! Best effort by design: what stays behind is sealed, costs space only, and is asked for again with the next collection. Vaults take
//! turns: one whose deletion is long, or fails, stands in nobody's way.

use std::collections::VecDeque;

use casemate_protocol::id::VaultId;
use casemate_protocol::link::{DELETE_PATHS, LogEvent, LogLevel, TOLD_VERSIONS};
use casemate_protocol::path;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::backoff;
use super::log::Log;
use super::router::GENERATION;
use super::store::LinkStore;
use crate::outside::StoreError;

/// Vaults whose deletions wait. Beyond, a collection is left to the next one.
pub const QUEUE: usize = 256;
/// Tries of one deletion.
const ATTEMPTS: u32 = 5;
/// Calls with which one turn deletes.
const CALLS: usize = 16;
/// Turns of one deletion. A parent could go on for ever inventing versions.
const TURNS: u32 = 128;

/// What to delete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deletion {
    /// Of this vault.
    pub vault: VaultId,
    /// The versions below this one.
    pub below: u64,
    /// And its key objects, once those versions are gone.
    pub keys: bool,
}

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    Done,
    /// There is more.
    Unfinished,
    Failed,
}

/// A deletion that waits for its turn.
#[derive(Debug)]
struct Waiting {
    deletion: Deletion,
    due: Instant,
    failures: u32,
    turns: u32,
}

/// Deletions that wait, one for each vault.
#[derive(Debug, Default)]
struct Backlog(VecDeque<Waiting>);

impl Backlog {
    /// Takes a deletion in, behind all others, unless one of the same vault waits already: then that one becomes both.
    fn push(&mut self, new: Waiting) {
        let waits = self.0.iter().position(|waiting| waiting.deletion.vault == new.deletion.vault);
        if let Some(at) = waits {
            let old = &mut self.0[at];
            if new.deletion.keys && !old.deletion.keys {
                // Nobody asks for these again.
                (old.failures, old.turns) = (0, 0);
            }
            old.deletion.below = old.deletion.below.max(new.deletion.below);
            old.deletion.keys |= new.deletion.keys;
        } else if self.0.len() < QUEUE {
            self.0.push_back(new);
        }
    }

    /// The first one that is due.
    fn next(&mut self, now: Instant) -> Option<Waiting> {
        let at = self.0.iter().position(|waiting| waiting.due <= now)?;
        self.0.remove(at)
    }

    /// When the next one is due.
    fn due(&self) -> Option<Instant> {
        self.0.iter().map(|waiting| waiting.due).min()
    }

    /// One that was taken out has had its turn.
    fn after(&mut self, mut waiting: Waiting, turn: Turn, now: Instant) {
        waiting.turns += 1;
        match turn {
            Turn::Done => return,
            Turn::Unfinished => {}
            Turn::Failed => {
                waiting.due = now + backoff::wait(waiting.failures + 3, waiting.deletion.below);
                waiting.failures += 1;
            }
        }
        if waiting.failures < ATTEMPTS && waiting.turns < TURNS {
            self.push(waiting);
        }
    }
}

/// Works deletions off, one turn after the other: it must never stand in the way of a commit.
pub async fn run(store: LinkStore, mut queue: mpsc::Receiver<Deletion>, log: Log) {
    let mut backlog = Backlog::default();
    loop {
        while let Ok(deletion) = queue.try_recv() {
            backlog.push(Waiting::new(deletion, Instant::now()));
        }
        if let Some(waiting) = backlog.next(Instant::now()) {
            let turn = delete(&store, waiting.deletion).await.unwrap_or(Turn::Failed);
            if turn == Turn::Failed {
                log.tell(LogLevel::Warn, LogEvent::StoreFailed, None);
            }
            backlog.after(waiting, turn, Instant::now());
            continue;
        }
        let due = backlog.due();
        tokio::select! {
            deletion = queue.recv() => match deletion {
                Some(deletion) => backlog.push(Waiting::new(deletion, Instant::now())),
                None => return,
            },
            () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {}
        }
    }
}

impl Waiting {
    fn new(deletion: Deletion, due: Instant) -> Self {
        Self { deletion, due, failures: 0, turns: 0 }
    }
}

/// One turn.
async fn delete(store: &LinkStore, deletion: Deletion) -> Result<Turn, StoreError> {
    let Deletion { vault, below, keys } = deletion;
    let mut versions = store.versions(vault).await?;
    let was_all = versions.len() < TOLD_VERSIONS;
    // The parent may list what it likes, in any order. Only what the vault gave up is deleted.
    versions.retain(|version| *version < below);
    versions.sort_unstable();
    let mut chunks = versions.chunks(DELETE_PATHS);
    for chunk in chunks.by_ref().take(CALLS) {
        store.delete(chunk.iter().map(|version| path::vault_version(vault, *version)).collect()).await?;
    }
    if !was_all || chunks.len() > 0 {
        return Ok(Turn::Unfinished);
    }
    if keys {
        store.delete((1..=GENERATION).map(|generation| path::vault_key(vault, generation)).collect()).await?;
    }
    Ok(Turn::Done)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(number: u32, below: u64, keys: bool, due: Instant) -> Waiting {
        let mut vault = [0; 20];
        vault[..4].copy_from_slice(&number.to_le_bytes());
        Waiting::new(Deletion { vault: VaultId::from_bytes(vault), below, keys }, due)
    }

    fn vault(waiting: &Waiting) -> u8 {
        waiting.deletion.vault.as_bytes()[0]
    }

    #[test]
    fn vaults_take_turns_whatever_one_of_them_asks() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        for below in 1..1000 {
            backlog.push(of(1, below, below == 5, now));
        }
        backlog.push(of(2, 1, false, now));
        let first = backlog.next(now).unwrap();
        assert_eq!((first.deletion.below, first.deletion.keys), (999, true), "all in one");
        backlog.after(first, Turn::Unfinished, now);
        let second = backlog.next(now).unwrap();
        assert_eq!(vault(&second), 2);
        backlog.after(second, Turn::Done, now);
        let first = backlog.next(now).unwrap();
        backlog.push(of(1, 1001, false, now));
        backlog.after(first, Turn::Unfinished, now);
        let first = backlog.next(now).unwrap();
        assert_eq!((first.deletion.below, first.deletion.keys), (1001, true), "with what came during its turn");
        assert!(backlog.next(now).is_none());
    }

    #[test]
    fn who_fails_waits_beside_the_others_and_ends() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        backlog.push(of(1, 9, false, now));
        for _ in 0..ATTEMPTS {
            let failing = backlog.next(now).unwrap();
            assert_eq!(vault(&failing), 1);
            backlog.after(failing, Turn::Failed, now);
            backlog.push(of(2, 9, false, now));
            assert_eq!(vault(&backlog.next(now).unwrap()), 2, "it keeps nobody waiting");
            assert!(backlog.next(now).is_none());
            now += backoff::LONGEST;
        }
        assert_eq!(backlog.due(), None, "it is left to the next collection");
    }

    #[test]
    fn an_ended_vaults_keys_have_their_own_tries() {
        let (mut backlog, mut now) = (Backlog::default(), Instant::now());
        backlog.push(of(1, 9, false, now));
        for _ in 1..ATTEMPTS {
            let failing = backlog.next(now).unwrap();
            backlog.after(failing, Turn::Failed, now);
            now += backoff::LONGEST;
        }
        backlog.push(of(1, 9, true, now));
        let failing = backlog.next(now).unwrap();
        backlog.after(failing, Turn::Failed, now);
        assert!(backlog.next(now + backoff::LONGEST).unwrap().deletion.keys);
    }

    #[test]
    fn what_goes_on_for_ever_ends_and_what_waits_is_bounded() {
        let (mut backlog, now) = (Backlog::default(), Instant::now());
        backlog.push(of(1, 9, false, now));
        let mut turns = 0;
        while let Some(waiting) = backlog.next(now) {
            backlog.after(waiting, Turn::Unfinished, now);
            turns += 1;
        }
        assert_eq!(turns, TURNS);
        (0..1000).for_each(|number| backlog.push(of(number, 1, false, now)));
        assert_eq!(backlog.0.len(), QUEUE);
    }
}
