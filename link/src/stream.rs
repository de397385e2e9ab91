//! The byte stream of a link, whatever carries it.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::UnixStream;
use tokio_vsock::VsockStream;

/// Bytes in and out.
#[derive(Debug)]
pub enum Stream {
    /// A Unix stream socket.
    Unix(UnixStream),
    /// A vsock connection.
    Vsock(VsockStream),
}

impl Stream {
    /// Takes the stream out of its runtime. The class of a connection is known only after its hello, and each class belongs to
    /// a runtime of its own: bulk must not wake the thread of the hot path.
    ///
    /// # Errors
    /// When the runtime's reactor does not let go of it.
    pub fn detach(self) -> io::Result<Detached> {
        Ok(match self {
            Self::Unix(stream) => Detached::Unix(stream.into_std()?),
            Self::Vsock(stream) => Detached::Vsock(stream.into()),
        })
    }
}

/// A stream that belongs to no runtime.
#[derive(Debug)]
pub enum Detached {
    /// A Unix stream socket.
    Unix(std::os::unix::net::UnixStream),
    /// A vsock connection.
    Vsock(OwnedFd),
}

impl Detached {
    /// Gives the stream to the runtime that this is called in.
    ///
    /// # Errors
    /// When the runtime's reactor does not take it.
    pub fn attach(self) -> io::Result<Stream> {
        Ok(match self {
            Self::Unix(stream) => Stream::Unix(UnixStream::from_std(stream)?),
            Self::Vsock(stream) => Stream::Vsock(VsockStream::new(stream.into())?),
        })
    }
}

impl AsyncRead for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_read(cx, buf),
            Self::Vsock(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_write(cx, buf),
            Self::Vsock(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_flush(cx),
            Self::Vsock(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Unix(stream) => Pin::new(stream).poll_shutdown(cx),
            Self::Vsock(stream) => Pin::new(stream).poll_shutdown(cx),
        }
    }
}
