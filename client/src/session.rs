//! A session as a device sees it: bytes in, bytes out.
//!
//! Its states are types, and the only way from one to the next is the check in between:
//!
//! ```text
//! Greeting ──welcome──▶ Judging ──believe──▶ Believed ──finish──▶ Session
//! ```
//!
//! The lock key can be given to [`Believed`] only. A node that was not judged has no such value.

use std::time::{Duration, Instant};

use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, SessionId, VaultFrame};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, Outcome, Reply};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::session::{Channel, Initiator, Opening, SessionError};
use casemate_protocol::statement::Credentials;
use casemate_protocol::trust::ClusterId;

use crate::judge::{Distrust, Grounds, Trusted};
use crate::lock::LockKey;

/// The request hash of a finish that carried no request, or whose request the vault did not look at.
const NO_REQUEST: [u8; 32] = [0; 32];

/// What came instead of the expected frame.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A refusal outside the session. Anybody on the way could have written it.
    #[error("refused outside the session: {0}")]
    Plain(Refusal),
    /// Not a frame of this protocol.
    #[error("the answer is no frame of this protocol ({0})")]
    Frame(ErrorCode),
    /// A frame of the wrong kind for this state.
    #[error("the answer is not the one that belongs here")]
    OutOfPlace,
    /// It does not authenticate.
    #[error(transparent)]
    Session(#[from] SessionError),
    /// An authentic answer to another request, or one that this version does not know.
    #[error("the vault's answer does not belong to the request")]
    Mismatch,
}

fn frame(bytes: &[u8]) -> Result<VaultFrame, Fault> {
    match VaultFrame::decode(bytes).map_err(Fault::Frame)? {
        VaultFrame::Refused(refusal) => Err(Fault::Plain(refusal)),
        frame => Ok(frame),
    }
}

/// Message 1 is out.
#[derive(Debug)]
pub struct Greeting {
    initiator: Initiator,
    vault: VaultId,
}

impl Greeting {
    /// Begins a session.
    pub fn start(static_secret: &[u8; 32], vault: VaultId) -> (Self, DeviceFrame) {
        let (initiator, noise) = Initiator::start(static_secret, vault);
        (Self { initiator, vault }, DeviceFrame::Hello { noise })
    }

    /// Takes the answer to message 1.
    ///
    /// # Errors
    /// See [`Fault`].
    pub fn welcome(mut self, answer: &[u8]) -> Result<Judging, Fault> {
        let VaultFrame::Welcome { session, noise } = frame(answer)? else { return Err(Fault::OutOfPlace) };
        let (credentials, remote_static) = self.initiator.read_welcome(&noise)?;
        Ok(Judging { initiator: self.initiator, vault: self.vault, session, credentials, remote_static })
    }
}

/// The other side has shown its credentials; nothing of ours has been sent.
#[derive(Debug)]
pub struct Judging {
    initiator: Initiator,
    vault: VaultId,
    session: SessionId,
    credentials: Credentials,
    remote_static: [u8; 32],
}

impl Judging {
    /// Judges the node.
    ///
    /// # Errors
    /// Why it is not believed; the handshake is then over.
    pub fn believe(self, grounds: &Grounds<'_>, pinned: ClusterId) -> Result<Believed, Distrust> {
        let trusted = grounds.judge_vault(&self.credentials, &self.remote_static, self.vault, pinned)?;
        Ok(Believed { initiator: self.initiator, session: self.session, trusted })
    }

    /// Skips the judgement: only the tests of the machine itself, whose other side has no evidence, do that.
    #[cfg(test)]
    pub(crate) fn believe_blindly(self, trusted: Trusted) -> Believed {
        Believed { initiator: self.initiator, session: self.session, trusted }
    }
}

/// The node was judged and is believed.
#[derive(Debug)]
pub struct Believed {
    initiator: Initiator,
    session: SessionId,
    trusted: Trusted,
}

