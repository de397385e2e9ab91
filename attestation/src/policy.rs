//! What a verifier expects of evidence, and whether claims meet it.

use std::time::Duration;

use crate::refusal::{Refusal, Short};
use crate::{Claims, MeasurementSet, TrustAnchor};

/// What a verifier expects. It comes with the verifier, never with the evidence.
///
/// All fields are public and none has a default: whoever builds a policy has decided each rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// The root that the chain must lead to.
    pub anchor: TrustAnchor,
    /// The images that are believed; the enclave must run one of them. Empty refuses every enclave.
    pub measurements: Vec<MeasurementSet>,
    /// How old a document may be. A chain holds for about three hours, far too long for most uses.
    pub max_age: Duration,
    /// By how much the security module's clock may be ahead of the verifier's.
    pub clock_skew: Duration,
    /// The nonce that the document must carry, if the verifier gave one.
    pub nonce: Option<Vec<u8>>,
    /// The bytes that the document must bind as `user_data`, if the verifier knows them beforehand.
    pub user_data: Option<Vec<u8>>,
    /// The bytes that the document must bind as `public_key`, if the verifier knows them beforehand.
    pub public_key: Option<Vec<u8>>,
    /// Development only: takes evidence of debug enclaves, whose host can read their console. All other rules still hold, so
    /// that [`measurements`](Self::measurements) must list the zeros that such enclaves measure as.
    pub allow_debug: bool,
}

impl Policy {
    /// Judges authenticated claims at `now_unix`, in seconds since the Unix epoch.
    ///
    /// The anchor is not judged here: authentication has led the chain to it.
    ///
    /// # Errors
    ///
    /// The first rule that the claims break.
    pub fn judge(&self, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        self.judge_age(claims, now_unix)?;
        self.judge_image(&claims.measurements)?;
        if let Some(wanted) = &self.nonce
            && claims.nonce.as_ref() != Some(wanted)
        {
            return Err(Refusal::Nonce {
                found: Short::optional(claims.nonce.as_deref()),
                wanted: Short::text(wanted),
            });
        }
        if let Some(wanted) = &self.user_data
            && claims.user_data.as_ref() != Some(wanted)
        {
            return Err(Refusal::UserData {
                found: Short::optional(claims.user_data.as_deref()),
                wanted: Short::text(wanted),
            });
        }
        if let Some(wanted) = &self.public_key
            && claims.public_key.as_ref() != Some(wanted)
        {
            return Err(Refusal::PublicKey {
                found: Short::optional(claims.public_key.as_deref()),
                wanted: Short::text(wanted),
            });
        }
        Ok(())
    }

    fn judge_age(&self, claims: &Claims, now_unix: u64) -> Result<(), Refusal> {
        let issued_at_unix = claims.issued_at_unix();
        let (skew_seconds, max_age_seconds) = (self.clock_skew.as_secs(), self.max_age.as_secs());
        if issued_at_unix > now_unix.saturating_add(skew_seconds) {
            return Err(Refusal::FromTheFuture { issued_at_unix, now_unix, skew_seconds });
        }
        let age_seconds = now_unix.saturating_sub(issued_at_unix);
        if age_seconds > max_age_seconds {
            return Err(Refusal::TooOld { issued_at_unix, now_unix, age_seconds, max_age_seconds });
        }
        Ok(())
    }

    fn judge_image(&self, found: &MeasurementSet) -> Result<(), Refusal> {
        // Asked before the measurements, so that listing zeros by mistake does not let debug enclaves in.
        if let Some(pcr) = found.debug_register()
            && !self.allow_debug
        {
            return Err(Refusal::Debug { pcr });
        }
        let agreeing = |wanted: &&MeasurementSet| {
            wanted.indexed().into_iter().zip(found.indexed()).filter(|(wanted, found)| wanted == found).count()
        };
        // The nearest image makes the most useful message.
        let Some(nearest) = self.measurements.iter().max_by_key(agreeing) else {
            return Err(Refusal::NoMeasurements);
        };
        match nearest.indexed().into_iter().zip(found.indexed()).find(|(wanted, found)| wanted != found) {
            None => Ok(()),
            Some(((pcr, wanted), (_, found))) => Err(Refusal::Measurement {
                pcr,
                found: Short::text(found),
                wanted: Short::text(wanted),
                images: self.measurements.len(),
            }),
        }
    }
}
