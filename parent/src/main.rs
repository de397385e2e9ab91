//! `casemate-parent`: runs the parent, or checks its configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anstyle::{AnsiColor, Style};
use casemate_memory::Heap;
use casemate_parent::check::{Finding, check};
use casemate_parent::config::Config;
use casemate_parent::config::keys;
use casemate_parent::issue::{Authority, Bearer, write_private};
use casemate_parent::run::{RunError, run};
use casemate_parent::{log, metric, nitro};
use casemate_protocol::id::VaultId;
use clap::{Args, Parser, Subcommand};

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

/// Bridges NATS and the enclave on the EC2 host.
#[derive(Parser)]
#[command(
    version,
    about,
    after_help = "Every key of the configuration can be overridden by an environment variable: \
    nats.url by CASEMATE_NATS_URL, nats.tls.ca by CASEMATE_NATS_TLS_CA; lists are written with commas. \
    `casemate-parent keys` shows them all."
)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
    /// The configuration, a TOML file.
    #[arg(long, global = true, env = "CASEMATE_CONFIG", default_value = "/etc/casemate/parent.toml")]
    config: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Validates the configuration and reaches NATS, the store, the credentials and the enclave, once.
    Check,
    /// Starts the enclave with nitro-cli, watches it, and ends with a reason when it dies or falls silent: for nitro-enclave.service.
    Enclave,
    /// Makes NATS accounts and issues credentials for nodes and devices. For whoever runs the NATS servers; not on a node.
    #[command(subcommand)]
    Nats(Nats),
    /// Lists the configuration's keys, what they allow, their defaults and their environment variables.
    Keys,
}

/// Where the keys are, and for which subjects.
#[derive(Args)]
struct Keys {
    /// The directory of the operator's keys; whoever has it lets anybody in
    #[arg(long, value_name = "DIR", default_value = "nats")]
    dir: PathBuf,
    /// The first part of subjects: node.subject_prefix
    #[arg(long, value_name = "WORD", default_value = "casemate")]
    prefix: String,
}

/// What is issued.
#[derive(Args)]
struct Issued {
    #[command(flatten)]
    keys: Keys,
    /// A name for people; a node's is its node.name
    #[arg(long, value_name = "NAME")]
    name: String,
    /// The credentials file to write, for its owner alone
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// How long they are good [default: for ever]
    #[arg(long, value_name = "DAYS", value_parser = clap::value_parser!(u32).range(1..=3650))]
    days: Option<u32>,
}

#[derive(Subcommand)]
enum Nats {
    /// Makes the keys of an operator and its accounts, and resolver.conf for the servers
    Init {
        #[command(flatten)]
        keys: Keys,
    },
    /// Issues a node's credentials
    Node {
        #[command(flatten)]
        issued: Issued,
    },
    /// Issues a device's credentials: for one vault, or, without --vault, for a device that has none yet
    Device {
        #[command(flatten)]
        issued: Issued,
        /// The vault that it may ask
        #[arg(long, value_name = "ID")]
        vault: Option<VaultId>,
    },
    /// Takes credentials back; the servers know when they have read resolver.conf anew (nats-server --signal reload)
    Revoke {
        #[command(flatten)]
        keys: Keys,
        /// What was printed when they were issued
        #[arg(value_name = "USER")]
        user: String,
    },
}

fn main() -> ExitCode {
    // A panic is a fault of the code: nothing half done may go on serving.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let arguments = Arguments::parse();
    let done = match arguments.command {
        Some(Command::Keys) => {
            write!(anstream::stdout(), "{}", keys::markdown()).ok();
            return ExitCode::SUCCESS;
        }
        Some(Command::Nats(command)) => issued(command),
        Some(Command::Enclave) => watched(&arguments.config),
        Some(Command::Check) => checked(&arguments.config),
        None => started(&arguments.config),
    };
    match done {
        Ok(code) => code,
        Err(error) => {
            let red = AnsiColor::Red.on_default();
            writeln!(anstream::stderr(), "{red}casemate-parent:{red:#} {error}").ok();
            ExitCode::from(2)
        }
    }
}

fn started(path: &std::path::Path) -> Result<ExitCode, RunError> {
    let config = Config::load(path)?;
    log::begin(config.log_target, config.log_level)?;
    run(&config)?;
    Ok(ExitCode::SUCCESS)
}

fn issued(command: Nats) -> Result<ExitCode, RunError> {
    let (keys, told) = match command {
        Nats::Init { keys } => {
            Authority::at(&keys.dir, &keys.prefix)?.init()?;
            (keys, None)
        }
        Nats::Revoke { keys, user } => {
            Authority::at(&keys.dir, &keys.prefix)?.revoke(&user)?;
            (keys, None)
        }
        Nats::Node { issued } => {
            let bearer = Bearer::Node(issued.name.clone());
            issue(issued, &bearer)?
        }
        Nats::Device { issued, vault } => {
            let name = issued.name.clone();
            let bearer =
                vault.map_or_else(|| Bearer::Device(name.clone()), |vault| Bearer::DeviceOf(name.clone(), vault));
            issue(issued, &bearer)?
        }
    };
    let told = told.unwrap_or_else(|| {
        let path = keys.dir.join("resolver.conf");
        format!("Wrote {}: give it to every NATS server, then nats-server --signal reload there", path.display())
    });
    writeln!(anstream::stdout(), "{told}").ok();
    Ok(ExitCode::SUCCESS)
}

fn issue(issued: Issued, bearer: &Bearer) -> Result<(Keys, Option<String>), RunError> {
    let Issued { keys, out, days, .. } = issued;
    let valid = days.map(|days| Duration::from_secs(u64::from(days) * 86_400));
    let (user, text) = Authority::at(&keys.dir, &keys.prefix)?.issue(bearer, valid)?;
    write_private(&out, &text)?;
    Ok((keys, Some(format!("Wrote {}, for user {user}; keep that name, it takes them back", out.display()))))
}

fn watched(path: &std::path::Path) -> Result<ExitCode, RunError> {
    let config = Config::load(path)?;
    log::begin(config.log_target, config.log_level)?;
    nitro::watch(&config)?;
    Ok(ExitCode::SUCCESS)
}

fn checked(path: &std::path::Path) -> Result<ExitCode, RunError> {
    let config = Config::load(path)?;
    metric::install().map_err(RunError::Metrics)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let findings = runtime.block_on(check(&config));
    let mut out = anstream::stdout().lock();
    let (green, red, dim) = (AnsiColor::Green.on_default(), AnsiColor::Red.on_default(), Style::new().dimmed());
    for Finding { part, result } in &findings {
        match result {
            Ok(found) => writeln!(out, "{green}✓{green:#} {part:<14} {found}"),
            Err(fault) => {
                writeln!(out, "{red}✗{red:#} {part:<14} {}\n  {:<14} {dim}{}{dim:#}", fault.what, "", fault.remedy)
            }
        }
        .ok();
    }
    let is_well = findings.iter().all(|finding| finding.result.is_ok());
    Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
