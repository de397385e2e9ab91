//! Real evidence, where it lies: never copied into this repository.

use std::path::PathBuf;

use casemate_attestation::intel::IntelCollateral;
use casemate_attestation::{Collateral, Product};
use serde_json::Value;

/// A real document and what is known of it.
pub(crate) struct RealDocument {
    pub(crate) file: String,
    pub(crate) evidence: Vec<u8>,
    pub(crate) collateral: Collateral,
    /// When to verify it, in seconds since the Unix epoch; 0 where nobody knows.
    pub(crate) time: u64,
    pub(crate) expected: String,
    pub(crate) entry: Value,
}

impl RealDocument {
    /// First and last second at which its chain and its collateral hold.
    pub(crate) fn window(&self) -> (u64, u64) {
        let end = |place: usize| self.entry["window"][place].as_u64().expect("a window");
        (end(0), end(1))
    }
}

fn folder() -> PathBuf {
    std::env::var_os("CASEMATE_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from)
}

/// The collection's list, or `None`, said plainly, where there is no collection.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn manifest() -> Option<Vec<Value>> {
    let folder = folder();
    let Ok(manifest) = std::fs::read_to_string(folder.join("manifest.json")) else {
        eprintln!(
            "SKIPPED: no real evidence at {}; set CASEMATE_VECTORS to the folder that holds manifest.json",
            folder.display()
        );
        return None;
    };
    Some(serde_json::from_str(&manifest).expect("manifest.json is a list"))
}

/// A file of the collection.
pub(crate) fn file(name: &str) -> Vec<u8> {
    std::fs::read(folder().join(name)).expect("the manifest's files are there")
}

fn document(entry: Value) -> RealDocument {
    let name = entry["file"].as_str().expect("file").to_owned();
    let named = |key: &str| entry[key].as_str().map(file);
    let certificates: Vec<_> = ["leaf", "ca", "ark"].into_iter().filter_map(named).collect();
    let collateral = match named("collateral") {
        Some(json) => Collateral::intel(IntelCollateral::parse(&json).expect("collateral")),
        None => Collateral::snp(certificates, Vec::new()),
    };
    RealDocument {
        evidence: file(&name),
        collateral,
        time: entry["time"].as_u64().unwrap_or(0),
        expected: entry["expected_verdict"].as_str().expect("a verdict").to_owned(),
        file: name,
        entry,
    }
}

fn documents(kinds: &[&str], least: usize) -> Option<Vec<RealDocument>> {
    let of_kind = |entry: &Value| kinds.iter().any(|kind| entry["kind"] == *kind);
    let documents: Vec<_> = manifest()?.into_iter().filter(of_kind).map(document).collect();
    assert!(documents.len() >= least, "the collection has {} of {kinds:?}, it had {least}", documents.len());
    Some(documents)
}

/// All Nitro documents.
pub(crate) fn nitro_documents() -> Option<Vec<RealDocument>> {
    documents(&["nitro"], 15)
}

/// All SEV-SNP reports.
pub(crate) fn snp_reports() -> Option<Vec<RealDocument>> {
    documents(&["snp", "snp-derived"], 15)
}

/// All SGX and TDX quotes.
pub(crate) fn intel_quotes() -> Option<Vec<RealDocument>> {
    documents(&["sgx", "tdx"], 33)
}

/// A certificate chain without a report: its files and its product.
pub(crate) fn lone_certificates() -> Option<Vec<(Value, Product)>> {
    let alone = manifest()?.into_iter().filter(|entry| entry["kind"] == "snp-cert-only");
    Some(
        alone
            .map(|entry| {
                let product =
                    Product::from_name(entry["product"].as_str().expect("a product")).expect("a known product");
                (entry, product)
            })
            .collect(),
    )
}
