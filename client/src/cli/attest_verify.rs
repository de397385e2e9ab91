//! `casemate attest verify` and `casemate attest policy`: evidence of any platform, from a file, without a network.

use std::path::{Path, PathBuf};

use casemate_attestation::{Bundle, Claims, MAX_BUNDLE_BYTES, Policy, Refusal, verify};
use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::input;
use super::output::{CliError, time};
use crate::error::Kind;
use crate::outside::unix_now;

/// The longest policy file.
const POLICY_BYTES: usize = 256 * 1024;

/// Judge evidence of any platform in a file by a policy in a file.
///
/// The platform is told by the evidence: an AWS Nitro document, an AMD SEV-SNP report, an Intel SGX or TDX quote. Nothing is
/// fetched: certificates, revocation lists and Intel's collateral must be in the file. Exit code 0 if the evidence is believed, 6 if
/// it is refused, 2 if the policy cannot be used.
#[derive(Debug, Args)]
#[command(after_help = "\
FILE holds the evidence itself, or base64 of it, or JSON with base64 in it:
  { \"evidence\": \"…\",
    \"certificates\": [\"…\", …],        SEV-SNP: VCEK or VLEK, ASK, ARK; the leaf first; DER
    \"collateral\": { … } }             SGX, TDX: Intel's tcb_info, qe_identity, lists and chains;
                                      SEV-SNP: { \"crls\": [\"…\"] }

A policy, in which a missing word means the strict choice (`casemate attest policy` prints every rule):
  [nitro]
  [sev-snp.min_tcb.Milan]
  snp = 24
  [tdx]
  statuses = [\"UpToDate\", \"SWHardeningNeeded\"]
  [[image]]
  platform = \"tdx\"
  name = \"release 7\"
  mrtd = \"<96 hex digits>\"

Examples:
  casemate attest verify node.cose --policy policy.toml
  casemate attest verify quote.json --policy policy.toml --at 1766668537 --json")]
pub(super) struct VerifyCommand {
    /// The evidence; - is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The policy, TOML
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// A further file of [[image]] tables, each signed by one of the policy's release_keys; may be given several times
    #[arg(long, value_name = "FILE")]
    images: Vec<PathBuf>,
    /// Judge as at this time, in seconds since 1970, instead of now
    #[arg(long, value_name = "UNIXTIME")]
    at: Option<u64>,
}

/// Print a policy with every rule of it: one in a file, or the strict one to begin with.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  casemate attest policy > policy.toml")]
pub(super) struct PolicyCommand {
    /// The policy to read
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
}

impl VerifyCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let mut policy = read_policy(&self.policy)?;
        for path in &self.images {
            let text = read_text(path, "the images")?;
            policy.add_images(&text).map_err(|error| policy_error(path, &error))?;
        }
        let bytes = input::read(Some(&self.file), MAX_BUNDLE_BYTES, "the evidence")?;
        let bundle = Bundle::parse(&bytes).map_err(|error| refused(&error))?;
        let now = self.at.unwrap_or_else(unix_now);
        let claims = verify(&bundle.evidence, &bundle.collateral, now, &policy).map_err(|refusal| refused(&refusal))?;
        let value = json!({ "verdict": "believed", "at": now, "claims": claims.to_json() });
        context.output.either(&value, || lines(&claims, now))
    }
}

impl PolicyCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let policy = match &self.file {
            Some(path) => read_policy(path)?,
            None => Policy { any_image: false, ..Policy::genuine() },
        };
        let text = policy.to_string();
        context.output.either(&json!({ "policy": text }), || text.lines().map(str::to_owned).collect())
    }
}

fn read_text(path: &Path, what: &str) -> Result<String, CliError> {
    let bytes = input::read(Some(path), POLICY_BYTES, what)?;
    let text = std::str::from_utf8(&bytes).map(str::to_owned);
    text.map_err(|_| CliError::usage(format!("{} is no text", path.display()), "Give a TOML file."))
}

fn read_policy(path: &Path) -> Result<Policy, CliError> {
    Policy::parse(&read_text(path, "the policy")?).map_err(|error| policy_error(path, &error))
}

