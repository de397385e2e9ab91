//! How frames travel: a request and its answer, over NATS or whatever else a program brings along.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use async_nats::{Client, ConnectErrorKind, ConnectOptions, Request, RequestErrorKind};
use bytes::Bytes;
use data_encoding::BASE64URL_NOPAD;

/// Why there was no answer. None of them says what became of the request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TransportError {
    /// No connection could be made.
    #[error("cannot connect to NATS at {address}: {reason}")]
    Connect {
        /// The server's address, without its credentials.
        address: String,
        /// Why.
        reason: String,
    },
    /// The server refuses these credentials.
    #[error("NATS at {address} refuses these credentials")]
    Credentials {
        /// The server's address.
        address: String,
    },
    /// A file of credentials or certificates cannot be used.
    #[error("cannot use {path}: {reason}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// Nobody listens on the subject.
    #[error("nobody answers for this subject: no node owns the vault's shard, or this account may not reach it")]
    NoResponders,
    /// No answer in time.
    #[error("no answer in time")]
    TimedOut,
    /// The server takes smaller messages only.
    #[error("the NATS server takes smaller messages only")]
    TooLarge,
    /// The connection was lost.
    #[error("the connection to NATS was lost: {0}")]
    Lost(String),
}

impl TransportError {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::Connect { .. } => {
                "Check the address (--nats or CASEMATE_NATS_URL), the network, and --nats-ca if the server has a CA of its own."
            }
            Self::Credentials { .. } => {
                "Give the right --creds or --nkey file; the operator of the NATS account issues it."
            }
            Self::File { .. } => "Check the path and the file's content.",
            Self::NoResponders => {
                "Ask the operator whether the node is up; check --prefix and the account's permissions."
            }
            Self::TimedOut => {
                "Try again, with a longer --timeout if it recurs; the operator sees the reason in the node's health."
            }
            Self::TooLarge => "The operator must set max_payload to at least 1 MiB.",
            Self::Lost(_) => "Try again; if it recurs, ask the operator of the NATS server.",
        }
    }

    /// Whether asking again could help before anything outside was changed.
    pub const fn is_transient(&self) -> bool {
        matches!(self, Self::NoResponders | Self::TimedOut | Self::Lost(_))
    }
}

/// Sends a payload and waits for its answer.
pub trait Transport {
    /// Sends `payload` to `subject` and gives the answer's payload. Returns within `within`.
    ///
    /// # Errors
    /// See [`TransportError`].
    fn request(
        &self,
        subject: String,
        payload: Bytes,
        within: Duration,
    ) -> impl Future<Output = Result<Bytes, TransportError>> + Send;
}

impl<T: Transport + Sync> Transport for &T {
    async fn request(&self, subject: String, payload: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        (**self).request(subject, payload, within).await
    }
}

/// How to reach a NATS server.
#[derive(Clone)]
pub struct NatsOptions {
    /// `nats://host:4222`, `tls://host:4222`; several separated by commas.
    pub url: String,
    /// A credentials file (JWT and seed).
    pub credentials: Option<PathBuf>,
    /// A file with an NKEY seed.
    pub nkey: Option<PathBuf>,
    /// A PEM file with the CA that signs the server's certificate.
    pub ca: Option<PathBuf>,
    /// Longest wait for the connection.
    pub within: Duration,
}

impl fmt::Debug for NatsOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A URL may carry a password.
        f.debug_struct("NatsOptions").field("url", &without_credentials(&self.url)).finish_non_exhaustive()
    }
}

/// A connection to NATS, shared by as many vaults as its owner likes.
#[derive(Debug, Clone)]
pub struct NatsTransport(Client);

