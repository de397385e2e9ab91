//! The byte stream of a link, whatever carries it.
//!
//! It is watched for reading only. A socket of these families tells "writable" each time the other side has read something, so that
//! a stream watched for both wakes its process once more for every message, and for nothing. Who must wait until the other side
//! has read gets a watch for that wait alone.
#![allow(unsafe_code)]

use std::io::{self, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream as Socket;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use socket2::SockRef;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::UnixStream;
use tokio_vsock::VsockStream;

/// Bytes in and out.
#[derive(Debug)]
pub struct Stream {
    /// The standard library's type for a Unix stream socket. Its calls are recv(2), send(2) and shutdown(2), to which the family
    /// does not matter: vsock connections are held by it too.
    readable: AsyncFd<Socket>,
    /// While the socket takes no more.
    writable: Option<AsyncFd<Socket>>,
}

impl Stream {
    /// Takes a connected Unix stream socket over.
    ///
    /// # Errors
    /// When the runtime's reactor does not take it.
    pub fn unix(stream: UnixStream) -> io::Result<Self> {
        Self::new(stream.into_std()?)
    }

    /// Takes a vsock connection over.
    ///
    /// # Errors
    /// When the runtime's reactor does not take it.
    pub fn vsock(stream: VsockStream) -> io::Result<Self> {
        Self::new(Socket::from(OwnedFd::from(stream)))
    }

    fn new(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        Ok(Self { readable: watch(socket, Interest::READABLE)?, writable: None })
    }

    /// Takes the stream out of its runtime. The class of a connection is known only after its hello, and each class belongs to
    /// a runtime of its own: bulk must not wake the thread of the hot path.
    pub fn detach(self) -> Detached {
        Detached(self.readable.into_inner())
    }
}

/// A stream that belongs to no runtime.
#[derive(Debug)]
pub struct Detached(Socket);

impl Detached {
    /// Gives the stream to the runtime that this is called in.
    ///
    /// # Errors
    /// When the runtime's reactor does not take it.
    pub fn attach(self) -> io::Result<Stream> {
        Stream::new(self.0)
    }
}

fn watch(socket: Socket, interest: Interest) -> io::Result<AsyncFd<Socket>> {
    // SAFETY: a `Socket` owns an open descriptor and never changes its number; nobody takes it out of the `AsyncFd` but by value.
    Ok(unsafe { AsyncFd::register_with_interest(socket, interest) }?)
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut guard = ready!(self.readable.poll_read_ready(cx))?;
            // SAFETY: the bytes are handed on to recv(2), which writes them and does not read them.
            let unfilled = unsafe { buf.unfilled_mut() };
            let room = unfilled.len();
            match guard.try_io(|socket| SockRef::from(socket.get_ref()).recv(unfilled)) {
                Ok(Ok(read)) => {
                    // Less than there was room for is all that there is: the next call would only learn that.
                    if 0 < read && read < room {
                        guard.clear_ready();
                    }
                    // SAFETY: recv(2) has written that many bytes.
                    unsafe { buf.assume_init(read) };
                    buf.advance(read);
                    return Poll::Ready(Ok(()));
                }
                Ok(Err(error)) if error.kind() == io::ErrorKind::Interrupted => {}
                Ok(Err(error)) => return Poll::Ready(Err(error)),
                // Not readable after all: wait.
                Err(_) => {}
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        loop {
            if let Some(writable) = &self.writable {
                let mut guard = ready!(writable.poll_write_ready(cx))?;
                if let Ok(written) = guard.try_io(|socket| send(socket.get_ref(), buf)) {
                    self.writable = None;
                    return Poll::Ready(written);
                }
                continue;
            }
            match send(self.readable.get_ref(), buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let socket = self.readable.get_ref().try_clone()?;
                    self.writable = Some(watch(socket, Interest::WRITABLE)?);
                }
                written => return Poll::Ready(written),
            }
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.readable.get_ref().shutdown(Shutdown::Write))
    }
}

fn send(mut socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    loop {
        match socket.write(bytes) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            written => return written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn pair() -> (Stream, Stream) {
        let (here, there) = Socket::pair().unwrap();
        (Stream::new(here).unwrap(), Stream::new(there).unwrap())
    }

    #[tokio::test]
    async fn much_more_than_the_socket_holds_goes_through_whole() {
        let (mut here, mut there) = pair();
        let sent: Vec<u8> = (0_u8..=250).cycle().take(8 << 20).collect();
        let expected = sent.clone();
        let writer = tokio::spawn(async move {
            here.write_all(&sent).await.unwrap();
            here.shutdown().await.unwrap();
            here
        });
        let mut received = Vec::new();
        there.read_to_end(&mut received).await.unwrap();
        assert_eq!(received, expected);
        let mut here = writer.await.unwrap();
        assert!(here.writable.is_none(), "the watch for writing ends with the wait");
        // The other direction is open still.
        there.write_all(b"bye").await.unwrap();
        drop(there);
        let mut rest = Vec::new();
        here.read_to_end(&mut rest).await.unwrap();
        assert_eq!(rest, b"bye");
    }

    #[tokio::test]
    async fn the_other_sides_end_is_told_to_reader_and_writer() {
        let (mut here, there) = pair();
        drop(there);
        assert_eq!(here.read(&mut [0; 8]).await.unwrap(), 0);
        assert_eq!(here.write(b"x").await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
    }
}
