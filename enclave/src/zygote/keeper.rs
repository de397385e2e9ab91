//! The zygote process: waits for commands and for deaths, one at a time, for ever, on one thread.
//!
//! It keeps its heap small and touches few pages: whatever it writes between two forks, the two children do not share.

use std::io::{self, IoSliceMut, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::socket::sockopt::SockType as SocketType;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, SockType, getsockopt, recvmsg, send};
use nix::unistd::Pid;

use super::Slot;
use super::child::{self, Manager, Purpose};
use super::children::Children;
use super::message::{Command, Event, MESSAGE_BYTES};
use super::process::{self, CloneError, Reap, Side};
use super::processors::Processors;
use crate::sandbox::{self, FilterError, Sandbox, SandboxOptions, Unprepared};
use crate::system::OsRandomness;
use crate::text;
use crate::vault::parking::ParkingSecret;

/// The zygote's name in `ps`; its children carry their own.
const NAME: &std::ffi::CStr = c"vault-zygote";
/// How long after a death all children are looked at, how much later for each slot that was ever used, and how long at most. Of two that die
/// at once the kernel tells one; to look at all after each death would cost each more, the more of them there are.
const LOOK_AFTER: Duration = Duration::from_millis(5);
const LOOK_LATER: Duration = Duration::from_micros(2);
const LOOK_BY: Duration = Duration::from_millis(20);
/// EX_SOFTWARE of sysexits(3).
const FAILED: i32 = 70;

/// Why the zygote ended before the supervisor did.
#[derive(Debug, thiserror::Error)]
enum KeeperError {
    #[error("this name belongs to the process that the supervisor starts; start `casemate-enclave` instead")]
    NotStartedBySupervisor,
    #[error("the supervisor said something that was not understood; are there two builds of this binary?")]
    Protocol,
    #[error(transparent)]
    Filter(#[from] FilterError),
    #[error("the zygote cannot turn back to its own PID namespace after a fork: {0}")]
    Astray(Errno),
    #[error("a system call failed: {0}")]
    System(#[from] Errno),
}

/// What the control socket brought.
enum Received {
    Command(Command, Option<OwnedFd>),
    SupervisorGone,
}

/// Serves the supervisor until it goes away.
pub(super) fn run(rehearse: fn(), run_manager: Manager) -> ! {
    // Nothing may unwind towards the code that made the fork. Not the runtime's own hook, which asks for the thread's id: in a
    // child that is a forbidden call, and a panic shall not look like an attack. A child's words go nowhere.
    std::panic::set_hook(Box::new(|info| {
        let _ = writeln!(io::stderr(), "vault-manager: {info}");
        std::process::abort();
    }));
    let code = match serve(rehearse, run_manager) {
        Ok(()) => 0,
        Err(error) => {
            // Standard error is all that this process has to speak with; if that is gone too, the exit code must do.
            let _ = writeln!(io::stderr(), "vault-manager: {error}");
            FAILED
        }
    };
    process::leave(code)
}

fn serve(rehearse: fn(), run_manager: Manager) -> Result<(), KeeperError> {
    let stdin = io::stdin();
    let control = stdin.as_fd();
    if getsockopt(&control, SocketType) != Ok(SockType::SeqPacket) {
        return Err(KeeperError::NotStartedBySupervisor);
    }
    sandbox::close_from(3)?;
    prctl::set_name(NAME)?;
    sandbox::not_dumpable()?;
    text::protect_addresses()?;
    // Beside the end of the control socket: this one works also when the zygote is stuck.
    prctl::set_pdeathsig(Signal::SIGKILL)?;
    let signals = process::zygote_signals()?;
    let deaths = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)?;

    // So that children have it from their first instruction; before the control group counts for them. Without it they are slower, and that
    // is all.
    if let Err(errno) = text::move_text() {
        let _ = writeln!(io::stderr(), "vault-manager: the program stays where it is: {errno}");
    }

    let options = match receive(control)? {
        Received::Command(Command::Configure(options), None) => options,
        Received::Command(..) => return Err(KeeperError::Protocol),
        Received::SupervisorGone => return Ok(()),
    };
    let sandbox = match Sandbox::prepare(&options, process::pidfd_of_self()?) {
        Ok(sandbox) => sandbox,
        Err(Unprepared::Filter(error)) => return Err(error.into()),
        Err(Unprepared::Layer(failure)) => return tell(control, &Event::LayerFailed(failure)),
    };
    let children = Children::new()?;
    rehearse();
    let shared_bytes = u64::try_from(text::moved()).unwrap_or(u64::MAX);
    let processors = Processors::of_the_machine();
    let ready = Event::Ready { absent: sandbox.absent().to_vec(), shared_bytes, has_homes: processors.is_some() };
    let parking_secret = ParkingSecret::random(&OsRandomness);
    let mut keeper =
        Keeper { control, options, sandbox, children, processors, run_manager, parking_secret, look_at: None };
    let served = keeper.tell(&ready).and_then(|()| keeper.keep(&deaths));
    keeper.end_all()?;
    match served {
        // The supervisor went away while it was being told something.
        Err(KeeperError::System(Errno::EPIPE | Errno::ECONNRESET)) => Ok(()),
        other => other,
    }
}

struct Keeper<'a> {
    control: BorrowedFd<'a>,
    options: SandboxOptions,
    sandbox: Sandbox,
    children: Children,
    /// None where nobody has a home.
    processors: Option<Processors>,
    run_manager: Manager,
    parking_secret: ParkingSecret,
    /// When to look at all children for one whose death was not told.
    look_at: Option<Instant>,
}

