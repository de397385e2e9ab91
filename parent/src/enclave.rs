//! The enclave as the parent sees it: who is connected, and the door at which it knocks.
//!
//! The enclave dials, one connection per class, the control connection first. Connections of another boot than the control
//! connection's are refused, so that nothing of an old enclave mixes with a new one; a new control connection takes the place of
//! the old one, because a dead peer cannot be told from a silent one any sooner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use casemate_link::{
    CallError, Caller, Connection, Detached, HelloError, Limits, Listener, Peer, Stream, accept_hello, answer_hello,
};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits;
use casemate_protocol::link::{
    AttestReply, CONTROL_BYTES, Class, ControlCall, ControlReply, Hello, REQUEST_BYTES, RequestCall, RequestReply,
};
use tokio::sync::{Semaphore, mpsc};

use crate::blobs;
use crate::control::Control;
use crate::relay::Relay;
use crate::store::ObjectStore;

/// What the parent calls itself in a hello.
pub const BUILD: &str = concat!("casemate-parent ", env!("CARGO_PKG_VERSION"));
/// Connections that have not said hello yet.
const KNOCKING: usize = 64;
/// Evidence asked for at the same time: strangers may ask, and must not fill the window of those who are known.
const ATTESTS: usize = 32;
/// Longest wait after a failed accept: out of descriptors, usually.
const ACCEPT_PAUSE: Duration = Duration::from_millis(200);

/// The name of one boot of an enclave.
pub type BootId = [u8; 16];

/// The connections of the enclave that is there now.
#[derive(Debug)]
pub struct Enclave {
    current: Mutex<Current>,
    attests: Semaphore,
}

impl Default for Enclave {
    fn default() -> Self {
        Self { current: Mutex::default(), attests: Semaphore::new(ATTESTS) }
    }
}

#[derive(Debug, Default)]
struct Current {
    boot: Option<BootId>,
    control: Option<Caller>,
    requests: Option<Caller>,
    blobs: Option<Caller>,
}

/// Why an order was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OrderError {
    /// There is no enclave.
    #[error("no enclave is connected; start it, and look at `casemate node status`")]
    NotConnected,
    /// It did not answer.
    #[error("the enclave did not answer: {0}")]
    Call(#[from] CallError),
    /// It answered something else.
    #[error("the enclave's answer was not understood; parent and image may be too far apart")]
    NotUnderstood,
    /// It refused.
    #[error("the enclave refused ({0}): {1}")]
    Refused(ErrorCode, String),
}

impl Enclave {
    fn current(&self) -> MutexGuard<'_, Current> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The connection for devices' requests.
    pub fn requests(&self) -> Option<Caller> {
        self.current().requests.clone()
    }

    /// Whether connections of this boot are welcome.
    pub fn is_current(&self, boot: &BootId) -> bool {
        let current = self.current();
        current.control.is_some() && current.boot.as_ref() == Some(boot)
    }

    /// Takes a connection in; what it replaces is closed. A control connection of another boot replaces everything.
    pub fn admit(&self, boot: BootId, class: Class, caller: Caller) {
        let mut current = self.current();
        if current.boot != Some(boot) {
            let former = std::mem::replace(&mut *current, Current { boot: Some(boot), ..Current::default() });
            for old in [former.control, former.requests, former.blobs].into_iter().flatten() {
                old.close();
            }
        }
        let place = match class {
            Class::Control => &mut current.control,
            Class::Requests => &mut current.requests,
            Class::Blobs => &mut current.blobs,
            Class::Relay => return,
        };
        if let Some(old) = place.replace(caller) {
            old.close();
        }
    }

    /// Forgets a connection that has ended; returns whether it was still the current one.
    pub fn dismiss(&self, caller: &Caller) -> bool {
        let mut current = self.current();
        let Current { control, requests, blobs, .. } = &mut *current;
        let mut found = false;
        for place in [control, requests, blobs] {
            if place.as_ref().is_some_and(|held| held.same_connection(caller)) {
                *place = None;
                found = true;
            }
        }
        found
    }

