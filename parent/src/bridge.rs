//! The bridge: devices' frames from NATS to the enclave, and the answers back.
//!
//! This is the hot path: it runs on one thread, takes everything that is ready at each wake-up, and makes at most one task a
//! request. Every request has exactly one answer, here or in the enclave; nothing waits in a queue of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use async_nats::{Client, Message, Subject, Subscriber};
use bytes::Bytes;
use casemate_link::{CallError, Connection, InFlight, Limits};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind, VaultFrame};
use casemate_protocol::limits;
use casemate_protocol::link::{AttestReply, AttestRequest, Class, REQUEST_BYTES, RequestCall, RequestReply};
use casemate_protocol::subject::Subjects;
use futures_util::StreamExt;
use tokio::sync::{Notify, mpsc, watch};

use crate::enclave::{Enclave, RequestsStream};
use crate::metric::{Outcome, RequestMetrics};
use crate::stage;
use crate::state::NodeState;

/// The enclave keeps the request's deadline itself and knows more about its fate: it gets so much longer to say so.
const GRACE: Duration = Duration::from_millis(100);
/// When a device is told to come again: window full, no enclave.
const BUSY_RETRY_MS: u32 = 50;
const UNAVAILABLE_RETRY_MS: u32 = 1000;
/// Evidence takes milliseconds; this bounds a silent enclave.
const ATTEST_DEADLINE: Duration = Duration::from_secs(5);
/// The smallest nonce that is fresh by chance.
const NONCE_MIN_BYTES: usize = 8;
/// Room for the code and the map around a nonce.
const ATTEST_REQUEST_BYTES: usize = limits::NONCE_BYTES + 64;

/// Carries requests.
#[derive(Debug)]
pub struct Bridge {
    client: Client,
    subjects: Subjects,
    enclave: Arc<Enclave>,
    metrics: RequestMetrics,
    open: AtomicUsize,
    idle: Notify,
}

/// How a request was taken.
enum Taken {
    /// It is with the enclave.
    InFlight(InFlight),
    /// It is answered here.
    Refused(Refusal, Outcome),
}

