//! Judging evidence: of Nitro a real document where the collection of real evidence lies, else the node's own, made under the development
//! root; of the other platforms what the collection has, and nothing without it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_attestation::intel::IntelCollateral;
use casemate_attestation::nitro::authenticate;
use casemate_attestation::{Cache, Collateral, IntelRules, Policy, TcbStatus, TrustAnchor, verify};
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

/// A piece of evidence with its collateral.
#[derive(Debug)]
pub(super) struct Piece {
    evidence: Vec<u8>,
    collateral: Collateral,
    time: u64,
    policy: Policy,
    cache: Cache,
}

impl Piece {
    pub(super) fn verify(&self) -> Result<Duration> {
        let start = Instant::now();
        verify(&self.evidence, &self.collateral, self.time, &self.policy)?;
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

/// One of each other platform, where the collection has one.
#[derive(Debug, Default)]
pub(super) struct Pieces {
    pub(super) snp: Option<Piece>,
    pub(super) sgx: Option<Piece>,
    pub(super) tdx: Option<Piece>,
}

impl Pieces {
    #[expect(clippy::print_stderr, reason = "what was not measured belongs beside the figures")]
    pub(super) fn find() -> Result<Self> {
        let Some(entries) = manifest()? else {
            eprintln!("snp_verify, sgx_verify, tdx_verify: no real evidence here (CASEMATE_VECTORS)");
            return Ok(Self::default());
        };
        let of = |kind: &str| -> Result<Option<Piece>> {
            let good = |entry: &&Value| {
                let verdict = entry["expected_verdict"].as_str().unwrap_or_default();
                entry["kind"] == kind && (verdict == "ok" || verdict.starts_with("verify ok"))
            };
            entries.iter().find(good).map(piece).transpose()
        };
        Ok(Self { snp: of("snp")?, sgx: of("sgx")?, tdx: of("tdx")? })
    }
}

fn piece(entry: &Value) -> Result<Piece> {
    let read = |key: &str| entry[key].as_str().map(|name| std::fs::read(folder().join(name))).transpose();
    let collateral = if let Some(json) = read("collateral")? {
        Collateral::intel(IntelCollateral::parse(&json)?)
    } else {
        let certificates: Vec<_> = ["leaf", "ca", "ark"].into_iter().map(read).collect::<std::io::Result<_>>()?;
        Collateral::snp(certificates.into_iter().flatten().collect(), Vec::new())
    };
    let intel = IntelRules { statuses: TcbStatus::ALL.into(), ..IntelRules::default() };
    Ok(Piece {
        evidence: read("file")?.ok_or("a file's name")?,
        collateral,
        time: entry["time"].as_u64().ok_or("a time")?,
        policy: Policy { sgx: Some(intel.clone()), tdx: Some(intel), ..Policy::genuine() },
        cache: Cache::new(std::num::NonZeroUsize::MIN),
    })
}

fn folder() -> PathBuf {
    std::env::var_os("CASEMATE_VECTORS").map_or_else(|| checkout().join("../shared/vectors"), PathBuf::from)
}

/// The collection's list.
fn manifest() -> Result<Option<Vec<Value>>> {
    let Ok(manifest) = std::fs::read(folder().join("manifest.json")) else { return Ok(None) };
    Ok(Some(serde_json::from_slice(&manifest)?))
}

/// The first good Nitro document of the collection, and the time at which it is to be judged.
fn real() -> Result<Option<(Vec<u8>, u64)>> {
    let Some(entries) = manifest()? else { return Ok(None) };
    let good = |entry: &&Value| entry["kind"] == "nitro" && entry["expected"] == "ok";
    let Some(entry) = entries.iter().find(good) else { return Ok(None) };
    let file = entry["file"].as_str().ok_or("a file's name")?;
    let time = entry["time"].as_u64().ok_or("a time")?;
    Ok(Some((std::fs::read(folder().join(file))?, time)))
}
