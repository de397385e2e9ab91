//! `casemate node`: an operator's words to a parent, over its admin socket. One line of JSON there, one back.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::link::TOLD_VAULTS;
use casemate_protocol::resident::VaultsBy;
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::context::Context;
use super::diagnose;
use super::output::{CliError, table};
use super::top::TopArgs;
use super::units;
use crate::error::Kind;

/// No answer is longer: 100,000 vaults fit.
const ANSWER_BYTES: u64 = 32 * 1024 * 1024;

#[derive(Debug, Args)]
pub(super) struct Socket {
    /// The parent's admin socket
    #[arg(long, env = "CASEMATE_ADMIN_SOCKET", value_name = "PATH", default_value = "/run/casemate/admin.sock")]
    socket: PathBuf,
}

impl Socket {
    pub(super) fn into_path(self) -> PathBuf {
        self.socket
    }
}

/// Which vaults are listed.
#[derive(Debug, Args)]
pub(super) struct Listed {
    /// By what vaults are listed, the largest first [default: memory]
    #[arg(long, value_name = "WHAT", value_parser = parse_by())]
    pub(super) by: Option<VaultsBy>,
    /// How many vaults at most [default: as many as fit, 8192 without a screen]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=8192))]
    limit: Option<u32>,
}

impl Listed {
    pub(super) fn limit(&self) -> Option<usize> {
        self.limit.and_then(|limit| usize::try_from(limit).ok())
    }
}

fn parse_by() -> impl TypedValueParser<Value = VaultsBy> {
    PossibleValuesParser::new(VaultsBy::ALL.iter().map(|by| by.as_str())).try_map(|word| word.parse::<VaultsBy>())
}

#[derive(Debug, Subcommand)]
pub(super) enum NodeCommand {
    /// Show the node's health
    Status {
        #[command(flatten)]
        socket: Socket,
    },
    /// Reach everything that this node needs, now, and say what to do about what is wrong; ends with 8 when something is
    #[command(after_help = "Example:\n  casemate node diagnose --json > diagnosis.json    no secret is in it")]
    Diagnose {
        #[command(flatten)]
        socket: Socket,
    },
    /// List the vaults that are resident in the enclave
    Vaults {
        #[command(flatten)]
        socket: Socket,
        #[command(flatten)]
        listed: Listed,
    },
    /// Watch the node at work: vaults by memory, rate, latency and queue, evictions, cache hits; `?` shows the keys
    Top(TopArgs),
    /// Put a vault out of memory; its next request opens it again
    Evict {
        /// The vault's id
        #[arg(value_name = "VAULT")]
        resident: VaultId,
        #[command(flatten)]
        socket: Socket,
    },
    /// Finish what is under way and take nothing new
    Drain {
        #[command(flatten)]
        socket: Socket,
    },
}

impl NodeCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        let timeout = context.globals.timeout;
        let output = context.output;
        match self {
            Self::Status { socket } => {
                let health = ask(&socket.socket, &json!({ "op": "status" }), timeout)?;
                output.either(&health, || {
                    let mut lines = Vec::new();
                    flatten("", &health, &mut lines);
                    lines
                })
            }
            Self::Vaults { socket, listed } => {
                // An older parent knows no more than the order itself.
                let mut question = json!({ "op": "vaults" });
                if let Some(by) = listed.by {
                    question["by"] = json!(by.as_str());
                }
                if let Some(limit) = listed.limit {
                    question["limit"] = json!(limit);
                }
                let answer = ask(&socket.socket, &question, timeout)?;
                let count = answer.get("vaults").and_then(Value::as_array).map_or(0, Vec::len);
                output.either(&answer, || vault_table(&answer))?;
                if count >= listed.limit().unwrap_or(TOLD_VAULTS) {
                    output.note(&format!("The list ends after {count} vaults; there may be more (--limit, --by)."));
                }
                Ok(())
            }
            Self::Diagnose { socket } => diagnose::run(context, socket),
            Self::Top(args) => args.run(context),
            Self::Evict { resident, socket } => {
                let question = json!({ "op": "evict", "vault": resident.to_string() });
                let answer = ask(&socket.socket, &question, timeout)?;
                output.either(&answer, || vec![format!("Evicted {resident}")])
            }
            Self::Drain { socket } => {
                let answer = ask(&socket.socket, &json!({ "op": "drain" }), timeout)?;
                output.either(&answer, || {
                    vec!["Draining: what is under way is finished, nothing new is taken".to_owned()]
                })
            }
        }
    }
}

pub(super) fn ask(path: &Path, question: &Value, timeout: Duration) -> Result<Value, CliError> {
    let answer = exchange(path, question, timeout).map_err(|error| {
        let remedy = match error.kind() {
            io::ErrorKind::PermissionDenied => "Run this as the user or group that the parent's admin socket belongs to.",
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                "Check that casemate-parent runs on this machine, and its socket's path (--socket or CASEMATE_ADMIN_SOCKET)."
            }
            _ => "Try again; if it recurs, look into the parent's log.",
        };
        CliError::new(Kind::Unavailable, "admin_socket", format!("no answer from {}: {error}", path.display()), remedy)
    })?;
    match answer.get("error") {
        Some(error) => Err(refused(error)),
        None => Ok(answer),
    }
}

