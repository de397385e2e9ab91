//! The configuration: one TOML file, every key of which an environment variable can override.
//!
//! A variable is `CASEMATE_`, the section, `_` and the key, in capitals: `CASEMATE_NATS_URL`, `CASEMATE_NATS_TLS_CA`. Lists are
//! written with commas there. [`keys::KEYS`] is the whole table. None of it can open a vault: what decides about trust is hashed
//! into the cluster id, and the rest can only deny service.

pub mod keys;
mod operations;
mod settings;

use std::fmt;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use casemate_link::Address;
use casemate_protocol::codec;
use casemate_protocol::id::Shard;
use casemate_protocol::link::Tuning;
use casemate_protocol::secret::Secret;
use casemate_protocol::subject::Subjects;
use casemate_protocol::trust::{ReleaseKey, TrustConfiguration};
pub use operations::{AutoScaling, CloudWatch, InstanceSource, Nitro};
use settings::Settings;

/// Why a configuration was not taken. The message names the key, the value and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read the configuration {path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// The operating system's word.
        reason: String,
    },
    /// Not TOML.
    #[error("the configuration is not valid TOML at line {line}: {message}")]
    Syntax {
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        message: String,
    },
    /// A key or section that there is none of.
    #[error("unknown key `{key}`; there are: {allowed}")]
    Unknown {
        /// The key.
        key: String,
        /// The keys there are.
        allowed: String,
    },
    /// A value that is not allowed.
    #[error("`{key}` is {value:?}; allowed: {allowed}")]
    Wrong {
        /// The key.
        key: String,
        /// The value.
        value: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A value that must be given and is not.
    #[error("`{key}` is missing; set it in the file or as {variable}; allowed: {allowed}")]
    Missing {
        /// The key.
        key: String,
        /// Its environment variable.
        variable: String,
        /// What is allowed.
        allowed: &'static str,
    },
}

/// Everything that an operator can decide.
#[derive(Debug, Clone)]
pub struct Config {
    /// `node.name`.
    pub node: String,
    /// `node.subject_prefix`, as the prefix itself.
    pub prefix: String,
    /// `node.subject_prefix`, as a builder of subjects.
    pub subjects: Subjects,
    /// `node.shards`; `None` is all of them.
    pub shards: Option<Vec<Shard>>,
    /// `[nats]`.
    pub nats: Nats,
    /// `link.listen`.
    pub listen: Address,
    /// `link.enclave_cid`.
    pub enclave_cid: Option<u32>,
    /// `[store]`.
    pub store: Store,
    /// `[trust]`, as the bytes whose hash is the cluster id.
    pub trust_configuration: Vec<u8>,
    /// `[kms]`.
    pub kms: Kms,
    /// `[aws]`.
    pub aws: Aws,
    /// The region of AWS's interfaces that this process calls itself.
    pub region: String,
    /// `[cloudwatch]`, when it is enabled.
    pub cloudwatch: Option<CloudWatch>,
    /// `[autoscaling]`, when it is enabled.
    pub autoscaling: Option<AutoScaling>,
    /// `[enclave]`.
    pub nitro: Nitro,
    /// `http.listen`.
    pub http: SocketAddr,
    /// `admin.socket`.
    pub admin: PathBuf,
    /// `log.target`.
    pub log_target: LogTarget,
    /// `log.level`.
    pub log_level: tracing::Level,
    /// `[limits]`.
    pub tuning: Tuning,
}

/// How to reach NATS.
#[derive(Debug, Clone)]
pub struct Nats {
    /// Servers.
    pub url: String,
    /// A `.creds` file: JWT and seed.
    pub credentials_file: Option<PathBuf>,
    /// A file with an NKEY seed.
    pub nkey_file: Option<PathBuf>,
    /// Roots to trust instead of the system's.
    pub tls_ca: Option<PathBuf>,
    /// Our certificate and its key.
    pub tls_identity: Option<(PathBuf, PathBuf)>,
    /// Messages that may wait in a subscription.
    pub subscription_capacity: usize,
}

/// Where sealed objects are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Store {
    /// A local directory.
    Directory(PathBuf),
    /// Amazon S3, or what speaks its protocol with conditional puts.
    S3 {
        /// The bucket.
        bucket: String,
        /// The prefix of every object, without slashes at its ends; may be empty.
        prefix: String,
        /// The region.
        region: String,
        /// Another endpoint than Amazon's.
        endpoint: Option<String>,
    },
}

/// What the enclave may reach through the relay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kms {
    /// Exactly these.
    pub allow: Vec<HostPort>,
    /// Where some of them really are: for the local run.
    pub dial: Vec<(HostPort, SocketAddr)>,
}

/// A host's name and a TCP port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostPort {
    /// A DNS name in lower case.
    pub host: String,
    /// A port.
    pub port: u16,
}

