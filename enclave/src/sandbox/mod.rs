//! The walls around one vault-manager, one small file a layer. Some are made once, in the zygote, and inherited by every fork;
//! the others the child puts up itself between its fork and its first message.
//!
//! **The order is part of the design.** Each layer takes away what an earlier one still needs. Once, in the zygote:
//!
//! 1. `cgroup`: first, because it is found through `/proc` and the machine's own names.
//! 2. `network_namespace`, `ipc_namespace`, `uts_namespace`: while `/proc` can tell whether they took effect.
//! 3. `mount_namespace`: last of these, because nothing can be opened any more.
//!
//! At each fork, by the zygote: `pid_namespace`, which only a child can be born into. Then, in the child:
//!
//! 4. `no_new_privs`: before landlock and seccomp, which the kernel otherwise grants to CAP_SYS_ADMIN only.
//! 5. `landlock`: with the zygote's ruleset, hence before the descriptors go.
//! 6. `rlimits`: before the uid, because a limit may have to be raised first; `NPROC` counts per uid and begins to bite
//!    with the next layer.
//! 7. `uid`: groups, then gid, then uid; the other way round the privilege for the next step would be gone. Leaving uid 0
//!    empties the capability sets.
//! 8. `parent_death`: after the uid, because the kernel forgets the parent-death signal when credentials change; it asks the zygote's
//!    pidfd, hence before the descriptors go.
//! 9. `descriptors`: what the child inherited and has used. No code of the vault-manager has run yet.
//! 10. `dumpable`: after the uid, because a change of credentials resets it as well.
//! 11. `seccomp`: last, because none of the calls above is on its list.
//!
//! Each layer is looked at from inside, once, at start: the shared ones by the zygote as soon as they stand, the others by a probe
//! (`zygote::probe`) that puts all of them up and ends by breaking the seccomp rule on purpose.

use std::io;
use std::os::fd::OwnedFd;

use nix::errno::Errno;
use seccompiler::BpfProgram;

mod cgroup;
mod descriptors;
mod dumpable;
mod filter;
mod landlock;
mod layer;
mod mount_namespace;
mod namespace;
mod no_new_privs;
mod parent_death;
mod pid_namespace;
mod rlimits;
mod seccomp;
mod uid;

pub(crate) use descriptors::{SOCKET, close_from};
pub(crate) use dumpable::apply as not_dumpable;
pub use filter::FilterError;
pub use layer::{Layer, UnknownLayer};

/// Slots that there can be; slot numbers are below this.
pub const SLOTS: u32 = 1 << 16;
/// Where uids begin unless told otherwise: above the ranges that distributions give out to people, services and containers.
pub const UID_BASE: u32 = 0x7000_0000;

/// How vault-managers are walled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SandboxOptions {
    /// Slot *n* runs as uid and gid `uid_base + n`. [`SLOTS`] uids from here on must belong to nobody else.
    pub uid_base: u32,
    /// Layers that the operator gave up by name. Everything that reports health must say so.
    pub waived: Vec<Layer>,
}

impl Default for SandboxOptions {
    fn default() -> Self {
        Self { uid_base: UID_BASE, waived: Vec::new() }
    }
}

impl SandboxOptions {
    /// The layers that are put up, in order.
    pub fn layers(&self) -> Vec<Layer> {
        Layer::ALL.into_iter().filter(|layer| !self.waived.contains(layer)).collect()
    }
}

/// A layer that could not be put up, or did not take effect (then without an error number).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct LayerFailure {
    pub(crate) layer: Layer,
    pub(crate) errno: Option<Errno>,
}

/// Where one vault-manager lives.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cell {
    /// uid and gid.
    pub(crate) id: u32,
    /// Writable private memory that it may have.
    pub(crate) memory_bytes: u64,
}

/// Why there is no sandbox to put anybody into.
#[derive(Debug)]
pub(crate) enum Unprepared {
    Filter(FilterError),
    Layer(LayerFailure),
}

/// Everything that is made once, before the forks, so that children share it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    layers: Vec<Layer>,
    absent: Vec<Layer>,
    filter: BpfProgram,
    ruleset: Option<OwnedFd>,
    zygote: OwnedFd,
    /// Addresses that every fork begins with, bytes.
    inherited: u64,
}

impl Sandbox {
    /// To be called in the zygote, which enters the shared layers with it. `zygote` is its own pidfd. After an error the process must
    /// exit.
    pub(crate) fn prepare(options: &SandboxOptions, zygote: OwnedFd) -> Result<Self, Unprepared> {
        let filter = seccomp::compile().map_err(Unprepared::Filter)?;
        let mut sandbox =
            Self { layers: options.layers(), absent: Vec::new(), filter, ruleset: None, zygote, inherited: 0 };
        if sandbox.has(Layer::Rlimits) {
            // Before there is no `/proc` any more.
            let unlimited = |errno| Unprepared::Layer(LayerFailure { layer: Layer::Rlimits, errno: Some(errno) });
            sandbox.inherited = rlimits::inherited().map_err(unlimited)?;
        }
        for layer in options.layers() {
            let failure = |errno| Unprepared::Layer(LayerFailure { layer, errno });
            match sandbox.make(layer).map_err(|errno| failure(Some(errno)))? {
                Made::Stands => {}
                Made::Ineffective => return Err(failure(None)),
                Made::Absent => sandbox.absent.push(layer),
            }
        }
        sandbox.layers.retain(|layer| !sandbox.absent.contains(layer));
        Ok(sandbox)
    }

