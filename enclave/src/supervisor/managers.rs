//! The sockets of the vault-managers: one task each, which reads, and a queue each, which is written.

use std::collections::HashMap;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use super::router::{ManagerExit, SlotId};
use crate::ipc::{FromManager, ToManager};
use crate::socket::{self, SocketError};
use crate::supervisor_socket::{Sender, SupervisorSocket};
use crate::zygote::{Slot, Zygote, ZygoteError};

/// Messages that wait for the router. Whoever has more to say waits in its socket.
const WAITING: usize = 1024;
/// How long a process may go on after it closed its socket.
const CLOSED_LIMIT: Duration = Duration::from_secs(2);

/// Something from a socket. The serial tells the slot's present tenant from former ones.
#[derive(Debug)]
pub struct Said {
    slot: SlotId,
    serial: u64,
    what: Result<FromManager, SocketError>,
}

/// What a [`Said`] means for the router.
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
    serial: u64,
    said: mpsc::Sender<Said>,
}

#[derive(Debug)]
struct Entry {
    serial: u64,
    sender: Sender,
    reader: JoinHandle<()>,
    /// How it ended, while its last words are still read.
    exit: Option<ManagerExit>,
    /// Since when there are no more words.
    closed: Option<Duration>,
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

impl Managers {
    /// No sockets, and where what comes from them is to be received.
    pub fn new() -> (Self, mpsc::Receiver<Said>) {
        let (said, receiver) = mpsc::channel(WAITING);
        (Self { entries: HashMap::new(), serial: 0, said }, receiver)
    }

    /// Makes a socket and asks the zygote for a process at its other end.
    ///
    /// # Errors
    /// [`ZygoteError::Gone`] ends the supervisor; after any other there is no process and none will come.
    pub fn spawn(&mut self, slot: SlotId, memory_bytes: u64, zygote: &Zygote) -> Result<(), ZygoteError> {
        let (ours, theirs) = socket::pair()?;
        let mut ours = SupervisorSocket::new(ours).map_err(|_| ZygoteError::QueueFull)?;
        zygote.spawn(Slot(slot.0), theirs, memory_bytes)?;
        self.serial += 1;
        let (serial, said, sender) = (self.serial, self.said.clone(), ours.sender());
        let reader = tokio::spawn(async move {
            loop {
                let what = ours.recv().await;
                let over = what.is_err();
                if said.send(Said { slot, serial, what }).await.is_err() || over {
                    return;
                }
            }
        });
        self.entries.insert(slot, Entry { serial, sender, reader, exit: None, closed: None });
        Ok(())
    }

    /// Queues a message. False when the socket's queue has no room for it, which no well-behaved process brings about.
    #[must_use]
    pub fn send(&self, slot: SlotId, message: &ToManager) -> bool {
        let Some(entry) = self.entries.get(&slot) else { return true };
        match entry.sender.try_send(message) {
            // Its end is told by the reader and the zygote.
            Ok(()) | Err(SocketError::Closed) => true,
            Err(_) => false,
        }
    }

    /// Sorts what a socket said.
    pub fn hear(&mut self, said: Said, now: Duration) -> Option<Heard> {
        let entry = self.entries.get_mut(&said.slot).filter(|entry| entry.serial == said.serial)?;
        match said.what {
            Ok(message) => Some(Heard::Message(said.slot, message)),
            Err(error) => {
                entry.closed = Some(now);
                match (entry.exit, error) {
                    (Some(exit), _) => Some(Heard::Exited(said.slot, exit)),
                    // It is ending: the zygote says how.
                    (None, SocketError::Closed) => None,
                    (None, _) => {
                        tracing::warn!(%error, "a vault-manager's socket is broken");
                        Some(Heard::Broken(said.slot))
                    }
                }
            }
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

    /// Closes a socket.
    pub fn release(&mut self, slot: SlotId) {
        self.entries.remove(&slot);
    }
}
