//! The zygote: the process from which every vault-manager is cloned, and the supervisor's handle to it.
//!
//! The supervisor's first act, before it has threads, secrets or a security module, is to execute itself again under the name
//! `vault-manager`. That process never has a second thread, never sees a secret but the one that it makes for its children
//! ([`crate::vault::parking`]), and holds one control socket. For each spawn it
//! is handed one end of a socketpair, clones itself, and forgets the socket. It alone kills and reaps. When the supervisor ends,
//! it kills its children and ends too; when it ends, its children are killed by the kernel and the supervisor learns
//! [`ZygoteError::Gone`], upon which it must exit: no vault-manager can be started or reaped any more.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

mod child;
mod children;
mod handle;
mod keeper;
mod message;
mod probe;
mod process;
mod processors;

use nix::errno::Errno;

pub use handle::{Zygote, ZygoteError};
pub use process::leave;

use crate::sandbox::Layer;
use crate::vault::parking::ParkingSecret;

/// argv[0] of the zygote and, since a clone keeps its command line, of every vault-manager.
pub const ARGV0: &str = "vault-manager";

/// A place for one vault-manager. It decides the uid, so it is free again only when the exit of its last tenant was reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Slot(pub u32);

/// Which processors a vault-manager runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// One, on a machine that has two; all of them on any other.
    Home,
    /// All of them.
    Anywhere,
}

/// What became of a vault-manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitKind {
    /// It exited by itself.
    Code(i32),
    /// A signal ended it: SIGKILL when it was killed, SIGABRT after a panic or when its memory limit was reached.
    Signal(i32),
    /// It made a forbidden system call. A sound vault-manager never does: raise an alarm.
    SandboxKilled,
    /// It could not put up this layer and never came to run.
    LayerFailed(Layer),
}

/// What the zygote reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ZygoteEvent {
    /// The child exists. It has still to put up its walls and to say that it is ready.
    Spawned {
        /// Its slot.
        slot: Slot,
        /// Its process id, as the supervisor sees it.
        pid: i32,
        /// Microseconds that the clone took.
        micros: u32,
    },
    /// There is no child, and the slot is free.
    SpawnFailed {
        /// The slot.
        slot: Slot,
        /// Why: `EAGAIN` and `ENOMEM` speak of the machine's limits, `EBUSY` of a slot that is taken or does not exist.
        errno: Errno,
    },
    /// The child is reaped, and the slot is free.
    Exited {
        /// The slot.
        slot: Slot,
        /// How it ended.
        status: ExitKind,
    },
}

/// To be the first line of every enclave's `main`. In the supervisor it returns at once. In the zygote it never returns; in each
/// child it calls `run_manager`, behind the walls, with the one descriptor that the child has and the secret of all children.
/// `rehearse` runs once, before the first child: what it brings into memory they share.
pub fn enter_if_zygote(rehearse: fn(), run_manager: fn(OwnedFd, ParkingSecret) -> !) {
    if is_zygote() {
        keeper::run(rehearse, run_manager);
    }
}

fn is_zygote() -> bool {
    std::env::args_os().next().is_some_and(|name| name == ARGV0)
}

impl AsFd for Zygote {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.control_fd()
    }
}

impl AsRawFd for Zygote {
    fn as_raw_fd(&self) -> RawFd {
        self.control_fd().as_raw_fd()
    }
}
