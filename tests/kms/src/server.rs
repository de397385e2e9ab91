//! The listener: HTTP/1.1 over TLS, one request after another on each connection, every wait bounded.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_attestation::TrustAnchor;
use http::{HeaderName, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use crate::authority::{Authority, AuthorityError, CA_DER};
use crate::cms::Shape;
use crate::control;
use crate::fault::{Faults, Mode};
use crate::policy::{KeyPolicy, PolicyError};
use crate::service::Kms;
use crate::sigv4::{Caller, SignedRequest};
use crate::state::{StateDir, StateError};
use crate::wire::{CONTENT_TYPE, Exception, MAX_BODY_BYTES, Operation};

const MAX_CONNECTIONS: usize = 256;
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Also how long an idle connection is kept.
const HEAD: Duration = Duration::from_mins(1);
const BODY: Duration = Duration::from_secs(10);
const GARBAGE_BYTES: usize = 256;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// What a stand-in is started with.
#[derive(Debug)]
pub struct Settings {
    /// The state directory.
    pub state: PathBuf,
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Names in the server's certificate beside `localhost` and `127.0.0.1`.
    pub names: Vec<String>,
    /// AWS region that is played.
    pub region: String,
    /// AWS account that is played.
    pub account: String,
    /// The key policy, a template.
    pub key_policy: String,
    /// Values of its placeholders.
    pub values: BTreeMap<String, String>,
    /// The root of the evidence that is believed.
    pub anchor: TrustAnchor,
    /// Who may call.
    pub callers: Vec<Caller>,
    /// How envelopes are encoded.
    pub shape: Shape,
    /// The control socket; absent is `control.sock` in the state directory.
    pub control: Option<PathBuf>,
}

/// Why the stand-in did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// The certificate authority.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The key policy.
    #[error(transparent)]
    Policy(#[from] PolicyError),
    /// A listener.
    #[error("cannot listen on {at}: {source}; name another address, or end what listens there")]
    Listen {
        /// Where.
        at: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// A running stand-in. It ends, with all its connections, when this is dropped.
#[derive(Debug)]
pub struct Running {
    address: SocketAddr,
    key_arn: String,
    ca_der: Vec<u8>,
    ca_path: PathBuf,
    control: PathBuf,
    faults: Arc<Faults>,
    tasks: JoinSet<()>,
    _state: StateDir,
}

impl Running {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The ARN of its one key, the same after each start over the same state directory.
    pub fn key_arn(&self) -> &str {
        &self.key_arn
    }

    /// The certificate to trust, DER.
    pub fn ca_der(&self) -> &[u8] {
        &self.ca_der
    }

    /// The file that holds it.
    pub fn ca_path(&self) -> &std::path::Path {
        &self.ca_path
    }

    /// The control socket.
    pub fn control_socket(&self) -> &std::path::Path {
        &self.control
    }

    /// Faults and counts, for tests in the same process.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// Waits until a listener ends, which none does by itself.
    pub async fn wait(&mut self) {
        self.tasks.join_next().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // A stale socket is replaced at the next start; not removing it now only leaves a dead file.
        let _ = std::fs::remove_file(&self.control);
    }
}

/// Starts a stand-in on the current tokio runtime. When this returns, it answers.
///
/// # Errors
/// [`StartError`], each with what to do about it.
pub async fn start(settings: Settings) -> Result<Running, StartError> {
    let policy = KeyPolicy::from_template(&settings.key_policy, &settings.values)?;
    let state = StateDir::open(&settings.state)?;
    let key = state.key(&settings.region, &settings.account)?;
    let authority = Authority::load(&state)?;
    let mut names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    names.extend(settings.names);
    let acceptor = TlsAcceptor::from(authority.server_config(&names)?);

    let listen_error = |at: String| move |source| StartError::Listen { at, source };
    let listener = TcpListener::bind(settings.listen).await.map_err(listen_error(settings.listen.to_string()))?;
    let address = listener.local_addr().map_err(listen_error(settings.listen.to_string()))?;
    let control = settings.control.unwrap_or_else(|| state.path(control::SOCKET));
    let control_listener = control::bind(&control).map_err(listen_error(control.display().to_string()))?;

    let kms = Arc::new(Kms::new(key, policy, settings.anchor, settings.callers));
    let faults = Arc::new(Faults::new(settings.shape));
    let key_arn = kms.key_arn();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept(listener, acceptor, kms, Arc::clone(&faults)));
    tasks.spawn(control::serve(control_listener, Arc::clone(&faults)));
    Ok(Running {
        address,
        key_arn,
        ca_der: authority.certificate().to_vec(),
        ca_path: state.path(CA_DER),
        control,
        faults,
        tasks,
        _state: state,
    })
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, kms: Arc<Kms>, faults: Arc<Faults>) {
    let slots = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let slot = Arc::clone(&slots).acquire_owned().await.expect("the semaphore is never closed");
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                // Out of descriptors, most likely: spinning would not free any.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        let (acceptor, kms, faults) = (acceptor.clone(), Arc::clone(&kms), Arc::clone(&faults));
        connections.spawn(async move {
            let _slot = slot;
            let mut away = faults.away();
            tokio::select! {
                () = connection(stream, acceptor, kms, Arc::clone(&faults)) => {}
                _ = away.wait_for(|away| *away) => {}
            }
        });
    }
}

async fn connection(stream: TcpStream, acceptor: TlsAcceptor, kms: Arc<Kms>, faults: Arc<Faults>) {
    let tls = match timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(tls)) => tls,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS handshake failed"),
        Err(_) => return tracing::debug!("TLS handshake took too long"),
    };
    let answer = service_fn(move |request| {
        let (kms, faults) = (Arc::clone(&kms), Arc::clone(&faults));
        async move { Ok::<_, Infallible>(answer(request, &kms, &faults).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD)
        .serve_connection(TokioIo::new(tls), answer)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "connection ended");
    }
}

