//! `casemate`, the command line.
//!
//! [`main`] takes what is compiled in; which program it becomes — the released one, or one for development — depends on that value
//! alone.

mod attest;
mod attest_verify;
mod audit;
mod context;
mod diagnose;
mod input;
mod key;
mod node;
mod output;
mod pem;
mod secret;
mod top;
mod trust;
mod units;
mod vault;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

use crate::trust::Roots;
use context::{Context, Globals};
use output::{CliError, Output};

const EXAMPLES: &str = "\
Examples:
  casemate trust add enclave.trust.toml        trust a self-built enclave image
  casemate vault create                        make a vault; prints what it trusted
  casemate secret put db/password < pw.txt     store a secret (never as an argument)
  casemate secret get db/password --out pw     read it into a file for you alone
  casemate key generate signer -a ed25519      make a key that never leaves the vault
  casemate key sign signer --file doc --out doc.sig

Exit codes:
  0 done    1 other error    2 wrong use    3 not found    4 conflict, exists already
  5 refused, not authorised    6 the node's evidence is not trusted    7 rollback or fork detected
  8 unavailable, busy, time-out    9 outcome unknown    10 not authentic (signature, ciphertext, audit chain)";

/// Keep secrets and keys in a vault that no host, operator or cloud can read or change unnoticed.
///
/// The vault lives in an attested enclave. Before anything is sent to it, its evidence is checked against what this device
/// trusts; what the device keeps (its keys, the lock key, the newest state it has seen) is in CASEMATE_HOME.
#[derive(Debug, Parser)]
#[command(name = "casemate", version, after_help = EXAMPLES, subcommand_required = true, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create, inspect and delete vaults
    #[command(subcommand)]
    Vault(vault::VaultCommand),
    /// Store and read secrets of at most 64 KiB
    #[command(subcommand)]
    Secret(secret::SecretCommand),
    /// Make keys inside the vault and use them
    #[command(subcommand)]
    Key(key::KeyCommand),
    /// Read the vault's audit chain and verify it
    Audit(audit::AuditCommand),
    /// Ask any node for fresh evidence and judge it, or judge evidence in a file
    Attest(attest::AttestCommand),
    /// What this device believes: images and the cluster
    #[command(subcommand)]
    Trust(trust::TrustCommand),
    /// For operators: look at a node and steer it over its admin socket
    #[command(subcommand)]
    Node(node::NodeCommand),
    /// Print a completion script for a shell
    #[command(
        after_help = "Example:\n  casemate completion bash > ~/.local/share/bash-completion/completions/casemate"
    )]
    Completion {
        /// The shell
        shell: Shell,
    },
}

/// Runs the command line with the process's arguments.
pub fn main(roots: Roots) -> ExitCode {
    hide_memory();
    run(roots, std::env::args_os())
}

/// Attack stopped: a crash that writes lock keys and secrets to disk, or another process of this user that reads them from memory.
fn hide_memory() {
    // A system that allows neither is no reason not to work: both only narrow what somebody with this user's rights could do anyway.
    let _ = nix::sys::resource::setrlimit(nix::sys::resource::Resource::RLIMIT_CORE, 0, 0);
    #[cfg(target_os = "linux")]
    let _ = nix::sys::prctl::set_dumpable(false);
}

/// Runs the command line with these arguments, the program's name first.
pub fn run<I, A>(roots: Roots, args: I) -> ExitCode
where
    I: IntoIterator<Item = A>,
    A: Into<OsString> + Clone,
{
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // `--help` and `--version` come this way too, with 0.
            let _ = error.print();
            return u8::try_from(error.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
        }
    };
    let output = Output { json: cli.globals.json };
    match dispatch(cli, roots, output) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is_broken_pipe() => ExitCode::SUCCESS,
        Err(error) => {
            output.error(&error);
            ExitCode::from(error.kind as u8)
        }
    }
}

fn dispatch(cli: Cli, roots: Roots, output: Output) -> Result<(), CliError> {
    let context = Context::new(cli.globals, roots, output);
    match cli.command {
        Command::Vault(command) => command.run(&context),
        Command::Secret(command) => command.run(&context),
        Command::Key(command) => command.run(&context),
        Command::Audit(command) => command.run(&context),
        Command::Attest(command) => command.run(&context),
        Command::Trust(command) => command.run(&context),
        Command::Node(command) => command.run(&context),
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "casemate", &mut script);
            output::print_bytes(&script)
        }
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
