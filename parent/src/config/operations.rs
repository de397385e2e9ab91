//! `[instance]`, `[cloudwatch]`, `[autoscaling]` and `[enclave]`: what this node tells AWS of itself, and how its enclave is started.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::settings::{self, Settings};
use super::{Aws, ConfigError, absolute, endpoint, keys, missing};

/// How it becomes known which instance this is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstanceSource {
    /// `instance.id` and `instance.group`.
    Given {
        /// The instance's id.
        id: String,
        /// The Auto Scaling group's name.
        group: String,
    },
    /// From the instance metadata service, but for what is given.
    Imds {
        /// Where that is.
        endpoint: SocketAddr,
        /// The instance's id, when it is given.
        id: Option<String>,
        /// The Auto Scaling group's name, when it is given.
        group: Option<String>,
    },
}

/// Figures for CloudWatch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudWatch {
    /// Whose they are.
    pub instance: InstanceSource,
    /// One figure of each kind for so long.
    pub interval: Duration,
    /// Another endpoint than Amazon's.
    pub endpoint: Option<String>,
}

/// The verdict for the Auto Scaling group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AutoScaling {
    /// About whom it is.
    pub instance: InstanceSource,
    /// How long a fault lasts before the group hears of it.
    pub patience: Duration,
    /// Another endpoint than Amazon's.
    pub endpoint: Option<String>,
}

/// How `casemate-parent enclave` starts the enclave and when it gives it up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nitro {
    /// The image.
    pub image: PathBuf,
    /// Virtual CPUs.
    pub cpus: u32,
    /// Memory, MiB.
    pub memory_mib: u64,
    /// How long an enclave that has answered before may be silent.
    pub silence: Duration,
    /// AWS's program.
    pub nitro_cli: PathBuf,
}

pub(super) fn cloudwatch(settings: &Settings, aws: &Aws) -> Result<Option<CloudWatch>, ConfigError> {
    let interval = settings.number("cloudwatch", "interval_s", 1, 300)?.unwrap_or(60);
    let endpoint = settings.text("cloudwatch", "endpoint", endpoint)?;
    let Some(instance) = instance(settings, aws, "cloudwatch")? else { return Ok(None) };
    Ok(Some(CloudWatch { instance, interval: Duration::from_secs(interval), endpoint }))
}

pub(super) fn autoscaling(settings: &Settings, aws: &Aws) -> Result<Option<AutoScaling>, ConfigError> {
    let patience = settings.number("autoscaling", "patience_s", 2, 3600)?.unwrap_or(120);
    let endpoint = settings.text("autoscaling", "endpoint", endpoint)?;
    let Some(instance) = instance(settings, aws, "autoscaling")? else { return Ok(None) };
    Ok(Some(AutoScaling { instance, patience: Duration::from_secs(patience), endpoint }))
}

/// The instance of a section that is enabled.
fn instance(settings: &Settings, aws: &Aws, section: &str) -> Result<Option<InstanceSource>, ConfigError> {
    let id = settings.text("instance", "id", |text| {
        let rest = text.strip_prefix("i-")?;
        let fits = (8..=17).contains(&rest.len()) && rest.bytes().all(|byte| byte.is_ascii_hexdigit());
        fits.then(|| text.to_owned())
    })?;
    let group = settings.text("instance", "group", |text| {
        let fits = (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
        fits.then(|| text.to_owned())
    })?;
    if !settings.flag(section, "enabled")? {
        return Ok(None);
    }
    match (aws, id, group) {
        (Aws::None, _, _) => Err(settings::wrong(keys::find(section, "enabled"), "true, without aws.source")),
        (_, Some(id), Some(group)) => Ok(Some(InstanceSource::Given { id, group })),
        (Aws::Imds(endpoint), id, group) => Ok(Some(InstanceSource::Imds { endpoint: *endpoint, id, group })),
        (Aws::Static(_), None, _) => Err(missing("instance", "id")),
        (Aws::Static(_), Some(_), None) => Err(missing("instance", "group")),
    }
}

pub(super) fn nitro(settings: &Settings) -> Result<Nitro, ConfigError> {
    let cpus = settings.number("enclave", "cpus", 1, 256)?.and_then(|cpus| u32::try_from(cpus).ok());
    Ok(Nitro {
        image: settings
            .text("enclave", "image", absolute)?
            .unwrap_or_else(|| PathBuf::from("/usr/lib/casemate/casemate.eif")),
        cpus: cpus.unwrap_or(2),
        memory_mib: settings.number("enclave", "memory_mib", 64, 16_777_216)?.unwrap_or(4096),
        silence: Duration::from_secs(settings.number("enclave", "silence_s", 5, 3600)?.unwrap_or(30)),
        nitro_cli: settings
            .text("enclave", "nitro_cli", absolute)?
            .unwrap_or_else(|| PathBuf::from("/usr/bin/nitro-cli")),
    })
}
