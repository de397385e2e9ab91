//! What every command needs: the options that hold for all, the home, the connection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::subject::Subjects;
use serde_json::{Value, json};

use super::output::{CliError, Output, time};
use crate::error::Kind;
use crate::home::{Home, VaultKeeper};
use crate::judge::{Image, Trusted};
use crate::record::{Life, VaultRecord};
use crate::transport::{NatsOptions, NatsTransport};
use crate::trust::Roots;
use crate::vault::{Vault, VaultOptions, VaultParts};

/// Options of every command.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Options for every command")]
pub(super) struct Globals {
    /// Print JSON, for programs: results on standard output, errors on standard error
    #[arg(long, global = true)]
    pub(super) json: bool,
    /// Where this device keeps its keys and what it trusts [default: ~/.casemate]
    #[arg(long, global = true, env = "CASEMATE_HOME", value_name = "DIR")]
    home: Option<PathBuf>,
    /// The NATS server
    #[arg(
        long,
        global = true,
        env = "CASEMATE_NATS_URL",
        value_name = "URL",
        default_value = "nats://127.0.0.1:4222",
        hide_env_values = true
    )]
    nats: String,
    /// A NATS credentials file (JWT and seed)
    #[arg(long, global = true, env = "CASEMATE_NATS_CREDS", value_name = "FILE")]
    creds: Option<PathBuf>,
    /// A file with a NATS NKEY seed
    #[arg(long, global = true, env = "CASEMATE_NATS_NKEY", value_name = "FILE", conflicts_with = "creds")]
    nkey: Option<PathBuf>,
    /// The CA of the NATS server's certificate, PEM
    #[arg(long, global = true, env = "CASEMATE_NATS_CA", value_name = "FILE")]
    nats_ca: Option<PathBuf>,
    /// The vault; without it the only one of this home
    #[arg(long, global = true, env = "CASEMATE_VAULT", value_name = "ID")]
    vault: Option<VaultId>,
    /// How long an operation may take, in seconds, at most 60
    #[arg(long, global = true, env = "CASEMATE_TIMEOUT", value_name = "SECONDS", default_value = "10", value_parser = parse_timeout)]
    pub(super) timeout: Duration,
    /// The first part of all NATS subjects
    #[arg(long, global = true, env = "CASEMATE_PREFIX", value_name = "WORD", default_value = "casemate", value_parser = parse_prefix)]
    prefix: Subjects,
}

fn parse_timeout(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds, such as 10 or 0.5".to_owned())?;
    let fits = (0.001..=60.0).contains(&seconds);
    if fits { Ok(Duration::from_secs_f64(seconds)) } else { Err("0.001 to 60 seconds".to_owned()) }
}

fn parse_prefix(text: &str) -> Result<Subjects, String> {
    Subjects::new(text).map_err(|error| error.to_string())
}

/// A vault over NATS, kept in a home.
pub(super) type OpenVault = Vault<NatsTransport, VaultKeeper>;

/// What a command works with.
#[derive(Debug)]
pub(super) struct Context {
    pub(super) globals: Globals,
    pub(super) roots: Arc<Roots>,
    pub(super) output: Output,
}

impl Context {
    pub(super) fn new(globals: Globals, roots: Roots, output: Output) -> Self {
        Self { globals, roots: Arc::new(roots), output }
    }

    /// Opens the home.
    pub(super) fn home(&self) -> Result<Home, CliError> {
        let path = match &self.globals.home {
            Some(path) => path.clone(),
            None => std::env::home_dir()
                .filter(|path| !path.as_os_str().is_empty())
                .map(|path| path.join(".casemate"))
                .ok_or_else(|| {
                    CliError::usage(
                        "there is no home directory to keep this device's keys in",
                        "Set CASEMATE_HOME or give --home.",
                    )
                })?,
        };
        Ok(Home::open(&path, self.globals.timeout)?)
    }

