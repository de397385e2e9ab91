//! A vault-manager never outlives the zygote, the only process that may kill and reap it.

use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::Signal;

/// `zygote` is the zygote's pidfd, which the child inherited: in a PID namespace of its own it has no parent that it could name.
pub(super) fn apply(zygote: &OwnedFd) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A zygote that died before the line above sent no signal.
    match poll(&mut [PollFd::new(zygote.as_fd(), PollFlags::POLLIN)], PollTimeout::ZERO)? {
        0 => Ok(()),
        _ => Err(Errno::ESRCH),
    }
}

pub(super) fn holds() -> nix::Result<bool> {
    Ok(prctl::get_pdeathsig()? == Some(Signal::SIGKILL))
}
