//! The collection of real evidence, where it lies.

use std::path::PathBuf;

use serde_json::Value;

use super::super::Result;
use crate::programs::checkout;

/// One piece of it, and what came with it.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) evidence: Vec<u8>,
    /// Unix seconds at which it is to be judged.
    pub(super) time: u64,
    /// Intel's, JSON.
    pub(super) collateral: Option<Vec<u8>>,
    /// AMD's, leaf first, DER.
    pub(super) certificates: Vec<Vec<u8>>,
}

fn folder() -> PathBuf {
    std::env::var_os("CASEMATE_VECTORS").map_or_else(|| checkout().join("../shared/vectors"), PathBuf::from)
}

/// The first good piece of a kind; none without the collection.
pub(super) fn first_good(kind: &str) -> Result<Option<Entry>> {
    let Ok(manifest) = std::fs::read(folder().join("manifest.json")) else { return Ok(None) };
    let entries: Vec<Value> = serde_json::from_slice(&manifest)?;
    let is_good = |entry: &&Value| {
        let verdict = entry["expected_verdict"].as_str().unwrap_or_default();
        entry["kind"] == kind && (verdict == "ok" || verdict.starts_with("verify ok"))
    };
    let Some(entry) = entries.iter().find(is_good) else { return Ok(None) };
    let read = |key: &str| entry[key].as_str().map(|name| std::fs::read(folder().join(name))).transpose();
    let certificates: Vec<_> = ["leaf", "ca", "ark"].into_iter().map(read).collect::<std::io::Result<_>>()?;
    Ok(Some(Entry {
        evidence: read("file")?.ok_or("a file's name")?,
        time: entry["time"].as_u64().ok_or("a time")?,
        collateral: read("collateral")?,
        certificates: certificates.into_iter().flatten().collect(),
    }))
}
