//! Hurts the node as a plan says, beside a load that counts its operations.

use std::fs;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::plan::{Blow, Part, Plan, Strike};
use crate::Node;

/// How far the load of a round is.
#[derive(Debug, Default)]
pub(super) struct Progress {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    done: u64,
    over: bool,
}

impl Progress {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// An operation has ended.
    pub(super) fn operation(&self) {
        self.state().done += 1;
        self.changed.notify_all();
    }

    /// The load has ended.
    pub(super) fn finish(&self) {
        self.state().over = true;
        self.changed.notify_all();
    }

    /// Waits for so many operations; false when the load ended before.
    fn reach(&self, operations: u64) -> bool {
        let waits = |state: &mut State| state.done < operations && !state.over;
        let state = self.changed.wait_while(self.state(), waits).unwrap_or_else(PoisonError::into_inner);
        state.done >= operations
    }
}

/// Carries out a plan; gives what was done. A part that was hurt runs again afterwards.
///
/// # Panics
/// When a part cannot be started again.
pub(super) fn carry_out(node: &mut Node, plan: &Plan, progress: &Progress) -> Vec<Strike> {
    let due = plan.strikes.iter().filter(|strike| progress.reach(strike.after));
    due.filter(|strike| {
        thread::sleep(strike.later);
        hurt(node, strike)
    })
    .copied()
    .collect()
}

/// Whether there was something to hurt: no vault may be open just then.
fn hurt(node: &mut Node, strike: &Strike) -> bool {
    match (strike.part, strike.blow) {
        (Part::Manager, blow) => {
            let managers = managers(node);
            let Some(count) = u64::try_from(managers.len()).ok().filter(|count| *count > 0) else { return false };
            let pid = managers[usize::try_from(strike.which % count).expect("below a length")];
            signal(pid, blow)
        }
        (Part::Kms, Blow::Away(time)) => {
            node.kms_control(&["away"]);
            restart(node, Part::Supervisor);
            thread::sleep(time);
            node.kms_control(&["healthy"]);
            true
        }
        (part, Blow::Kill) => {
            restart(node, part);
            true
        }
        (part, blow) => pid(node, part).is_some_and(|pid| signal(pid, blow)),
    }
}

fn pid(node: &Node, part: Part) -> Option<Pid> {
    let process = match part {
        Part::Supervisor => &node.enclave,
        Part::Parent => &node.parent,
        Part::Nats => &node.nats,
        Part::Kms => &node.kms,
        Part::Manager => return None,
    };
    process.as_ref().map(crate::process::Process::pid)
}

/// A process may have ended just before: then nothing was hurt.
fn signal(pid: Pid, blow: Blow) -> bool {
    match blow {
        Blow::Kill => kill(pid, Signal::SIGKILL).is_ok(),
        Blow::Pause(time) | Blow::Away(time) => {
            let stopped = kill(pid, Signal::SIGSTOP).is_ok();
            thread::sleep(time);
            // A stopped vault-manager may have been killed meanwhile; its number is not given away again so soon.
            let _ = kill(pid, Signal::SIGCONT);
            stopped
        }
    }
}

/// SIGKILL to the process itself, not to what it has started, and a new one.
fn restart(node: &mut Node, part: Part) {
    let (process, start): (_, fn(&mut Node)) = match part {
        Part::Supervisor => (&mut node.enclave, Node::start_enclave),
        Part::Parent => (&mut node.parent, Node::start_parent),
        Part::Nats => (&mut node.nats, Node::start_nats),
        Part::Kms | Part::Manager => return,
    };
    if let Some(mut process) = process.take() {
        process.kill_alone();
    }
    start(node);
}

/// The vault-managers, oldest first: children of the zygote, which is the supervisor's child. Found without asking anybody, because
/// whoever could be asked may be stopped.
fn managers(node: &Node) -> Vec<Pid> {
    let Some(supervisor) = node.enclave.as_ref().map(|enclave| enclave.pid().as_raw()) else { return Vec::new() };
    let processes: Vec<(i32, i32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter_map(|pid: i32| Some((pid, parent_of(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?)))
        .collect();
    let children = |of: i32| processes.iter().filter(move |(_, parent)| *parent == of).map(|(pid, _)| *pid);
    let mut managers: Vec<_> = children(supervisor).flat_map(children).map(Pid::from_raw).collect();
    managers.sort_unstable();
    managers
}

/// `pid (name) state ppid …`; the name may hold anything.
fn parent_of(stat: &str) -> Option<i32> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_are_read_behind_any_name() {
        assert_eq!(parent_of("12 (a) b) S 7 12"), Some(7));
        assert_eq!(parent_of("12 (a"), None);
    }

    #[test]
    fn a_load_that_has_ended_lets_go() {
        let progress = Progress::default();
        progress.operation();
        assert!(progress.reach(1));
        thread::scope(|scope| {
            let waits = scope.spawn(|| progress.reach(2));
            progress.finish();
            assert!(!waits.join().unwrap());
        });
    }
}