impl Keeper<'_> {
    fn keep(&mut self, deaths: &SignalFd) -> Result<(), KeeperError> {
        loop {
            let mut watched =
                [PollFd::new(deaths.as_fd(), PollFlags::POLLIN), PollFd::new(self.control, PollFlags::POLLIN)];
            match poll(&mut watched, self.patience()) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
            let [died, asked] = watched.map(|fd| fd.any() == Some(true));
            // Deaths first: they free slots.
            if died {
                while let Some(death) = deaths.read_signal()? {
                    let pid = i32::try_from(death.ssi_pid).map_err(|_| Errno::ESRCH)?;
                    self.reap(Reap::This(Pid::from_raw(pid)))?;
                    let after = (LOOK_AFTER + LOOK_LATER * self.children.used()).min(LOOK_BY);
                    self.look_at.get_or_insert_with(|| Instant::now() + after);
                }
            }
            if self.look_at.is_some_and(|at| at <= Instant::now()) {
                self.look_at = None;
                while self.reap(Reap::Any)? {}
            }
            if asked {
                match receive(self.control)? {
                    Received::Command(command, socket) => self.obey(&command, socket)?,
                    Received::SupervisorGone => return Ok(()),
                }
            }
        }
    }

    fn obey(&mut self, command: &Command, socket: Option<OwnedFd>) -> Result<(), KeeperError> {
        match (command, socket) {
            (&Command::Spawn { slot, memory_bytes }, Some(socket)) => {
                self.spawn(slot, memory_bytes, socket, Purpose::Manage(self.run_manager))
            }
            (&Command::Probe { slot, memory_bytes }, Some(socket)) => {
                self.spawn(slot, memory_bytes, socket, Purpose::Probe)
            }
            (&Command::Kill { slot }, None) => {
                let Some(pid) = self.children.get(slot) else { return self.tell(&Event::NothingToKill) };
                // Its number cannot have gone to another process: nobody else reaps it.
                kill(pid, Signal::SIGKILL)?;
                self.tell(&Event::Killing)
            }
            (&Command::Put { slot, place }, None) => {
                if let (Some(processors), Some(pid)) = (&self.processors, self.children.get(slot)) {
                    // It may be ending, or the kernel may not let us: then it stays where it is.
                    processors.put(pid, place).ok();
                }
                self.tell(&Event::Put)
            }
            // The kernel drops the socket of a message when the zygote is out of descriptors.
            (&(Command::Spawn { slot, .. } | Command::Probe { slot, .. }), None) => {
                self.tell(&Event::SpawnFailed { slot, errno: Errno::EMFILE })
            }
            (Command::Configure(_), _) | (Command::Kill { .. } | Command::Put { .. }, Some(_)) => {
                Err(KeeperError::Protocol)
            }
        }
    }

    fn spawn(&mut self, slot: Slot, memory_bytes: u64, socket: OwnedFd, purpose: Purpose) -> Result<(), KeeperError> {
        let begun = Instant::now();
        let id = self.options.uid_base.checked_add(slot.0);
        let (Some(id), true) = (id, self.children.is_free(slot)) else {
            return self.tell(&Event::SpawnFailed { slot, errno: Errno::EBUSY });
        };
        let cell = sandbox::Cell { id, memory_bytes };
        match process::clone_zygote(&self.sandbox) {
            // Taken out of the child's own memory, so that it forgets all of it with what it is given.
            Ok(Side::Child) => child::live(socket, &self.sandbox, &cell, purpose, self.parking_secret.take()),
            Ok(Side::Zygote(pid)) => {
                self.children.put(slot, pid);
                drop(socket);
                let micros = u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX);
                self.tell(&Event::Spawned { slot, pid: pid.as_raw(), micros })
            }
            Err(CloneError::Refused(errno)) => self.tell(&Event::SpawnFailed { slot, errno }),
            Err(CloneError::Astray(errno)) => Err(KeeperError::Astray(errno)),
        }
    }

    /// How long to wait for a command or a death.
    fn patience(&self) -> PollTimeout {
        let Some(at) = self.look_at else { return PollTimeout::NONE };
        let left = at.saturating_duration_since(Instant::now());
        // Whole milliseconds, and not one too few.
        u16::try_from(left.as_millis()).unwrap_or(u16::MAX).saturating_add(1).into()
    }

    /// Whether there was one to be reaped.
    fn reap(&mut self, which: Reap) -> Result<bool, KeeperError> {
        let Some((pid, status)) = process::reap(which)? else { return Ok(false) };
        if let Some(slot) = self.children.remove(pid) {
            self.tell(&Event::Exited { slot, status })?;
        }
        Ok(true)
    }

    /// Kills every child and waits until the last is gone, so that no zombie is left to whoever inherits them.
    fn end_all(&mut self) -> Result<(), KeeperError> {
        for pid in self.children.all() {
            kill(pid, Signal::SIGKILL)?;
        }
        while let Some((pid, _)) = process::reap(Reap::AnyInTime)? {
            self.children.remove(pid);
        }
        Ok(())
    }

    fn tell(&self, event: &Event) -> Result<(), KeeperError> {
        tell(self.control, event)
    }
}

