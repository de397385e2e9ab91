//! The walls by name.

use std::fmt;
use std::str::FromStr;

/// One wall. The variants stand in the order in which the walls are put up: first those that the zygote makes once and shares
/// with all its children, then those of each vault-manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Layer {
    /// One control group for all: their memory and their number together. Absent where no controller is to be had.
    Cgroup,
    /// One network namespace for all, in which no interface is up.
    NetworkNamespace,
    /// One namespace of System V IPC and message queues for all.
    IpcNamespace,
    /// One host name for all, which is not the machine's.
    UtsNamespace,
    /// One empty, read-only root for all, in a mount namespace.
    MountNamespace,
    /// A PID namespace of its own: no process but itself has a number.
    PidNamespace,
    /// No exec can ever give back a privilege.
    NoNewPrivs,
    /// No file, no TCP port, no abstract socket and no process outside is to be had, whatever the other layers let through.
    Landlock,
    /// Kernel limits: memory, and no file, process, core or locked page.
    Rlimits,
    /// A uid and gid that no other process has, no group, no capability.
    Uid,
    /// Killed when the zygote ends.
    ParentDeath,
    /// No descriptor but the one socket.
    Descriptors,
    /// Not dumpable: no core, no ptrace, `/proc/<pid>` closed.
    Dumpable,
    /// System calls that are not on the list kill the process.
    Seccomp,
}

impl Layer {
    /// All layers, in the order in which they are put up.
    pub const ALL: [Self; 14] = [
        Self::Cgroup,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::UtsNamespace,
        Self::MountNamespace,
        Self::PidNamespace,
        Self::NoNewPrivs,
        Self::Landlock,
        Self::Rlimits,
        Self::Uid,
        Self::ParentDeath,
        Self::Descriptors,
        Self::Dumpable,
        Self::Seccomp,
    ];

    /// The name by which configuration, logs and health call it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Cgroup => "cgroup",
            Self::NetworkNamespace => "network_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::UtsNamespace => "uts_namespace",
            Self::MountNamespace => "mount_namespace",
            Self::PidNamespace => "pid_namespace",
            Self::NoNewPrivs => "no_new_privs",
            Self::Landlock => "landlock",
            Self::Rlimits => "rlimits",
            Self::Uid => "uid",
            Self::ParentDeath => "parent_death",
            Self::Descriptors => "descriptors",
            Self::Dumpable => "dumpable",
            Self::Seccomp => "seccomp",
        }
    }

    pub(super) const fn bit(self) -> u32 {
        1 << self as u32
    }

    /// Its number in messages and exit codes.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.get(usize::from(number)).copied()
    }

    pub(crate) fn to_bits(layers: &[Self]) -> u32 {
        layers.iter().fold(0, |bits, layer| bits | layer.bit())
    }

    pub(crate) fn from_bits(bits: u32) -> Vec<Self> {
        Self::ALL.into_iter().filter(|layer| bits & layer.bit() != 0).collect()
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A name that is no layer's.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a sandbox layer; there are {names}", names = Layer::ALL.map(Layer::name).join(", "))]
pub struct UnknownLayer(String);

impl FromStr for Layer {
    type Err = UnknownLayer;

    fn from_str(name: &str) -> Result<Self, UnknownLayer> {
        Self::ALL.into_iter().find(|layer| layer.name() == name).ok_or_else(|| UnknownLayer(name.to_owned()))
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
        assert_eq!(Layer::from_number(14), None);
        let error = "chroot".parse::<Layer>().unwrap_err().to_string();
        for layer in Layer::ALL {
            assert!(error.contains(layer.name()), "{error}");
        }
    }

    #[test]
    fn layers_survive_their_bits() {
        assert_eq!(Layer::from_bits(Layer::to_bits(&Layer::ALL)), Layer::ALL);
        assert_eq!(Layer::from_bits(Layer::to_bits(&[Layer::Seccomp, Layer::Cgroup])), [Layer::Cgroup, Layer::Seccomp]);
    }
}
