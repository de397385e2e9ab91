//! Descriptors that the runtime watches.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use nix::sys::epoll::{Epoll, EpollCreateFlags};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use crate::zygote::Zygote;

/// A set of descriptors with level-triggered readiness, itself watched by the runtime. One wait tells all of them that are ready.
///
/// # Errors
/// When the runtime has no I/O, or the kernel no memory.
pub(crate) fn set() -> io::Result<AsyncFd<Set>> {
    let set = Set(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?);
    // SAFETY: a `Set` owns its epoll descriptor until it is dropped and never changes it.
    Ok(unsafe { AsyncFd::register_with_interest(set, Interest::READABLE) }?)
}

/// See [`set`].
#[derive(Debug)]
pub(crate) struct Set(pub(crate) Epoll);

impl AsRawFd for Set {
    fn as_raw_fd(&self) -> RawFd {
        self.0.0.as_raw_fd()
    }
}

/// Watches the zygote: readable when [`Zygote::next_event`] has something.
///
/// # Errors
/// When the runtime has no I/O, or the kernel no memory. The zygote has ended then.
pub fn zygote(zygote: Zygote) -> io::Result<AsyncFd<Zygote>> {
    // SAFETY: a `Zygote` owns its control socket until it is dropped and never changes it.
    Ok(unsafe { AsyncFd::register_with_interest(zygote, Interest::READABLE) }?)
}
