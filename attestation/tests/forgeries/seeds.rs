//! The seeds of the fuzz targets that need a PKI, made of this one: run by hand after a format has changed.

use std::fs;
use std::path::PathBuf;

use casemate_attestation::snp::CertificateTable;
use casemate_attestation::{Image, MeasurementSet, Policy, Product, SnpTcb};
use data_encoding::BASE64;
use serde_json::json;

use crate::amd::{self, LONG, list};
use crate::intel;

fn write(target: &str, name: &str, bytes: impl AsRef<[u8]>) {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(name), bytes).unwrap();
}

/// `cargo test --release -- --ignored write_seeds`.
#[test]
#[ignore = "writes the corpora of fuzz targets"]
fn write_seeds() {
    let built = amd::Forgery::default().build();
    let [leaf, ask, ark] = built.collateral.certificates() else { panic!("three certificates") };
    let table = CertificateTable { leaf: Some(leaf), intermediate: Some(ask), root: Some(ark) }.encode();
    let report = built.report;
    let changed = |place: usize, value: u8| {
        let mut report = report.clone();
        report[place] = value;
        report
    };
    write("reports", "alone", &report);
    write("reports", "version_5", changed(0, 5));
    write("reports", "with_certificates", [report.clone(), table.clone()].concat());
    write("reports", "refused_version", changed(0, 6));
    write("reports", "refused_key", changed(0x48, 7 << 2));
    write("reports", "refused_signature", changed(0x49f, 1));
    write("reports", "refused_cut", &report[..0x400]);

    let [sgx, tdx] = [false, true].map(|tdx| intel::Forgery { tdx, ..intel::Forgery::default() }.build());
    let mut five = tdx.quote.clone();
    five[0] = 5;
    five.splice(48..48, [2, 0, 0x48, 2, 0, 0]);
    write("quotes", "sgx", &sgx.quote);
    write("quotes", "tdx", &tdx.quote);
    write("quotes", "tdx_5", &five);
    write("quotes", "padded", [sgx.quote.clone(), vec![0; 64]].concat());
    write("quotes", "refused_cut", &sgx.quote[..600]);
    five[50] = 0x49;
    write("quotes", "refused_body", &five);
    let mut vendor = tdx.quote.clone();
    vendor[12] = 0;
    write("quotes", "refused_vendor", &vendor);

    write("collaterals", "sgx", sgx.collateral.to_string());
    write("collaterals", "tdx", tdx.collateral.to_string());
    let mut own_chain = sgx.collateral.clone();
    own_chain["pck_certificate_chain"] = own_chain["pck_crl_issuer_chain"].clone();
    write("collaterals", "own_chain", own_chain.to_string());
    let mut no_hex = sgx.collateral.clone();
    no_hex["pck_crl"] = "*".into();
    write("collaterals", "refused_encoding", no_hex.to_string());
    write("collaterals", "refused_empty", "{}");

    write("revocation_lists", "empty", list(true, false, LONG, &[]));
    let full = list(false, false, LONG, &[1, 2, 300]);
    write("revocation_lists", "three", &full);
    write("revocation_lists", "refused_cut", &full[..full.len() - 1]);
    write("revocation_lists", "refused_nothing", []);

    let mut policy = Policy { any_image: false, ..Policy::genuine() };
    write("policies", "strict", policy.to_string());
    let set = MeasurementSet { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] };
    policy.images = vec![Image::from(set)];
    policy.bound.nonce = Some(vec![1, 2, 3]);
    policy.snp.as_mut().unwrap().min_tcb.insert(Product::Turin, SnpTcb { fmc: 1, ..SnpTcb::default() });
    write("policies", "full", policy.to_string());
    write("policies", "short", "[nitro]\n");
    write("policies", "refused_nothing", "");
    write("policies", "refused_word", "[nitor]\n");
    write("policies", "refused_image", "[tdx]\n[[image]]\nname = \"x\"\nplatform = \"tdx\"\nmrseam = \"00\"\n");

    write("bundles", "raw", &report);
    write("bundles", "text", BASE64.encode(&report));
    let snp = json!({
        "evidence": BASE64.encode(&report),
        "certificates": [BASE64.encode(leaf), BASE64.encode(ask), BASE64.encode(ark)],
        "collateral": { "crls": [BASE64.encode(&full)] },
    });
    write("bundles", "snp", snp.to_string());
    write("bundles", "tdx", json!({ "evidence": BASE64.encode(&tdx.quote), "collateral": tdx.collateral }).to_string());
    write("bundles", "refused_json", "{");
    write("bundles", "refused_base64", json!({ "evidence": "*" }).to_string());
}
