//! The way between a device and the enclave, in the host's hands.

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use casemate_client::{Transport, TransportError};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::{DeviceFrame, DeviceFrameKind, VaultFrame};
use casemate_protocol::id::VaultId;
use casemate_protocol::subject::Subjects;

use super::host::{Shared, lock};

/// What the host does with one frame of a device.
pub enum Deed {
    /// Carries it over.
    Carry,
    /// Carries it to this vault.
    CarryTo(VaultId),
    /// Carries it over, and makes this of the answer.
    Change(Box<dyn FnOnce(Vec<u8>) -> Vec<u8> + Send>),
    /// Answers by itself.
    Answer(Vec<u8>),
    /// Says nothing. The frame is in [`Wire::frames`].
    Keep,
}

impl fmt::Debug for Deed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Carry => "Carry",
            Self::CarryTo(_) => "CarryTo",
            Self::Change(_) => "Change",
            Self::Answer(_) => "Answer",
            Self::Keep => "Keep",
        })
    }
}

type Meddler = Box<dyn FnMut(DeviceFrameKind, &[u8]) -> Deed + Send>;

/// One device's way. Clones are the same way.
#[derive(Clone)]
pub struct Wire {
    shared: Arc<Shared>,
    meddler: Arc<Mutex<Option<Meddler>>>,
    frames: Arc<Mutex<Vec<Vec<u8>>>>,
    answers: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wire").finish_non_exhaustive()
    }
}

impl Wire {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, meddler: Arc::default(), frames: Arc::default(), answers: Arc::default() }
    }

    /// From now on the host does with each frame what this says.
    pub fn meddle(&self, meddler: impl FnMut(DeviceFrameKind, &[u8]) -> Deed + Send + 'static) {
        *lock(&self.meddler) = Some(Box::new(meddler));
    }

    /// The host does `deed` with the next frame of this kind, and is honest otherwise.
    pub fn meddle_once(&self, kind: DeviceFrameKind, deed: Deed) {
        let mut deed = Some(deed);
        self.meddle(move |found, _| if found == kind { deed.take().unwrap_or(Deed::Carry) } else { Deed::Carry });
    }

    /// The host carries frames and nothing else again.
    pub fn carry_on(&self) {
        *lock(&self.meddler) = None;
    }

    /// Every frame that the device sent.
    pub fn frames(&self) -> Vec<Vec<u8>> {
        lock(&self.frames).clone()
    }

    /// Every answer that the enclave gave, before the host changed it.
    pub fn answers(&self) -> Vec<Vec<u8>> {
        lock(&self.answers).clone()
    }

    async fn carry(&self, vault: VaultId, frame: Vec<u8>, within: Duration) -> Result<Vec<u8>, TransportError> {
        let answer = tokio::time::timeout(within, self.shared.carry(vault, frame)).await;
        let answer = answer.map_err(|_| TransportError::TimedOut)?;
        let answer = answer.map_err(|error| TransportError::Lost(error.to_string()))?;
        lock(&self.answers).push(answer.clone());
        Ok(answer)
    }

    /// How many frames of this kind the device sent.
    pub fn count(&self, kind: DeviceFrameKind) -> usize {
        lock(&self.frames).iter().filter(|frame| DeviceFrame::peek(frame).is_ok_and(|peek| peek.kind == kind)).count()
    }
}

impl Transport for Wire {
    async fn request(&self, subject: String, payload: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let vault = Subjects::default().parse_vault(&subject).expect("a device sends to its vault");
        let kind = DeviceFrame::peek(&payload).expect("a device sends frames").kind;
        lock(&self.frames).push(payload.to_vec());
        let deed = match &mut *lock(&self.meddler) {
            Some(meddler) => meddler(kind, &payload),
            None => Deed::Carry,
        };
        let payload = payload.to_vec();
        match deed {
            Deed::Carry => self.carry(vault, payload, within).await.map(Bytes::from),
            Deed::CarryTo(other) => self.carry(other, payload, within).await.map(Bytes::from),
            Deed::Change(change) => Ok(change(self.carry(vault, payload, within).await?).into()),
            Deed::Answer(answer) => Ok(answer.into()),
            Deed::Keep => {
                tokio::time::sleep(within).await;
                Err(TransportError::TimedOut)
            }
        }
    }
}

impl Deed {
    /// Answers with a refusal of the host's own, without carrying the frame over.
    pub fn refuse(code: ErrorCode) -> Self {
        Self::Answer(VaultFrame::Refused(code.into()).encode().to_vec())
    }

    /// Carries the frame over, and answers with a refusal of the host's own.
    pub fn deny(code: ErrorCode) -> Self {
        Self::Change(Box::new(move |_| VaultFrame::Refused(code.into()).encode().to_vec()))
    }
}
