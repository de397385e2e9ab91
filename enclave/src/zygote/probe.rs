//! The trial at start: one child that puts up every layer, looks whether each holds, and dies of a forbidden call.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Instant;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};

use super::ExitKind;
use super::handle::{ZygoteError, await_readable};
use super::message::{MESSAGE_BYTES, ProbeReport};
use crate::sandbox::{Layer, LayerFailure};

/// Reads what the probe says over its own socket.
pub(super) fn hear(socket: &OwnedFd, deadline: Instant) -> Result<ProbeReport, ZygoteError> {
    await_readable(socket, deadline)?;
    let mut bytes = [0; MESSAGE_BYTES];
    match recv(socket.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
        // A probe that ended without a word never took its place.
        Ok(0) | Err(Errno::ECONNRESET) => Err(ZygoteError::ProbeSilent),
        Ok(length) => bytes.get(..length).and_then(ProbeReport::read).ok_or(ZygoteError::Protocol),
        Err(errno) => Err(errno.into()),
    }
}

/// Judges what the probe said and how it ended.
pub(super) fn judge(report: ProbeReport, end: ExitKind, seccomp: bool) -> Result<(), ZygoteError> {
    let without_effect = LayerFailure { layer: Layer::Seccomp, errno: None };
    match report {
        ProbeReport::Fails(failure) => Err(not_in_force(failure)),
        ProbeReport::Lives => Err(not_in_force(without_effect)),
        // With seccomp, dying is the proof.
        ProbeReport::Holds if seccomp && end != ExitKind::SandboxKilled => Err(not_in_force(without_effect)),
        ProbeReport::Holds => Ok(()),
    }
}

pub(super) fn not_in_force(LayerFailure { layer, errno }: LayerFailure) -> ZygoteError {
    let reason = errno.map_or("it was set up without an error and did not take effect", Errno::desc);
    ZygoteError::LayerNotInForce { layer, reason }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_that_lives_is_believed_only_without_seccomp() {
        let holds = ProbeReport::Holds;
        assert!(judge(holds, ExitKind::SandboxKilled, true).is_ok());
        assert!(judge(holds, ExitKind::Code(0), false).is_ok());
        for end in [ExitKind::Code(0), ExitKind::Signal(9)] {
            assert!(judge(holds, end, true).unwrap_err().to_string().contains("`seccomp`"));
        }
        assert!(judge(ProbeReport::Lives, ExitKind::Code(0), true).is_err());
        let failure = LayerFailure { layer: Layer::Uid, errno: Some(Errno::EPERM) };
        let error = judge(ProbeReport::Fails(failure), ExitKind::Code(0), true).unwrap_err().to_string();
        assert!(error.contains("`uid`") && error.contains("Operation not permitted"), "{error}");
    }
}