    /// What the zygote does for a layer, once.
    fn make(&mut self, layer: Layer) -> nix::Result<Made> {
        Ok(match layer {
            Layer::Cgroup if !cgroup::enter()? => Made::Absent,
            Layer::Cgroup => Made::seen(cgroup::holds()),
            Layer::NetworkNamespace => Made::seen(namespace::enter_network()?),
            Layer::IpcNamespace => Made::seen(namespace::enter_ipc()?),
            Layer::UtsNamespace => Made::seen(namespace::enter_uts()?),
            Layer::MountNamespace => {
                mount_namespace::enter()?;
                Made::seen(mount_namespace::holds()?)
            }
            // There and back, without a child: what fails here would fail at every fork.
            Layer::PidNamespace => {
                pid_namespace::begin()?;
                pid_namespace::end(&self.zygote)?;
                Made::Stands
            }
            Layer::Landlock => {
                self.ruleset = Some(landlock::ruleset()?);
                Made::Stands
            }
            Layer::NoNewPrivs
            | Layer::Rlimits
            | Layer::Uid
            | Layer::ParentDeath
            | Layer::Descriptors
            | Layer::Dumpable
            | Layer::Seccomp => Made::Stands,
        })
    }

    /// Layers that were not waived and are absent for want of a controller.
    pub(crate) fn absent(&self) -> &[Layer] {
        &self.absent
    }

    pub(crate) fn before_fork(&self) -> nix::Result<()> {
        if self.has(Layer::PidNamespace) { pid_namespace::begin() } else { Ok(()) }
    }

    /// In the zygote, whatever became of the fork. After an error it must not fork again.
    pub(crate) fn after_fork(&self) -> nix::Result<()> {
        if self.has(Layer::PidNamespace) { pid_namespace::end(&self.zygote) } else { Ok(()) }
    }

    /// Puts the layers up, in order, around the calling process. There is no way back, and none is wanted: after an error the
    /// process must exit.
    pub(crate) fn enter(&self, cell: &Cell) -> Result<(), LayerFailure> {
        self.layers.iter().try_for_each(|&layer| self.put_up(layer, cell))
    }

    /// Like [`Sandbox::enter`], but looks at each layer's effect before the last layer shuts such looks out. What remains to be
    /// shown then is that a forbidden call kills.
    pub(crate) fn enter_and_look(&self, cell: &Cell) -> Result<(), LayerFailure> {
        let before_last = self.layers.iter().copied().filter(|&layer| layer != Layer::Seccomp);
        for layer in before_last.clone() {
            self.put_up(layer, cell)?;
            if layer == Layer::Landlock && !landlock::holds() {
                return Err(LayerFailure { layer, errno: None });
            }
        }
        for layer in before_last {
            match self.holds(layer, cell) {
                Ok(true) => {}
                Ok(false) => return Err(LayerFailure { layer, errno: None }),
                Err(errno) => return Err(LayerFailure { layer, errno: Some(errno) }),
            }
        }
        if self.has(Layer::Seccomp) { self.put_up(Layer::Seccomp, cell) } else { Ok(()) }
    }

    const fn memory(&self, cell: &Cell) -> rlimits::Memory {
        rlimits::Memory { writable: cell.memory_bytes, inherited: self.inherited }
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    fn put_up(&self, layer: Layer, cell: &Cell) -> Result<(), LayerFailure> {
        match layer {
            // The child was born inside.
            Layer::Cgroup
            | Layer::NetworkNamespace
            | Layer::IpcNamespace
            | Layer::UtsNamespace
            | Layer::MountNamespace
            | Layer::PidNamespace => Ok(()),
            Layer::NoNewPrivs => no_new_privs::apply(),
            Layer::Landlock => self.ruleset.as_ref().ok_or(Errno::EBADF).and_then(landlock::apply),
            Layer::Rlimits => rlimits::apply(self.memory(cell)),
            Layer::Uid => uid::apply(cell.id),
            Layer::ParentDeath => parent_death::apply(&self.zygote),
            Layer::Descriptors => descriptors::apply(),
            Layer::Dumpable => dumpable::apply(),
            Layer::Seccomp => seccomp::apply(&self.filter),
        }
        .map_err(|errno| LayerFailure { layer, errno: Some(errno) })
    }

    /// Whether a layer is in effect, asked from inside, when all of them are up.
    fn holds(&self, layer: Layer, cell: &Cell) -> nix::Result<bool> {
        match layer {
            // Seen by the zygote, which has them in common with its children.
            Layer::Cgroup
            | Layer::NetworkNamespace
            | Layer::IpcNamespace
            | Layer::UtsNamespace
            | Layer::MountNamespace
            // Seen when it was put up: by now no descriptor is left to try with.
            | Layer::Landlock
            // Shown by dying of it.
            | Layer::Seccomp => Ok(true),
            Layer::PidNamespace => Ok(pid_namespace::holds()),
            Layer::NoNewPrivs => no_new_privs::holds(),
            Layer::Rlimits => rlimits::holds(self.memory(cell)),
            Layer::Uid => uid::holds(cell.id),
            Layer::ParentDeath => parent_death::holds(),
            Layer::Descriptors => Ok(descriptors::holds()),
            Layer::Dumpable => dumpable::holds(),
        }
    }
}

/// The kernel's number for an error of the standard library's.
fn errno(error: &io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

/// What became of a layer in the zygote.
enum Made {
    Stands,
    /// No call failed, and yet it is not to be seen.
    Ineffective,
    /// There is no controller.
    Absent,
}

impl Made {
    const fn seen(holds: bool) -> Self {
        if holds { Self::Stands } else { Self::Ineffective }
    }
}
