//! The one program that init starts. Every process that loses its parent becomes init's: it reaps them all, and waits for the one.

use std::fmt;
use std::process::{Command, Stdio};

use nix::errno::Errno;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;

const PROGRAM: &str = "/casemate-enclave";

/// It does not run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SupervisorError {
    #[error("{PROGRAM} cannot be started: {0}")]
    Start(std::io::Error),
    #[error("waiting for the supervisor failed: {0}")]
    Wait(Errno),
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ending {
    Code(i32),
    Signal(Signal),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(signal) => write!(f, "killed by {signal}"),
        }
    }
}

/// Starts it, with nothing but its name and the console, and waits for its end.
pub(crate) fn run() -> Result<Ending, SupervisorError> {
    let child = Command::new(PROGRAM).env_clear().current_dir("/").stdin(Stdio::null()).spawn();
    let id = child.map_err(SupervisorError::Start)?.id();
    loop {
        match wait() {
            Ok(status) => {
                if let Some(ending) = ending_of(status, id) {
                    return Ok(ending);
                }
            }
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(SupervisorError::Wait(errno)),
        }
    }
}

/// How the process `id` ended, when it is the one that this tells of.
fn ending_of(status: WaitStatus, id: u32) -> Option<Ending> {
    let is_it = |pid: Pid| u32::try_from(pid.as_raw()) == Ok(id);
    match status {
        WaitStatus::Exited(pid, code) if is_it(pid) => Some(Ending::Code(code)),
        WaitStatus::Signaled(pid, signal, _) if is_it(pid) => Some(Ending::Signal(signal)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_supervisors_end_is_the_end() {
        let (own, other) = (Pid::from_raw(7), Pid::from_raw(8));
        assert_eq!(ending_of(WaitStatus::Exited(other, 0), 7), None);
        assert_eq!(ending_of(WaitStatus::Signaled(other, Signal::SIGKILL, false), 7), None);
        assert_eq!(ending_of(WaitStatus::Stopped(own, Signal::SIGSTOP), 7), None);
        assert_eq!(ending_of(WaitStatus::StillAlive, 7), None);
        assert_eq!(ending_of(WaitStatus::Exited(own, 1), 7), Some(Ending::Code(1)));
        assert_eq!(
            ending_of(WaitStatus::Signaled(own, Signal::SIGABRT, false), 7),
            Some(Ending::Signal(Signal::SIGABRT))
        );
    }

    #[test]
    fn the_reason_can_be_read() {
        assert_eq!(Ending::Code(1).to_string(), "exit code 1");
        assert_eq!(Ending::Signal(Signal::SIGABRT).to_string(), "killed by SIGABRT");
    }
}
