//! Evidence, judged by the verifier of servers: aws-lc computes its signatures.

use std::num::NonZeroUsize;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use casemate_attestation::intel::IntelCollateral;
use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Cache, Collateral, IntelRules, Policy, TcbStatus, TrustAnchor, verify};
use serde_json::Value;

use super::super::Result;
use super::collection::first_good;
use crate::Node;

/// A piece of evidence with its collateral, and a policy that it satisfies.
#[derive(Debug)]
pub(super) struct Piece {
    evidence: Vec<u8>,
    collateral: Collateral,
    /// What the collateral was read from, if it is Intel's.
    json: Option<Vec<u8>>,
    time: u64,
    policy: Policy,
    cache: Cache,
}

impl Piece {
    /// The first good Nitro document of the collection; without one the node's own, made under the development root.
    #[expect(clippy::print_stderr, reason = "what was measured belongs beside the figure")]
    pub(super) fn nitro(node: &Node) -> Result<Self> {
        if let Some(entry) = first_good("nitro")? {
            return Self::document(entry.evidence, entry.time, TrustAnchor::aws_nitro());
        }
        eprintln!("nitro_verify: no real evidence here (CASEMATE_VECTORS); a development document is measured");
        let (status, body) = node
            .http("POST", "/v1/attestation/generate", r#"{"nonce":"AAECAwQFBgcICQoLDA0ODw=="}"#)
            .ok_or("the parent does not answer")?;
        let answer: Value = serde_json::from_str(&body)?;
        let text = answer["evidence"].as_str().ok_or_else(|| format!("no evidence: {status} {body}"))?;
        let anchor = TrustAnchor::from_der(std::fs::read(node.path("authority/root.der"))?)?;
        let evidence = data_encoding::BASE64.decode(text.as_bytes())?;
        Self::document(evidence, SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(), anchor)
    }

    fn document(evidence: Vec<u8>, time: u64, anchor: TrustAnchor) -> Result<Self> {
        let claims = authenticate(&evidence, time, &anchor)?.into_claims();
        let policy = Policy {
            max_age: Duration::from_hours(1),
            clock_skew: Duration::ZERO,
            bound: claims.bound,
            ..Policy::nitro(anchor, claims.measurements.image())
        };
        let cache = Cache::new(NonZeroUsize::MIN);
        Ok(Self { evidence, collateral: Collateral::NONE, json: None, time, policy, cache })
    }

    /// The first good piece of another kind; none without the collection.
    pub(super) fn find(kind: &str) -> Result<Option<Self>> {
        let Some(entry) = first_good(kind)? else { return Ok(None) };
        let collateral = match &entry.collateral {
            Some(json) => Collateral::intel(IntelCollateral::parse(json)?),
            None => Collateral::snp(entry.certificates, Vec::new()),
        };
        let intel = IntelRules { statuses: TcbStatus::ALL.into(), ..IntelRules::default() };
        Ok(Some(Self {
            evidence: entry.evidence,
            collateral,
            json: entry.collateral,
            time: entry.time,
            policy: Policy { sgx: Some(intel.clone()), tdx: Some(intel), ..Policy::genuine() },
            cache: Cache::new(NonZeroUsize::MIN),
        }))
    }

    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        verify(&self.evidence, &self.collateral, self.time, &self.policy)?;
        Ok(start.elapsed())
    }

    /// Under anchors and with a collateral that were just made, and remember no signature.
    pub(super) fn verify_first(&self) -> Result<Duration> {
        let mut policy = self.policy.clone();
        let intel = [&mut policy.sgx, &mut policy.tdx].into_iter().flatten().map(|rules| &mut rules.anchors);
        for anchors in intel.chain(policy.nitro.iter_mut().map(|rules| &mut rules.anchors)) {
            for anchor in anchors {
                *anchor = TrustAnchor::from_der(anchor.der().to_vec())?;
            }
        }
        let fresh = self.json.as_deref().map(|json| IntelCollateral::parse(json).map(Collateral::intel)).transpose()?;
        let collateral = fresh.as_ref().unwrap_or(&self.collateral);
        let start = Instant::now();
        verify(&self.evidence, collateral, self.time, &policy)?;
        Ok(start.elapsed())
    }

    /// Through a cache that knows it, but for the first time.
    pub(super) fn verify_again(&self) -> Result<Duration> {
        self.cache.verify(&self.evidence, &self.collateral, self.time, &self.policy)?;
        let start = Instant::now();
        self.cache.verify(&self.evidence, &self.collateral, self.time, &self.policy)?;
        Ok(start.elapsed())
    }
}
