//! The `Recipient` of a request: evidence believed or not, and the key in it to which the answer is encrypted.

use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Claims, Refusal, TrustAnchor};

use crate::cms::{EnvelopeError, RecipientKey};
use crate::wire::{Exception, Recipient};

/// How old evidence may be: the real service's limit.
pub const MAX_AGE_SECONDS: u64 = 300;
/// The only algorithm that Recipient takes.
pub const KEY_ENCRYPTION_ALGORITHM: &str = "RSAES_OAEP_SHA_256";

/// Why a recipient is refused before the key policy is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RecipientError {
    /// A member of `Recipient` is absent.
    #[error("Recipient needs both AttestationDocument and KeyEncryptionAlgorithm")]
    Incomplete,
    /// Another algorithm.
    #[error("KeyEncryptionAlgorithm must be {KEY_ENCRYPTION_ALGORITHM}")]
    Algorithm,
    /// The document is not the platform's own.
    #[error("the attestation document is not valid: {0}")]
    Evidence(#[from] Refusal),
    /// Too old, or from the future.
    #[error(
        "the attestation document was made {0} seconds from now: at most {MAX_AGE_SECONDS} are allowed; make a fresh one"
    )]
    Age(u64),
    /// It binds no key.
    #[error("the attestation document carries no public key to encrypt to")]
    NoKey,
    /// It binds a key of another kind.
    #[error(transparent)]
    Key(#[from] EnvelopeError),
}

impl From<RecipientError> for Exception {
    fn from(error: RecipientError) -> Self {
        Self::Validation(error.to_string())
    }
}

/// An authenticated recipient. Its measurements are for the key policy to judge.
#[derive(Debug)]
pub struct AttestedRecipient {
    /// What the evidence says.
    pub claims: Claims,
    /// The enclave's key.
    pub key: RecipientKey,
}

impl AttestedRecipient {
    /// Authenticates the evidence in `recipient` under `anchor` at `now_unix` and reads its key.
    ///
    /// # Errors
    /// [`RecipientError`].
    pub fn from_request(recipient: &Recipient, anchor: &TrustAnchor, now_unix: u64) -> Result<Self, RecipientError> {
        let (Some(evidence), Some(algorithm)) = (&recipient.attestation_document, &recipient.key_encryption_algorithm)
        else {
            return Err(RecipientError::Incomplete);
        };
        if algorithm != KEY_ENCRYPTION_ALGORITHM {
            return Err(RecipientError::Algorithm);
        }
        let claims = authenticate(&evidence.0, now_unix, anchor)?.into_claims();
        let distance = claims.issued_at_unix().unwrap_or_default().abs_diff(now_unix);
        if distance > MAX_AGE_SECONDS {
            return Err(RecipientError::Age(distance));
        }
        let key = RecipientKey::from_spki(claims.bound.public_key.as_deref().ok_or(RecipientError::NoKey)?)?;
        Ok(Self { claims, key })
    }
}
