//! The enclave as the parent sees it: who is connected, and the door at which it knocks.
//!
//! The enclave dials, one connection per class, the control connection first. Connections of another boot than the control
//! connection's are refused, so that nothing of an old enclave mixes with a new one; a new control connection takes the place of
//! the old one, because a dead peer cannot be told from a silent one any sooner.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use casemate_link::{
    CallError, Caller, Calls, Connection, Detached, HelloError, Limits, Listener, Peer, Stream, accept_hello,
    answer_hello,
};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits;
use casemate_protocol::link::{
    AttestReply, CONTROL_BYTES, Class, ControlCall, ControlReply, Hello, REQUEST_BYTES, RequestCall, RequestReply,
};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::Instant;

use crate::blobs;
use crate::bridge::Waiter;
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
    requests: Option<Calls<Waiter>>,
    blobs: Option<Caller>,
}

impl Current {
    /// Whether connections of this boot are welcome.
    fn is(&self, boot: &BootId) -> bool {
        self.control.is_some() && self.boot.as_ref() == Some(boot)
    }

    /// Forgets another boot's connections, which are closed.
    fn turn_to(&mut self, boot: BootId) {
        if self.boot == Some(boot) {
            return;
        }
        let former = std::mem::replace(self, Self { boot: Some(boot), ..Self::default() });
        for old in [former.control, former.blobs].into_iter().flatten() {
            old.close();
        }
        if let Some(old) = former.requests {
            old.close();
        }
    }
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
    pub fn requests(&self) -> Option<Calls<Waiter>> {
        self.current().requests.clone()
    }

    /// Whether connections of this boot are welcome.
    pub fn is_current(&self, boot: &BootId) -> bool {
        self.current().is(boot)
    }

    /// Takes a control connection in; what it replaces is closed. One of another boot replaces everything.
    pub fn admit_control(&self, boot: BootId, caller: Caller) {
        let mut current = self.current();
        current.turn_to(boot);
        if let Some(old) = current.control.replace(caller) {
            old.close();
        }
    }

    /// Takes the connection for the store in; what it replaces is closed. One of a boot that is not current any more is closed itself.
    pub fn admit_blobs(&self, boot: BootId, caller: Caller) {
        let mut current = self.current();
        let old = if current.is(&boot) { current.blobs.replace(caller) } else { Some(caller) };
        if let Some(old) = old {
            old.close();
        }
    }

    /// Takes the connection for devices' requests in, likewise.
    pub fn admit_requests(&self, boot: BootId, calls: Calls<Waiter>) {
        let mut current = self.current();
        let old = if current.is(&boot) { current.requests.replace(calls) } else { Some(calls) };
        if let Some(old) = old {
            old.close();
        }
    }

    /// Forgets a connection that has ended; returns whether it was still the current one.
    pub fn dismiss(&self, caller: &Caller) -> bool {
        let mut current = self.current();
        let Current { control, blobs, .. } = &mut *current;
        let mut found = false;
        for place in [control, blobs] {
            found |= place.take_if(|held| held.same_connection(caller)).is_some();
        }
        found
    }

    /// Forgets the connection for devices' requests, likewise.
    pub fn dismiss_requests(&self, calls: &Calls<Waiter>) -> bool {
        self.current().requests.take_if(|held| held.same_connection(calls)).is_some()
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
        let (waiter, ended) = oneshot::channel();
        let begun = requests.begin(call.into(), Instant::now() + deadline, Waiter::Asker(waiter));
        let ended = match begun {
            Ok(()) => ended.await.unwrap_or(Err(CallError::Closed)),
            Err((error, _)) => Err(error),
        };
        let reply = match ended {
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
                self.enclave.admit_control(hello.boot_id, connection.caller.clone());
                self.control.serve(connection, hello.boot_id, &hello.build).await;
            }
            Class::Blobs => {
                let connection = Connection::spawn(stream, Limits::of(Class::Blobs));
                self.enclave.admit_blobs(hello.boot_id, connection.caller.clone());
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
    use casemate_link::Exchange;
    use tokio::io::DuplexStream;

    use super::*;

    fn caller() -> (Caller, Connection) {
        let (here, there) = tokio::io::duplex(1024);
        let connection = Connection::spawn(here, Limits::of(Class::Control));
        std::mem::forget(there);
        (connection.caller.clone(), connection)
    }

    fn requests() -> (Calls<Waiter>, Exchange<DuplexStream, Waiter>) {
        let (here, there) = tokio::io::duplex(1024);
        std::mem::forget(there);
        Exchange::new(here, Limits::of(Class::Requests))
    }

    #[tokio::test]
    async fn a_new_boot_replaces_everything_of_the_old() {
        let enclave = Enclave::default();
        let ((control, c), (requests, _exchange)) = (caller(), requests());
        assert!(!enclave.is_current(&[1; 16]));
        enclave.admit_control([1; 16], control.clone());
        enclave.admit_requests([1; 16], requests.clone());
        assert!(enclave.is_current(&[1; 16]) && enclave.requests().is_some());

        let (next, n) = caller();
        enclave.admit_control([2; 16], next);
        assert!(!enclave.is_current(&[1; 16]) && enclave.is_current(&[2; 16]) && enclave.requests().is_none());
        assert!(c.closed.reason().is_some() && requests.is_closed() && n.closed.reason().is_none());
        assert!(!enclave.dismiss_requests(&requests));
        // The old one's end is no news about the new one.
        assert!(!enclave.dismiss(&control));
        assert!(enclave.is_current(&[2; 16]));
        // Nor do connections of the old one that were on their way take a place: they are closed.
        let ((late, l), (late_requests, _exchange)) = (caller(), self::requests());
        enclave.admit_blobs([1; 16], late);
        enclave.admit_requests([1; 16], late_requests.clone());
        assert!(l.closed.reason().is_some() && late_requests.is_closed() && n.closed.reason().is_none());
        assert!(enclave.is_current(&[2; 16]) && enclave.requests().is_none());
    }

    #[tokio::test]
    async fn a_second_control_connection_of_a_boot_takes_the_place() {
        let enclave = Enclave::default();
        let ((first, f), (second, s), (requests, _exchange)) = (caller(), caller(), requests());
        enclave.admit_control([1; 16], first);
        enclave.admit_requests([1; 16], requests.clone());
        enclave.admit_control([1; 16], second.clone());
        assert!(f.closed.reason().is_some() && s.closed.reason().is_none() && !requests.is_closed());
        assert!(enclave.dismiss(&second));
        assert!(!enclave.is_current(&[1; 16]));
        let error = enclave.order(&ControlCall::Health, Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(error, OrderError::NotConnected);
    }
}
