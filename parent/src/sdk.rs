//! How this process speaks to AWS's own interfaces: over the HTTP client that the object store uses, with the credentials that are renewed
//! for the enclave anyway.
//!
//! Nothing here retries: whoever calls does so again and again, and knows what may be given up.

use std::sync::Arc;
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{ProvideCredentials, future};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use tokio::sync::watch;

use crate::aws::Newest;

/// Longest wait for a connection, and for a whole call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// See [`CONNECT_TIMEOUT`].
pub const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read; those of the calls made here have a few hundred bytes.
const ANSWER_BYTES: usize = 256 * 1024;

/// AWS cannot be spoken to at all.
#[derive(Debug, thiserror::Error)]
#[error("HTTPS cannot be set up: {0}; are the system's CA certificates installed (package ca-certificates)?")]
pub struct SetupError(#[from] reqwest::Error);

/// Carries an SDK's requests.
#[derive(Debug, Clone)]
pub struct Http(reqwest::Client);

impl Http {
    /// A client of its own: what it sends never waits for objects.
    ///
    /// # Errors
    /// See [`SetupError`].
    pub fn new() -> Result<Self, SetupError> {
        let builder = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(CALL_TIMEOUT)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_max_idle_per_host(1);
        Ok(Self(builder.build()?))
    }
}

impl HttpClient for Http {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Http {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let client = self.0.clone();
        HttpConnectorFuture::new(async move { exchange(&client, request).await })
    }
}

async fn exchange(client: &reqwest::Client, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
    let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
    let (parts, body) = request.into_parts();
    let body = body.bytes().ok_or_else(|| ConnectorError::user("the request's body is not in memory".into()))?;
    let request = http::Request::from_parts(parts, body.to_vec());
    let request = reqwest::Request::try_from(request).map_err(|error| ConnectorError::user(error.into()))?;
    let mut answer = client.execute(request).await.map_err(told)?;
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(told)? {
        if body.len() + chunk.len() > ANSWER_BYTES {
            return Err(ConnectorError::other("the answer is longer than any that belongs here".into(), None));
        }
        body.extend_from_slice(&chunk);
    }
    let mut response = http::Response::builder().status(answer.status());
    for (name, value) in answer.headers() {
        response = response.header(name, value);
    }
    let response = response.body(SdkBody::from(body)).map_err(|error| ConnectorError::other(error.into(), None))?;
    HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
}

fn told(error: reqwest::Error) -> ConnectorError {
    if error.is_timeout() { ConnectorError::timeout(error.into()) } else { ConnectorError::io(error.into()) }
}

/// Gives the SDK the newest credentials there are.
#[derive(Debug, Clone)]
pub struct NewestCredentials(pub watch::Receiver<Newest>);

impl NewestCredentials {
    fn newest(&self) -> Result<Credentials, CredentialsError> {
        let held = self.0.borrow();
        let Some(held) = held.as_ref().map(Arc::clone) else {
            return Err(CredentialsError::not_loaded("the instance's role has given no credentials yet"));
        };
        let text = |secret: &[u8]| String::from_utf8_lossy(secret).into_owned();
        let token = held.session_token.as_ref().map(|token| text(token));
        Ok(Credentials::new(&held.access_key_id, text(&held.secret_access_key), token, None, "casemate-parent"))
    }
}

impl ProvideCredentials for NewestCredentials {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(self.newest())
    }
}

/// What happened, in one line: an SDK's errors keep it in their sources.
pub fn in_one_line(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(deeper) = cause {
        let text = deeper.to_string();
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = deeper.source();
    }
    line.chars().map(|c| if c.is_control() { ' ' } else { c }).take(300).collect()
}
