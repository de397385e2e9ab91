//! A vault-manager never outlives the zygote, the only process that may kill and reap it.

use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getppid};

pub(super) fn apply(zygote: Pid) -> nix::Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    // A zygote that died before the line above sent no signal; the child has another parent by now.
    if getppid() == zygote { Ok(()) } else { Err(Errno::ESRCH) }
}

pub(super) fn holds() -> nix::Result<bool> {
    Ok(prctl::get_pdeathsig()? == Some(Signal::SIGKILL))
}
