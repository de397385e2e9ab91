//! The sockets of the vault-managers: one set that is watched, and a queue each, which is written.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use nix::sys::epoll::{EpollEvent, EpollFlags, EpollTimeout};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;

use super::habit::Habit;
use super::router::{ManagerExit, SlotId};
use crate::ipc::{FromManager, ToManager};
use crate::socket::{self, SocketError};
use crate::supervisor_socket::SupervisorSocket;
use crate::watch;
use crate::zygote::{Place, Slot, Zygote, ZygoteError};

/// Sockets that are looked at before others get their turn. Each says one message at a time, so that nobody who talks much is heard
/// more often than the rest.
const BURST: usize = 128;
/// How long a process may go on after it closed its socket.
const CLOSED_LIMIT: Duration = Duration::from_secs(2);

/// Something from a socket, as the router takes it.
#[derive(Debug)]
pub enum Heard {
    /// A message.
    Message(SlotId, FromManager),
    /// No message, or a broken socket.
    Broken(SlotId),
    /// The process is gone and has said all it had to say.
    Exited(SlotId, ManagerExit),
}

/// All sockets.
#[derive(Debug)]
pub struct Managers {
    entries: HashMap<SlotId, Entry>,
    set: AsyncFd<watch::Set>,
    /// Tells a slot's present tenant from former ones.
    serial: u32,
    /// Whose place is yet to be told to the zygote.
    moves: BTreeSet<SlotId>,
}

#[derive(Debug)]
struct Entry {
    serial: u32,
    socket: SupervisorSocket,
    /// None until the zygote has told it.
    pid: Option<Pid>,
    habit: Habit,
    /// Whether the set watches for room too. Only while something waits: a socket that is watched for both wakes this process each
    /// time the other side has read something, for nothing.
    watches_room: bool,
    /// How it ended, while its last words are still read.
    exit: Option<ManagerExit>,
    /// Since when there are no more words.
    closed: Option<Duration>,
}

impl Managers {
    /// No sockets. Call it inside the runtime that will await them.
    ///
    /// # Errors
    /// When the kernel has no descriptor or no memory left.
    pub fn new() -> io::Result<Self> {
        Ok(Self { entries: HashMap::new(), set: watch::set()?, serial: 0, moves: BTreeSet::new() })
    }

    /// Makes a socket and asks the zygote for a process at its other end.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`] ends the supervisor; after any other there is no process and none will come.
    pub fn spawn(&mut self, slot: SlotId, memory_bytes: u64, zygote: &Zygote) -> Result<(), ZygoteError> {
        let (ours, theirs) = socket::pair()?;
        self.serial = self.serial.wrapping_add(1);
        let serial = self.serial;
        self.set.get_ref().0.add(&ours, EpollEvent::new(EpollFlags::EPOLLIN, name(slot, serial)))?;
        zygote.spawn(Slot(slot.0), theirs, memory_bytes)?;
        let socket = SupervisorSocket::new(ours);
        let habit = Habit::default();
        let entry = Entry { serial, socket, pid: None, habit, watches_room: false, exit: None, closed: None };
        self.entries.insert(slot, entry);
        Ok(())
    }

    /// Queues a message. False when the socket's queue has no room for it, which no well-behaved process brings about.
    #[must_use]
    pub fn send(&mut self, slot: SlotId, message: &ToManager) -> bool {
        let Some(entry) = self.entries.get_mut(&slot) else { return true };
        let sent = entry.socket.try_send(message);
        if entry.habit.told(message) {
            self.moves.insert(slot);
        }
        entry.watch_room(slot, self.set.get_ref());
        // Its end is told by its last words and the zygote.
        matches!(sent, Ok(()) | Err(SocketError::Closed))
    }

    /// Hears one message of each socket that has one; pending when none has, and then whoever polls is woken by the next.
    ///
    /// # Errors
    /// When the set cannot be waited for: the supervisor must end.
    pub fn poll_hear(&mut self, cx: &mut Context<'_>, now: Duration, out: &mut Vec<Heard>) -> Poll<io::Result<()>> {
        let mut events = [EpollEvent::empty(); BURST];
        loop {
            let mut ready = ready!(self.set.poll_read_ready(cx))?;
            let found = self.set.get_ref().0.wait(&mut events, EpollTimeout::ZERO)?;
            if found > 0 {
                for event in &events[..found] {
                    self.hear(event, now, out);
                }
                return Poll::Ready(Ok(()));
            }
            ready.clear_ready();
        }
    }

