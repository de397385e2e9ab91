//! The control socket: one line of JSON asks, one line of JSON answers. A Unix socket in the state directory, so that only
//! its owner can tell the stand-in to misbehave.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::Subcommand;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::cms::Shape;
use crate::fault::{Faults, Mode, Status};

/// Name of the socket in the state directory.
pub const SOCKET: &str = "control.sock";
const MAX_LINE_BYTES: u64 = 64 * 1024;
const DEADLINE: Duration = Duration::from_secs(5);

/// What the stand-in can be told. Each is answered by the [`Status`] that follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Subcommand)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Command {
    /// Answer ThrottlingException
    Throttle {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Answer KMSInternalException (status 500)
    Fail {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Wait before each answer
    Delay {
        /// Milliseconds; 0 ends it
        milliseconds: u64,
    },
    /// Answer bytes that are no JSON
    Garbage {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Add a Plaintext to answers
    Plaintext {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Answer in the name of another key
    WrongKeyId {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Encrypt answers to another recipient
    SwapRecipient {
        /// For so many requests only
        #[serde(default)]
        times: Option<u32>,
    },
    /// Close all connections, and new ones as they come
    Away,
    /// End every fault and delay
    Healthy,
    /// Encode CiphertextForRecipient as ber (the real service's), chunked (more chunks) or der
    Cms {
        /// ber, chunked or der
        shape: Shape,
    },
    /// Say what is in force and what was answered
    Counts,
}

/// The answer to a line.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Reply {
    /// It was done.
    Status(Status),
    /// It was not understood.
    Error {
        /// Why.
        error: String,
    },
}

impl Command {
    /// Does what the command says.
    pub fn apply(self, faults: &Faults) -> Status {
        match self {
            Self::Throttle { times } => faults.set_mode(Mode::Throttle, times),
            Self::Fail { times } => faults.set_mode(Mode::Fail, times),
            Self::Garbage { times } => faults.set_mode(Mode::Garbage, times),
            Self::Plaintext { times } => faults.set_mode(Mode::Plaintext, times),
            Self::WrongKeyId { times } => faults.set_mode(Mode::WrongKeyId, times),
            Self::SwapRecipient { times } => faults.set_mode(Mode::SwapRecipient, times),
            Self::Away => faults.set_mode(Mode::Away, None),
            Self::Healthy => faults.set_mode(Mode::Healthy, None),
            Self::Delay { milliseconds } => faults.set_delay(Duration::from_millis(milliseconds)),
            Self::Cms { shape } => faults.set_shape(shape),
            Self::Counts => {}
        }
        faults.status()
    }
}

/// Binds the socket, mode 0600, in place of one that a killed process left.
pub(crate) fn bind(path: &Path) -> io::Result<UnixListener> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub(crate) async fn serve(listener: UnixListener, faults: Arc<Faults>) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                while connections.try_join_next().is_some() {}
                let faults = Arc::clone(&faults);
                connections.spawn(async move {
                    if let Err(error) = converse(stream, &faults).await {
                        tracing::debug!(%error, "control connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "accept on the control socket failed");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Answers lines until the other side closes or falls silent.
async fn converse(stream: UnixStream, faults: &Faults) -> io::Result<()> {
    let mut stream = BufReader::new(stream);
    while let Some(line) = read_line(&mut stream).await? {
        let reply = match serde_json::from_str::<Command>(&line) {
            Ok(command) => {
                tracing::info!(?command, "control");
                Reply::Status(command.apply(faults))
            }
            Err(error) => Reply::Error { error: format!("not a command: {error}") },
        };
        write_line(stream.get_mut(), &reply).await?;
    }
    Ok(())
}

async fn read_line(stream: &mut BufReader<UnixStream>) -> io::Result<Option<String>> {
    let mut line = String::new();
    let read = timeout(DEADLINE, stream.take(MAX_LINE_BYTES).read_line(&mut line)).await??;
    if read == 0 {
        return Ok(None);
    }
    if line.ends_with('\n') { Ok(Some(line)) } else { Err(io::ErrorKind::InvalidData.into()) }
}

async fn write_line(stream: &mut UnixStream, value: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(value)?;
    line.push(b'\n');
    timeout(DEADLINE, stream.write_all(&line)).await?
}

/// Sends one command to a running stand-in.
///
/// # Errors
/// When nothing listens on `socket`, or it does not answer within five seconds, or it answers with an error.
pub async fn send(socket: &Path, command: Command) -> io::Result<Status> {
    let mut stream = BufReader::new(timeout(DEADLINE, UnixStream::connect(socket)).await??);
    write_line(stream.get_mut(), &command).await?;
    let line = read_line(&mut stream).await?.ok_or(io::ErrorKind::UnexpectedEof)?;
    match serde_json::from_str(&line)? {
        Reply::Status(status) => Ok(status),
        Reply::Error { error } => Err(io::Error::other(error)),
    }
}
