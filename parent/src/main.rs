//! `casemate-parent`: runs the parent, or checks its configuration.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use anstyle::{AnsiColor, Style};
use casemate_parent::check::{Finding, check};
use casemate_parent::config::Config;
use casemate_parent::config::keys;
use casemate_parent::run::{RunError, run};
use casemate_parent::{log, metric};
use clap::{Parser, Subcommand};

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`).
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

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
    /// Lists the configuration's keys, what they allow, their defaults and their environment variables.
    Keys,
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
