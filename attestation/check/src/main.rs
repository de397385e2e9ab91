//! Asks two other verifiers about every real Nitro document and SEV-SNP report, and about changed ones, and lists where they and this
//! project's disagree. Each disagreement is known by name, with who is right and why; another one ends the program with 1.
//!
//! `cd attestation/check && cargo run --release --locked`; `CASEMATE_VECTORS` names the folder of real evidence.

mod clock;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::ExitCode;

use attestation_doc_validation::validate_attestation_doc;
use casemate_attestation::{Collateral, Policy, authenticate, verify};
use serde_json::Value;
use sev::certs::snp::{Chain, Verifiable};
use sev::firmware::guest::AttestationReport;
use sev::parser::ByteParser;

/// A disagreement that is known, and why this project's verdict stands.
const KNOWN: [(&str, &str); 4] = [
    (
        "nitro: debug documents pass theirs",
        "ours: PCR0-2 of zeros are an enclave whose host can read its console; theirs judges no measurement",
    ),
    (
        "snp: another root passes theirs",
        "ours: theirs does not pin AMD's root, and takes any chain that is right in itself",
    ),
    (
        "snp: debug guests pass theirs",
        "ours: the DEBUG bit lets the host read the guest's memory; theirs judges no policy",
    ),
    (
        "snp: changed reserved bytes pass theirs",
        "ours: theirs verifies a report that it has written anew, which forgets what it did not parse; AMD signed those bytes",
    ),
];

#[derive(Default)]
struct Opinions {
    asked: u32,
    known: BTreeMap<&'static str, u32>,
    unknown: Vec<String>,
}

impl Opinions {
    fn compare(&mut self, name: &str, ours: bool, theirs: bool, known: Option<&'static str>) {
        self.asked += 1;
        if ours == theirs {
            return;
        }
        match known {
            Some(known) => *self.known.entry(known).or_default() += 1,
            None => self.unknown.push(format!("{name}: ours says {ours}, theirs {theirs}")),
        }
    }
}

fn lenient() -> Policy {
    Policy { max_age: std::time::Duration::MAX, clock_skew: std::time::Duration::ZERO, ..Policy::genuine() }
}

fn nitro(entry: &Value, evidence: &[u8], opinions: &mut Opinions) {
    let name = entry["file"].as_str().unwrap_or_default();
    let time = entry["time"].as_u64().unwrap_or_default();
    clock::set(time);
    let theirs =
        |evidence: &[u8]| std::panic::catch_unwind(|| validate_attestation_doc(evidence).is_ok()).unwrap_or(false);
    let ours = |evidence: &[u8]| verify(evidence, &Collateral::NONE, time, &lenient()).is_ok();
    let genuine = authenticate(evidence, &Collateral::NONE, time, &lenient());
    let is_debug = genuine.as_ref().is_ok_and(|claims| claims.debug.is_some());
    let known = Some(KNOWN[0].0).filter(|_| is_debug);
    opinions.compare(name, ours(evidence), theirs(evidence), known);
    if genuine.is_err() || is_debug {
        return;
    }
    for place in (0..evidence.len()).step_by(41) {
        let mut changed = evidence.to_vec();
        changed[place] ^= 1 << (place % 8);
        opinions.compare(&format!("{name}, byte {place}"), ours(&changed), theirs(&changed), None);
    }
}

fn snp(entry: &Value, report: &[u8], certificates: &[Vec<u8>], opinions: &mut Opinions) {
    let name = entry["file"].as_str().unwrap_or_default();
    let time = entry["time"].as_u64().unwrap_or(1_780_000_000);
    let [leaf, ask, ark] = certificates else { return };
    let theirs = |report: &[u8]| {
        let chain = Chain::from_der(ark, ask, leaf).ok();
        let report = report.try_into().ok().and_then(|report: &[u8; 1184]| AttestationReport::from_bytes(report).ok());
        chain.zip(report).is_some_and(|(chain, report)| (&chain, &report).verify().is_ok())
    };
    let collateral = Collateral::snp(certificates.to_vec(), Vec::new());
    let ours = |report: &[u8]| verify(report, &collateral, time, &lenient()).is_ok();
    let is_foreign = entry["kind"] == "snp-derived";
    let known = if is_foreign { Some(KNOWN[1].0) } else { Some(KNOWN[2].0).filter(|_| entry["debug"] == true) };
    opinions.compare(name, ours(report), theirs(report), known);
    if !ours(report) {
        return;
    }
    for place in (0..report.len()).step_by(3) {
        let mut changed = report.to_vec();
        changed[place] ^= 1 << (place % 8);
        opinions.compare(&format!("{name}, byte {place}"), ours(&changed), theirs(&changed), Some(KNOWN[3].0));
    }
}

fn main() -> ExitCode {
    let folder = std::env::var_os("CASEMATE_VECTORS")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors"), PathBuf::from);
    let Ok(manifest) = std::fs::read(folder.join("manifest.json")) else {
        eprintln!("SKIPPED: no real evidence at {}; set CASEMATE_VECTORS", folder.display());
        return ExitCode::SUCCESS;
    };
    let manifest: Vec<Value> = serde_json::from_slice(&manifest).expect("manifest.json is a list");
    let read = |name: &Value| {
        name.as_str().map(|name| std::fs::read(folder.join(name)).expect("the manifest's files are there"))
    };
    let mut opinions = Opinions::default();
    // Theirs panics on some changed documents, which is an opinion as well.
    std::panic::set_hook(Box::new(|_| ()));
    for entry in &manifest {
        let evidence = read(&entry["file"]).expect("a file");
        match entry["kind"].as_str() {
            Some("nitro") => nitro(entry, &evidence, &mut opinions),
            Some("snp" | "snp-derived") => {
                let certificates: Vec<_> =
                    ["leaf", "ca", "ark"].into_iter().filter_map(|key| read(&entry[key])).collect();
                snp(entry, &evidence, &certificates, &mut opinions);
            }
            _ => {}
        }
    }
    println!("{} questions", opinions.asked);
    for (name, why) in KNOWN {
        println!("{:>6} times  {name}\n              {why}", opinions.known.get(name).copied().unwrap_or(0));
    }
    for unknown in &opinions.unknown {
        println!("UNKNOWN  {unknown}");
    }
    if opinions.unknown.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
