//! The bridge: devices' frames from NATS to the enclave, and the answers back.
//!
//! This is the hot path: it runs on one thread, takes everything that is ready at each wake-up, and makes no task, channel or timer for
//! a request: what its answer needs travels with the call. Every request has exactly one answer, here or in the enclave; nothing
//! waits in a queue of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_nats::{Client, Message, PublishError, Subject, Subscriber};
use bytes::Bytes;
use casemate_link::{CallError, Exchange, Limits};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind, SessionId, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::{AttestReply, AttestRequest, Class, REQUEST_BYTES, RequestCall, RequestReply};
use casemate_protocol::subject::Subjects;
use futures_util::{FutureExt, StreamExt};
use metrics::counter;
use tokio::sync::{Notify, mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::enclave::{Enclave, RequestsStream};
use crate::metric::{Outcome, RequestMetrics};
use crate::stage;
use crate::state::NodeState;
use crate::strangers::Strangers;

/// The enclave keeps the request's deadline itself and knows more about its fate: it gets so much longer to say so.
const GRACE: Duration = Duration::from_millis(100);
/// When a device is told to come again: window full, no enclave.
const BUSY_RETRY_MS: u32 = 50;
const UNAVAILABLE_RETRY_MS: u32 = 1000;
/// Evidence takes milliseconds; this bounds a silent enclave.
const ATTEST_DEADLINE: Duration = Duration::from_secs(5);
/// Answers that may wait for NATS; beyond them memory would grow with every request of a flood.
const LATE: usize = 4096;
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
    strangers: Strangers,
    open: AtomicUsize,
    /// Answers that wait for NATS, with a task each.
    late: AtomicUsize,
    idle: Notify,
}

/// Whom a call to the enclave is made for.
#[derive(Debug)]
pub enum Waiter {
    /// A device, over NATS.
    Device(Device),
    /// A part of this process.
    Asker(oneshot::Sender<Result<Bytes, CallError>>),
}

/// A device's request in flight, and what its answer needs.
#[derive(Debug)]
pub struct Device {
    reply_to: Subject,
    vault: VaultId,
    kind: DeviceFrameKind,
    session: Option<SessionId>,
    received: Instant,
    /// Counts it as open.
    open: Open,
}

impl Bridge {
    /// A bridge between a NATS connection and the enclave.
    pub fn new(client: Client, subjects: Subjects, enclave: Arc<Enclave>) -> Self {
        Self {
            client,
            subjects,
            enclave,
            metrics: RequestMetrics::default(),
            strangers: Strangers::default(),
            open: AtomicUsize::new(0),
            late: AtomicUsize::new(0),
            idle: Notify::new(),
        }
    }

