//! Records in and out of one stream without a task of its own: whoever owns it reads all that is there, does what follows, and writes
//! once.

use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use casemate_protocol::limits::RECORD_BYTES;
use casemate_protocol::record::{Assembler, Bounds, Header, StreamId, next_header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::time::Instant;

use crate::connection::{CloseReason, Limits};

/// Longest time in which the other side takes nothing. A peer that stopped reading would pin the window's memory for good.
const STALL_LIMIT: Duration = Duration::from_secs(30);
/// Room made for reading at a time.
const READ_BYTES: usize = 2 * RECORD_BYTES;
/// With less room than this, more is made.
const ROOM_BYTES: usize = 16 * 1024;
/// Reads at one poll; then others get their turn.
const READS: usize = 16;

/// A stream of records.
#[derive(Debug)]
pub(crate) struct Port<S> {
    stream: S,
    assembler: Assembler,
    header: Option<Header>,
    inbound: BytesMut,
    /// Bytes that are being written, and how many of them are.
    burst: BytesMut,
    written: usize,
    /// Since when the other side takes nothing.
    stalled: Option<Instant>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Port<S> {
    pub(crate) fn new(stream: S, limits: &Limits) -> Self {
        let bounds = Bounds {
            message_bytes: limits.message_bytes,
            messages: limits.window_requests,
            bytes: limits.unfinished_bytes(),
        };
        Self {
            stream,
            assembler: Assembler::new(bounds),
            header: None,
            inbound: BytesMut::with_capacity(READ_BYTES),
            burst: BytesMut::new(),
            written: 0,
            stalled: None,
        }
    }

    /// Reads what is there and gives every whole message to `take`; pending when nothing was, and then whoever polls is woken by
    /// what comes next. Ready does not mean that all was read.
    ///
    /// # Errors
    /// The end of the connection, or why it is to be ended.
    pub(crate) fn poll_receive(
        &mut self,
        cx: &mut Context<'_>,
        mut take: impl FnMut(StreamId, &[u8]) -> Result<(), CloseReason>,
    ) -> Poll<Result<(), CloseReason>> {
        for reads in 0..READS {
            if self.inbound.capacity() - self.inbound.len() < ROOM_BYTES {
                self.inbound.reserve(READ_BYTES);
            }
            match pin!(self.stream.read_buf(&mut self.inbound)).poll(cx) {
                Poll::Pending if reads == 0 => return Poll::Pending,
                Poll::Pending => break,
                // What came before the end was taken; the next poll tells the end.
                Poll::Ready(Ok(0)) if reads > 0 => break,
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(CloseReason::Ended)),
                Poll::Ready(Ok(_)) => self.take_all(&mut take)?,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(CloseReason::Io(error.kind()))),
            }
        }
        Poll::Ready(Ok(()))
    }

    fn take_all(
        &mut self,
        take: &mut impl FnMut(StreamId, &[u8]) -> Result<(), CloseReason>,
    ) -> Result<(), CloseReason> {
        while let Some(header) = next_header(&mut self.inbound, &mut self.header)? {
            let payload = &self.inbound[..header.payload_len];
            if let Some(body) = self.assembler.whole(header, payload)? {
                take(header.stream, body)?;
            } else if let Some((stream, body)) = self.assembler.piece(header, payload)? {
                take(stream, &body)?;
            }
            self.inbound.advance(header.payload_len);
        }
        Ok(())
    }

    /// Writes what `fill` gives until it gives nothing or the other side takes no more; then whoever polls is woken when it does.
    ///
    /// # Errors
    /// Why the connection is to be ended.
    pub(crate) fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut fill: impl FnMut(&mut BytesMut),
    ) -> Result<(), CloseReason> {
        loop {
            if self.written == self.burst.len() {
                self.written = 0;
                self.burst.clear();
                fill(&mut self.burst);
                if self.burst.is_empty() {
                    self.stalled = None;
                    return Ok(());
                }
            }
            match Pin::new(&mut self.stream).poll_write(cx, &self.burst[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(CloseReason::Io(std::io::ErrorKind::WriteZero)),
                Poll::Ready(Ok(written)) => {
                    self.written += written;
                    self.stalled = None;
                }
                Poll::Ready(Err(error)) => return Err(CloseReason::Io(error.kind())),
                Poll::Pending => {
                    let since = *self.stalled.get_or_insert_with(Instant::now);
                    return if since.elapsed() < STALL_LIMIT { Ok(()) } else { Err(CloseReason::Stalled) };
                }
            }
        }
    }

    /// When [`Port::poll_write`] is to be called again, if the other side takes nothing until then.
    pub(crate) fn stalls_at(&self) -> Option<Instant> {
        self.stalled.map(|since| since + STALL_LIMIT)
    }
}
