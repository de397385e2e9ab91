//! Where the enclave's IAM credentials come from: the configuration, or the instance's role.
//!
//! They open nothing by themselves: the key policy also asks for the enclave's evidence.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use casemate_protocol::secret::Secret;
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio::sync::watch;

use crate::config::{Aws, AwsCredentials};

/// New credentials are offered at least five minutes before the old ones end: asking this often never misses them.
const REFRESH_INTERVAL: Duration = Duration::from_mins(2);
const RETRY_INTERVAL: Duration = Duration::from_secs(5);
const IMDS_TIMEOUT: Duration = Duration::from_secs(3);
/// A session token's life, seconds; each refresh takes a new one.
const TOKEN_TTL_SECONDS: &str = "60";
const ANSWER_BYTES: usize = 16 * 1024;

/// Why the instance metadata service gave no credentials.
#[derive(Debug, thiserror::Error)]
pub enum ImdsError {
    /// It does not answer.
    #[error("the instance metadata service does not answer: {0}; is aws.source = \"imds\" right for this machine?")]
    Unreachable(String),
    /// It refuses.
    #[error("the instance metadata service answered {0}; IMDSv2 must be enabled and the instance must have a role")]
    Status(StatusCode),
    /// It answers something else.
    #[error("the instance metadata service's answer was not understood")]
    NotUnderstood,
}

/// The newest credentials; none until the first have come.
pub type Newest = Option<Arc<AwsCredentials>>;

/// A channel that keeps the newest credentials.
pub fn source(aws: &Aws) -> (watch::Sender<Newest>, watch::Receiver<Newest>) {
    watch::channel(match aws {
        Aws::Static(credentials) => Some(Arc::new(credentials.clone())),
        Aws::None | Aws::Imds(_) => None,
    })
}

