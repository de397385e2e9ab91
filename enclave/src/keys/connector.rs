//! HTTPS to the key service through the parent's relay: HTTP/1.1 over TLS over a relayed TCP stream.
//!
//! The parent sees ciphertext. It may cut, delay and reorder it, and answer in the service's place; TLS, ended here and
//! verified against the given roots, turns all of that into failed calls. What a call may cost is bounded: the answer's head and
//! body by size, and everything by the deadline of the caller, who drops the future.

use std::error::Error;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;

use super::arn::KeyArn;
use crate::outside::Relay;

/// The longest body of an answer that is read.
pub const MAX_BODY: usize = 64 * 1024;
/// The longest head of an answer that is read.
const MAX_HEAD: usize = 16 * 1024;
/// How long an idle connection is used again. Shorter than the service's own limit, so that it rarely closes one under a request.
const MAX_IDLE: Duration = Duration::from_secs(15);

/// Where the key service is, and who may say that it is it.
#[derive(Clone)]
pub struct Endpoint {
    /// The host name, to which the certificate must belong.
    pub host: String,
    /// The TCP port.
    pub port: u16,
    /// The roots that certificate must chain to.
    pub roots: Arc<RootCertStore>,
}

impl Endpoint {
    /// AWS's own endpoint for `key`'s region, under Amazon's own roots.
    pub fn aws(key: &KeyArn) -> Self {
        Self { host: key.endpoint_host(), port: 443, roots: super::roots::amazon() }
    }

    /// The base address.
    pub(super) fn url(&self) -> String {
        if self.port == 443 { format!("https://{}", self.host) } else { format!("https://{}:{}", self.host, self.port) }
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("roots", &self.roots.len())
            .finish()
    }
}

/// The endpoint cannot be used for TLS.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConnectorSetupError {
    /// Not a host name or an IP address.
    #[error("`{0}` is no host name to which a certificate could belong")]
    Host(String),
    /// No root: nothing could ever be believed.
    #[error("no root certificate is given for the key service's endpoint")]
    NoRoots,
    /// The TLS library refused its own defaults.
    #[error("TLS could not be set up: {0}")]
    Tls(String),
}

/// Sends the key service's HTTP requests through the relay. Keeps one idle connection.
#[derive(Clone)]
pub struct RelayConnector(Arc<Inner>);

struct Inner {
    relay: Arc<dyn Relay>,
    host: String,
    port: u16,
    server_name: ServerName<'static>,
    tls: TlsConnector,
    idle: Mutex<Option<Connection>>,
}

/// One HTTP/1.1 connection. Dropping it ends the task that drives it, whatever the other side does.
struct Connection {
    sender: SendRequest<Full<Bytes>>,
    driver: JoinHandle<()>,
    idle_since: Instant,
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl fmt::Debug for RelayConnector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RelayConnector").field("host", &self.0.host).field("port", &self.0.port).finish_non_exhaustive()
    }
}

impl RelayConnector {
    /// A connector to one endpoint.
    ///
    /// # Errors
    /// When the endpoint cannot be used for TLS.
    pub fn new(relay: Arc<dyn Relay>, endpoint: &Endpoint) -> Result<Self, ConnectorSetupError> {
        let server_name = ServerName::try_from(endpoint.host.clone())
            .map_err(|_| ConnectorSetupError::Host(endpoint.host.clone()))?;
        if endpoint.roots.is_empty() {
            return Err(ConnectorSetupError::NoRoots);
        }
        let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| ConnectorSetupError::Tls(error.to_string()))?
            .with_root_certificates(Arc::clone(&endpoint.roots))
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Inner {
            relay,
            host: endpoint.host.clone(),
            port: endpoint.port,
            server_name,
            tls: TlsConnector::from(Arc::new(config)),
            idle: Mutex::new(None),
        })))
    }
}

