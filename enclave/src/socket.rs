//! The socketpair between supervisor and vault-manager: what both ends have in common.
//!
//! SEQPACKET: one datagram is one record. A zero-length one cannot be told from the end and is taken for it.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use casemate_protocol::codec::DecodeError;
use casemate_protocol::limits::RECORD_BYTES;
use casemate_protocol::record::{HEADER_BYTES, Header, RecordError};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockType, recv, send, setsockopt, socketpair, sockopt};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::ipc::OUTSTANDING_RECORDS;

/// A record with its header.
pub(crate) const DATAGRAM_BYTES: usize = HEADER_BYTES + RECORD_BYTES;

/// How long a vault-manager waits until the supervisor reads. A supervisor that does not for so long will not any more.
const SEND_DEADLINE: Duration = Duration::from_mins(1);

/// Why a socket was given up. Nothing can be sent or received after any of these but [`SocketError::QueueFull`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SocketError {
    /// The other side is gone.
    #[error("the other side has closed its socket")]
    Closed,
    /// The queue towards a vault-manager that does not read is full; the message was not taken. Answer `busy`.
    #[error("the vault-manager does not keep up; its queue is full")]
    QueueFull,
    /// A message that is larger than its kind may be; it was not sent.
    #[error("the message is larger than its kind may be")]
    TooLarge,
    /// A datagram that is not one record, or a record cut smaller than needed.
    #[error("a datagram is not one well-cut record")]
    Datagram,
    /// Records that do not make a message.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A message that is none.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// The supervisor did not read for a minute.
    #[error("the supervisor does not read")]
    Deadline,
    /// A system call failed.
    #[error("the socket failed: {0}")]
    System(Errno),
}

impl From<Errno> for SocketError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::EPIPE | Errno::ECONNRESET | Errno::ENOTCONN => Self::Closed,
            errno => Self::System(errno),
        }
    }
}

/// Makes the two ends: the supervisor's, which never blocks, and the vault-manager's, which does. Neither can pin more kernel
/// memory than [`OUTSTANDING_RECORDS`] records; a vault-manager has no call with which to change that.
///
/// # Errors
/// Of the system calls: no descriptor is left, or no memory.
pub fn pair() -> nix::Result<(OwnedFd, OwnedFd)> {
    let (supervisor, manager) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
    fcntl(&supervisor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    for end in [&supervisor, &manager] {
        // The kernel doubles the value and lets the record through that goes over it, so with room for one record less, and
        // some bookkeeping, exactly so many records of full size are on their way.
        setsockopt(end, sockopt::SndBuf, &((OUTSTANDING_RECORDS * DATAGRAM_BYTES - 1) / 2))?;
    }
    let seconds = i64::try_from(SEND_DEADLINE.as_secs()).expect("a minute");
    setsockopt(&manager, sockopt::SendTimeout, &TimeVal::seconds(seconds))?;
    Ok((supervisor, manager))
}

/// Receives one datagram into `buffer`, which has [`DATAGRAM_BYTES`]; returns its length.
pub(crate) fn receive(fd: BorrowedFd<'_>, buffer: &mut [u8], flags: MsgFlags) -> Result<usize, Errno> {
    loop {
        match recv(fd.as_raw_fd(), buffer, flags | MsgFlags::MSG_TRUNC) {
            // A peer that ends with something unread makes one call fail; what it sent before is still there, and then its end.
            Err(Errno::EINTR | Errno::ECONNRESET) => {}
            other => return other,
        }
    }
}

/// Sends one datagram.
pub(crate) fn transmit(fd: BorrowedFd<'_>, datagram: &[u8], flags: MsgFlags) -> Result<(), Errno> {
    loop {
        match send(fd.as_raw_fd(), datagram, flags | MsgFlags::MSG_NOSIGNAL) {
            Err(Errno::EINTR) => {}
            other => return other.map(drop),
        }
    }
}

/// Reads a datagram of `length` bytes, as the kernel told it, as one record.
pub(crate) fn parse(buffer: &[u8], length: usize) -> Result<(Header, &[u8]), SocketError> {
    if length == 0 {
        return Err(SocketError::Closed);
    }
    let datagram = buffer.get(..length).ok_or(SocketError::Datagram)?;
    let (header, payload) = datagram.split_first_chunk::<HEADER_BYTES>().ok_or(SocketError::Datagram)?;
    let header = Header::parse(header)?;
    if header.payload_len != payload.len() {
        return Err(SocketError::Datagram);
    }
    Ok((header, payload))
}