    /// Runs a future to its end on this thread: a command does one thing.
    pub(super) fn block_on<T>(future: impl Future<Output = Result<T, CliError>>) -> Result<T, CliError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| {
            CliError::new(
                Kind::Other,
                "runtime",
                format!("cannot start: {error}"),
                "Check the limits of open files and memory.",
            )
        })?;
        runtime.block_on(future)
    }

    /// Connects to NATS.
    pub(super) async fn connect(&self) -> Result<NatsTransport, CliError> {
        if self.roots.is_development() {
            self.output.warn_of_development();
        }
        let options = NatsOptions {
            url: self.globals.nats.clone(),
            credentials: self.globals.creds.clone(),
            nkey: self.globals.nkey.clone(),
            ca: self.globals.nats_ca.clone(),
            within: self.globals.timeout,
        };
        Ok(NatsTransport::connect(&options).await?)
    }

    /// The vault that the options name.
    pub(super) const fn globals_vault(&self) -> Option<VaultId> {
        self.globals.vault
    }

    pub(super) const fn subjects(&self) -> &Subjects {
        &self.globals.prefix
    }

    /// The vault that the options name, or the only one.
    pub(super) fn choose(&self, home: &Home) -> Result<VaultId, CliError> {
        if let Some(vault) = self.globals.vault {
            return Ok(vault);
        }
        let records = home.list()?;
        let usable: Vec<_> = records.iter().filter(|record| record.life() != Life::Deleted).collect();
        match usable.as_slice() {
            [record] => Ok(record.vault()),
            [] => Err(CliError::new(
                Kind::NotFound,
                "no_vault",
                format!("{} has no vault", home.path().display()),
                "Make one with `casemate vault create`, or name another home with --home.",
            )),
            several => Err(CliError::usage(
                format!("this home has {} vaults", several.len()),
                "Name one with --vault or CASEMATE_VAULT; `casemate vault list` shows them.",
            )),
        }
    }

    /// Puts a vault together from its record.
    pub(super) fn assemble(
        &self,
        home: &Home,
        transport: NatsTransport,
        record: VaultRecord,
        keeper: VaultKeeper,
    ) -> Result<OpenVault, CliError> {
        let options = VaultOptions {
            subjects: self.subjects().clone(),
            deadline: self.globals.timeout,
            ..VaultOptions::default()
        };
        let (device, trust, roots) = (home.device()?, home.trust()?, Arc::clone(&self.roots));
        Ok(Vault::new(VaultParts { transport, keeper, device, roots, trust, options }, record))
    }

    /// Opens the chosen vault.
    pub(super) async fn open(&self) -> Result<OpenVault, CliError> {
        let home = self.home()?;
        let (record, keeper) = home.claim(self.choose(&home)?)?;
        let transport = self.connect().await?;
        self.assemble(&home, transport, record, keeper)
    }
}

/// What was believed, for programs.
pub(super) fn trusted_value(trusted: &Trusted) -> Value {
    let pcr = |index| trusted.claims.measurements.pcr(index).map(hex::encode);
    let image = match &trusted.image {
        Image::Release(number) => json!({ "release": number }),
        Image::SelfBuilt(name) => json!({ "self_built": name }),
    };
    json!({
        "image": image,
        "pcr0": pcr(0),
        "pcr1": pcr(1),
        "pcr2": pcr(2),
        "cluster": trusted.cluster.to_string(),
        "kms_key": trusted.configuration.kms_key_arn,
        "region": trusted.configuration.region,
        "platform": trusted.claims.platform.to_string(),
        "module": trusted.claims.identity.to_string(),
        "identity": hex::encode(trusted.identity),
        "evidence_made": trusted.claims.issued_at_unix().map(time),
        "root": trusted.claims.anchor_subject,
        "development_evidence": trusted.is_development,
    })
}

/// What was believed, for people.
pub(super) fn trusted_lines(trusted: &Trusted) -> Vec<String> {
    let pcr = |index| trusted.claims.measurements.pcr(index).map(hex::encode).unwrap_or_default();
    let made = trusted.claims.issued_at_unix().map_or("at an unknown time".to_owned(), time);
    let image = match &trusted.image {
        Image::Release(number) => format!("release {number}"),
        Image::SelfBuilt(name) => format!("self-built \"{name}\", added by you"),
    };
    let genuine = if trusted.is_development { "DEVELOPMENT EVIDENCE, proves nothing" } else { "genuine" };
    vec![
        format!("  image     {image}"),
        format!("  PCR0      {}", pcr(0)),
        format!("  PCR1      {}", pcr(1)),
        format!("  PCR2      {}", pcr(2)),
        format!("  cluster   {}", trusted.cluster),
        format!("  KMS key   {} ({})", trusted.configuration.kms_key_arn, trusted.configuration.region),
        format!("  node      {}, identity {}", trusted.claims.identity, hex::encode(trusted.identity)),
        format!("  evidence  {genuine}; {}, made {made}", trusted.claims.platform),
        format!("  root      {}", trusted.claims.anchor_subject),
    ]
}
