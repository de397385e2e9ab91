//! A child process that ends with its owner, whose output is kept.

use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;

/// A running program.
#[derive(Debug)]
pub struct Process {
    name: &'static str,
    child: Child,
    log: PathBuf,
    /// What it has started is not ours to end.
    was_killed_alone: bool,
}

impl Process {
    /// Starts a program in a process group of its own; both its outputs go to `<directory>/<name>.log`.
    ///
    /// # Panics
    /// When it does not start.
    pub fn start(name: &'static str, directory: &Path, command: &mut Command) -> Self {
        let log = directory.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("a log can be opened");
        let output = file.try_clone().expect("a descriptor can be copied");
        let child = command
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(file)
            .process_group(0)
            .spawn()
            .unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        Self { name, child, log, was_killed_alone: false }
    }

    /// The process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.child.id()).expect("pids are small"))
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal).expect("the process is there");
    }

    /// Asks the program to end and waits; returns whether it did in time with status 0.
    pub fn terminate(&mut self, patience: Duration) -> bool {
        if kill(self.pid(), Signal::SIGTERM).is_err() {
            return false;
        }
        let end = Instant::now() + patience;
        while Instant::now() < end {
            if let Ok(Some(status)) = self.child.try_wait() {
                return status.success();
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        false
    }

    /// Ends the program and its children at once.
    pub fn kill(&mut self) {
        let _ = killpg(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
    }

    /// Ends the program alone, at once: what it has started must find that out.
    pub fn kill_alone(&mut self) {
        let _ = kill(self.pid(), Signal::SIGKILL);
        let _ = self.child.wait();
        self.was_killed_alone = true;
    }

    /// Whether it has ended.
    pub fn has_ended(&mut self) -> bool {
        !matches!(self.child.try_wait(), Ok(None))
    }

    /// All that it has said.
    pub fn log(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.log).unwrap_or_default()).into_owned()
    }

    /// Polls until `ready` gives something.
    ///
    /// # Panics
    /// When the program ends or `patience` does.
    pub fn await_ready<T>(&mut self, patience: Duration, what: &str, mut ready: impl FnMut(&Self) -> Option<T>) -> T {
        let end = Instant::now() + patience;
        loop {
            // Whatever it has done before its end is done: hence in this order.
            let has_ended = self.has_ended();
            if let Some(found) = ready(self) {
                return found;
            }
            assert!(!has_ended, "{} ended before {what}:\n{}", self.name, self.log());
            assert!(Instant::now() < end, "{}: {patience:?} went by before {what}:\n{}", self.name, self.log());
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if !self.was_killed_alone {
            self.kill();
        }
    }
}
