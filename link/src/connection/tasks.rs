//! The two tasks of a connection: one reads, one writes, and neither waits for the other.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use casemate_protocol::limits;
use casemate_protocol::record::{Assembler, Bounds, Header, StreamId, next_header};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::sync::mpsc;

use super::{CloseReason, Incoming, NOTICE, Replier, Shared};

/// Longest wait for the other side to take one burst. A peer that stopped reading would pin the window's memory for good.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// Room made for reading at a time.
const READ_BYTES: usize = 2 * limits::RECORD_BYTES;
/// Payloads up to here are copied out of the read buffer: a few bytes that somebody keeps must not pin a whole buffer.
const COPY_BYTES: usize = 16 * 1024;

/// Reads until the connection ends, and ends it when the other side closes, fails or breaks the rules.
pub(super) async fn read<S: AsyncRead + Unpin>(
    mut stream: ReadHalf<S>,
    shared: Arc<Shared>,
    incoming: mpsc::Sender<Incoming>,
) {
    let mut inbound = Inbound::new(&shared, &incoming);
    let mut closed = shared.closed.subscribe();
    let mut closed = pin!(closed.wait_for(Option::is_some));
    let mut abandoned = pin!(incoming.closed());
    let mut buffer = BytesMut::with_capacity(READ_BYTES);
    let reason = loop {
        if buffer.capacity() - buffer.len() < COPY_BYTES {
            buffer.reserve(READ_BYTES);
        }
        let read = tokio::select! {
            biased;
            _ = &mut closed => return,
            () = &mut abandoned => break CloseReason::Local,
            read = stream.read_buf(&mut buffer) => read,
        };
        match read {
            Ok(0) => break CloseReason::Ended,
            Ok(_) => {
                if let Err(reason) = inbound.take_all(&mut buffer) {
                    break reason;
                }
            }
            Err(error) => break CloseReason::Io(error.kind()),
        }
    };
    shared.close(reason);
}

/// What becomes of the bytes that come in.
struct Inbound<'a> {
    shared: &'a Arc<Shared>,
    incoming: &'a mpsc::Sender<Incoming>,
    assembler: Assembler,
    header: Option<Header>,
}

impl<'a> Inbound<'a> {
    fn new(shared: &'a Arc<Shared>, incoming: &'a mpsc::Sender<Incoming>) -> Self {
        let limits = &shared.limits;
        let bounds = Bounds {
            message_bytes: limits.message_bytes,
            messages: limits.window_requests,
            bytes: limits.unfinished_bytes(),
        };
        Self { shared, incoming, assembler: Assembler::new(bounds), header: None }
    }

    /// Takes every whole record out of `buffer`.
    fn take_all(&mut self, buffer: &mut BytesMut) -> Result<(), CloseReason> {
        loop {
            let Some(header) = next_header(buffer, &mut self.header)? else { return Ok(()) };
            let payload = if header.payload_len <= COPY_BYTES {
                let copy = Bytes::copy_from_slice(&buffer[..header.payload_len]);
                buffer.advance(header.payload_len);
                copy
            } else {
                buffer.split_to(header.payload_len).freeze()
            };
            if let Some((stream, body)) = self.assembler.take(header, &payload)? {
                self.message(stream, body)?;
            }
        }
    }

    fn message(&self, stream: StreamId, body: Bytes) -> Result<(), CloseReason> {
        if stream.is_reply {
            let pending = {
                let mut state = self.shared.state();
                let pending = state.pending.remove(&stream.number);
                state.pending_bytes -= pending.as_ref().map_or(0, |pending| pending.bytes);
                pending
            };
            // Nobody may wait any more: late answers are dropped here.
            drop(pending.ok_or(CloseReason::StrayReply)?.answer.send(body));
            return Ok(());
        }
        if stream.number & NOTICE != 0 {
            // Calls keep their places: only what is beyond the window's is for notices. The rest is dropped, as documented.
            if self.incoming.capacity() > self.shared.limits.window_requests {
                drop(self.incoming.try_send(Incoming::Notice { body }));
            }
            return Ok(());
        }
        let bytes = body.len();
        {
            let mut state = self.shared.state();
            if state.served >= self.shared.limits.window_requests
                || state.served_bytes + bytes > self.shared.limits.unfinished_bytes()
            {
                return Err(CloseReason::Window);
            }
            state.served += 1;
            state.served_bytes += bytes;
        }
        let reply = Replier { shared: Arc::clone(self.shared), number: stream.number, bytes, is_answered: false };
        let call = Incoming::Call { number: stream.number, body, reply };
        // There is room for the whole window; a closed channel means that this side has ended.
        self.incoming.try_send(call).map_err(|_| CloseReason::Local)
    }
}

/// Writes what waits, until the connection ends.
pub(super) async fn write<S: AsyncWrite + Unpin>(mut stream: WriteHalf<S>, shared: Arc<Shared>) {
    let mut closed = shared.closed.subscribe();
    let mut closed = pin!(closed.wait_for(Option::is_some));
    let mut burst = BytesMut::new();
    loop {
        burst.clear();
        {
            let mut state = shared.state();
            if state.is_closed {
                break;
            }
            state.queue.fill(&mut burst);
            state.writing = burst.len();
        }
        if burst.is_empty() {
            shared.written.notify_waiters();
            shared.wake.notified().await;
            continue;
        }
        let written = tokio::select! {
            biased;
            written = tokio::time::timeout(WRITE_TIMEOUT, async {
                stream.write_all(&burst).await?;
                stream.flush().await
            }) => written,
            _ = &mut closed => break,
        };
        match written {
            Ok(Ok(())) => {
                shared.state().writing = 0;
                shared.written.notify_waiters();
            }
            Ok(Err(error)) => shared.close(CloseReason::Io(error.kind())),
            Err(_) => shared.close(CloseReason::Stalled),
        }
    }
    // The socket is closed when both halves are gone; the other side should not have to wait for the reader's to go.
    drop(tokio::time::timeout(Duration::from_secs(1), stream.shutdown()).await);
}