impl Bridge {
    /// A bridge between a NATS connection and the enclave.
    pub fn new(client: Client, subjects: Subjects, enclave: Arc<Enclave>) -> Self {
        Self {
            client,
            subjects,
            enclave,
            metrics: RequestMetrics::default(),
            open: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// Takes a subscription's messages. When `stopped` says so it takes nothing new; what has come is still served.
    pub async fn serve_vaults(self: Arc<Self>, subscriber: Subscriber, stopped: watch::Receiver<bool>) {
        let mut messages = Messages::new(subscriber, stopped);
        while let Some(message) = messages.next().await {
            self.take(message).await;
        }
    }

    /// Takes requests for evidence, likewise.
    pub async fn serve_attest(self: Arc<Self>, subscriber: Subscriber, stopped: watch::Receiver<bool>) {
        let mut messages = Messages::new(subscriber, stopped);
        while let Some(message) = messages.next().await {
            let Some(reply_to) = message.reply else {
                self.metrics.count(Outcome::NoReply);
                continue;
            };
            let bridge = Arc::clone(&self);
            let open = Open::new(&self);
            tokio::spawn(async move {
                let reply = bridge.attest(&message.payload).await;
                bridge.publish(reply_to, codec::encode(&reply).into()).await;
                drop(open);
            });
        }
    }

    /// Waits until every request that was taken has its answer.
    pub async fn answered(&self) {
        loop {
            let mut idle = std::pin::pin!(self.idle.notified());
            idle.as_mut().enable();
            if self.open.load(Ordering::Acquire) == 0 {
                return;
            }
            idle.await;
        }
    }

    async fn take(self: &Arc<Self>, message: Message) {
        let received = Instant::now();
        // Who wants no answer cannot know its fate: nothing is executed for it.
        let Some(reply_to) = message.reply else {
            self.metrics.count(Outcome::NoReply);
            return;
        };
        let (kind, deadline) = match DeviceFrame::peek(&message.payload) {
            Ok(peek) => (peek.kind, peek.deadline),
            Err(code) => return self.refuse(reply_to, code.into(), Outcome::Malformed).await,
        };
        match self.forward(&message.subject, &message.payload, deadline) {
            Taken::Refused(refusal, outcome) => self.refuse(reply_to, refusal, outcome).await,
            Taken::InFlight(in_flight) => {
                let bridge = Arc::clone(self);
                let open = Open::new(self);
                tokio::spawn(async move {
                    bridge.answer(in_flight, reply_to, kind, received, deadline).await;
                    drop(open);
                });
            }
        }
    }

    fn forward(&self, subject: &Subject, frame: &Bytes, deadline: Duration) -> Taken {
        let Some(vault) = self.subjects.parse_vault(subject) else {
            return Taken::Refused(Refusal::field(ErrorCode::InvalidArgument, "subject"), Outcome::Malformed);
        };
        let unavailable =
            || Taken::Refused(Refusal::retry(ErrorCode::Unavailable, UNAVAILABLE_RETRY_MS), Outcome::Unavailable);
        let Some(requests) = self.enclave.requests() else { return unavailable() };
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let call = RequestCall::Vault { vault, deadline_ms, frame: frame.to_vec() };
        match requests.begin(codec::encode(&call).into()) {
            Ok(in_flight) => Taken::InFlight(in_flight),
            Err(CallError::Busy) => Taken::Refused(Refusal::retry(ErrorCode::Busy, BUSY_RETRY_MS), Outcome::Busy),
            Err(CallError::TooLarge) => Taken::Refused(ErrorCode::TooLarge.into(), Outcome::Malformed),
            Err(CallError::Closed | CallError::Deadline | CallError::Unanswered) => unavailable(),
        }
    }

    async fn answer(
        &self,
        in_flight: InFlight,
        reply_to: Subject,
        kind: DeviceFrameKind,
        received: Instant,
        deadline: Duration,
    ) {
        let forwarded = received.elapsed();
        stage::forwarded(forwarded);
        let left = (deadline + GRACE).saturating_sub(forwarded);
        let reply = match in_flight.wait(left).await {
            Ok(reply) => reply,
            Err(error) => {
                let (refusal, outcome) = fate(kind, error);
                return self.refuse(reply_to, refusal, outcome).await;
            }
        };
        match codec::decode(&reply, REQUEST_BYTES) {
            Ok(RequestReply::Frame(frame)) => {
                self.publish(reply_to, frame.into()).await;
                self.metrics.count(Outcome::Answered);
                self.metrics.time(received.elapsed());
            }
            Ok(RequestReply::Refused(refusal)) => self.refuse(reply_to, refusal, Outcome::Refused).await,
            Ok(RequestReply::Evidence(_)) | Err(_) => {
                tracing::error!("the enclave's answer to a request was not understood");
                self.refuse(reply_to, unknown(kind, ErrorCode::Internal), Outcome::Lost).await;
            }
        }
    }

    async fn refuse(&self, reply_to: Subject, refusal: Refusal, outcome: Outcome) {
        self.metrics.count(outcome);
        self.publish(reply_to, VaultFrame::Refused(refusal).encode()).await;
    }

    /// Publishes an answer. While NATS is away it waits in the client's bounded queue; the client then reads nothing new either.
    async fn publish(&self, reply_to: Subject, payload: Bytes) {
        let len = payload.len();
        let Err(error) = self.client.publish(reply_to.clone(), payload).await else { return };
        tracing::warn!(%error, len, "an answer could not be published");
        // A server with a lower limit than the protocol's: the device still gets its one answer.
        let refused = VaultFrame::Refused(ErrorCode::TooLarge.into()).encode();
        if len > refused.len() {
            self.client.publish(reply_to, refused).await.ok();
        }
    }

    async fn attest(&self, payload: &[u8]) -> AttestReply {
        let evidence = match codec::decode::<AttestRequest>(payload, ATTEST_REQUEST_BYTES) {
            Ok(request) if (NONCE_MIN_BYTES..=limits::NONCE_BYTES).contains(&request.nonce.len()) => {
                self.enclave.attest(request.nonce, ATTEST_DEADLINE).await
            }
            Ok(_) => Err(Refusal::field(ErrorCode::InvalidArgument, "nonce")),
            Err(_) => Err(ErrorCode::Malformed.into()),
        };
        evidence.unwrap_or_else(|refusal| AttestReply {
            platform: 0,
            evidence: Vec::new(),
            trust_configuration: Vec::new(),
            identity: [0; 32],
            refused: Some(refusal),
        })
    }
}

/// What a device is told when the enclave said nothing. Frames of a session may carry a mutation whose commit has begun; claiming
/// that nothing was done would make the device do it twice.
fn fate(kind: DeviceFrameKind, error: CallError) -> (Refusal, Outcome) {
    match error {
        CallError::Deadline => (unknown(kind, ErrorCode::DeadlineExceeded), Outcome::Deadline),
        CallError::Closed | CallError::Unanswered => {
            let refusal = match kind {
                DeviceFrameKind::Hello => Refusal::retry(ErrorCode::Unavailable, UNAVAILABLE_RETRY_MS),
                DeviceFrameKind::Finish | DeviceFrameKind::Sealed => ErrorCode::OutcomeUnknown.into(),
            };
            (refusal, Outcome::Lost)
        }
        // These come before anything was sent.
        CallError::Busy | CallError::TooLarge => (Refusal::retry(ErrorCode::Busy, BUSY_RETRY_MS), Outcome::Busy),
    }
}

fn unknown(kind: DeviceFrameKind, otherwise: ErrorCode) -> Refusal {
    match kind {
        DeviceFrameKind::Hello => otherwise.into(),
        DeviceFrameKind::Finish | DeviceFrameKind::Sealed => ErrorCode::OutcomeUnknown.into(),
    }
}

/// A subscription's messages, until it is told to stop and has given what it held.
struct Messages {
    subscriber: Subscriber,
    stopped: watch::Receiver<bool>,
    drains: bool,
}

impl Messages {
    const fn new(subscriber: Subscriber, stopped: watch::Receiver<bool>) -> Self {
        Self { subscriber, stopped, drains: false }
    }

    async fn next(&mut self) -> Option<Message> {
        loop {
            if self.drains {
                return self.subscriber.next().await;
            }
            tokio::select! {
                biased;
                message = self.subscriber.next() => return message,
                // Its result is a guard, which must not live across the drain.
                () = async { drop(self.stopped.wait_for(|stopped| *stopped).await) } => {
                    self.drains = true;
                    if let Err(error) = self.subscriber.drain().await {
                        tracing::warn!(%error, "a subscription could not be drained");
                        return None;
                    }
                }
            }
        }
    }
}

/// Counts a request as open while it lives.
struct Open(Arc<Bridge>);

impl Open {
    fn new(bridge: &Arc<Bridge>) -> Self {
        bridge.open.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(bridge))
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        if self.0.open.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Takes requests connections from the door, on the thread that this runs on.
pub async fn take_connections(
    mut streams: mpsc::Receiver<RequestsStream>,
    enclave: Arc<Enclave>,
    state: Arc<NodeState>,
) {
    while let Some(RequestsStream { stream, boot }) = streams.recv().await {
        let stream = match stream.attach() {
            Ok(stream) => stream,
            Err(error) => {
                tracing::error!(%error, "a requests connection could not be taken");
                continue;
            }
        };
        // A newer boot may have come while this one was on its way.
        if !enclave.is_current(&boot) {
            continue;
        }
        let Connection { caller, mut incoming, mut closed } = Connection::spawn(stream, Limits::of(Class::Requests));
        enclave.admit(boot, Class::Requests, caller.clone());
        state.set_requests(true);
        let (enclave, state) = (Arc::clone(&enclave), Arc::clone(&state));
        tokio::spawn(async move {
            // The enclave makes no calls here; each is let go, which answers it.
            while incoming.recv().await.is_some() {}
            let reason = closed.wait().await;
            let was_current = enclave.dismiss(&caller);
            // Also when a newer boot took its place: that one's connection may not be there yet.
            state.set_requests(enclave.requests().is_some());
            if was_current {
                tracing::warn!(%reason, "the enclave's requests connection ended");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_claimed_about_what_may_have_happened() {
        let sealed = [DeviceFrameKind::Finish, DeviceFrameKind::Sealed];
        for error in [CallError::Deadline, CallError::Closed, CallError::Unanswered] {
            for kind in sealed {
                assert_eq!(fate(kind, error).0.code, ErrorCode::OutcomeUnknown, "{error:?}");
            }
        }
        assert_eq!(fate(DeviceFrameKind::Hello, CallError::Deadline).0.code, ErrorCode::DeadlineExceeded);
        let (refusal, _) = fate(DeviceFrameKind::Hello, CallError::Closed);
        assert_eq!((refusal.code, refusal.retry_after_ms), (ErrorCode::Unavailable, Some(1000)));
    }
}
