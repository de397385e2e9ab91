//! Frames between a device and its vault, as they travel on NATS. All they show is a session's name and a counter.

use std::time::Duration;

use bytes::Bytes;
use minicbor::{Decode, Encode};

use crate::PROTOCOL_VERSION;
use crate::codec::{self, DecodeError};
use crate::error::{ErrorCode, Refusal};
use crate::limits;

/// A session's name, chosen at random by the vault-manager.
pub type SessionId = [u8; 16];

/// What a device sends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DeviceFrame {
    /// Handshake message 1.
    Hello {
        /// Noise message 1.
        noise: Vec<u8>,
    },
    /// Handshake message 3.
    Finish {
        /// The session that message 2 named.
        session: SessionId,
        /// Noise message 3.
        noise: Vec<u8>,
    },
    /// A sealed request.
    Sealed {
        /// The session.
        session: SessionId,
        /// The run of transport messages.
        run: SealedRun,
    },
}

/// Consecutive Noise transport messages that carry one padded plaintext.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SealedRun {
    /// The first message's counter.
    pub counter: u64,
    /// The messages one after the other, each of full size but the last.
    pub ciphertext: Vec<u8>,
}

/// Which frame a device sent, in which session, and by when it wants the answer: all that parent and supervisor need to know of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peek {
    /// The frame's kind.
    pub kind: DeviceFrameKind,
    /// The session that it names; a hello names none.
    pub session: Option<SessionId>,
    /// Time that was left when the frame was sent, within the protocol's bounds.
    pub deadline: Duration,
}

/// The kinds of [`DeviceFrame`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum DeviceFrameKind {
    /// [`DeviceFrame::Hello`].
    #[n(1)]
    Hello,
    /// [`DeviceFrame::Finish`].
    #[n(2)]
    Finish,
    /// [`DeviceFrame::Sealed`].
    #[n(3)]
    Sealed,
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct DeviceWire<'a> {
    #[n(0)]
    version: u8,
    #[n(1)]
    deadline_ms: Option<u32>,
    #[n(2)]
    kind: DeviceFrameKind,
    #[cbor(n(3), with = "minicbor::bytes")]
    session: Option<[u8; 16]>,
    #[n(4)]
    counter: Option<u64>,
    #[cbor(b(5), with = "minicbor::bytes")]
    body: &'a [u8],
}

impl<'a> DeviceWire<'a> {
    fn parse(bytes: &'a [u8]) -> Result<Self, ErrorCode> {
        let wire: Self = codec::decode(bytes, limits::FRAME_BYTES).map_err(|error| match error {
            DecodeError::TooLarge => ErrorCode::TooLarge,
            DecodeError::CriticalField => ErrorCode::UnsupportedVersion,
            DecodeError::Malformed | DecodeError::Unexpected => ErrorCode::Malformed,
        })?;
        if wire.version == PROTOCOL_VERSION { Ok(wire) } else { Err(ErrorCode::UnsupportedVersion) }
    }

    fn deadline(&self) -> Duration {
        let deadline = self.deadline_ms.map_or(limits::DEADLINE_DEFAULT, |ms| Duration::from_millis(ms.into()));
        deadline.clamp(Duration::from_millis(1), limits::DEADLINE_MAX)
    }
}

impl DeviceFrame {
    /// Encodes the frame with the time that is left.
    pub fn encode(&self, deadline: Duration) -> Vec<u8> {
        let deadline_ms = u32::try_from(deadline.min(limits::DEADLINE_MAX).as_millis()).expect("at most 60,000");
        let (kind, session, counter, body) = match self {
            Self::Hello { noise } => (DeviceFrameKind::Hello, None, None, noise),
            Self::Finish { session, noise } => (DeviceFrameKind::Finish, Some(*session), None, noise),
            Self::Sealed { session, run } => {
                (DeviceFrameKind::Sealed, Some(*session), Some(run.counter), &run.ciphertext)
            }
        };
        let deadline_ms = Some(deadline_ms.max(1));
        codec::encode(&DeviceWire { version: PROTOCOL_VERSION, deadline_ms, kind, session, counter, body })
    }

