//! The vault-manager's end of its socket: blocking, one message at a time, nothing but `recvfrom`, `sendto` and `ppoll`.

use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use bytes::Bytes;
use casemate_protocol::codec;
use casemate_protocol::record::{self, Assembler, Bounds, Outgoing, StreamId};
use casemate_protocol::wipe::wipe;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::MsgFlags;
use nix::sys::time::TimeSpec;

use crate::ipc::{FROM_MANAGER_BYTES, FromManager, TO_MANAGER_BYTES, ToManager};
use crate::socket::{DATAGRAM_BYTES, SocketError, parse, receive, transmit};

/// A message larger than this gives its buffers back when it is done, so that a burst does not make a vault fat for good.
const KEPT_BYTES: usize = 16 * 1024;

/// What the supervisor may leave unfinished: one message a lane (`supervisor_socket`).
const BOUNDS: Bounds = Bounds { message_bytes: TO_MANAGER_BYTES, messages: 2, bytes: 2 * TO_MANAGER_BYTES };

/// The vault-manager's end.
pub struct ManagerSocket {
    fd: OwnedFd,
    assembler: Assembler,
    /// One datagram. Wiped behind each record, since a record may carry the vault key.
    incoming: Vec<u8>,
    /// Whether a large record has been in it.
    is_fat: bool,
    outgoing: Vec<u8>,
    sent: u64,
}

impl fmt::Debug for ManagerSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ManagerSocket").field("fd", &self.fd).field("sent", &self.sent).finish_non_exhaustive()
    }
}

impl ManagerSocket {
    /// Takes the socket that the process was given.
    pub fn new(fd: OwnedFd) -> Self {
        // Zeroed memory comes untouched from the kernel: pages cost nothing until a record fills them.
        let incoming = vec![0; DATAGRAM_BYTES];
        Self { fd, assembler: Assembler::trusting(BOUNDS), incoming, is_fat: false, outgoing: Vec::new(), sent: 0 }
    }

    /// Waits for the next message, as long as the supervisor lives.
    ///
    /// # Errors
    /// [`SocketError::Closed`] when the supervisor let go of this vault: exit. All others mean a broken supervisor: exit too.
    pub fn recv(&mut self) -> Result<ToManager, SocketError> {
        loop {
            if let Some(message) = self.take_record()? {
                return Ok(message);
            }
        }
    }

    /// Waits for the next message at most `timeout` long; none when the time is over. What has come of a message by then is
    /// kept for the next call.
    ///
    /// # Errors
    /// As [`ManagerSocket::recv`].
    pub fn recv_timeout(&mut self, timeout: Duration) -> Result<Option<ToManager>, SocketError> {
        let deadline = Instant::now().checked_add(timeout);
        loop {
            // A time beyond the clock's end is no deadline.
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let mut watched = [PollFd::new(self.fd.as_fd(), PollFlags::POLLIN)];
            match ppoll(&mut watched, left.map(TimeSpec::from), None) {
                Ok(0) => return Ok(None),
                Ok(_) => {
                    if let Some(message) = self.take_record()? {
                        return Ok(Some(message));
                    }
                }
                Err(Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Sends a message, waiting while the supervisor has [`crate::ipc::OUTSTANDING_RECORDS`] records to read.
    ///
    /// # Errors
    /// [`SocketError::TooLarge`] is a mistake of the caller, and nothing was sent; all others: exit.
    pub fn send(&mut self, message: &FromManager) -> Result<(), SocketError> {
        let stream = StreamId { number: self.sent, is_reply: false };
        self.outgoing.clear();
        match record::write_whole(stream, &mut self.outgoing, |out| codec::encode_onto(message, out)) {
            Ok(()) => self.transmit()?,
            Err(body) if body.len() > FROM_MANAGER_BYTES => return Err(SocketError::TooLarge),
            Err(body) => {
                let mut message = Outgoing::new(stream, body);
                let mut last = false;
                while !last {
                    self.outgoing.clear();
                    last = message.write_piece(&mut self.outgoing);
                    self.transmit()?;
                }
            }
        }
        self.sent += 1;
        if self.outgoing.capacity() > KEPT_BYTES {
            self.outgoing = Vec::new();
        }
        Ok(())
    }

    fn transmit(&self) -> Result<(), SocketError> {
        transmit(self.fd.as_fd(), &self.outgoing, MsgFlags::empty()).map_err(|errno| match errno {
            Errno::EAGAIN => SocketError::Deadline,
            errno => errno.into(),
        })
    }

    fn take_record(&mut self) -> Result<Option<ToManager>, SocketError> {
        let length = receive(self.fd.as_fd(), &mut self.incoming, MsgFlags::empty())?;
        let message = self.take(length);
        let filled = length.min(self.incoming.len());
        wipe(&mut self.incoming[..filled]);
        self.is_fat |= filled > KEPT_BYTES;
        if self.is_fat && matches!(message, Ok(Some(_))) {
            self.incoming = vec![0; DATAGRAM_BYTES];
            self.is_fat = false;
        }
        message
    }

    /// Takes a datagram of `length` bytes out of `incoming`.
    fn take(&mut self, length: usize) -> Result<Option<ToManager>, SocketError> {
        let (header, payload) = parse(&self.incoming, length)?;
        if let Some(body) = self.assembler.whole(header, payload)? {
            return Ok(Some(codec::decode(body, TO_MANAGER_BYTES)?));
        }
        let Some((_, body)) = self.assembler.piece(header, payload)? else { return Ok(None) };
        let message = codec::decode(&body, TO_MANAGER_BYTES);
        wipe_message(body);
        Ok(Some(message?))
    }
}

/// Wipes a message's bytes, the vault key among them if it was `Opened`.
fn wipe_message(body: Bytes) {
    if let Ok(mut body) = body.try_into_mut() {
        wipe(&mut body);
    }
}
