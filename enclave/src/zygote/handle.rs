//! The supervisor's handle to the zygote. Nothing here waits, but for the start.

use std::collections::VecDeque;
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, Shutdown, SockFlag, SockType, recv, sendmsg, shutdown, socketpair,
};

use super::message::{Command, Event, MESSAGE_BYTES, ProbeReport};
use super::{ARGV0, Place, Slot, ZygoteEvent, is_zygote, probe};
use crate::sandbox::{Layer, SLOTS, SandboxOptions};

/// Spawns that may wait for room in the control socket, which itself holds some hundreds.
const WAITING_SPAWNS: usize = 1024;
/// How long the zygote may take to start and to try the walls.
const START_DEADLINE: Duration = Duration::from_secs(10);
/// How long the zygote may take to end its children when the supervisor lets go of it.
const END_DEADLINE: Duration = Duration::from_secs(5);
const END_LOOK: Duration = Duration::from_millis(2);
/// What the probe may use.
const PROBE_MEMORY_BYTES: u64 = 64 * 1024 * 1024;

/// Why the zygote could not be started or did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ZygoteError {
    /// The second copy of this program could not be executed.
    #[error("the zygote cannot be started from /proc/self/exe (is /proc mounted?): {0}")]
    Exec(#[source] io::Error),
    /// `main` does not call [`super::enter_if_zygote`] first.
    #[error("this process is the zygote itself: call `enter_if_zygote` in the first line of `main`")]
    NotEntered,
    /// A layer that was not waived is not in force.
    #[error(
        "the sandbox layer `{layer}` cannot be put up: {reason}; start the enclave with the privilege and the kernel that it \
         needs (the development enclave can waive it by name: `--waive {layer}`)"
    )]
    LayerNotInForce {
        /// The layer.
        layer: Layer,
        /// What the kernel said.
        reason: &'static str,
    },
    /// The probe ended before it said anything.
    #[error("the process that tries the sandbox ended without a word; see the zygote's message on standard error")]
    ProbeSilent,
    /// The zygote could not fork for the probe.
    #[error("the zygote cannot fork: {0}; raise the limit of processes or free memory")]
    Fork(Errno),
    /// The uids of the slots do not fit.
    #[error("the uid base {0} leaves no room for {SLOTS} uids; choose one below {limit}", limit = u32::MAX - SLOTS)]
    UidBase(u32),
    /// A slot outside the range that there is.
    #[error("slot {0} does not exist; slots are below {SLOTS}")]
    NoSuchSlot(u32),
    /// Too many spawns wait. Answer `busy` and try again after the next event.
    #[error("{WAITING_SPAWNS} spawns wait for the zygote; try again after its next event")]
    QueueFull,
    /// The zygote did not answer at start.
    #[error("the zygote did not answer within {START_DEADLINE:?}; see its message on standard error")]
    Deadline,
    /// Something came that no zygote of this build sends.
    #[error("the zygote said something that was not understood")]
    Protocol,
    /// The zygote is gone, and all vault-managers with it. The supervisor must exit.
    #[error("the zygote is gone; the enclave must be started anew")]
    Gone,
    /// A system call failed.
    #[error("talking to the zygote failed: {0}")]
    System(#[from] Errno),
}

type Waiting = VecDeque<(Command, Option<OwnedFd>)>;

/// The zygote, as the supervisor sees it. Dropping it ends the zygote and every vault-manager.
#[derive(Debug)]
pub struct Zygote {
    control: OwnedFd,
    process: Child,
    layers: Vec<Layer>,
    absent: Vec<Layer>,
    shared_bytes: u64,
    has_homes: bool,
    waiting: Mutex<Waiting>,
}