    /// Parses a frame.
    ///
    /// # Errors
    /// `too_large`, `malformed` or `unsupported_version`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ErrorCode> {
        let wire = DeviceWire::parse(bytes)?;
        let noise = wire.body.to_vec();
        match (wire.kind, wire.session, wire.counter) {
            (DeviceFrameKind::Hello, None, None) => Ok(Self::Hello { noise }),
            (DeviceFrameKind::Finish, Some(session), None) => Ok(Self::Finish { session, noise }),
            (DeviceFrameKind::Sealed, Some(session), Some(counter)) => {
                Ok(Self::Sealed { session, run: SealedRun { counter, ciphertext: noise } })
            }
            _ => Err(ErrorCode::Malformed),
        }
    }

    /// Reads kind, session and deadline, checking the whole frame's form and building nothing.
    ///
    /// # Errors
    /// As [`DeviceFrame::decode`].
    pub fn peek(bytes: &[u8]) -> Result<Peek, ErrorCode> {
        let wire = DeviceWire::parse(bytes)?;
        match (wire.kind, wire.session, wire.counter) {
            (DeviceFrameKind::Hello, None, None)
            | (DeviceFrameKind::Finish, Some(_), None)
            | (DeviceFrameKind::Sealed, Some(_), Some(_)) => {
                Ok(Peek { kind: wire.kind, session: wire.session, deadline: wire.deadline() })
            }
            _ => Err(ErrorCode::Malformed),
        }
    }
}

/// What a vault answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VaultFrame {
    /// Handshake message 2.
    Welcome {
        /// The session that this handshake will become.
        session: SessionId,
        /// Noise message 2.
        noise: Vec<u8>,
    },
    /// A sealed reply.
    Sealed {
        /// The run of transport messages.
        run: SealedRun,
    },
    /// A refusal outside a session. Anybody on the way could have written it.
    Refused(Refusal),
}

#[derive(Encode, Decode)]
#[cbor(map)]
struct VaultWire<'a> {
    #[n(0)]
    version: u8,
    #[cbor(n(3), with = "minicbor::bytes")]
    session: Option<[u8; 16]>,
    #[n(4)]
    counter: Option<u64>,
    #[cbor(b(5), with = "minicbor::bytes")]
    body: Option<&'a [u8]>,
    #[n(6)]
    refusal: Option<Refusal>,
}

impl VaultFrame {
    /// Encodes the frame.
    pub fn encode(&self) -> Bytes {
        let empty = VaultWire { version: PROTOCOL_VERSION, session: None, counter: None, body: None, refusal: None };
        let wire = match self {
            Self::Welcome { session, noise } => VaultWire { session: Some(*session), body: Some(noise), ..empty },
            Self::Sealed { run } => VaultWire { counter: Some(run.counter), body: Some(&run.ciphertext), ..empty },
            Self::Refused(refusal) => VaultWire { refusal: Some(refusal.clone()), ..empty },
        };
        codec::encode(&wire).into()
    }

    /// Parses a frame.
    ///
    /// # Errors
    /// `too_large`, `malformed` or `unsupported_version`.
    pub fn decode(bytes: &[u8]) -> Result<Self, ErrorCode> {
        let wire: VaultWire<'_> = codec::decode(bytes, limits::FRAME_BYTES).map_err(|error| match error {
            DecodeError::TooLarge => ErrorCode::TooLarge,
            DecodeError::CriticalField => ErrorCode::UnsupportedVersion,
            DecodeError::Malformed | DecodeError::Unexpected => ErrorCode::Malformed,
        })?;
        if wire.version != PROTOCOL_VERSION {
            return Err(ErrorCode::UnsupportedVersion);
        }
        match (wire.session, wire.counter, wire.body, wire.refusal) {
            (Some(session), None, Some(noise), None) => Ok(Self::Welcome { session, noise: noise.to_vec() }),
            (None, Some(counter), Some(ciphertext), None) => {
                Ok(Self::Sealed { run: SealedRun { counter, ciphertext: ciphertext.to_vec() } })
            }
            (None, None, None, Some(refusal)) => Ok(Self::Refused(refusal)),
            _ => Err(ErrorCode::Malformed),
        }
    }
}
