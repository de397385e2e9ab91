//! Real evidence, where it lies: never copied into this repository.

use std::path::PathBuf;

use serde_json::Value;

/// A real document and what is known of it.
pub(crate) struct RealDocument {
    pub(crate) file: String,
    pub(crate) evidence: Vec<u8>,
    /// When to verify it, in seconds since the Unix epoch.
    pub(crate) time: u64,
    pub(crate) expected: String,
    pub(crate) entry: Value,
}

/// All Nitro documents of the collection, or `None`, said plainly, where there is no collection.
#[allow(clippy::print_stderr, reason = "a skipped test says so")]
pub(crate) fn nitro_documents() -> Option<Vec<RealDocument>> {
    let directory = std::env::var_os("CASEMATE_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
    let Ok(manifest) = std::fs::read_to_string(directory.join("manifest.json")) else {
        eprintln!(
            "SKIPPED: no real evidence at {}; set CASEMATE_VECTORS to the folder that holds manifest.json",
            directory.display()
        );
        return None;
    };
    let manifest: Vec<Value> = serde_json::from_str(&manifest).expect("manifest.json is a list");
    let documents: Vec<_> = manifest
        .into_iter()
        .filter(|entry| entry["kind"] == "nitro")
        .map(|entry| {
            let file = entry["file"].as_str().expect("file").to_owned();
            RealDocument {
                evidence: std::fs::read(directory.join(&file)).expect("the manifest's files are there"),
                time: entry["time"].as_u64().expect("time"),
                expected: entry["expected"].as_str().expect("expected").to_owned(),
                file,
                entry,
            }
        })
        .collect();
    assert!(documents.len() >= 15, "the collection has {} Nitro documents, it had 15", documents.len());
    Some(documents)
}
