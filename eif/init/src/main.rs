//! `init`, the first process in the enclave: makes the machine ready, tells the parent that it lives, starts the supervisor, and ends the
//! machine when the supervisor ends.
//!
//! It is trusted as the kernel is, so it is short: no configuration, no other program, nothing that listens.

mod console;
mod heartbeat;
mod kernel;
mod mounts;
mod supervisor;

use std::convert::Infallible;

use nix::errno::Errno;
use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sethostname;

/// What uname(2) tells. The same in every enclave: which one it is, evidence says.
const HOST_NAME: &str = "casemate";

/// Why the machine ends.
#[derive(Debug, thiserror::Error)]
enum End {
    #[error(transparent)]
    Mount(#[from] mounts::MountError),
    #[error(transparent)]
    Kernel(#[from] kernel::KernelError),
    #[error("the host name cannot be set: {0}")]
    HostName(Errno),
    #[error(transparent)]
    Heartbeat(#[from] heartbeat::HeartbeatError),
    #[error(transparent)]
    Supervisor(#[from] supervisor::SupervisorError),
    /// What one is waiting for.
    #[error("the supervisor ended: {0}")]
    Ended(supervisor::Ending),
}

fn main() {
    std::panic::set_hook(Box::new(|panic| {
        console::say(&format!("panic at {}", panic.location().map(ToString::to_string).unwrap_or_default()));
        restart();
    }));
    match run() {
        Ok(never) => match never {},
        Err(end) => console::say(&format!("{end}; the machine ends")),
    }
    restart();
}

fn run() -> Result<Infallible, End> {
    mounts::mount_all()?;
    kernel::raise_limits()?;
    sethostname(HOST_NAME).map_err(End::HostName)?;
    heartbeat::beat()?;
    console::say("the parent knows that we live; starting the supervisor");
    Err(End::Ended(supervisor::run()?))
}

/// Ends the machine: without ACPI a machine cannot be switched off, but a hypervisor takes a restart for the end.
fn restart() {
    let Err(errno) = reboot(RebootMode::RB_AUTOBOOT);
    console::say(&format!("the machine cannot be restarted: {errno}"));
}
