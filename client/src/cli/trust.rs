//! `casemate trust`.

use std::path::PathBuf;

use clap::Subcommand;
use serde_json::{Value, json};

use super::context::Context;
use super::output::{CliError, DEVELOPMENT};
use crate::home::{HomeError, read_trust_file};
use crate::trust::{Measurements, TrustError};

#[derive(Debug, Subcommand)]
pub(super) enum TrustCommand {
    /// Trust what a file lists: self-built images or signed releases, and their cluster
    ///
    /// Take the file from whoever built the image, or build it yourself; never from a node or its operator. The first file pins
    /// this home to its cluster.
    #[command(after_help = "\
A trust file:
  cluster = \"<64 hex digits>\"        the cluster id, SHA-256 of the nodes' trust configuration

  [[image]]
  name = \"built by me on Tuesday\"
  pcr0 = \"<96 hex digits>\"
  pcr1 = \"<96 hex digits>\"
  pcr2 = \"<96 hex digits>\"

  [[release]]                        signed by a release key of this program
  number = 7
  pcr0 = \"…\"  pcr1 = \"…\"  pcr2 = \"…\"  signature = \"<128 hex digits>\"   (one key a line)")]
    Add {
        /// The file
        file: PathBuf,
    },
    /// Show what this home trusts
    Show,
}

/// Either of the two errors while a trust file is added.
enum AddError {
    Home(HomeError),
    Trust(TrustError),
}

impl From<HomeError> for AddError {
    fn from(error: HomeError) -> Self {
        Self::Home(error)
    }
}

impl From<AddError> for CliError {
    fn from(error: AddError) -> Self {
        match error {
            AddError::Home(error) => error.into(),
            AddError::Trust(error) => error.into(),
        }
    }
}

impl TrustCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let home = context.home()?;
        match self {
            Self::Add { file } => {
                let file = read_trust_file(&file)?;
                let new = home.change_trust(|trust| trust.add(&file, &context.roots).map_err(AddError::Trust))?;
                let cluster = hex::encode(file.cluster.0);
                context.output.either(&json!({ "added": new, "cluster": cluster }), || {
                    vec![match new {
                        0 => format!("Nothing new; this home trusts cluster {cluster}"),
                        new => format!("Added {new}; this home trusts cluster {cluster}"),
                    }]
                })
            }
            Self::Show => show(context),
        }
    }
}

fn show(context: &Context) -> Result<(), CliError> {
    let trust = context.home()?.trust()?;
    let measured = |measurements: &Measurements| {
        json!({
            "pcr0": hex::encode(measurements.pcr0),
            "pcr1": hex::encode(measurements.pcr1),
            "pcr2": hex::encode(measurements.pcr2),
        })
    };
    let releases: Vec<_> = context.roots.releases.iter().chain(trust.releases()).collect();
    let images =
        trust.images().iter().map(|image| json!({ "name": image.name, "measurements": measured(&image.measurements) }));
    let listed = releases
        .iter()
        .map(|release| json!({ "number": release.number, "measurements": measured(&release.measurements) }));
    let anchors = context.roots.anchors.iter();
    let anchors =
        anchors.map(|anchor| json!({ "subject": anchor.subject(), "sha256": hex::encode(anchor.fingerprint()) }));
    let value = json!({
        "cluster": trust.cluster().map(|cluster| cluster.to_string()),
        "images": images.collect::<Vec<Value>>(),
        "releases": listed.collect::<Vec<Value>>(),
        "highest_release": trust.highest_release(),
        "release_keys": context.roots.release_keys.iter().map(hex::encode).collect::<Vec<_>>(),
        "roots": anchors.collect::<Vec<Value>>(),
        "development": context.roots.is_development(),
    });
    context.output.either(&value, || {
        let mut lines = Vec::new();
        if context.roots.is_development() {
            lines.push(DEVELOPMENT.to_owned());
        }
        lines.extend(context.roots.anchors.iter().map(|anchor| format!("root      {}", anchor.subject())));
        lines.push(format!(
            "cluster   {}",
            trust.cluster().map_or("none yet".to_owned(), |cluster| cluster.to_string())
        ));
        if trust.images().is_empty() && releases.is_empty() {
            lines.push(
                "images    none: no node is believed until you add one with `casemate trust add FILE`".to_owned(),
            );
        }
        let pcrs = |measurements: &Measurements| {
            let registers = [measurements.pcr0, measurements.pcr1, measurements.pcr2];
            registers
                .iter()
                .zip(0..)
                .map(|(pcr, index)| format!("  PCR{index}    {}", hex::encode(pcr)))
                .collect::<Vec<_>>()
        };
        for image in trust.images() {
            lines.push(format!("image     self-built \"{}\"", image.name));
            lines.extend(pcrs(&image.measurements));
        }
        for release in releases {
            lines.push(format!("image     release {}", release.number));
            lines.extend(pcrs(&release.measurements));
        }
        lines.extend(
            trust.highest_release().map(|number| format!("accepted  release {number}; older ones are refused")),
        );
        lines
    })
}
