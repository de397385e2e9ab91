//! Descriptors that the runtime watches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::OwnedFd;

use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::zygote::Zygote;

/// Watches a socket for one thing. A socket that is watched for both wakes this process each time the other side has read
/// something, for nothing.
///
/// # Errors
/// When the runtime has no I/O, or the kernel no memory.
pub(crate) fn socket(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    // SAFETY: an `OwnedFd` is open until it is dropped and never changes its number; nobody takes it out of the `AsyncFd`.
    Ok(unsafe { AsyncFd::register_with_interest(fd, interest) }?)
}

/// Watches the zygote: readable when [`Zygote::next_event`] has something.
///
/// # Errors
/// When the runtime has no I/O, or the kernel no memory. The zygote has ended then.
pub fn zygote(zygote: Zygote) -> io::Result<AsyncFd<Zygote>> {
    // SAFETY: a `Zygote` owns its control socket until it is dropped and never changes it.
    Ok(unsafe { AsyncFd::register_with_interest(zygote, Interest::READABLE) }?)
}