impl HostPort {
    /// Takes a name and a port.
    pub fn new(host: &str, port: u16) -> Option<Self> {
        let host = host.to_ascii_lowercase();
        let characters = host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-".contains(&byte));
        (port != 0 && (1..=253).contains(&host.len()) && characters).then_some(Self { host, port })
    }

    fn parse(text: &str) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::new(host, port.parse().ok()?)
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

/// Where the IAM credentials for the enclave come from.
#[derive(Debug, Clone)]
pub enum Aws {
    /// Nowhere: the key service cannot be called.
    None,
    /// From the configuration.
    Static(AwsCredentials),
    /// From the instance's role, over the instance metadata service.
    Imds(SocketAddr),
}

/// IAM credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AwsCredentials {
    /// AWS access key id.
    pub access_key_id: String,
    /// AWS secret access key.
    pub secret_access_key: Secret,
    /// AWS session token.
    pub session_token: Option<Secret>,
}

/// Where logs go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogTarget {
    /// The journal under systemd, else the terminal.
    Auto,
    /// The journal.
    Journal,
    /// Standard error.
    Terminal,
}

impl Config {
    /// Reads the configuration from a file and this process's environment.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| ConfigError::File { path: path.display().to_string(), reason: error.to_string() })?;
        Self::parse(&text, |name| std::env::var(name).ok())
    }

    /// Reads the configuration from a text and a set of variables.
    ///
    /// # Errors
    /// See [`ConfigError`].
    pub fn parse(text: &str, variable: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let settings = Settings::read(text, variable)?;
        let prefix = settings
            .text("node", "subject_prefix", |text| Subjects::new(text).is_ok().then(|| text.to_owned()))?
            .unwrap_or_else(|| "casemate".to_owned());
        let region = settings.required("trust", "region", region)?;
        let aws = aws(&settings)?;
        Ok(Self {
            node: settings.text("node", "name", node_name)?.unwrap_or_else(host_name),
            subjects: Subjects::new(&prefix).expect("checked above"),
            prefix,
            shards: shards(&settings)?,
            nats: nats(&settings)?,
            listen: settings
                .text("link", "listen", |text| text.parse().ok())?
                .unwrap_or(Address::Vsock { cid: u32::MAX, port: 7001 }),
            enclave_cid: settings
                .number("link", "enclave_cid", 4, u64::from(u32::MAX) - 1)?
                .and_then(|cid| u32::try_from(cid).ok()),
            store: store(&settings, &region)?,
            trust_configuration: trust(&settings, &region)?,
            kms: kms(&settings, &region)?,
            cloudwatch: operations::cloudwatch(&settings, &aws)?,
            autoscaling: operations::autoscaling(&settings, &aws)?,
            nitro: operations::nitro(&settings)?,
            aws,
            region,
            http: settings
                .text("http", "listen", |text| text.parse().ok())?
                .unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 8080))),
            admin: settings
                .text("admin", "socket", absolute)?
                .unwrap_or_else(|| PathBuf::from("/run/casemate/admin.sock")),
            log_target: settings.text("log", "target", log_target)?.unwrap_or(LogTarget::Auto),
            log_level: settings.text("log", "level", log_level)?.unwrap_or(tracing::Level::INFO),
            tuning: tuning(&settings)?,
        })
    }

    /// Whether this node owns a shard.
    pub fn owns(&self, shard: Shard) -> bool {
        self.shards.as_ref().is_none_or(|shards| shards.contains(&shard))
    }
}

fn node_name(text: &str) -> Option<String> {
    let fits = (1..=63).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-');
    fits.then(|| text.to_owned())
}

fn host_name() -> String {
    let name = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default().to_ascii_lowercase();
    let name: String = name.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(63).collect();
    if name.is_empty() { "node".to_owned() } else { name }
}

fn absolute(text: &str) -> Option<PathBuf> {
    let path = PathBuf::from(text);
    (path.is_absolute() && path.file_name().is_some()).then_some(path)
}

fn endpoint(text: &str) -> Option<String> {
    let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"))?;
    (!rest.is_empty()).then(|| text.to_owned())
}

/// A path that can be opened. Looked at now, so that the operator hears of it now.
fn readable(text: &str) -> Option<PathBuf> {
    std::fs::File::open(text).ok()?.metadata().ok()?.is_file().then(|| PathBuf::from(text))
}

fn region(text: &str) -> Option<String> {
    let parts: Vec<&str> = text.split('-').collect();
    let fits = text.len() <= 32
        && parts.len() >= 3
        && parts.iter().all(|part| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        });
    fits.then(|| text.to_owned())
}

fn log_target(text: &str) -> Option<LogTarget> {
    match text {
        "auto" => Some(LogTarget::Auto),
        "journal" => Some(LogTarget::Journal),
        "terminal" => Some(LogTarget::Terminal),
        _ => None,
    }
}