fn exchange(path: &Path, question: &Value, timeout: Duration) -> io::Result<Value> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(timeout))?;
    stream.write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    BufReader::new(stream.take(ANSWER_BYTES)).read_line(&mut line)?;
    serde_json::from_str(&line)
        .map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the answer is not one line of JSON"))
}

fn refused(error: &Value) -> CliError {
    let text = |key: &str, otherwise: &str| printable(error.get(key).and_then(Value::as_str).unwrap_or(otherwise));
    let code = text("code", "refused");
    let kind = match code.as_str() {
        "not_found" => Kind::NotFound,
        "busy" | "unavailable" | "draining" | "deadline_exceeded" => Kind::Unavailable,
        _ => Kind::Refused,
    };
    CliError {
        kind,
        code,
        message: text("message", "the node refused"),
        remedy: text("remedy", "Look into the parent's log."),
    }
}

pub(super) fn printable(text: &str) -> String {
    text.chars().filter(|character| !character.is_control()).collect()
}

fn scalar(value: &Value) -> String {
    match value {
        Value::String(text) => printable(text),
        Value::Null => "-".to_owned(),
        other => other.to_string(),
    }
}

/// Nested objects as dotted names: health grows, and an operator must see all of it.
fn flatten(name: &str, value: &Value, lines: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (key, value) in fields {
                let name = if name.is_empty() { printable(key) } else { format!("{name}.{}", printable(key)) };
                flatten(&name, value, lines);
            }
        }
        Value::Array(items) => {
            lines.push(format!("{name:<28} {}", items.iter().map(scalar).collect::<Vec<_>>().join(", ")));
        }
        value => lines.push(format!("{name:<28} {}", scalar(value))),
    }
}

fn vault_table(answer: &Value) -> Vec<String> {
    let vaults = answer.get("vaults").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let cell = |vault: &Value, key: &str| scalar(vault.get(key).unwrap_or(&Value::Null));
    let row = |vault: &Value| {
        let keys = ["vault", "state", "in_flight", "queued", "idle_ms", "pid", "memory_bytes"];
        let rate = vault.get("requests_per_second").and_then(Value::as_f64);
        let latency = vault.get("latency_us").and_then(Value::as_u64);
        let shown =
            [rate.map(units::rate), latency.map(units::took)].map(|text| text.unwrap_or_else(|| "-".to_owned()));
        keys.map(|key| cell(vault, key)).into_iter().chain(shown).collect()
    };
    let heading = ["VAULT", "STATE", "IN FLIGHT", "QUEUED", "IDLE MS", "PID", "MEMORY", "REQ/S", "LATENCY"];
    table(&heading, &vaults.iter().map(row).collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    fn answer_once(answer: &'static str) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<String>) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let thread = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            (&stream).write_all(answer.as_bytes()).unwrap();
            line
        });
        (directory, path, thread)
    }

    #[test]
    fn one_line_there_one_line_back() {
        let (_directory, path, thread) = answer_once("{\"ok\":true}\n");
        let answer = ask(&path, &json!({ "op": "drain" }), Duration::from_secs(5)).unwrap();
        assert_eq!((answer, thread.join().unwrap().as_str()), (json!({ "ok": true }), "{\"op\":\"drain\"}\n"));
    }

    #[test]
    fn refusals_keep_their_remedy() {
        let text = "{\"error\":{\"code\":\"not_found\",\"message\":\"not resident\",\"remedy\":\"See `casemate node vaults`.\"}}\n";
        let (_directory, path, thread) = answer_once(text);
        let error = ask(&path, &json!({ "op": "evict" }), Duration::from_secs(5)).unwrap_err();
        assert_eq!((error.kind, error.message.as_str()), (Kind::NotFound, "not resident"));
        thread.join().unwrap();
    }

    #[test]
    fn nobody_there_and_nonsense() {
        let error = ask(Path::new("/nonexistent/admin.sock"), &json!({}), Duration::from_secs(1)).unwrap_err();
        assert!(error.kind == Kind::Unavailable && error.remedy.contains("casemate-parent"));
        let (_directory, path, thread) = answer_once("hello\n");
        assert!(ask(&path, &json!({}), Duration::from_secs(5)).unwrap_err().message.contains("JSON"));
        thread.join().unwrap();
    }

    #[test]
    fn health_is_shown_whole() {
        let mut lines = Vec::new();
        flatten(
            "",
            &json!({ "status": "ok", "nats": { "connected": true }, "reasons": ["a\u{1b}[2J", "b"] }),
            &mut lines,
        );
        let text = lines.join("\n");
        assert!(text.contains("nats.connected") && text.contains("a[2J, b") && !text.contains('\u{1b}'), "{text}");
    }
}