    /// Gives an order over the control connection.
    ///
    /// # Errors
    /// See [`OrderError`].
    pub async fn order(&self, call: &ControlCall, deadline: Duration) -> Result<ControlReply, OrderError> {
        let control = self.current().control.clone().ok_or(OrderError::NotConnected)?;
        // Wiped when the writer has taken it: credentials go this way too.
        let body = Bytes::from_owner(codec::encode_secret(call));
        let reply = control.call(body, deadline).await?;
        match codec::decode(&reply, CONTROL_BYTES).map_err(|_| OrderError::NotUnderstood)? {
            ControlReply::Refused(code, why) => Err(OrderError::Refused(code, why.chars().take(200).collect())),
            reply => Ok(reply),
        }
    }

    /// Asks for fresh evidence over a nonce.
    ///
    /// # Errors
    /// With the refusal that the asker is to be told.
    pub async fn attest(&self, nonce: Vec<u8>, deadline: Duration) -> Result<AttestReply, Refusal> {
        let unavailable = Refusal::retry(ErrorCode::Unavailable, 1000);
        let Ok(_place) = self.attests.try_acquire() else { return Err(Refusal::retry(ErrorCode::Busy, 100)) };
        let Some(requests) = self.requests() else { return Err(unavailable) };
        let call = codec::encode(&RequestCall::Attest { nonce });
        let reply = match requests.call(call.into(), deadline).await {
            Ok(reply) => reply,
            Err(CallError::Busy) => return Err(Refusal::retry(ErrorCode::Busy, 100)),
            Err(CallError::Deadline) => return Err(ErrorCode::DeadlineExceeded.into()),
            Err(CallError::Closed | CallError::Unanswered | CallError::TooLarge) => return Err(unavailable),
        };
        match codec::decode(&reply, REQUEST_BYTES) {
            Ok(RequestReply::Evidence(evidence)) => {
                codec::decode(&evidence, limits::FRAME_BYTES).map_err(|_| ErrorCode::Internal.into())
            }
            Ok(RequestReply::Refused(refusal)) => Err(refusal),
            Ok(RequestReply::Frame(_)) | Err(_) => Err(ErrorCode::Internal.into()),
        }
    }
}

/// A requests connection on its way to the thread of the hot path.
#[derive(Debug)]
pub struct RequestsStream {
    /// The stream, after its hello.
    pub stream: Detached,
    /// Whose it is.
    pub boot: BootId,
}

/// Opens the door and sends each connection to its part.
#[derive(Debug)]
pub struct Door {
    /// Who is there.
    pub enclave: Arc<Enclave>,
    /// Which context id may knock, when only one may.
    pub enclave_cid: Option<u32>,
    /// Serves control connections.
    pub control: Arc<Control>,
    /// Serves blobs connections.
    pub store: Arc<ObjectStore>,
    /// Serves relays.
    pub relay: Arc<Relay>,
    /// Takes requests connections.
    pub requests: mpsc::Sender<RequestsStream>,
}

impl Door {
    /// Takes connections until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: Listener) {
        let knocking = Arc::new(Semaphore::new(KNOCKING));
        loop {
            let (stream, peer) = match listener.accept().await {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::warn!(%error, "a connection of the link could not be taken");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
            if !self.may_knock(peer) {
                tracing::warn!(?peer, "a connection of the link came from somebody else than the enclave and was cut");
                continue;
            }
            let Ok(place) = Arc::clone(&knocking).try_acquire_owned() else {
                tracing::warn!("too many connections of the link wait for their hello; one was cut");
                continue;
            };
            let door = Arc::clone(&self);
            tokio::spawn(async move {
                let taken = accept_hello(stream).await;
                drop(place);
                let served = match taken {
                    Ok((stream, hello)) => door.open(stream, hello).await,
                    Err(error) => Err(error),
                };
                if let Err(error) = served {
                    tracing::warn!(%error, "a connection of the link was not taken");
                }
            });
        }
    }