async fn answer(request: Request<Incoming>, kms: &Kms, faults: &Faults) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let target = head.headers.get("x-amz-target").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let operation = Operation::from_target(target);
    let plan = faults.plan();

    let result = match read_body(body).await {
        Ok(body) => {
            tokio::time::sleep(plan.delay).await;
            let headers: Vec<(String, String)> = head
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
                .collect();
            let signed = SignedRequest {
                method: head.method.as_str(),
                path_and_query: head.uri.path_and_query().map_or("", |path| path.as_str()),
                headers: &headers,
                body: &body,
            };
            let now_unix = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            kms.answer(operation, &signed, plan, now_unix)
        }
        Err(exception) => Err(exception),
    };
    let (status, outcome, bytes) = match result {
        Ok(_) if plan.mode == Mode::Garbage => (200, "garbage", garbage()),
        Ok(value) => (200, outcome(plan.mode), value.to_string().into_bytes()),
        Err(exception) => (exception.status(), exception.code(), exception.body().to_string().into_bytes()),
    };
    faults.count(operation, outcome);
    tracing::info!(%operation, outcome, status, "answered");
    respond(status, bytes)
}

async fn read_body(body: Incoming) -> Result<Bytes, Exception> {
    match timeout(BODY, Limited::new(body, MAX_BODY_BYTES).collect()).await {
        Ok(Ok(collected)) => Ok(collected.to_bytes()),
        Ok(Err(error)) if error.is::<LengthLimitError>() => Err(Exception::RequestEntityTooLarge),
        Ok(Err(error)) => Err(Exception::Serialization(format!("the body was cut: {error}"))),
        Err(_) => Err(Exception::Serialization(format!("the body did not arrive within {BODY:?}"))),
    }
}

/// The name under which an answer is counted.
fn outcome(mode: Mode) -> &'static str {
    match mode {
        Mode::Plaintext => "plaintext",
        Mode::WrongKeyId => "wrong-key-id",
        Mode::SwapRecipient => "swap-recipient",
        Mode::Healthy | Mode::Throttle | Mode::Fail | Mode::Garbage | Mode::Away => "ok",
    }
}

/// Random bytes behind one that begins no JSON value.
fn garbage() -> Vec<u8> {
    let mut bytes = vec![0xff; GARBAGE_BYTES];
    if getrandom::fill(&mut bytes[1..]).is_err() {
        tracing::warn!("no randomness: the garbage is constant");
    }
    bytes
}

fn respond(status: u16, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut id = [0_u8; 16];
    if getrandom::fill(&mut id).is_err() {
        tracing::warn!("no randomness: the request id is zero");
    }
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let headers = response.headers_mut();
    headers.insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(CONTENT_TYPE));
    if let Ok(id) = http::HeaderValue::from_str(&hex::encode(id)) {
        headers.insert(REQUEST_ID, id);
    }
    response
}
