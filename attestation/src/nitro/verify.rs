//! From bytes to authenticated claims: the parsers, the chain and the signature, in this order.

use std::time::Duration;

use super::{Document, Envelope};
use crate::backend;
use crate::batch::Shared;
use crate::chain::ChainError;
use crate::claims::{Bound, Claims, Guest, Identity, Platform};
use crate::policy::zero_pcr;
use crate::{Refusal, TrustAnchor};

/// A document that its anchor's security module signed. What it says is not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authenticated<'a> {
    document: Document<'a>,
    valid_until_unix: u64,
    anchor_subject: String,
    anchor_fingerprint: [u8; 32],
}

/// Checks signature and chain of a Nitro document at `now_unix` (seconds since the Unix epoch), and nothing else: neither its age nor
/// its measurements nor debug mode. For those who judge by rules of their own, as a key service does; everybody else wants
/// [`verify`](crate::verify).
///
/// # Errors
///
/// The first rule of the format, the chain or the signature that the evidence breaks.
pub fn authenticate<'a>(evidence: &'a [u8], now_unix: u64, anchor: &TrustAnchor) -> Result<Authenticated<'a>, Refusal> {
    let anchors = std::slice::from_ref(anchor);
    authenticate_with_skew(evidence, now_unix, Duration::ZERO, anchors, &mut Shared::default())
}

/// [`authenticate`] for a verifier of several roots, as claims.
pub(crate) fn authenticate_under(
    evidence: &[u8],
    now_unix: u64,
    skew: Duration,
    anchors: &[TrustAnchor],
    shared: &mut Shared,
) -> Result<Claims, Refusal> {
    authenticate_with_skew(evidence, now_unix, skew, anchors, shared).map(Authenticated::into_claims)
}

/// [`authenticate`] for a verifier whose clock may be behind by up to `skew`.
///
/// The security module makes leaf certificates that begin three seconds before the document. Without this allowance a clock that
/// is ten seconds behind would refuse fresh evidence for its chain, however much skew the policy allows.
fn authenticate_with_skew<'a>(
    evidence: &'a [u8],
    now_unix: u64,
    skew: Duration,
    anchors: &[TrustAnchor],
    shared: &mut Shared,
) -> Result<Authenticated<'a>, Refusal> {
    let envelope = Envelope::parse(evidence)?;
    let document = Document::parse(envelope.payload())?;
    // The one that the document names, or else any: it is then refused for not being that one.
    let root = document.cabundle.first().copied().unwrap_or_default();
    let named = anchors.iter().find(|anchor| anchor.der().as_ref() == root).or(anchors.first());
    let anchor = named.ok_or(ChainError::UnknownIssuer)?;
    let chain = shared.nitro(&document, chain_time(document.timestamp_unix_ms, now_unix, skew), anchor)?;
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
            debug: zero_pcr(&document.measurements),
            measurements: (&document.pcrs).into(),
            bound: Bound {
                user_data: document.user_data.map(<[u8]>::to_vec),
                nonce: document.nonce.map(<[u8]>::to_vec),
                public_key: document.public_key.map(<[u8]>::to_vec),
                report_data: None,
            },
            tcb: None,
            identity: Identity::Nitro { module_id: document.module_id.to_owned() },
            guest: Guest::Nitro,
            issued_at_unix_ms: Some(document.timestamp_unix_ms),
            valid_until_unix: self.valid_until_unix,
            revocation_checked: false,
            anchor_subject: self.anchor_subject,
            anchor_fingerprint: self.anchor_fingerprint,
        }
    }
}
