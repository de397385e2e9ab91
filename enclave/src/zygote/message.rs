//! What supervisor and zygote say to each other: fixed messages of 24 bytes over SEQPACKET.
//!
//! Both ends are the same binary and trust each other. The fixed form keeps the zygote free of a decoder and of memory that it
//! would dirty between two forks.

use nix::errno::Errno;

use super::{ExitKind, Place, Slot};
use crate::sandbox::{Layer, LayerFailure, SandboxOptions};

/// Bytes of every message.
pub(super) const MESSAGE_BYTES: usize = 24;

/// A manager that could not put up a layer says which by its exit code: this and the layer's number. (Nothing trusts the code:
/// a manager that exits with it on purpose raises an alarm about itself.)
pub(super) const LAYER_FAILED_CODE: i32 = 0xe0;
/// A manager that aborts exits with what a shell would show for it: the first process of a PID namespace cannot be ended by a signal
/// that comes from inside, other than a fault.
pub(super) const ABORTED_CODE: i32 = 128 + libc::SIGABRT;

/// `tag ‖ kind ‖ 2 zero bytes ‖ u32 a ‖ u64 b ‖ u64 c`, big endian.
#[derive(Debug, Default)]
struct Words {
    tag: u8,
    kind: u8,
    a: u32,
    b: u64,
    c: u64,
}

impl Words {
    fn write(&self) -> [u8; MESSAGE_BYTES] {
        let mut out = [0; MESSAGE_BYTES];
        out[0] = self.tag;
        out[1] = self.kind;
        out[4..8].copy_from_slice(&self.a.to_be_bytes());
        out[8..16].copy_from_slice(&self.b.to_be_bytes());
        out[16..24].copy_from_slice(&self.c.to_be_bytes());
        out
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; MESSAGE_BYTES] = bytes.try_into().ok()?;
        let (head, rest) = bytes.split_first_chunk::<8>()?;
        let (b, c) = rest.split_first_chunk::<8>()?;
        let &[tag, kind, 0, 0, a @ ..] = head else { return None };
        let c = c.first_chunk::<8>()?;
        Some(Self { tag, kind, a: u32::from_be_bytes(a), b: u64::from_be_bytes(*b), c: u64::from_be_bytes(*c) })
    }

    fn number(value: u64) -> Option<i32> {
        i32::try_from(value).ok()
    }
}

fn errno_word(errno: Errno) -> u64 {
    u64::from((errno as i32).unsigned_abs())
}

/// Without an error number: zero.
fn failure_words(LayerFailure { layer, errno }: LayerFailure) -> Words {
    Words { kind: layer.number(), b: errno.map_or(0, errno_word), ..Words::default() }
}

fn failure(words: &Words) -> Option<LayerFailure> {
    let errno = Words::number(words.b)?;
    let errno = (errno != 0).then(|| Errno::from_raw(errno));
    Some(LayerFailure { layer: Layer::from_number(words.kind)?, errno })
}

/// Supervisor to zygote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    /// The first message.
    Configure(SandboxOptions),
    /// Fork; the message carries the child's socket.
    Spawn { slot: Slot, memory_bytes: u64 },
    /// Fork a child that only tries the walls; the message carries its socket.
    Probe { slot: Slot, memory_bytes: u64 },
    /// Kill.
    Kill { slot: Slot },
    /// Have the child run there from now on.
    Put { slot: Slot, place: Place },
}

impl Command {
    pub(super) fn write(&self) -> [u8; MESSAGE_BYTES] {
        match self {
            Self::Configure(options) => {
                Words { tag: 1, a: options.uid_base, b: u64::from(Layer::to_bits(&options.waived)), ..Words::default() }
            }
            Self::Spawn { slot, memory_bytes } => Words { tag: 2, a: slot.0, b: *memory_bytes, ..Words::default() },
            Self::Probe { slot, memory_bytes } => Words { tag: 3, a: slot.0, b: *memory_bytes, ..Words::default() },
            Self::Kill { slot } => Words { tag: 4, a: slot.0, ..Words::default() },
            Self::Put { slot, place } => {
                let kind = match place {
                    Place::Anywhere => 0,
                    Place::Home => 1,
                };
                Words { tag: 5, kind, a: slot.0, ..Words::default() }
            }
        }
        .write()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let words = Words::read(bytes)?;
        let slot = Slot(words.a);
        Some(match words.tag {
            1 => {
                let waived = Layer::from_bits(u32::try_from(words.b).ok()?);
                Self::Configure(SandboxOptions { uid_base: words.a, waived })
            }
            2 => Self::Spawn { slot, memory_bytes: words.b },
            3 => Self::Probe { slot, memory_bytes: words.b },
            4 => Self::Kill { slot },
            5 => {
                let place = match words.kind {
                    0 => Place::Anywhere,
                    1 => Place::Home,
                    _ => return None,
                };
                Self::Put { slot, place }
            }
            _ => return None,
        })
    }
}

/// Zygote to supervisor. Every command but the first has at least one event, so that events alone can pace the queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Event {
    /// Configured; the layers that are absent for want of a controller, how much memory each child has in common with all others, and
    /// whether [`Place::Home`] is anywhere on this machine.
    Ready {
        absent: Vec<Layer>,
        shared_bytes: u64,
        has_homes: bool,
    },
    /// Not configured: this layer cannot be made, or did not take effect. The zygote ends.
    LayerFailed(LayerFailure),
    Spawned {
        slot: Slot,
        pid: i32,
        micros: u32,
    },
    SpawnFailed {
        slot: Slot,
        errno: Errno,
    },
    Exited {
        slot: Slot,
        status: ExitKind,
    },
    /// There was nothing to kill: the child's exit has been reported already.
    NothingToKill,
    /// There was somebody to kill; its exit will be reported.
    Killing,
    /// Whoever lives there is where he can be.
    Put,
}