impl Believed {
    /// What was believed.
    pub const fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Ends the handshake, with the lock key, the newest head, and the request if it is small enough. Returns message 3, the
    /// session, and what its answer must be bound to.
    ///
    /// # Errors
    /// When the request cannot be sent at all.
    pub fn finish(
        self,
        lock_key: &LockKey,
        head: Option<Head>,
        request: Option<&Request>,
    ) -> Result<(DeviceFrame, Session, Pending), SessionError> {
        let encoded = request.map(codec::encode_secret).filter(|encoded| encoded.len() <= limits::FIRST_REQUEST_BYTES);
        let carried = encoded.as_ref().and(request);
        let pending = Pending {
            request_hash: carried.map_or(NO_REQUEST, |request| request_hash(request.sequence, &request.operation)),
            head,
            opens: true,
        };
        let first_request = encoded.map(|encoded| encoded.as_slice().into());
        let opening = Opening { lock_key: lock_key.to_secret(), head, first_request };
        let (noise, channel) = self.initiator.finish(&opening)?;
        let session = Session { id: self.session, channel, since: Instant::now(), trusted: self.trusted };
        Ok((DeviceFrame::Finish { session: self.session, noise }, session, pending))
    }
}

/// What an answer must be bound to.
#[derive(Debug, Clone, Copy)]
pub struct Pending {
    request_hash: [u8; 32],
    head: Option<Head>,
    opens: bool,
}

impl Pending {
    /// The newest head that this device held when the request was sealed.
    pub const fn head(&self) -> Option<Head> {
        self.head
    }

    /// Whether a request is on its way with it: a finish may have been sent without one.
    pub fn carries_request(&self) -> bool {
        self.request_hash != NO_REQUEST
    }

    /// An answer to the finish may refuse the session itself, before the request was looked at; it is then bound to no request.
    fn is_answered_by(&self, reply: &Reply) -> bool {
        if reply.request_hash == self.request_hash {
            let nothing = matches!(reply.outcome, Outcome::Done(Answer::Nothing) | Outcome::Refused(_));
            return self.carries_request() || nothing;
        }
        self.opens && reply.request_hash == NO_REQUEST && matches!(reply.outcome, Outcome::Refused(_))
    }
}

/// An established session.
#[derive(Debug)]
pub struct Session {
    id: SessionId,
    channel: Channel,
    since: Instant,
    trusted: Trusted,
}

impl Session {
    /// The session's name.
    pub const fn id(&self) -> SessionId {
        self.id
    }

    /// What was believed when it was made.
    pub const fn trusted(&self) -> &Trusted {
        &self.trusted
    }

    /// Whether it must be made anew.
    pub fn is_exhausted(&self) -> bool {
        self.channel.is_exhausted(self.since.elapsed() + Duration::from_mins(1))
    }

    /// Seals a request.
    ///
    /// # Errors
    /// When it does not fit, or the session has ended.
    pub fn seal(
        &mut self,
        sequence: Option<u64>,
        head: Option<Head>,
        operation: &Operation,
    ) -> Result<(DeviceFrame, Pending), SessionError> {
        let pending = Pending { request_hash: request_hash(sequence, operation), head, opens: false };
        let request = Request { sequence, head, operation: operation.clone() };
        let run = self.channel.seal(&codec::encode_secret(&request))?;
        Ok((DeviceFrame::Sealed { session: self.id, run }, pending))
    }

    /// Opens the answer to what `pending` stands for.
    ///
    /// # Errors
    /// See [`Fault`]. Only [`Fault::Mismatch`] comes from the vault itself.
    pub fn open(&mut self, answer: &[u8], pending: &Pending) -> Result<Reply, Fault> {
        let VaultFrame::Sealed { run } = frame(answer)? else { return Err(Fault::OutOfPlace) };
        let plaintext = self.channel.open(&run)?;
        let reply: Reply = codec::decode(&plaintext, limits::FRAME_BYTES).map_err(|_| Fault::Mismatch)?;
        // Attack stopped: a host that exchanges the answers of two requests.
        if pending.is_answered_by(&reply) { Ok(reply) } else { Err(Fault::Mismatch) }
    }
}

#[cfg(test)]
#[path = "session_tests.rs"]
pub(crate) mod tests;