impl NatsTransport {
    /// Connects. Must be called inside a tokio runtime, which may be a `current_thread` one.
    ///
    /// # Errors
    /// See [`TransportError`].
    pub async fn connect(options: &NatsOptions) -> Result<Self, TransportError> {
        let mut connect = ConnectOptions::new().name("casemate").connection_timeout(options.within);
        if let Some(path) = &options.nkey {
            let seed = std::fs::read_to_string(path).map_err(file_error(path))?;
            connect = connect.nkey(seed.trim().to_owned());
        }
        if let Some(path) = &options.credentials {
            let inbox = inbox(&std::fs::read_to_string(path).map_err(file_error(path))?);
            connect = connect.credentials_file(path).await.map_err(file_error(path))?;
            if let Some(inbox) = inbox {
                connect = connect.custom_inbox_prefix(inbox);
            }
        }
        if let Some(path) = &options.ca {
            // Looked at here, because a missing file would be reported as a failed connection.
            std::fs::metadata(path).map_err(file_error(path))?;
            connect = connect.add_root_certificates(path.clone()).require_tls(true);
        }
        let address = without_credentials(&options.url);
        let servers: Vec<String> = options.url.split(',').map(|server| server.trim().to_owned()).collect();
        match tokio::time::timeout(options.within, connect.connect(servers)).await {
            Ok(Ok(client)) => Ok(Self(client)),
            Ok(Err(error)) => Err(match error.kind() {
                ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                    TransportError::Credentials { address }
                }
                _ => TransportError::Connect { address, reason: error.to_string() },
            }),
            Err(_) => Err(TransportError::Connect { address, reason: "no answer in time".to_owned() }),
        }
    }

    /// Wraps a connection that the program has already.
    pub const fn from_client(client: Client) -> Self {
        Self(client)
    }

    /// Waits until everything sent is on its way.
    ///
    /// # Errors
    /// When the connection is lost.
    pub async fn flush(&self) -> Result<(), TransportError> {
        self.0.flush().await.map_err(|error| TransportError::Lost(error.to_string()))
    }
}

impl Transport for NatsTransport {
    async fn request(&self, subject: String, payload: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let request = Request::new().payload(payload).timeout(None);
        // Our own time-out around all of it: while the connection is lost, handing the request over can wait too.
        match tokio::time::timeout(within, self.0.send_request(subject, request)).await {
            Ok(Ok(message)) => Ok(message.payload),
            Ok(Err(error)) => Err(match error.kind() {
                RequestErrorKind::TimedOut => TransportError::TimedOut,
                RequestErrorKind::NoResponders => TransportError::NoResponders,
                RequestErrorKind::MaxPayloadExceeded => TransportError::TooLarge,
                RequestErrorKind::InvalidSubject | RequestErrorKind::Other => TransportError::Lost(error.to_string()),
            }),
            Err(_) => Err(TransportError::TimedOut),
        }
    }
}

/// Where answers come to for the user of a credentials file: an inbox below its own name, so that its rights need not reach anybody
/// else's. None when the file is not understood; the server then judges it.
fn inbox(credentials: &str) -> Option<String> {
    let token = credentials.lines().map(str::trim).find(|line| line.starts_with("eyJ"))?;
    let claims = BASE64URL_NOPAD.decode(token.split('.').nth(1)?.as_bytes()).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    let user = claims.get("sub")?.as_str()?;
    let fits = user.len() == 56 && user.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    fits.then(|| format!("_INBOX.{user}"))
}

fn file_error(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> TransportError {
    move |error| TransportError::File { path: path.to_owned(), reason: error.to_string() }
}

/// A URL as it may be shown: whatever stands before an `@` is a password or a token.
fn without_credentials(url: &str) -> String {
    let one = |server: &str| match (server.split_once("://"), server.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
        (None, Some((_, host))) => host.to_owned(),
        _ => server.to_owned(),
    };
    url.split(',').map(|server| one(server.trim())).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_not_shown() {
        assert_eq!(without_credentials("nats://u:p@h:4222, tls://t@g:1"), "nats://h:4222,tls://g:1");
        assert_eq!(without_credentials("h:4222"), "h:4222");
        assert_eq!(without_credentials("u:p@h"), "h");
        let options = NatsOptions {
            url: "nats://user:hunter2@h".to_owned(),
            credentials: None,
            nkey: None,
            ca: None,
            within: Duration::from_secs(1),
        };
        assert!(!format!("{options:?}").contains("hunter2"));
    }
}

#[cfg(test)]
mod inbox_tests {
    use super::*;

    #[test]
    fn answers_come_to_an_inbox_of_the_users_own() {
        let user = "U".repeat(56);
        let claims = BASE64URL_NOPAD.encode(format!(r#"{{"sub":"{user}"}}"#).as_bytes());
        let file = format!("-----BEGIN NATS USER JWT-----\neyJh.{claims}.c2ln\n------END NATS USER JWT------\n");
        assert_eq!(inbox(&file), Some(format!("_INBOX.{user}")));
        for other in [
            "",
            "eyJh",
            "eyJh.!!.x",
            "eyJh.e30.x",
            &file.replace(&claims, &BASE64URL_NOPAD.encode(br#"{"sub":"a.>"}"#)),
        ] {
            assert_eq!(inbox(other), None, "{other}");
        }
    }
}