fn log_level(text: &str) -> Option<tracing::Level> {
    match text {
        "error" => Some(tracing::Level::ERROR),
        "warn" => Some(tracing::Level::WARN),
        "info" => Some(tracing::Level::INFO),
        "debug" => Some(tracing::Level::DEBUG),
        "trace" => Some(tracing::Level::TRACE),
        _ => None,
    }
}

fn shards(settings: &Settings) -> Result<Option<Vec<Shard>>, ConfigError> {
    let ranges = settings.list("node", "shards", |text| {
        if text == "all" {
            return Some(0..=255);
        }
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (first.parse::<Shard>().ok()?, last.parse::<Shard>().ok()?);
        (first <= last).then_some(first.0..=last.0)
    })?;
    let Some(ranges) = ranges else { return Ok(None) };
    let mut shards: Vec<Shard> = ranges.into_iter().flatten().map(Shard).collect();
    shards.sort_unstable();
    shards.dedup();
    match shards.len() {
        0 => Err(settings::wrong(keys::find("node", "shards"), "an empty list")),
        256 => Ok(None),
        _ => Ok(Some(shards)),
    }
}

fn nats(settings: &Settings) -> Result<Nats, ConfigError> {
    let url = settings.text("nats", "url", |text| {
        let fits = text.split(',').all(|url| {
            let rest = url.trim().strip_prefix("nats://").or_else(|| url.trim().strip_prefix("tls://"));
            rest.is_some_and(|rest| !rest.is_empty() && rest.bytes().all(|byte| byte.is_ascii_graphic()))
        });
        fits.then(|| text.to_owned())
    })?;
    let cert = settings.text("nats", "tls.cert", readable)?;
    let key = settings.text("nats", "tls.key", readable)?;
    let tls_identity = match (cert, key) {
        (Some(cert), Some(key)) => Some((cert, key)),
        (None, None) => None,
        (Some(_), None) => return Err(missing("nats", "tls.key")),
        (None, Some(_)) => return Err(missing("nats", "tls.cert")),
    };
    let capacity = settings.number("nats", "subscription_capacity", 64, 1 << 20)?.unwrap_or(8192);
    Ok(Nats {
        url: url.unwrap_or_else(|| "nats://127.0.0.1:4222".to_owned()),
        credentials_file: settings.text("nats", "credentials_file", readable)?,
        nkey_file: settings.text("nats", "nkey_file", readable)?,
        tls_ca: settings.text("nats", "tls.ca", readable)?,
        tls_identity,
        subscription_capacity: usize::try_from(capacity).expect("at most 2^20"),
    })
}

fn missing(section: &str, name: &str) -> ConfigError {
    let key = keys::find(section, name);
    ConfigError::Missing { key: key.path(), variable: key.variable(), allowed: key.allowed }
}

fn store(settings: &Settings, trust_region: &str) -> Result<Store, ConfigError> {
    let store_region = settings.text("store", "region", region)?.unwrap_or_else(|| trust_region.to_owned());
    let endpoint = settings.text("store", "endpoint", endpoint)?;
    settings.required("store", "url", |text| {
        if let Some(path) = text.strip_prefix("file://") {
            return absolute(path).map(Store::Directory);
        }
        let (bucket, prefix) = text.strip_prefix("s3://").map(|rest| rest.split_once('/').unwrap_or((rest, "")))?;
        let prefix = prefix.trim_end_matches('/');
        let named = |part: &str| {
            !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
        };
        let fits = named(bucket) && (prefix.is_empty() || prefix.split('/').all(|part| named(part) && part != ".."));
        fits.then(|| Store::S3 {
            bucket: bucket.to_owned(),
            prefix: prefix.to_owned(),
            region: store_region.clone(),
            endpoint: endpoint.clone(),
        })
    })
}

fn trust(settings: &Settings, region: &str) -> Result<Vec<u8>, ConfigError> {
    let kms_key_arn = settings.required("trust", "kms_key_arn", |text| {
        let parts: Vec<&str> = text.split(':').collect();
        let [arn, partition, service, of_region, account, resource] = parts[..] else { return None };
        let fits = arn == "arn"
            && partition.starts_with("aws")
            && service == "kms"
            && of_region == region
            && account.len() == 12
            && account.bytes().all(|byte| byte.is_ascii_digit())
            && resource.strip_prefix("key/").is_some_and(|id| !id.is_empty())
            && text.len() <= 256;
        fits.then(|| text.to_owned())
    })?;
    let release_keys = settings.list("trust", "release_keys", |text| {
        let mut key = [0; 32];
        hex::decode_to_slice(text, &mut key).ok()?;
        Some(ReleaseKey(key))
    })?;
    let release_keys = release_keys.unwrap_or_default();
    if release_keys.len() > 8 {
        return Err(settings::wrong(keys::find("trust", "release_keys"), &format!("{} keys", release_keys.len())));
    }
    let configuration = TrustConfiguration { format: 1, kms_key_arn, region: region.to_owned(), release_keys };
    Ok(codec::encode(&configuration))
}

