//! The bare limit of a vault-manager: a child of a process with one thread, which says that it runs and then does nothing.
#![allow(unsafe_code)]

use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, fork, pause};

use super::{Result, nanoseconds};
use crate::census;

/// A process whose children do nothing. They end with it, and it with this.
#[derive(Debug)]
pub(super) struct Brood {
    parent: Child,
    took: BufReader<ChildStdout>,
}

impl Brood {
    /// Starts this program as the parent; there is no child yet.
    pub(super) fn start() -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        let mut parent = command.arg("brood").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        let took = BufReader::new(parent.stdout.take().ok_or("the parent has an output")?);
        Ok(Self { parent, took })
    }

    /// One more child: from the fork until it has said that it runs.
    pub(super) fn bear(&mut self) -> Result<Duration> {
        self.parent.stdin.as_mut().ok_or("the parent listens")?.write_all(&[0])?;
        let mut line = String::new();
        self.took.read_line(&mut line)?;
        let nanoseconds = line.trim_end().parse().map_err(|_| "no child was born")?;
        Ok(Duration::from_nanos(nanoseconds))
    }

    /// Bytes that belong to one child, as the kernel shares out what several have.
    pub(super) fn proportional(&self) -> Result<u64> {
        let family = census::family(self.parent.id())?;
        let children: Vec<u64> = family
            .into_iter()
            .filter(|member| member.pid != self.parent.id())
            .filter_map(|member| census::proportional(member.pid))
            .collect();
        children.iter().sum::<u64>().checked_div(children.len() as u64).ok_or_else(|| "there are no children".into())
    }
}

impl Drop for Brood {
    fn drop(&mut self) {
        // It ends when it is asked for nothing more.
        drop(self.parent.stdin.take());
        self.parent.wait().ok();
    }
}

/// The parent: for each byte that it reads a child, and a line that tells nanoseconds.
///
/// # Errors
/// When there is no process, socket or reader to be had.
#[expect(clippy::print_stdout, reason = "who asks reads it there")]
pub fn brood() -> Result<()> {
    let mut children = Vec::new();
    for asked in std::io::stdin().lock().bytes() {
        asked?;
        let (mut ours, mut theirs) = UnixStream::pair()?;
        let start = Instant::now();
        // SAFETY: this process has one thread, so no lock can be held by a thread that does not exist in the child.
        match unsafe { fork() }? {
            ForkResult::Child => {
                prctl::set_pdeathsig(Signal::SIGKILL)?;
                theirs.write_all(&[0])?;
                drop((ours, theirs));
                loop {
                    pause();
                }
            }
            ForkResult::Parent { child } => {
                // Its end closes with the child, so that a child that dies is not waited for.
                drop(theirs);
                children.push(child);
            }
        }
        ours.read_exact(&mut [0])?;
        println!("{}", nanoseconds(start.elapsed()));
    }
    for child in children {
        kill(child, Signal::SIGKILL)?;
        waitpid(child, None)?;
    }
    Ok(())
}