    /// Takes a subscription's messages. When `stopped` says so it takes nothing new; what has come is still served.
    pub async fn serve_vaults(self: Arc<Self>, subscriber: Subscriber, stopped: watch::Receiver<bool>) {
        let mut messages = Messages::new(subscriber, stopped);
        while let Some(message) = messages.next().await {
            self.take(message);
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
                bridge.publish(reply_to, codec::encode(&reply).into());
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

    fn take(self: &Arc<Self>, message: Message) {
        let received = Instant::now();
        // Who wants no answer cannot know its fate: nothing is executed for it.
        let Some(reply_to) = message.reply else {
            self.metrics.count(Outcome::NoReply);
            return;
        };
        let peek = match DeviceFrame::peek(&message.payload) {
            Ok(peek) => peek,
            Err(code) => return self.refuse(reply_to, code.into(), Outcome::Malformed),
        };
        let Some(vault) = self.subjects.parse_vault(&message.subject) else {
            let refusal = Refusal::field(ErrorCode::InvalidArgument, "subject");
            return self.refuse(reply_to, refusal, Outcome::Malformed);
        };
        if let Err(refusal) = self.strangers.admits(vault, peek.session.as_ref(), received) {
            return self.refuse(reply_to, refusal, Outcome::Stranger);
        }
        let (kind, session, open) = (peek.kind, peek.session, Open::new(self));
        self.forward(&message.payload, peek.deadline, Device { reply_to, vault, kind, session, received, open });
    }

    /// Puts a request on its way to the enclave; its end comes to [`Bridge::ended`].
    fn forward(self: &Arc<Self>, frame: &Bytes, deadline: Duration, device: Device) {
        let unavailable = || (Refusal::retry(ErrorCode::Unavailable, UNAVAILABLE_RETRY_MS), Outcome::Unavailable);
        let Some(requests) = self.enclave.requests() else {
            let (refusal, outcome) = unavailable();
            return self.refuse(device.reply_to, refusal, outcome);
        };
        let deadline_ms = u32::try_from(deadline.as_millis()).unwrap_or(u32::MAX);
        let call = RequestCall::Vault { vault: device.vault, deadline_ms, frame: frame.to_vec() };
        let device_received = device.received;
        let until = device_received + deadline + GRACE;
        let Err((error, Waiter::Device(device))) =
            requests.begin(codec::encode(&call).into(), until, Waiter::Device(device))
        else {
            return stage::forwarded(device_received.elapsed());
        };
        let (refusal, outcome) = match error {
            CallError::Busy => (Refusal::retry(ErrorCode::Busy, BUSY_RETRY_MS), Outcome::Busy),
            CallError::TooLarge => (ErrorCode::TooLarge.into(), Outcome::Malformed),
            CallError::Closed | CallError::Deadline | CallError::Unanswered => unavailable(),
        };
        self.refuse(device.reply_to, refusal, outcome);
    }

    /// A call has ended.
    fn ended(self: &Arc<Self>, waiter: Waiter, answer: Result<Bytes, CallError>) {
        let device = match waiter {
            Waiter::Device(device) => device,
            // Who asked may have given up meanwhile.
            Waiter::Asker(asker) => return drop(asker.send(answer)),
        };
        let Device { reply_to, vault, kind, session, received, open } = device;
        match answer.map(|answer| codec::decode(&answer, REQUEST_BYTES)) {
            Ok(Ok(RequestReply::Frame(frame))) => {
                self.learn(vault, session, &frame);
                self.publish(reply_to, frame.into());
                self.metrics.count(Outcome::Answered);
                self.metrics.time(received.elapsed());
            }
            Ok(Ok(RequestReply::Refused(refusal))) => {
                self.strangers.refused(vault, session.as_ref(), refusal.code);
                self.refuse(reply_to, refusal, Outcome::Refused);
            }
            Ok(Ok(RequestReply::Evidence(_)) | Err(_)) => {
                tracing::error!("the enclave's answer to a request was not understood");
                self.refuse(reply_to, unknown(kind, ErrorCode::Internal), Outcome::Lost);
            }
            Err(error) => {
                let (refusal, outcome) = fate(kind, error);
                self.refuse(reply_to, refusal, outcome);
            }
        }
        drop(open);
    }

    /// What a vault's answer says of who asked.
    fn learn(&self, vault: VaultId, session: Option<SessionId>, frame: &[u8]) {
        if session.is_some_and(|session| self.strangers.knows(vault, &session)) {
            return;
        }
        match (VaultFrame::decode(frame), session) {
            (Ok(VaultFrame::Sealed { .. }), Some(session)) => self.strangers.opened(vault, &session),
            (Ok(VaultFrame::Welcome { session, .. }), None) => self.strangers.welcomed(vault, &session),
            // A refusal, which anybody can bring about.
            _ => {}
        }
    }

    fn refuse(self: &Arc<Self>, reply_to: Subject, refusal: Refusal, outcome: Outcome) {
        self.metrics.count(outcome);
        self.publish(reply_to, VaultFrame::Refused(refusal).encode());
    }

    /// Publishes an answer. While NATS is away its client's queue may be full: then a task waits for it, and nothing else does.
    fn publish(self: &Arc<Self>, reply_to: Subject, payload: Bytes) {
        if let Some(published) = self.client.publish(reply_to.clone(), payload.clone()).now_or_never() {
            return self.published(reply_to, payload.len(), published);
        }
        if self.late.load(Ordering::Relaxed) >= LATE {
            // Who asked gets no answer, as when the connection is cut, and asks again.
            counter!("casemate_answers_dropped_total").increment(1);
            return;
        }
        self.late.fetch_add(1, Ordering::Relaxed);
        let bridge = Arc::clone(self);
        let open = Open::new(self);
        tokio::spawn(async move {
            let (len, published) = (payload.len(), bridge.client.publish(reply_to.clone(), payload).await);
            bridge.late.fetch_sub(1, Ordering::Relaxed);
            bridge.published(reply_to, len, published);
            drop(open);
        });
    }

    fn published(self: &Arc<Self>, reply_to: Subject, len: usize, published: Result<(), PublishError>) {
        let Err(error) = published else { return };
        tracing::warn!(%error, len, "an answer could not be published");
        // A server with a lower limit than the protocol's: the device still gets its one answer.
        let refused = VaultFrame::Refused(ErrorCode::TooLarge.into()).encode();
        if len > refused.len() {
            self.publish(reply_to, refused);
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
            // Asked without waiting: a flood of messages would use up each turn before the other arm had its own.
            let stopped = *self.stopped.borrow();
            if stopped {
                self.drain().await?;
                continue;
            }
            tokio::select! {
                biased;
                message = self.subscriber.next() => return message,
                // Its result is a guard, which must not live across the drain.
                () = async { drop(self.stopped.wait_for(|stopped| *stopped).await) } => self.drain().await?,
            }
        }
    }

    async fn drain(&mut self) -> Option<()> {
        self.drains = true;
        let drained = self.subscriber.drain().await;
        drained.map_err(|error| tracing::warn!(%error, "a subscription could not be drained")).ok()
    }
}

/// Counts a request as open while it lives.
#[derive(Debug)]
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
    bridge: Arc<Bridge>,
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
        let (calls, mut exchange) = Exchange::new(stream, Limits::of(Class::Requests));
        enclave.admit_requests(boot, calls.clone());
        state.set_requests(true);
        let (bridge, enclave, state) = (Arc::clone(&bridge), Arc::clone(&enclave), Arc::clone(&state));
        tokio::spawn(async move {
            let reason = loop {
                match exchange.next().await {
                    Ok(ended) => ended.into_iter().for_each(|(waiter, answer)| bridge.ended(waiter, answer)),
                    Err(reason) => break reason,
                }
            };
            let was_current = enclave.dismiss_requests(&calls);
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
