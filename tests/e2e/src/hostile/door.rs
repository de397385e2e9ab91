//! The lying parent's end of each connection.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use casemate_link::{Caller, Connection, Incoming, Limits, Listener, Stream, accept_hello, answer_hello};
use casemate_protocol::codec;
use casemate_protocol::link::{
    BLOB_BYTES, BlobCall, CONTROL_BYTES, Class, ControlCall, ControlReply, Hello, LogRecord,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::TcpStream;

use super::host::Shared;

/// How long the enclave may take for anything.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// How a connection goes wrong.
#[derive(Debug, Clone)]
pub enum Misdeed {
    /// These bytes come instead of the answer to the hello.
    InsteadOfHello(Vec<u8>),
    /// The hello is answered as it should be; then these bytes come.
    AfterHello(Vec<u8>),
}

impl Misdeed {
    /// A hello's answer with this body, framed as it should be.
    pub fn hello(body: &[u8]) -> Self {
        let length = u32::try_from(body.len()).expect("short");
        Self::InsteadOfHello([&length.to_be_bytes(), body].concat())
    }
}

/// Takes connections for ever.
pub(super) async fn serve(listener: Listener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            let Ok((stream, hello)) = accept_hello(stream).await else { return };
            match shared.next_misdeed(hello.class) {
                Some(misdeed) => {
                    let was_cut = misbehave(stream, &hello, misdeed).await;
                    shared.was_cut(was_cut);
                }
                None => behave(stream, &hello, &shared).await,
            }
        });
    }
}

/// Whether the enclave ended the connection, and not this side or time.
async fn misbehave(stream: Stream, hello: &Hello, misdeed: Misdeed) -> bool {
    let (mut stream, bytes) = match misdeed {
        Misdeed::InsteadOfHello(bytes) => (stream, bytes),
        Misdeed::AfterHello(bytes) => match answer_hello(stream, hello, "hostile", None).await {
            Ok(stream) => (stream, bytes),
            Err(_) => return false,
        },
    };
    // The enclave may be gone before it has read all of it.
    drop(stream.write_all(&bytes).await);
    let mut rest = [0; 4096];
    let ended = async { while matches!(stream.read(&mut rest).await, Ok(read) if read > 0) {} };
    tokio::time::timeout(PATIENCE, ended).await.is_ok()
}

async fn behave(stream: Stream, hello: &Hello, shared: &Arc<Shared>) {
    if hello.class == Class::Relay {
        return relay(stream, hello, shared).await;
    }
    let Ok(stream) = answer_hello(stream, hello, "hostile", None).await else { return };
    let Connection { caller, mut incoming, mut closed } = Connection::spawn(stream, Limits::of(hello.class));
    if hello.class == Class::Control {
        let (shared, caller) = (Arc::clone(shared), caller.clone());
        tokio::spawn(async move { configure(&caller, &shared).await });
    } else {
        shared.connected(hello.class, caller);
    }
    while let Some(message) = incoming.recv().await {
        match (hello.class, message) {
            (Class::Control, Incoming::Notice { body }) => {
                shared.log(codec::decode::<LogRecord>(&body, CONTROL_BYTES).expect("a log record"));
            }
            (Class::Blobs, Incoming::Call { body, reply, .. }) => {
                let call: BlobCall = codec::decode(&body, BLOB_BYTES).expect("a call to the store");
                reply.reply(codec::encode(&shared.answer(&call)).into());
            }
            (class, message) => panic!("the enclave said something out of place on {class:?}: {message:?}"),
        }
    }
    closed.wait().await;
}

async fn configure(caller: &Caller, shared: &Shared) {
    for call in shared.first_calls() {
        // A connection that is cut meanwhile is dialled again.
        let Ok(answer) = order(caller, &call).await else { return };
        assert_eq!(answer, ControlReply::Done, "an honest configuration is taken");
    }
    shared.connected(Class::Control, caller.clone());
}

/// Gives an order over a control connection.
pub(super) async fn order(caller: &Caller, call: &ControlCall) -> Result<ControlReply, casemate_link::CallError> {
    let answer = caller.call(Bytes::from(codec::encode(call)), PATIENCE).await?;
    Ok(codec::decode(&answer, CONTROL_BYTES).expect("an answer of the control connection"))
}

async fn relay(stream: Stream, hello: &Hello, shared: &Shared) {
    let Ok(mut outside) = TcpStream::connect(shared.relay_target()).await else { return };
    if let Ok(mut stream) = answer_hello(stream, hello, "hostile", None).await {
        drop(copy_bidirectional(&mut stream, &mut outside).await);
    }
}