fn kms(settings: &Settings, region: &str) -> Result<Kms, ConfigError> {
    let allow = match settings.list("kms", "allow", HostPort::parse)? {
        Some(allow) => allow,
        None => vec![HostPort { host: format!("kms.{region}.amazonaws.com"), port: 443 }],
    };
    let dial = settings.table("kms", "dial", |name, value| {
        let name = HostPort::parse(name).filter(|name| allow.contains(name))?;
        Some((name, value.parse().ok()?))
    })?;
    Ok(Kms { allow, dial })
}

fn aws(settings: &Settings) -> Result<Aws, ConfigError> {
    let printable = |text: &str| {
        let fits = (1..=4096).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic());
        fits.then(|| text.to_owned())
    };
    let secret = |text: &str| printable(text).map(|text| Secret::new(text.into_bytes()));
    let access_key_id = settings.text("aws", "access_key_id", printable)?;
    let source =
        settings.text("aws", "source", |text| ["none", "static", "imds"].contains(&text).then(|| text.to_owned()))?;
    let default = if access_key_id.is_some() { "static" } else { "none" };
    match source.as_deref().unwrap_or(default) {
        "static" => Ok(Aws::Static(AwsCredentials {
            access_key_id: access_key_id.ok_or_else(|| missing("aws", "access_key_id"))?,
            secret_access_key: settings.required("aws", "secret_access_key", secret)?,
            session_token: settings.text("aws", "session_token", secret)?,
        })),
        "imds" => {
            let endpoint = settings.text("aws", "imds_endpoint", |text| text.parse().ok())?;
            Ok(Aws::Imds(endpoint.unwrap_or_else(|| SocketAddr::from(([169, 254, 169, 254], 80)))))
        }
        _ => Ok(Aws::None),
    }
}

fn tuning(settings: &Settings) -> Result<Tuning, ConfigError> {
    const DAY_MS: u64 = 86_400_000;
    let defaults = Tuning::default();
    let small = |name: &str, min: u64, max: u32, default: u32| -> Result<u32, ConfigError> {
        let number = settings.number("limits", name, min, max.into())?;
        Ok(number.and_then(|number| u32::try_from(number).ok()).unwrap_or(default))
    };
    let percent = |name: &str, min: u64, max: u64, default: u8| -> Result<u8, ConfigError> {
        let number = settings.number("limits", name, min, max)?;
        Ok(number.and_then(|number| u8::try_from(number).ok()).unwrap_or(default))
    };
    let memory_low_percent = percent("memory_low_percent", 10, 90, defaults.memory_low_percent)?;
    let shard_key_ttl_ms =
        settings.number("limits", "shard_key_ttl_ms", 1, DAY_MS)?.unwrap_or(defaults.shard_key_ttl_ms);
    let high_default = defaults.memory_high_percent.max(memory_low_percent + 5);
    let hard_default = defaults.shard_key_hard_ms.max(shard_key_ttl_ms);
    Ok(Tuning {
        vault_limit: small("vault_limit", 1, 100_000, defaults.vault_limit)?,
        idle_ms: settings.number("limits", "idle_ms", 1, DAY_MS)?.unwrap_or(defaults.idle_ms),
        queue_per_vault: small("queue_per_vault", 1, 1024, defaults.queue_per_vault)?,
        memory_high_percent: percent("memory_high_percent", u64::from(memory_low_percent) + 1, 95, high_default)?,
        memory_low_percent,
        shard_key_ttl_ms,
        shard_key_hard_ms: settings
            .number("limits", "shard_key_hard_ms", shard_key_ttl_ms, DAY_MS)?
            .unwrap_or(hard_default),
        creates_per_second: small("creates_per_second", 1, 100_000, defaults.creates_per_second)?,
        attests_per_second: small("attests_per_second", 1, 100_000, defaults.attests_per_second)?,
        opens_per_second: small("opens_per_second", 1, 100_000, defaults.opens_per_second)?,
        versions_kept: small("versions_kept", 0, 1000, defaults.versions_kept)?,
        store_timeout_ms: settings
            .number("limits", "store_timeout_ms", 100, 60_000)?
            .unwrap_or(defaults.store_timeout_ms),
        vault_memory_bytes: settings
            .number("limits", "vault_memory_bytes", 16 << 20, 1 << 30)?
            .unwrap_or(defaults.vault_memory_bytes),
    })
}

#[cfg(test)]
mod tests;
