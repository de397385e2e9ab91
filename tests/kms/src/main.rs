//! `standin-kms`: starts the stand-in, or tells a running one to misbehave.

use std::collections::BTreeMap;
use std::io::{IsTerminal, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use casemate_attestation::TrustAnchor;
use casemate_standin_kms::cms::Shape;
use casemate_standin_kms::control::{self, Command};
use casemate_standin_kms::sigv4::Caller;
use casemate_standin_kms::{Settings, start};
use clap::{Args, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// A stand-in for AWS KMS that enforces the key policy we ship. For tests and the local run only.
#[derive(Debug, Parser)]
#[command(name = "standin-kms", version)]
struct Cli {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Serve the KMS API; prints one line of JSON {listen, key_arn, ca, control} when it is ready
    Serve(Box<Serve>),
    /// Tell a running stand-in what to do wrong, or ask what it has done; prints its status as JSON
    Control {
        /// The control socket: control.sock in the state directory
        #[arg(long)]
        socket: PathBuf,
        #[command(subcommand)]
        command: Command,
    },
}

#[derive(Args)]
struct Serve {
    /// Directory of the key and the certificate authority; made (0700) when absent
    #[arg(long)]
    state: PathBuf,
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// AWS region to play
    #[arg(long, default_value = "us-east-1")]
    region: String,
    /// AWS account to play, twelve digits
    #[arg(long, default_value = "111122223333", value_parser = account)]
    account: String,
    /// Further name in the server's certificate, such as kms.us-east-1.amazonaws.com; may be repeated
    #[arg(long = "name")]
    names: Vec<String>,
    /// The key policy to enforce, such as deploy/kms-key-policy.json
    #[arg(long)]
    key_policy: PathBuf,
    /// Value of a placeholder in the key policy; ACCOUNT, ENCLAVE_ROLE_ARN and ADMIN_ROLE_ARN have defaults
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = assignment)]
    values: Vec<(String, String)>,
    /// Root certificate (DER) of the evidence to believe
    #[arg(long)]
    anchor: PathBuf,
    /// Access key id of the instance role
    #[arg(long, env = "STANDIN_KMS_ACCESS_KEY")]
    access_key: String,
    /// Secret access key of the instance role
    #[arg(long, env = "STANDIN_KMS_SECRET_KEY", hide_env_values = true)]
    secret_key: String,
    /// Session token that each request must carry; without it none may carry one
    #[arg(long, env = "STANDIN_KMS_SESSION_TOKEN", hide_env_values = true)]
    session_token: Option<String>,
    /// How CiphertextForRecipient is encoded: ber (the real service's), chunked or der
    #[arg(long, default_value = "ber")]
    cms: Shape,
    /// The control socket; by default control.sock in the state directory
    #[arg(long)]
    control: Option<PathBuf>,
}

impl std::fmt::Debug for Serve {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serve").field("state", &self.state).field("listen", &self.listen).finish_non_exhaustive()
    }
}

fn account(text: &str) -> Result<String, String> {
    if text.len() == 12 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        Ok(text.to_owned())
    } else {
        Err("an AWS account is twelve digits".to_owned())
    }
}

fn assignment(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=VALUE, such as PCR0=<96 hex digits>")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl Serve {
    fn settings(self) -> Result<Settings, String> {
        let read = |path: &PathBuf| std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()));
        let key_policy = String::from_utf8(read(&self.key_policy)?)
            .map_err(|_| format!("{} is not UTF-8", self.key_policy.display()))?;
        let anchor = TrustAnchor::from_der(read(&self.anchor)?)
            .map_err(|error| format!("{}: {error}", self.anchor.display()))?;

        let role = format!("arn:aws:iam::{}:role/casemate-enclave", self.account);
        let defaults = [
            ("ACCOUNT", self.account.clone()),
            ("ENCLAVE_ROLE_ARN", role.clone()),
            ("ADMIN_ROLE_ARN", format!("arn:aws:iam::{}:role/casemate-admin", self.account)),
        ];
        let mut values: BTreeMap<String, String> = self.values.into_iter().collect();
        let principal_arn = values.get("ENCLAVE_ROLE_ARN").cloned().unwrap_or(role);
        for (name, value) in defaults {
            if key_policy.contains(&format!("${{{name}}}")) {
                values.entry(name.to_owned()).or_insert(value);
            }
        }
        let caller = Caller {
            access_key: self.access_key,
            secret_key: Zeroizing::new(self.secret_key),
            session_token: self.session_token.map(Zeroizing::new),
            principal_arn,
        };
        Ok(Settings {
            state: self.state,
            listen: self.listen,
            names: self.names,
            region: self.region,
            account: self.account,
            key_policy,
            values,
            anchor,
            callers: vec![caller],
            shape: self.cms,
            control: self.control,
        })
    }
}

async fn serve(arguments: Serve) -> Result<(), String> {
    let mut running = start(arguments.settings()?).await.map_err(|error| error.to_string())?;
    let mut terminate = signal(SignalKind::terminate()).map_err(|error| error.to_string())?;
    say(&serde_json::json!({
        "listen": running.address().to_string(),
        "key_arn": running.key_arn(),
        "ca": running.ca_path(),
        "control": running.control_socket(),
    }))?;
    tracing::info!(listen = %running.address(), key_arn = running.key_arn(), "ready");
    tokio::select! {
        () = running.wait() => Err("a listener ended".to_owned()),
        _ = terminate.recv() => Ok(()),
        _ = tokio::signal::ctrl_c() => Ok(()),
    }
}

fn say(value: &impl serde::Serialize) -> Result<(), String> {
    let line = serde_json::to_string(value).map_err(|error| error.to_string())?;
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}").and_then(|()| stdout.flush()).map_err(|error| format!("standard output: {error}"))
}

#[tokio::main]
async fn main() -> ExitCode {
    // A task that panics must end the process: half a service would look like a fault that somebody asked for.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colour = std::io::stderr().is_terminal();
    tracing_subscriber::fmt().with_env_filter(filter).with_ansi(colour).with_writer(std::io::stderr).init();
    let result = match Cli::parse().action {
        Action::Serve(arguments) => serve(*arguments).await,
        Action::Control { socket, command } => match control::send(&socket, command).await {
            Ok(status) => say(&status),
            Err(error) => Err(format!("{}: {error}; is the stand-in running?", socket.display())),
        },
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}