impl Zygote {
    /// Starts the zygote and tries the walls. Blocks for milliseconds: call it before there is a runtime, from the main thread
    /// (the zygote is killed by the kernel when the thread that started it ends).
    ///
    /// # Errors
    /// Every layer that is not waived must be in force, or there is no zygote.
    pub fn start(options: &SandboxOptions) -> Result<Self, ZygoteError> {
        if is_zygote() {
            return Err(ZygoteError::NotEntered);
        }
        // The last uid, all ones, means "no change" to the kernel.
        if options.uid_base > u32::MAX - SLOTS {
            return Err(ZygoteError::UidBase(options.uid_base));
        }
        let (control, theirs) = pair()?;
        fcntl(&control, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        // No environment, and the options go over the socket: `ps` shows the name and nothing else.
        let process = std::process::Command::new("/proc/self/exe")
            .arg0(ARGV0)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .map_err(ZygoteError::Exec)?;
        let (layers, waiting) = (options.layers(), Mutex::default());
        let mut zygote =
            Self { control, process, layers, absent: Vec::new(), shared_bytes: 0, has_homes: false, waiting };
        zygote.begin(options)?;
        Ok(zygote)
    }

    fn begin(&mut self, options: &SandboxOptions) -> Result<(), ZygoteError> {
        let deadline = Instant::now() + START_DEADLINE;
        self.queue(Command::Configure(options.clone()), None)?;
        match self.wait(deadline)? {
            Event::Ready { absent, shared_bytes, has_homes } => {
                (self.absent, self.shared_bytes, self.has_homes) = (absent, shared_bytes, has_homes);
            }
            Event::LayerFailed(failure) => return Err(probe::not_in_force(failure)),
            _ => return Err(ZygoteError::Protocol),
        }
        self.layers.retain(|layer| !self.absent.contains(layer));
        let (ours, theirs) = pair()?;
        let slot = Slot(0);
        self.queue(Command::Probe { slot, memory_bytes: PROBE_MEMORY_BYTES }, Some(theirs))?;
        match self.wait(deadline)? {
            Event::Spawned { .. } => {}
            Event::SpawnFailed { errno, .. } => return Err(ZygoteError::Fork(errno)),
            _ => return Err(ZygoteError::Protocol),
        }
        let mut report = probe::hear(&ours, deadline)?;
        let Event::Exited { status, .. } = self.wait(deadline)? else { return Err(ZygoteError::Protocol) };
        if report == ProbeReport::Holds
            && let Ok(second) = probe::hear(&ours, deadline)
        {
            report = second;
        }
        probe::judge(report, status, self.layers.contains(&Layer::Seccomp))
    }

    /// Asks for a child in `slot`, which must be free, to be handed `socket` and no more than `memory_bytes` of memory. The zygote
    /// answers with [`ZygoteEvent::Spawned`] or [`ZygoteEvent::SpawnFailed`].
    ///
    /// # Errors
    /// [`ZygoteError::QueueFull`] and [`ZygoteError::NoSuchSlot`] concern this spawn only; [`ZygoteError::Gone`] is the end.
    pub fn spawn(&self, slot: Slot, socket: OwnedFd, memory_bytes: u64) -> Result<(), ZygoteError> {
        if slot.0 >= SLOTS {
            return Err(ZygoteError::NoSuchSlot(slot.0));
        }
        self.queue(Command::Spawn { slot, memory_bytes }, Some(socket))
    }

    /// Kills the child in `slot`; [`ZygoteEvent::Exited`] follows. Nothing happens when it has ended already.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`].
    pub fn kill(&self, slot: Slot) -> Result<(), ZygoteError> {
        self.queue(Command::Kill { slot }, None)
    }

    /// Has the child in `slot` run there from now on, if there is one. Not answered. False while other commands wait, which come first: ask
    /// again after the next event.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`].
    pub fn put(&self, slot: Slot, place: Place) -> Result<bool, ZygoteError> {
        if !self.has_homes {
            return Ok(true);
        }
        if !self.waiting().is_empty() {
            return Ok(false);
        }
        self.queue(Command::Put { slot, place }, None).map(|()| true)
    }

    /// Readable when events are pending; for an `AsyncFd`.
    pub fn control_fd(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// The next event; none when there is none now. Call it until there is none, at the latest whenever the descriptor is
    /// readable: it also sends what waits.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`] and everything else here end the supervisor.
    pub fn next_event(&self) -> Result<Option<ZygoteEvent>, ZygoteError> {
        loop {
            let Some(event) = self.receive()? else {
                self.flush(&mut self.waiting())?;
                return Ok(None);
            };
            return Ok(Some(match event {
                Event::Spawned { slot, pid, micros } => ZygoteEvent::Spawned { slot, pid, micros },
                Event::SpawnFailed { slot, errno } => ZygoteEvent::SpawnFailed { slot, errno },
                Event::Exited { slot, status } => ZygoteEvent::Exited { slot, status },
                // Said so that each command has an event, after which the next one is sent.
                Event::Killing | Event::NothingToKill | Event::Put => continue,
                Event::Ready { .. } | Event::LayerFailed(_) => return Err(ZygoteError::Protocol),
            }));
        }
    }

    /// The layers around every vault-manager; each was seen to hold at start.
    pub fn layers_in_force(&self) -> &[Layer] {
        &self.layers
    }

    /// Layers that were not waived and are not in force, for want of a controller.
    pub fn layers_absent(&self) -> &[Layer] {
        &self.absent
    }

    /// Code and constants in memory that all vault-managers have in common, counted for each of them by the kernel.
    pub const fn shared_bytes(&self) -> u64 {
        self.shared_bytes
    }

    /// The zygote's process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    fn waiting(&self) -> std::sync::MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(&self, command: Command, socket: Option<OwnedFd>) -> Result<(), ZygoteError> {
        let mut waiting = self.waiting();
        // Kills are never refused: there are no more of them than there are children. Moves come one at a time.
        if socket.is_some() && waiting.len() >= WAITING_SPAWNS {
            return Err(ZygoteError::QueueFull);
        }
        waiting.push_back((command, socket));
        self.flush(&mut waiting)
    }

    fn flush(&self, waiting: &mut Waiting) -> Result<(), ZygoteError> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        while let Some((command, socket)) = waiting.front() {
            let bytes = command.write();
            let sockets: Vec<_> = socket.iter().map(AsRawFd::as_raw_fd).collect();
            let rights = [ControlMessage::ScmRights(&sockets)];
            let rights = if sockets.is_empty() { &[] } else { &rights[..] };
            match sendmsg::<()>(self.control.as_raw_fd(), &[IoSlice::new(&bytes)], rights, flags, None) {
                Ok(_) => drop(waiting.pop_front()),
                Err(Errno::EINTR) => {}
                // Full, also of descriptors on their way: the zygote's next event says that there is room again.
                Err(Errno::EAGAIN | Errno::ETOOMANYREFS) => return Ok(()),
                Err(Errno::EPIPE | Errno::ECONNRESET | Errno::ECONNREFUSED) => return Err(ZygoteError::Gone),
                Err(errno) => return Err(errno.into()),
            }
        }
        Ok(())
    }

