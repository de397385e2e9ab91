//! Judging a Nitro document: a real one where the collection of real evidence lies, else the node's own, made under the development
//! root.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Collateral, Policy, TrustAnchor, verify};
use serde_json::Value;

use super::Result;
use crate::Node;
use crate::programs::checkout;

/// A document, and the policy that it satisfies.
#[derive(Debug)]
pub(super) struct Document {
    evidence: Vec<u8>,
    time: u64,
    policy: Policy,
}

impl Document {
    #[expect(clippy::print_stderr, reason = "what was measured belongs beside the figure")]
    pub(super) fn find(node: &Node) -> Result<Self> {
        if let Some((evidence, time)) = real()? {
            return Self::new(evidence, time, TrustAnchor::aws_nitro());
        }
        eprintln!("nitro_verify: no real evidence here (CASEMATE_VECTORS); a development document is measured");
        let (status, body) = node
            .http("POST", "/v1/attestation/generate", r#"{"nonce":"AAECAwQFBgcICQoLDA0ODw=="}"#)
            .ok_or("the parent does not answer")?;
        let answer: Value = serde_json::from_str(&body)?;
        let text = answer["evidence"].as_str().ok_or_else(|| format!("no evidence: {status} {body}"))?;
        let anchor = TrustAnchor::from_der(std::fs::read(node.path("authority/root.der"))?)?;
        let evidence = data_encoding::BASE64.decode(text.as_bytes())?;
        Self::new(evidence, std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs(), anchor)
    }

    fn new(evidence: Vec<u8>, time: u64, anchor: TrustAnchor) -> Result<Self> {
        let claims = authenticate(&evidence, time, &anchor)?.into_claims();
        let policy = Policy {
            max_age: Duration::from_hours(1),
            clock_skew: Duration::ZERO,
            bound: claims.bound,
            ..Policy::nitro(anchor, claims.measurements.image())
        };
        Ok(Self { evidence, time, policy })
    }

    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        verify(&self.evidence, &Collateral::NONE, self.time, &self.policy)?;
        Ok(start.elapsed())
    }
}

/// The first good document of the collection, and the time at which it is to be judged.
fn real() -> Result<Option<(Vec<u8>, u64)>> {
    let folder =
        std::env::var_os("CASEMATE_VECTORS").map_or_else(|| checkout().join("../shared/vectors"), PathBuf::from);
    let Ok(manifest) = std::fs::read(folder.join("manifest.json")) else { return Ok(None) };
    let manifest: Value = serde_json::from_slice(&manifest)?;
    let good = |entry: &&Value| entry["kind"] == "nitro" && entry["expected"] == "ok";
    let Some(entry) = manifest.as_array().and_then(|entries| entries.iter().find(good)) else { return Ok(None) };
    let file = entry["file"].as_str().ok_or("a file's name")?;
    let time = entry["time"].as_u64().ok_or("a time")?;
    Ok(Some((std::fs::read(folder.join(file))?, time)))
}