/// May wait for the supervisor, which in turn never waits for the zygote; a supervisor that ends breaks the wait.
fn tell(control: BorrowedFd<'_>, event: &Event) -> Result<(), KeeperError> {
    loop {
        match send(control.as_raw_fd(), &event.write(), MsgFlags::MSG_NOSIGNAL) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

#[allow(unsafe_code)]
fn receive(control: BorrowedFd<'_>) -> Result<Received, KeeperError> {
    let mut bytes = [0; MESSAGE_BYTES];
    let mut parts = [IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!([RawFd; 1]);
    let (length, socket) = loop {
        match recvmsg::<()>(control.as_raw_fd(), &mut parts, Some(&mut room), MsgFlags::MSG_CMSG_CLOEXEC) {
            Ok(message) => {
                let socket = message.cmsgs()?.find_map(|part| match part {
                    ControlMessageOwned::ScmRights(fds) => fds.first().copied(),
                    _ => None,
                });
                // SAFETY: the kernel has just opened it for this message; there is room for one only.
                break (message.bytes, socket.map(|fd| unsafe { process::own(fd) }));
            }
            Err(Errno::EINTR) => {}
            Err(Errno::ECONNRESET) => return Ok(Received::SupervisorGone),
            Err(errno) => return Err(errno.into()),
        }
    };
    if length == 0 {
        return Ok(Received::SupervisorGone);
    }
    let command = bytes.get(..length).and_then(Command::read).ok_or(KeeperError::Protocol)?;
    Ok(Received::Command(command, socket))
}