fn policy_error(path: &Path, error: &dyn std::fmt::Display) -> CliError {
    CliError::new(
        Kind::Usage,
        "policy",
        format!("{}: {error}", path.display()),
        "Mend the policy; `casemate attest policy` prints one with every rule.",
    )
}

/// Evidence that is not believed, and what to do.
fn refused(refusal: &dyn Explained) -> CliError {
    CliError::new(Kind::Distrusted, "evidence_refused", format!("the evidence is refused: {refusal}"), refusal.remedy())
}

trait Explained: std::fmt::Display {
    fn remedy(&self) -> &'static str;
}

impl Explained for casemate_attestation::BundleError {
    fn remedy(&self) -> &'static str {
        "Give the evidence itself, base64 of it, or a JSON bundle; `casemate attest verify --help` shows one."
    }
}

impl Explained for Refusal {
    fn remedy(&self) -> &'static str {
        match self {
            Self::Platform { .. } => "Allow the platform in the policy if it is meant to be.",
            Self::Measurement { .. } | Self::NoMeasurements { .. } | Self::ImageWindow { .. } => {
                "If the image was upgraded, add the new one to the policy after checking where it comes from."
            }
            Self::Collateral(_) => "Fetch the collateral anew and give it with the evidence.",
            Self::TooOld { .. } | Self::FromTheFuture { .. } => {
                "Ask for fresh evidence, and check this machine's clock; `--at` judges as at another time."
            }
            Self::TcbStatus { .. } | Self::TcbFloor { .. } | Self::SvnFloor { .. } | Self::Evaluation { .. } => {
                "The machine's owner must update it; or allow the risk in the policy, by name."
            }
            _ => "Do not trust this evidence. If the machine should be genuine, tell its operator.",
        }
    }
}