    fn receive(&self) -> Result<Option<Event>, ZygoteError> {
        let mut bytes = [0; MESSAGE_BYTES];
        loop {
            return match recv(self.control.as_raw_fd(), &mut bytes, MsgFlags::MSG_DONTWAIT) {
                Ok(0) | Err(Errno::ECONNRESET) => Err(ZygoteError::Gone),
                Ok(length) => bytes.get(..length).and_then(Event::read).map(Some).ok_or(ZygoteError::Protocol),
                Err(Errno::EAGAIN) => Ok(None),
                Err(Errno::EINTR) => continue,
                Err(errno) => Err(errno.into()),
            };
        }
    }

    fn wait(&self, deadline: Instant) -> Result<Event, ZygoteError> {
        loop {
            await_readable(&self.control, deadline)?;
            if let Some(event) = self.receive()? {
                return Ok(event);
            }
        }
    }
}

impl Drop for Zygote {
    fn drop(&mut self) {
        // The zygote reads the end of its control socket, ends its children, and is waited for so that it leaves no zombie.
        let _ = shutdown(self.control.as_raw_fd(), Shutdown::Both);
        let deadline = Instant::now() + END_DEADLINE;
        while matches!(self.process.try_wait(), Ok(None)) {
            if Instant::now() >= deadline {
                let _ = self.process.kill();
                let _ = self.process.wait();
                return;
            }
            thread::sleep(END_LOOK);
        }
    }
}

fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
}

/// Waits until there is something to read, or the end of it.
pub(super) fn await_readable(fd: &OwnedFd, deadline: Instant) -> Result<(), ZygoteError> {
    loop {
        let left = deadline.checked_duration_since(Instant::now()).ok_or(ZygoteError::Deadline)?;
        let timeout = PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], timeout) {
            Ok(0) | Err(Errno::EINTR) => {}
            Ok(_) => return Ok(()),
            Err(errno) => return Err(errno.into()),
        }
    }
}