impl HttpClient for RelayConnector {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        // Time-outs of parts (connect, first byte) are not needed: one deadline covers the whole call.
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for RelayConnector {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let inner = Arc::clone(&self.0);
        HttpConnectorFuture::new(async move { inner.exchange(request).await })
    }
}

impl Inner {
    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, ConnectorError> {
        let request = self.prepare(request)?;
        // On a connection that was idle the service may have hung up meanwhile. Both operations may be repeated without harm, so a
        // failure there is tried once more on a fresh connection; a failure on a fresh one is an answer.
        if let Some(connection) = self.take_idle()
            && let Ok(response) = self.send(connection, request.clone()).await
        {
            return Ok(response);
        }
        let connection = self.connect().await?;
        self.send(connection, request).await
    }

    /// Makes hyper's request of the SDK's: origin form, and for no other host than ours.
    fn prepare(&self, request: HttpRequest) -> Result<http::Request<Full<Bytes>>, ConnectorError> {
        let request = request.try_into_http1x().map_err(|error| ConnectorError::user(error.into()))?;
        let (mut parts, body) = request.into_parts();
        if parts.uri.host() != Some(self.host.as_str()) || parts.uri.port_u16().unwrap_or(443) != self.port {
            return Err(ConnectorError::user("the request is for another host than the key service".into()));
        }
        let body = body.bytes().ok_or_else(|| ConnectorError::user("the request's body is not in memory".into()))?;
        let body = Full::new(Bytes::copy_from_slice(body));
        if !parts.headers.contains_key(http::header::HOST) {
            let host = parts.uri.authority().map(http::uri::Authority::as_str).unwrap_or_default();
            let host = http::HeaderValue::from_str(host).map_err(|error| ConnectorError::user(error.into()))?;
            parts.headers.insert(http::header::HOST, host);
        }
        parts.uri = match parts.uri.path_and_query() {
            Some(path) => http::Uri::from(path.clone()),
            None => http::Uri::from_static("/"),
        };
        parts.version = http::Version::HTTP_11;
        Ok(http::Request::from_parts(parts, body))
    }

    fn take_idle(&self) -> Option<Connection> {
        let connection = self.idle.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        (connection.idle_since.elapsed() < MAX_IDLE && connection.sender.is_ready()).then_some(connection)
    }

    async fn connect(&self) -> Result<Connection, ConnectorError> {
        let stream = self.relay.dial(&self.host, self.port).await.map_err(io)?;
        let stream = self.tls.connect(self.server_name.clone(), stream).await.map_err(io)?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(MAX_HEAD)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| io_other("HTTP", &error))?;
        let driver = tokio::spawn(async move {
            // Whatever ends it also ends the request that is under way, which tells the caller.
            drop(connection.await);
        });
        Ok(Connection { sender, driver, idle_since: Instant::now() })
    }

    async fn send(
        &self,
        mut connection: Connection,
        request: http::Request<Full<Bytes>>,
    ) -> Result<HttpResponse, ConnectorError> {
        let response = connection.sender.send_request(request).await.map_err(|error| io_other("HTTP", &error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_BODY)
            .collect()
            .await
            .map_err(|error| ConnectorError::io(format!("the answer's body: {error}").into()))?
            .to_bytes();
        connection.idle_since = Instant::now();
        *self.idle.lock().unwrap_or_else(PoisonError::into_inner) = Some(connection);
        let response = http::Response::from_parts(parts, SdkBody::from(body));
        HttpResponse::try_from(response).map_err(|error| ConnectorError::other(error.into(), None))
    }
}

fn io(error: std::io::Error) -> ConnectorError {
    ConnectorError::io(error.into())
}

/// hyper's errors keep what happened in their source: told together, since the caller shows one line.
fn io_other(what: &str, error: &hyper::Error) -> ConnectorError {
    let cause = error.source().map(|cause| format!(": {cause}")).unwrap_or_default();
    ConnectorError::io(format!("{what}: {error}{cause}").into())
}
