//! The walls around one vault-manager: one small file a layer, put up by the child itself between its fork and its first message.
//!
//! **The order is part of the design.** Each layer takes away what an earlier one still needs:
//!
//! 1. `descriptors`: first, so that whatever goes wrong later goes wrong in a process that holds its own socket and nothing else.
//! 2. `rlimits`: before the uid, because a limit's ceiling may only be lowered and never needs a privilege; `NPROC` counts
//!    per uid and begins to bite with the next layer.
//! 3. `uid`: groups, then gid, then uid; the other way round the privilege for the next step would be gone. Leaving uid 0
//!    empties the capability sets.
//! 4. `parent_death`: after the uid, because the kernel forgets the parent-death signal when credentials change.
//! 5. `dumpable`: after the uid, because a change of credentials resets it as well.
//! 6. `no_new_privs`: before seccomp, which the kernel otherwise grants to CAP_SYS_ADMIN only, and that went with the uid.
//! 7. `seccomp`: last, because none of the calls above is on its list.
//!
//! The probe at start (`zygote::probe`) puts all of them up once, looks from inside whether each took effect, and ends by
//! breaking the seccomp rule on purpose. What differs per vault stands here; what can be shared by all vault-managers is made
//! once in the zygote.

use std::fmt;
use std::str::FromStr;

use nix::errno::Errno;
use nix::unistd::Pid;
use seccompiler::BpfProgram;

mod descriptors;
mod dumpable;
mod no_new_privs;
mod parent_death;
mod rlimits;
mod seccomp;
mod uid;

pub(crate) use descriptors::{SOCKET, close_from};
pub(crate) use dumpable::apply as not_dumpable;
pub use seccomp::FilterError;

/// Slots that there can be; slot numbers are below this.
pub const SLOTS: u32 = 1 << 16;
/// Where uids begin unless told otherwise: above the ranges that distributions give out to people, services and containers.
pub const UID_BASE: u32 = 0x7000_0000;

/// One wall. The variants stand in the order in which the walls are put up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// No descriptor but the one socket.
    Descriptors,
    /// Kernel limits: memory, and no file, process, core or locked page.
    Rlimits,
    /// A uid and gid that no other process has, no group, no capability.
    Uid,
    /// Killed when the zygote ends.
    ParentDeath,
    /// Not dumpable: no core, no ptrace, `/proc/<pid>` closed.
    Dumpable,
    /// No exec can ever give back a privilege.
    NoNewPrivs,
    /// System calls that are not on the list kill the process.
    Seccomp,
}

impl Layer {
    /// All layers, in the order in which they are put up.
    pub const ALL: [Self; 7] = [
        Self::Descriptors,
        Self::Rlimits,
        Self::Uid,
        Self::ParentDeath,
        Self::Dumpable,
        Self::NoNewPrivs,
        Self::Seccomp,
    ];

    /// The name by which configuration, logs and health call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Descriptors => "descriptors",
            Self::Rlimits => "rlimits",
            Self::Uid => "uid",
            Self::ParentDeath => "parent_death",
            Self::Dumpable => "dumpable",
            Self::NoNewPrivs => "no_new_privs",
            Self::Seccomp => "seccomp",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its number in messages and exit codes.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no layer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is not a sandbox layer; there are descriptors, rlimits, uid, parent_death, dumpable, no_new_privs and seccomp"
)]
pub struct UnknownLayer(String);

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        Self::ALL.into_iter().find(|layer| layer.name() == name).ok_or_else(|| UnknownLayer(name.to_owned()))
    }
}

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

    pub(crate) fn waived_bits(&self) -> u32 {
        self.waived.iter().fold(0, |bits, layer| bits | layer.bit())
    }

    pub(crate) fn from_bits(uid_base: u32, waived: u32) -> Self {
        Self { uid_base, waived: Layer::ALL.into_iter().filter(|layer| waived & layer.bit() != 0).collect() }
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
    /// Whose child it must be.
    pub(crate) zygote: Pid,
}

/// Everything that can be prepared once, before the forks, so that children share it.
#[derive(Debug)]
pub(crate) struct Sandbox {
    layers: Vec<Layer>,
    filter: BpfProgram,
}

impl Sandbox {
    pub(crate) fn prepare(options: &SandboxOptions) -> Result<Self, FilterError> {
        Ok(Self { layers: options.layers(), filter: seccomp::compile()? })
    }

    /// Puts the layers up, in order, around the calling process. There is no way back, and none is wanted: after an error the
    /// process must exit.
    pub(crate) fn enter(&self, cell: &Cell) -> Result<(), LayerFailure> {
        self.layers.iter().try_for_each(|&layer| self.put_up(layer, cell))
    }

    /// Like [`Sandbox::enter`], but looks at each layer's effect before the last layer shuts such looks out. What remains to be
    /// shown then is that a forbidden call kills.
    pub(crate) fn enter_and_look(&self, cell: &Cell) -> Result<(), LayerFailure> {
        let before_last = self.layers.iter().filter(|&&layer| layer != Layer::Seccomp);
        before_last.clone().try_for_each(|&layer| self.put_up(layer, cell))?;
        before_last.copied().try_for_each(|layer| match holds(layer, cell) {
            Ok(true) => Ok(()),
            Ok(false) => Err(LayerFailure { layer, errno: None }),
            Err(errno) => Err(LayerFailure { layer, errno: Some(errno) }),
        })?;
        if self.has(Layer::Seccomp) { self.put_up(Layer::Seccomp, cell) } else { Ok(()) }
    }

    pub(crate) fn has(&self, layer: Layer) -> bool {
        self.layers.contains(&layer)
    }

    fn put_up(&self, layer: Layer, cell: &Cell) -> Result<(), LayerFailure> {
        match layer {
            Layer::Descriptors => descriptors::apply(),
            Layer::Rlimits => rlimits::apply(cell.memory_bytes),
            Layer::Uid => uid::apply(cell.id),
            Layer::ParentDeath => parent_death::apply(cell.zygote),
            Layer::Dumpable => dumpable::apply(),
            Layer::NoNewPrivs => no_new_privs::apply(),
            Layer::Seccomp => seccomp::apply(&self.filter),
        }
        .map_err(|errno| LayerFailure { layer, errno: Some(errno) })
    }
}

/// Whether a layer is in effect, asked from inside.
fn holds(layer: Layer, cell: &Cell) -> nix::Result<bool> {
    match layer {
        Layer::Descriptors => Ok(descriptors::holds()),
        Layer::Rlimits => rlimits::holds(cell.memory_bytes),
        Layer::Uid => uid::holds(cell.id),
        Layer::ParentDeath => parent_death::holds(),
        Layer::Dumpable => dumpable::holds(),
        Layer::NoNewPrivs => no_new_privs::holds(),
        // Shown by dying of it.
        Layer::Seccomp => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layers_have_one_name_and_one_number() {
        for (number, layer) in (0_u8..).zip(Layer::ALL) {
            assert_eq!(layer.name().parse(), Ok(layer));
            assert_eq!(layer.number(), number);
            assert_eq!(Layer::from_number(number), Some(layer));
        }
        assert_eq!(Layer::from_number(7), None);
        let error = "chroot".parse::<Layer>().unwrap_err().to_string();
        for layer in Layer::ALL {
            assert!(error.contains(layer.name()), "{error}");
        }
    }

    #[test]
    fn options_survive_their_bits() {
        let options = SandboxOptions { uid_base: 7, waived: vec![Layer::Uid, Layer::Seccomp] };
        assert_eq!(SandboxOptions::from_bits(7, options.waived_bits()), options);
        assert_eq!(options.layers().len(), 5);
    }
}