    /// Context ids up to 3 are the hypervisor, this machine itself and the parent: processes here, not enclaves.
    fn may_knock(&self, peer: Peer) -> bool {
        match (peer, self.enclave_cid) {
            // The socket's mode has let nobody else in.
            (Peer::Unix { .. }, _) => true,
            (Peer::Vsock { cid }, Some(allowed)) => cid == allowed,
            (Peer::Vsock { cid }, None) => cid > 3,
        }
    }

    async fn open(&self, stream: Stream, hello: Hello) -> Result<(), HelloError> {
        if hello.class != Class::Control && !self.enclave.is_current(&hello.boot_id) {
            return answer_hello(stream, &hello, BUILD, Some("dial the control connection of this boot first"))
                .await
                .map(drop);
        }
        if hello.class == Class::Relay {
            return self.relay.serve(stream, &hello).await;
        }
        let stream = answer_hello(stream, &hello, BUILD, None).await?;
        match hello.class {
            Class::Control => {
                let connection = Connection::spawn(stream, Limits::of(Class::Control));
                self.enclave.admit(hello.boot_id, Class::Control, connection.caller.clone());
                self.control.serve(connection, &hello.build).await;
            }
            Class::Blobs => {
                let connection = Connection::spawn(stream, Limits::of(Class::Blobs));
                self.enclave.admit(hello.boot_id, Class::Blobs, connection.caller.clone());
                let caller = connection.caller.clone();
                blobs::serve(connection, Arc::clone(&self.store)).await;
                self.enclave.dismiss(&caller);
            }
            Class::Requests => {
                let requests = RequestsStream { stream: stream.detach(), boot: hello.boot_id };
                if self.requests.send(requests).await.is_err() {
                    tracing::warn!("a requests connection came while the bridge was stopping");
                }
            }
            Class::Relay => {}
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller() -> (Caller, Connection) {
        let (here, there) = tokio::io::duplex(1024);
        let connection = Connection::spawn(here, Limits::of(Class::Control));
        std::mem::forget(there);
        (connection.caller.clone(), connection)
    }

    #[tokio::test]
    async fn a_new_boot_replaces_everything_of_the_old() {
        let enclave = Enclave::default();
        let ((control, c), (requests, r)) = (caller(), caller());
        assert!(!enclave.is_current(&[1; 16]));
        enclave.admit([1; 16], Class::Control, control.clone());
        enclave.admit([1; 16], Class::Requests, requests);
        assert!(enclave.is_current(&[1; 16]) && enclave.requests().is_some());

        let (next, n) = caller();
        enclave.admit([2; 16], Class::Control, next);
        assert!(!enclave.is_current(&[1; 16]) && enclave.is_current(&[2; 16]) && enclave.requests().is_none());
        assert!(c.closed.reason().is_some() && r.closed.reason().is_some() && n.closed.reason().is_none());
        // The old one's end is no news about the new one.
        assert!(!enclave.dismiss(&control));
        assert!(enclave.is_current(&[2; 16]));
    }

    #[tokio::test]
    async fn a_second_control_connection_of_a_boot_takes_the_place() {
        let enclave = Enclave::default();
        let ((first, f), (second, s), (requests, r)) = (caller(), caller(), caller());
        enclave.admit([1; 16], Class::Control, first);
        enclave.admit([1; 16], Class::Requests, requests);
        enclave.admit([1; 16], Class::Control, second.clone());
        assert!(f.closed.reason().is_some() && s.closed.reason().is_none() && r.closed.reason().is_none());
        assert!(enclave.dismiss(&second));
        assert!(!enclave.is_current(&[1; 16]));
        let error = enclave.order(&ControlCall::Health, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error, OrderError::NotConnected);
    }
}
