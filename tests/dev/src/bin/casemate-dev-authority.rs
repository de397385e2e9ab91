//! Makes the files of a development authority for one local run.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use casemate_dev::directory::MeasurementsFile;
use casemate_protocol::codec;
use casemate_protocol::trust::{ClusterId, TrustConfiguration};
use casemate_standins::DevelopmentAuthority;
use clap::Parser;

/// Make the root, the measurements and the trust file of a local run. Nothing that it makes is believed by a release program.
#[derive(Debug, Parser)]
enum Cli {
    /// Make a root with its signing key, and the measurements of an enclave
    Make {
        /// Where the files go
        #[arg(long)]
        dir: PathBuf,
        /// The binary that is measured
        #[arg(long)]
        measurements_from: Option<PathBuf>,
        /// The measurements of an image instead, as `casemate-eif build` writes them beside it
        #[arg(long, conflicts_with = "measurements_from", required_unless_present = "measurements_from")]
        pcrs: Option<PathBuf>,
    },
    /// Write `trust.toml`, which makes a client trust this image in this cluster
    Trust {
        /// Where the files are
        #[arg(long)]
        dir: PathBuf,
        /// The KMS key of the cluster
        #[arg(long)]
        kms_key_arn: String,
        /// Its region
        #[arg(long)]
        region: String,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse() {
        Cli::Make { dir, measurements_from, pcrs } => make(&dir, measurements_from.as_deref(), pcrs.as_deref()),
        Cli::Trust { dir, kms_key_arn, region } => trust(&dir, kms_key_arn, region),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&*error);
            ExitCode::FAILURE
        }
    }
}

#[expect(clippy::print_stderr, reason = "a program's main speaks to its user")]
fn complain(error: &dyn std::error::Error) {
    eprintln!("error: {error}");
}

fn make(dir: &Path, binary: Option<&Path>, pcrs: Option<&Path>) -> Result<(), Box<dyn std::error::Error>> {
    let measurements = match (binary, pcrs) {
        (Some(binary), _) => MeasurementsFile::of_binary(binary)?,
        (None, Some(pcrs)) => MeasurementsFile::of_image(pcrs)?,
        (None, None) => return Err("name a binary or an image's measurements".into()),
    };
    std::fs::create_dir_all(dir)?;
    DevelopmentAuthority::new().save(dir)?;
    measurements.save(dir)?;
    Ok(())
}

fn trust(dir: &Path, kms_key_arn: String, region: String) -> Result<(), Box<dyn std::error::Error>> {
    let MeasurementsFile { pcr0, pcr1, pcr2 } = MeasurementsFile::load(dir)?;
    let configuration = TrustConfiguration { format: 1, kms_key_arn, region, release_keys: Vec::new() };
    let cluster = ClusterId::of(&codec::encode(&configuration));
    let text = format!(
        "# Made for one local run. DEV ONLY: anybody can make such evidence.\ncluster = \"{cluster}\"\n\n[[image]]\nname = \"local run\"\n\
         pcr0 = \"{pcr0}\"\npcr1 = \"{pcr1}\"\npcr2 = \"{pcr2}\"\n"
    );
    std::fs::write(dir.join("trust.toml"), text)?;
    Ok(())
}