/// Renews the credentials until the task is dropped; with static ones there is nothing to do.
pub async fn renew(aws: Aws, newest: watch::Sender<Newest>) {
    let Aws::Imds(endpoint) = aws else {
        // The sender stays, or its receivers would take the parent to be stopping.
        newest.closed().await;
        return;
    };
    loop {
        let pause = match fetch(endpoint).await {
            Ok(credentials) => {
                newest.send_if_modified(|held| {
                    let is_new = held.as_deref() != Some(&credentials);
                    if is_new {
                        *held = Some(Arc::new(credentials));
                    }
                    is_new
                });
                REFRESH_INTERVAL
            }
            Err(error) => {
                tracing::warn!(%error, "the IAM credentials could not be renewed");
                RETRY_INTERVAL
            }
        };
        tokio::time::sleep(pause).await;
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct RoleCredentials {
    code: String,
    access_key_id: String,
    secret_access_key: String,
    token: String,
}

/// Fetches the credentials of the instance's role (IMDSv2).
///
/// # Errors
/// See [`ImdsError`].
pub async fn fetch(endpoint: SocketAddr) -> Result<AwsCredentials, ImdsError> {
    const ROLES: &str = "/latest/meta-data/iam/security-credentials/";
    let token = ask(endpoint, Method::PUT, "/latest/api/token", None).await?;
    let token = text(&token)?;
    let role = ask(endpoint, Method::GET, ROLES, Some(token)).await?;
    let role = text(&role)?.lines().next().unwrap_or_default().trim();
    if role.is_empty() || !role.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+=,.@_-".contains(&byte)) {
        return Err(ImdsError::NotUnderstood);
    }
    let answer = ask(endpoint, Method::GET, &format!("{ROLES}{role}"), Some(token)).await?;
    read_credentials(&answer)
}

/// Fetches one word about this instance (IMDSv2): its id, or a tag.
///
/// # Errors
/// See [`ImdsError`].
pub async fn metadata(endpoint: SocketAddr, path: &str) -> Result<String, ImdsError> {
    let token = ask(endpoint, Method::PUT, "/latest/api/token", None).await?;
    let answer = ask(endpoint, Method::GET, path, Some(text(&token)?)).await?;
    let word = text(&answer)?.trim();
    let fits = (1..=255).contains(&word.len()) && word.bytes().all(|byte| byte.is_ascii_graphic() || byte == b' ');
    if fits { Ok(word.to_owned()) } else { Err(ImdsError::NotUnderstood) }
}

/// Reads the answer that carries credentials.
pub(crate) fn read_credentials(answer: &[u8]) -> Result<AwsCredentials, ImdsError> {
    let found: RoleCredentials = serde_json::from_slice(answer).map_err(|_| ImdsError::NotUnderstood)?;
    if found.code != "Success" {
        return Err(ImdsError::NotUnderstood);
    }
    Ok(AwsCredentials {
        access_key_id: found.access_key_id,
        secret_access_key: Secret::new(found.secret_access_key.into_bytes()),
        session_token: Some(Secret::new(found.token.into_bytes())),
    })
}

fn text(bytes: &[u8]) -> Result<&str, ImdsError> {
    std::str::from_utf8(bytes).map_err(|_| ImdsError::NotUnderstood)
}

async fn ask(endpoint: SocketAddr, method: Method, path: &str, token: Option<&str>) -> Result<Bytes, ImdsError> {
    let unreachable = |error: &dyn std::fmt::Display| ImdsError::Unreachable(error.to_string());
    let mut request = Request::builder().method(method).uri(path).header("host", endpoint.to_string());
    request = match token {
        Some(token) => request.header("x-aws-ec2-metadata-token", token),
        None => request.header("x-aws-ec2-metadata-token-ttl-seconds", TOKEN_TTL_SECONDS),
    };
    let request = request.body(Empty::<Bytes>::new()).map_err(|_| ImdsError::NotUnderstood)?;
    let exchange = async {
        let stream = TcpStream::connect(endpoint).await.map_err(|error| unreachable(&error))?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| unreachable(&error))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| unreachable(&error))?;
            if answer.status() != StatusCode::OK {
                return Err(ImdsError::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), ANSWER_BYTES).collect().await;
            Ok(body.map_err(|error| unreachable(&error))?.to_bytes())
        };
        tokio::select! {
            answer = exchange => answer,
            // Driving the connection is what makes the exchange go on; it ends only by failing.
            Err(error) = connection => Err(unreachable(&error)),
        }
    };
    tokio::time::timeout(IMDS_TIMEOUT, exchange).await.map_err(|_| unreachable(&"no answer within 3 s"))?
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    /// A metadata service that gives `answers` one after the other and returns what it was asked.
    async fn service(answers: Vec<String>) -> (SocketAddr, tokio::task::JoinHandle<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let served = tokio::spawn(async move {
            let mut asked = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4096];
                let len = stream.read(&mut request).await.unwrap();
                asked.push(String::from_utf8_lossy(&request[..len]).to_ascii_lowercase());
                let text = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{answer}", answer.len());
                stream.write_all(text.as_bytes()).await.unwrap();
            }
            asked
        });
        (address, served)
    }

    #[tokio::test]
    async fn version_two_is_spoken() {
        let credentials = r#"{"Code":"Success","AccessKeyId":"ASIA","SecretAccessKey":"hush","Token":"t","Extra":1}"#;
        let (address, served) = service(vec!["the-token".into(), "the-role".into(), credentials.into()]).await;
        let found = fetch(address).await.unwrap();
        assert_eq!(found.access_key_id, "ASIA");
        assert_eq!((&*found.secret_access_key, &**found.session_token.as_ref().unwrap()), (&b"hush"[..], &b"t"[..]));
        let asked = served.await.unwrap();
        assert!(asked[0].starts_with("put /latest/api/token") && asked[0].contains("ttl-seconds: 60"));
        assert!(asked[1].contains("x-aws-ec2-metadata-token: the-token"));
        assert!(asked[2].starts_with("get /latest/meta-data/iam/security-credentials/the-role "));
    }

    #[tokio::test]
    async fn one_word_about_this_instance() {
        let (address, served) = service(vec!["the-token".into(), "i-0123\n".into()]).await;
        assert_eq!(metadata(address, "/latest/meta-data/instance-id").await.unwrap(), "i-0123");
        assert!(served.await.unwrap()[1].contains("x-aws-ec2-metadata-token: the-token"));
        let (address, _served) = service(vec!["t".into(), "two\nlines".into()]).await;
        assert!(matches!(metadata(address, "/latest/x").await, Err(ImdsError::NotUnderstood)));
    }

    #[tokio::test]
    async fn a_role_that_is_a_path_is_not_followed() {
        let (address, _served) = service(vec!["t".into(), "../../user-data".into()]).await;
        assert!(matches!(fetch(address).await, Err(ImdsError::NotUnderstood)));
    }
}
