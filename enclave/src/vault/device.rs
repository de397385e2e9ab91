//! A device of the vault, and the order of its mutations.

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits::OUTCOMES_PER_DEVICE;
use casemate_protocol::reply::Answer;
use casemate_protocol::{codec, limits};

use super::body::{DeviceRecord, OutcomeRecord};
use super::ring::Ring;

/// A device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Device {
    /// X25519 static key.
    pub static_key: [u8; 32],
    /// Ed25519 key that signs `accept-rollback`.
    pub signing_key: [u8; 32],
    /// The name.
    pub name: String,
    /// When it was enrolled, Unix seconds.
    pub enrolled_at: u64,
    outcomes: Ring<OutcomeRecord, OUTCOMES_PER_DEVICE>,
}

/// What a sequence number means for a vault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// Above all that were executed: execute it.
    New,
    /// Executed before: this was its answer.
    Known(Answer),
    /// Executed before; its answer is computed again, without a trace.
    Repeat,
    /// Not to be executed.
    Refused(Refusal),
}

impl Device {
    /// A device as it is enrolled.
    pub const fn new(static_key: [u8; 32], signing_key: [u8; 32], name: String, enrolled_at: u64) -> Self {
        Self { static_key, signing_key, name, enrolled_at, outcomes: Ring::new() }
    }

    /// Takes a device out of a snapshot; `None` when its outcomes are not in order.
    pub fn restore(record: DeviceRecord) -> Option<Self> {
        let ascending = record.outcomes.is_sorted_by(|a, b| a.sequence < b.sequence);
        let mut device = Self::new(record.static_key, record.signing_key, record.name, record.enrolled_at);
        let fits = record.outcomes.into_iter().all(|outcome| device.outcomes.push(outcome).is_none());
        (ascending && fits).then_some(device)
    }

    /// The device as a snapshot holds it.
    pub fn record(&self) -> DeviceRecord {
        DeviceRecord {
            static_key: self.static_key,
            signing_key: self.signing_key,
            name: self.name.clone(),
            enrolled_at: self.enrolled_at,
            outcomes: self.outcomes.iter().cloned().collect(),
        }
    }

    /// Judges a mutation's sequence number. Attacks stopped: a mutation executed twice because its answer was lost or held back; a
    /// held-back mutation executed after a newer one.
    pub fn standing(&self, sequence: u64, request_hash: &[u8; 32]) -> Standing {
        let (Some(oldest), Some(newest)) = (self.outcomes.get(0), self.outcomes.last()) else {
            return Standing::New;
        };
        if sequence > newest.sequence {
            return Standing::New;
        }
        match self.outcomes.iter().rev().find(|outcome| outcome.sequence == sequence) {
            Some(outcome) => Self::known(outcome, request_hash),
            // A full window has forgotten what lies below it.
            None if sequence < oldest.sequence && self.outcomes.len() == OUTCOMES_PER_DEVICE => {
                Standing::Refused(ErrorCode::OutcomeUnknown.into())
            }
            None => Standing::Refused(ErrorCode::Superseded.into()),
        }
    }

    fn known(outcome: &OutcomeRecord, request_hash: &[u8; 32]) -> Standing {
        if outcome.request_hash != *request_hash {
            // The number was used for another request: a device that was restored from a copy, or a fault.
            return Standing::Refused(Refusal::field(ErrorCode::InvalidArgument, "sequence"));
        }
        match &outcome.answer {
            None => Standing::Repeat,
            Some(bytes) => match codec::decode(bytes, limits::OUTCOME_BYTES) {
                Ok(answer) => Standing::Known(answer),
                Err(_) => Standing::Refused(ErrorCode::Internal.into()),
            },
        }
    }

    /// Remembers an outcome; returns the one that fell off.
    ///
    /// # Errors
    /// The record itself, when its number is not above all before.
    pub fn remember(&mut self, record: OutcomeRecord) -> Result<Option<OutcomeRecord>, OutcomeRecord> {
        if self.outcomes.last().is_some_and(|newest| record.sequence <= newest.sequence) {
            return Err(record);
        }
        Ok(self.outcomes.push(record))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_protocol::secret::Secret;

    fn outcome(sequence: u64) -> OutcomeRecord {
        let answer = Some(Secret::new(codec::encode(&Answer::Written { revision: sequence })));
        OutcomeRecord { sequence, request_hash: [1; 32], answer }
    }

    #[test]
    fn a_sequence_number_is_executed_once_and_in_order() {
        let mut device = Device::new([1; 32], [2; 32], "phone".to_owned(), 0);
        assert_eq!(device.standing(5, &[1; 32]), Standing::New);
        device.remember(outcome(5)).unwrap();
        device.remember(outcome(8)).unwrap();
        assert_eq!(device.standing(5, &[1; 32]), Standing::Known(Answer::Written { revision: 5 }));
        assert_eq!(device.standing(7, &[1; 32]), Standing::Refused(ErrorCode::Superseded.into()));
        assert_eq!(device.standing(4, &[1; 32]), Standing::Refused(ErrorCode::Superseded.into()));
        assert_eq!(device.standing(9, &[1; 32]), Standing::New);
        assert!(matches!(device.standing(8, &[2; 32]), Standing::Refused(_)), "another request under a used number");
        assert!(device.remember(outcome(8)).is_err());
        (9..=72).for_each(|sequence| drop(device.remember(outcome(sequence)).unwrap()));
        assert_eq!(device.standing(8, &[1; 32]), Standing::Refused(ErrorCode::OutcomeUnknown.into()));
        assert_eq!(device.standing(9, &[1; 32]), Standing::Known(Answer::Written { revision: 9 }));
    }
}
