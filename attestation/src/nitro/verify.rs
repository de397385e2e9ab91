//! From bytes to authenticated claims: the parsers, the chain and the signature, in this order.

use std::time::Duration;

use super::chain::Chain;
use super::{Document, Envelope};
use crate::backend;
use crate::{Claims, Platform, Refusal, TrustAnchor};

/// A document that its anchor's security module signed. What it says is not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated<'a> {
    document: Document<'a>,
    valid_until_unix: u64,
    anchor_subject: String,
    anchor_fingerprint: [u8; 32],
}

/// Checks signature and chain of `evidence` at `now_unix` (seconds since the Unix epoch), and nothing else: neither its age nor
/// its measurements nor debug mode. For those who judge by rules of their own, as a key service does; everybody else wants
/// [`verify`](crate::verify).
///
/// # Errors
///
/// The first rule of the format, the chain or the signature that the evidence breaks.
pub fn authenticate<'a>(evidence: &'a [u8], now_unix: u64, anchor: &TrustAnchor) -> Result<Authenticated<'a>, Refusal> {
    authenticate_with_skew(evidence, now_unix, Duration::ZERO, anchor)
}

/// [`authenticate`] for a verifier whose clock may be behind by up to `skew`.
///
/// The security module makes leaf certificates that begin three seconds before the document. Without this allowance a clock that
/// is ten seconds behind would refuse fresh evidence for its chain, however much skew the policy allows.
pub(crate) fn authenticate_with_skew<'a>(
    evidence: &'a [u8],
    now_unix: u64,
    skew: Duration,
    anchor: &TrustAnchor,
) -> Result<Authenticated<'a>, Refusal> {
    let envelope = Envelope::parse(evidence)?;
    let document = Document::parse(envelope.payload())?;
    let chain = Chain::verify(&document, chain_time(document.timestamp_unix_ms, now_unix, skew), anchor)?;
    if !backend::es384_verifies(&chain.leaf_key, &envelope.signed_bytes(), envelope.signature()) {
        return Err(Refusal::Signature);
    }
    Ok(Authenticated {
        document,
        valid_until_unix: chain.valid_until_unix,
        anchor_subject: anchor.subject().to_owned(),
        anchor_fingerprint: *anchor.fingerprint(),
    })
}

/// The time that a document's chain is verified at: its own, but never outside `now..=now + skew`. It cannot bring back a certificate that
/// has ended.
pub(crate) fn chain_time(timestamp_unix_ms: u64, now_unix: u64, skew: Duration) -> u64 {
    (timestamp_unix_ms / 1000).clamp(now_unix, now_unix.saturating_add(skew.as_secs()))
}

impl<'a> Authenticated<'a> {
    /// The document.
    pub fn document(&self) -> &Document<'a> {
        &self.document
    }

    /// What it says, in the words that all platforms share.
    pub fn into_claims(self) -> Claims {
        let document = self.document;
        Claims {
            platform: Platform::Nitro,
            measurements: document.measurements,
            debug: document.measurements.debug_register().is_some(),
            pcrs: document.pcrs,
            user_data: document.user_data.map(<[u8]>::to_vec),
            nonce: document.nonce.map(<[u8]>::to_vec),
            public_key: document.public_key.map(<[u8]>::to_vec),
            module_id: document.module_id.to_owned(),
            issued_at_unix_ms: document.timestamp_unix_ms,
            valid_until_unix: self.valid_until_unix,
            anchor_subject: self.anchor_subject,
            anchor_fingerprint: self.anchor_fingerprint,
        }
    }
}