/// What was believed, for people: the claims, one a line.
fn lines(claims: &Claims, now: u64) -> Vec<String> {
    let mut lines = vec![format!("Believed: {}, at {}", claims.platform, time(now))];
    let mut line = |name: &str, value: String| lines.push(format!("  {name:<14}{value}"));
    for (register, value) in claims.measurements.iter() {
        // Registers that nothing was measured into would hide the others.
        if value.iter().any(|byte| *byte != 0) {
            line(&register.to_string(), hex::encode(value));
        }
    }
    let bound = &claims.bound;
    for (name, bytes) in [
        ("user data", bound.user_data.as_deref()),
        ("nonce", bound.nonce.as_deref()),
        ("public key", bound.public_key.as_deref()),
        ("report data", bound.report_data.as_ref().map(<[u8; 64]>::as_slice)),
    ] {
        if let Some(bytes) = bytes {
            line(name, hex::encode(bytes));
        }
    }
    if let Some(tcb) = &claims.tcb {
        line("TCB", tcb.version());
        if let Some(status) = tcb.status() {
            line("TCB status", status.to_string());
        }
        if !tcb.advisories().is_empty() {
            line("advisories", tcb.advisories().join(", "));
        }
    }
    line("debug", if claims.debug.is_some() { "YES: its host can look into it" } else { "no" }.to_owned());
    line("machine", claims.identity.to_string());
    if let Value::Object(guest) = &claims.to_json()["guest"] {
        let rights: Vec<_> =
            guest.iter().map(|(name, value)| format!("{name} {}", value.to_string().trim_matches('"'))).collect();
        line("guest", rights.join(", "));
    }
    if let Some(issued) = claims.issued_at_unix() {
        line("made", time(issued));
    }
    line("valid until", time(claims.valid_until_unix));
    line(
        "revocation",
        if claims.revocation_checked { "checked" } else { "not checked: no lists came along" }.to_owned(),
    );
    line("root", claims.anchor_subject.clone());
    lines
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;
    use std::process::ExitCode;

    use data_encoding::BASE64;
    use serde_json::Value;

    use crate::cli::run;
    use crate::trust::Roots;

    /// The collection of real evidence, or `None`, said plainly, where there is none.
    fn vectors() -> Option<(PathBuf, Vec<Value>)> {
        let folder = std::env::var_os("CASEMATE_VECTORS")
            .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../shared/vectors"), PathBuf::from);
        let Ok(manifest) = std::fs::read(folder.join("manifest.json")) else {
            eprintln!("SKIPPED: no real evidence at {}; set CASEMATE_VECTORS", folder.display());
            return None;
        };
        Some((folder, serde_json::from_slice(&manifest).unwrap()))
    }

    fn verify(args: &[&str]) -> bool {
        let args = ["casemate", "--json", "attest", "verify"].iter().chain(args);
        let code = run(Roots::released(), args);
        // `ExitCode` says no more of itself than how it prints.
        let is = |kind: u8| format!("{code:?}") == format!("{:?}", ExitCode::from(kind));
        assert!(is(0) || is(6), "{code:?}");
        is(0)
    }

    #[test]
    fn real_evidence_of_each_platform_in_each_form() {
        let Some((folder, manifest)) = vectors() else { return };
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let policy = path("policy.toml");
        let statuses = "statuses = [\"UpToDate\", \"OutOfDate\", \"ConfigurationAndSWHardeningNeeded\"]";
        let text = format!("any_image = true\n[nitro]\n[sev-snp]\n[sgx]\n{statuses}\n[tdx]\n{statuses}\n");
        std::fs::write(&policy, text).unwrap();
        let (mut believed, mut refused) = (0, 0);
        for entry in manifest.iter().filter(|entry| entry["kind"] != "snp-cert-only") {
            let read = |key: &str| entry[key].as_str().map(|name| std::fs::read(folder.join(name)).unwrap());
            let evidence = read("file").unwrap();
            let certificates: Vec<_> =
                ["leaf", "ca", "ark"].into_iter().filter_map(read).map(|der| BASE64.encode(&der)).collect();
            let collateral: Value =
                read("collateral").map_or(Value::Null, |json| serde_json::from_slice(&json).unwrap());
            let bundle = serde_json::json!({
                "evidence": BASE64.encode(&evidence),
                "certificates": certificates,
                "collateral": collateral,
            });
            let at = entry["time"].as_u64().unwrap_or(1_780_000_000).to_string();
            let expected = entry["expected_verdict"].as_str().unwrap();
            let good = expected == "ok" || expected.starts_with("verify ok");
            std::fs::write(path("bundle.json"), bundle.to_string()).unwrap();
            assert_eq!(verify(&[&path("bundle.json"), "--policy", &policy, "--at", &at]), good, "{}", entry["file"]);
            if entry["kind"] == "nitro" {
                std::fs::write(path("raw"), &evidence).unwrap();
                std::fs::write(path("text"), BASE64.encode(&evidence)).unwrap();
                for form in ["raw", "text"] {
                    assert_eq!(verify(&[&path(form), "--policy", &policy, "--at", &at]), good, "{}", entry["file"]);
                }
            }
            if good { believed += 1 } else { refused += 1 }
        }
        assert!(believed >= 27 && refused >= 37, "{believed} {refused}");
    }

    #[test]
    fn exit_codes_tell_evidence_from_policy() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name).to_str().unwrap().to_owned();
        let code = |args: &[&str]| {
            let code = run(Roots::released(), ["casemate", "--json", "attest"].iter().chain(args));
            (0..=10).find(|kind| format!("{code:?}") == format!("{:?}", ExitCode::from(*kind))).unwrap()
        };
        std::fs::write(path("policy.toml"), "[nitro]\n").unwrap();
        std::fs::write(path("wrong.toml"), "[nitor]\n").unwrap();
        std::fs::write(path("garbage"), "garbage").unwrap();
        std::fs::write(path("bundle.json"), "{\"evidence\": 1}").unwrap();
        let (policy, wrong) = (path("policy.toml"), path("wrong.toml"));
        assert_eq!(code(&["verify", &path("garbage"), "--policy", &policy]), 6);
        assert_eq!(code(&["verify", &path("bundle.json"), "--policy", &policy]), 6);
        assert_eq!(code(&["verify", &path("garbage"), "--policy", &wrong]), 2);
        assert_eq!(code(&["verify", &path("absent"), "--policy", &policy]), 2);
        assert_eq!(code(&["verify", &path("garbage"), "--policy", &path("absent")]), 2);
        assert_eq!(code(&["verify", &path("garbage"), "--policy", &policy, "--images", &wrong]), 2);
        assert_eq!(code(&["policy", &policy]), 0);
        assert_eq!(code(&["policy"]), 0);
    }
}