    fn hear(&mut self, event: &EpollEvent, now: Duration, out: &mut Vec<Heard>) {
        let (slot, serial) = named(event.data());
        // A socket that was closed meanwhile may have given its number to the next tenant.
        let Some(entry) = self.entries.get_mut(&slot).filter(|entry| entry.serial == serial) else { return };
        if event.events().contains(EpollFlags::EPOLLOUT) {
            match entry.socket.flush() {
                Ok(()) | Err(SocketError::Closed) => {}
                Err(error) => return out.extend(entry.close(slot, error, now, self.set.get_ref())),
            }
            entry.watch_room(slot, self.set.get_ref());
        }
        match entry.socket.try_recv() {
            Ok(Some(message)) => {
                if entry.habit.said(&message) {
                    self.moves.insert(slot);
                }
                out.push(Heard::Message(slot, message));
            }
            Ok(None) => {}
            Err(error) => out.extend(entry.close(slot, error, now, self.set.get_ref())),
        }
    }

    /// The zygote has reaped a process. Its last words come first, if there are any.
    pub fn exited(&mut self, slot: SlotId, exit: ManagerExit) -> Option<Heard> {
        let entry = self.entries.get_mut(&slot)?;
        entry.exit = Some(exit);
        entry.closed.is_some().then_some(Heard::Exited(slot, exit))
    }

    /// Processes that closed their sockets and go on all the same.
    pub fn lingering(&self, now: Duration) -> Vec<SlotId> {
        let lingers = |entry: &Entry| {
            entry.exit.is_none() && entry.closed.is_some_and(|closed| now.saturating_sub(closed) >= CLOSED_LIMIT)
        };
        self.entries.iter().filter(|(_, entry)| lingers(entry)).map(|(slot, _)| *slot).collect()
    }

    /// The zygote has made a process.
    pub fn spawned(&mut self, slot: SlotId, pid: i32) {
        if let Some(entry) = self.entries.get_mut(&slot) {
            entry.pid = Some(Pid::from_raw(pid));
        }
    }

    /// Looks at what everybody did since the last time.
    pub fn look(&mut self) {
        for (slot, entry) in &mut self.entries {
            let used = if entry.habit.place() == Place::Home { entry.pid.and_then(processor_time) } else { None };
            if entry.habit.looked_at(used) {
                self.moves.insert(*slot);
            }
        }
    }

    /// Tells the zygote who is to run elsewhere from now on. Those whom it has no room for are told of the next time.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`] ends the supervisor.
    pub fn move_them(&mut self, zygote: &Zygote) -> Result<(), ZygoteError> {
        while let Some(slot) = self.moves.pop_first() {
            let Some(entry) = self.entries.get(&slot) else { continue };
            // Where it is to be now, whatever was wanted before.
            if !zygote.put(Slot(slot.0), entry.habit.place())? {
                self.moves.insert(slot);
                break;
            }
        }
        Ok(())
    }

    /// Closes a socket, which takes it out of the set.
    pub fn release(&mut self, slot: SlotId) {
        self.entries.remove(&slot);
        self.moves.remove(&slot);
    }
}

impl Entry {
    /// Has the set watch for room as long as something waits for it.
    fn watch_room(&mut self, slot: SlotId, set: &watch::Set) {
        let waits = self.socket.waits_for_room() && self.closed.is_none();
        if waits == self.watches_room {
            return;
        }
        let mut flags = EpollFlags::EPOLLIN;
        flags.set(EpollFlags::EPOLLOUT, waits);
        // A socket that is in the set can be changed there; one that is closed waits for nothing.
        if set.0.modify(&self.socket, &mut EpollEvent::new(flags, name(slot, self.serial))).is_ok() {
            self.watches_room = waits;
        }
    }

    /// There will be no more words. The socket leaves the set, which would tell its end for ever.
    fn close(&mut self, slot: SlotId, error: SocketError, now: Duration, set: &watch::Set) -> Option<Heard> {
        set.0.delete(&self.socket).ok();
        self.closed = Some(now);
        match (self.exit, error) {
            (Some(exit), _) => Some(Heard::Exited(slot, exit)),
            // It is ending: the zygote says how.
            (None, SocketError::Closed) => None,
            (None, _) => {
                tracing::warn!(%error, "a vault-manager's socket is broken");
                Some(Heard::Broken(slot))
            }
        }
    }
}

/// Processor time of a process's whole life.
fn processor_time(of: Pid) -> Option<Duration> {
    clock_gettime(clock_getcpuclockid(of).ok()?).ok().map(Duration::from)
}

/// What the set tells of a socket: its slot and its tenant's serial.
fn name(slot: SlotId, serial: u32) -> u64 {
    u64::from(serial) << 32 | u64::from(slot.0)
}

fn named(name: u64) -> (SlotId, u32) {
    let half = |value: u64| u32::try_from(value & u64::from(u32::MAX)).expect("32 bits");
    (SlotId(half(name)), half(name >> 32))
}