impl Event {
    pub(super) fn write(&self) -> [u8; MESSAGE_BYTES] {
        let words = Words::default();
        match *self {
            Self::Ready { ref absent, shared_bytes, has_homes } => {
                let kind = u8::from(has_homes);
                Words { tag: 1, kind, b: u64::from(Layer::to_bits(absent)), c: shared_bytes, ..words }
            }
            Self::LayerFailed(failure) => Words { tag: 7, ..failure_words(failure) },
            Self::Spawned { slot, pid, micros } => {
                Words { tag: 2, a: slot.0, b: u64::from(pid.unsigned_abs()), c: u64::from(micros), ..words }
            }
            Self::SpawnFailed { slot, errno } => Words { tag: 3, a: slot.0, b: errno_word(errno), ..words },
            Self::Exited { slot, status } => {
                let (kind, value) = match status {
                    ExitKind::Code(code) => (0, u64::from(code.unsigned_abs())),
                    ExitKind::Signal(signal) => (1, u64::from(signal.unsigned_abs())),
                    ExitKind::SandboxKilled => (2, 0),
                    ExitKind::LayerFailed(layer) => (3, u64::from(layer.number())),
                };
                Words { tag: 4, kind, a: slot.0, b: value, ..words }
            }
            Self::NothingToKill => Words { tag: 5, ..words },
            Self::Killing => Words { tag: 6, ..words },
            Self::Put => Words { tag: 8, ..words },
        }
        .write()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let words = Words::read(bytes)?;
        let slot = Slot(words.a);
        Some(match words.tag {
            1 => {
                let absent = Layer::from_bits(u32::try_from(words.b).ok()?);
                let has_homes = match words.kind {
                    0 => false,
                    1 => true,
                    _ => return None,
                };
                Self::Ready { absent, shared_bytes: words.c, has_homes }
            }
            2 => Self::Spawned { slot, pid: Words::number(words.b)?, micros: u32::try_from(words.c).ok()? },
            3 => Self::SpawnFailed { slot, errno: Errno::from_raw(Words::number(words.b)?) },
            4 => Self::Exited {
                slot,
                status: match words.kind {
                    0 => ExitKind::Code(Words::number(words.b)?),
                    1 => ExitKind::Signal(Words::number(words.b)?),
                    2 => ExitKind::SandboxKilled,
                    3 => ExitKind::LayerFailed(Layer::from_number(u8::try_from(words.b).ok()?)?),
                    _ => return None,
                },
            },
            5 => Self::NothingToKill,
            6 => Self::Killing,
            7 => Self::LayerFailed(failure(&words)?),
            8 => Self::Put,
            _ => return None,
        })
    }
}

/// What a probe found, said over its own socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProbeReport {
    /// Every layer is up and, but for seccomp, was seen to hold.
    Holds,
    /// This one is not.
    Fails(LayerFailure),
    /// A forbidden call did not kill the probe.
    Lives,
}

impl ProbeReport {
    pub(super) fn write(self) -> [u8; MESSAGE_BYTES] {
        let words = Words::default();
        match self {
            Self::Holds => Words { tag: 1, ..words },
            Self::Fails(failure) => Words { tag: 2, ..failure_words(failure) },
            Self::Lives => Words { tag: 3, ..words },
        }
        .write()
    }

    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let words = Words::read(bytes)?;
        Some(match words.tag {
            1 => Self::Holds,
            2 => Self::Fails(failure(&words)?),
            3 => Self::Lives,
            _ => return None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_survive_their_bytes() {
        let slot = Slot(513);
        for command in [
            Command::Configure(SandboxOptions { uid_base: u32::MAX, waived: vec![Layer::Uid] }),
            Command::Spawn { slot, memory_bytes: u64::MAX },
            Command::Probe { slot, memory_bytes: 1 },
            Command::Kill { slot },
            Command::Put { slot, place: Place::Home },
            Command::Put { slot, place: Place::Anywhere },
        ] {
            assert_eq!(Command::read(&command.write()), Some(command));
        }
        let exits =
            [ExitKind::Code(255), ExitKind::Signal(64), ExitKind::SandboxKilled, ExitKind::LayerFailed(Layer::Seccomp)];
        let failure = |errno| LayerFailure { layer: Layer::Uid, errno };
        let others = [
            Event::Ready { absent: Vec::new(), shared_bytes: 0, has_homes: false },
            Event::Ready { absent: vec![Layer::Cgroup], shared_bytes: u64::MAX, has_homes: true },
            Event::LayerFailed(failure(Some(Errno::EPERM))),
            Event::LayerFailed(failure(None)),
            Event::Spawned { slot, pid: i32::MAX, micros: 300 },
            Event::SpawnFailed { slot, errno: Errno::EAGAIN },
            Event::NothingToKill,
            Event::Killing,
            Event::Put,
        ];
        for event in exits.map(|status| Event::Exited { slot, status }).into_iter().chain(others) {
            assert_eq!(Event::read(&event.write()), Some(event));
        }
        let fails = |errno| ProbeReport::Fails(failure(errno));
        for report in [ProbeReport::Holds, fails(Some(Errno::EPERM)), fails(None), ProbeReport::Lives] {
            assert_eq!(ProbeReport::read(&report.write()), Some(report));
        }
    }

    #[test]
    fn other_bytes_are_nothing() {
        for bytes in
            [&[][..], &[0; MESSAGE_BYTES], &[9; MESSAGE_BYTES], &[1; MESSAGE_BYTES - 1], &[1; MESSAGE_BYTES + 1]]
        {
            assert_eq!((Command::read(bytes), Event::read(bytes), ProbeReport::read(bytes)), (None, None, None));
        }
    }
}
