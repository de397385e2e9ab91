//! The HTTP pages: for load balancers, for Prometheus, and for whoever wants evidence without NATS.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use casemate_attestation::{Bundle, MAX_BUNDLE_BYTES, Policy, verify};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits;
use casemate_protocol::link::AttestReply;
use casemate_protocol::trust::ClusterId;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use metrics_exporter_prometheus::PrometheusHandle;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::enclave::Enclave;
use crate::health;
use crate::state::NodeState;
use crate::{metric, stage};

/// Connections at the same time.
const CONNECTIONS: usize = 256;
/// Longest wait for a request's head, between requests too.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest life of a connection: load balancers make new ones.
const CONNECTION_TIMEOUT: Duration = Duration::from_mins(10);
/// Longest wait for a request's body and its answer.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
const ATTEST_TIMEOUT: Duration = Duration::from_secs(5);
const BODY_BYTES: usize = 4 * 1024;
const NONCE_MIN_BYTES: usize = 8;
/// Evidence with its collateral, and a policy.
const VERIFY_BODY_BYTES: usize = MAX_BUNDLE_BYTES + 64 * 1024;
/// The longest policy that a stranger may send. Attack stopped: to tell what is wrong with it, the reader of TOML takes up to a thousand times
/// the length of one that is wrong everywhere.
const POLICY_BYTES: usize = 32 * 1024;
/// Verifications at the same time: each takes about a millisecond of a processor, which others need.
const VERIFICATIONS: usize = 2;
const VERIFY_PATH: &str = "/v1/attestation/verify";
const VERIFY_BODY: &str = "Send {\"evidence\": base64, \"certificates\": [base64, …], \"collateral\": {…}, \"policy\": \"TOML\", \"at\": Unix seconds}; \
                           certificates, collateral and at may be left out.";
static VERIFYING: Semaphore = Semaphore::const_new(VERIFICATIONS);

/// What the pages are made of.
#[derive(Clone)]
pub struct Pages {
    /// What is known.
    pub state: Arc<NodeState>,
    /// Who gives evidence.
    pub enclave: Arc<Enclave>,
    /// The numbers.
    pub metrics: PrometheusHandle,
}

impl std::fmt::Debug for Pages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pages").finish_non_exhaustive()
    }
}

type Page = Response<Full<Bytes>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Generate {
    nonce: String,
}

/// What is to be judged by which policy; the rest of the object is the bundle.
#[derive(Deserialize)]
struct Verify {
    policy: String,
    at: Option<u64>,
    #[serde(flatten)]
    bundle: Value,
}

/// Serves until the task is dropped.
pub async fn serve(listener: TcpListener, pages: Pages) {
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let place = Arc::clone(&places).acquire_owned().await;
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "an HTTP connection could not be taken");
                tokio::time::sleep(Duration::from_millis(200)).await;
                continue;
            }
        };
        let pages = pages.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request| {
                let pages = pages.clone();
                async move {
                    let page = tokio::time::timeout(REQUEST_TIMEOUT, pages.page(request)).await;
                    Ok::<_, Infallible>(page.unwrap_or_else(|_| {
                        error(StatusCode::REQUEST_TIMEOUT, "timeout", "the request took too long", "Send it at once.")
                    }))
                }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEADER_TIMEOUT)
                .max_buf_size(16 * 1024)
                .serve_connection(TokioIo::new(stream), service);
            if let Ok(Err(error)) = tokio::time::timeout(CONNECTION_TIMEOUT, connection).await {
                tracing::debug!(%error, "an HTTP connection ended");
            }
            drop(place);
        });
    }
}

/// Binds the address.
///
/// # Errors
/// With the key and the address in the text.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await.map_err(|error| {
        std::io::Error::new(error.kind(), format!("http.listen: {address} cannot be listened at: {error}"))
    })
}

impl Pages {
    async fn page(&self, request: Request<Incoming>) -> Page {
        let path = request.uri().path().to_owned();
        match (request.method(), path.as_str()) {
            (&Method::GET | &Method::HEAD, "/health" | "/vault/health" | "/ready") => self.health(&path),
            (&Method::GET, "/metrics") => {
                metric::verdict(&self.state.observe());
                let mut page = Response::new(Full::from(self.metrics.render() + &stage::render(&self.state.stages())));
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                page.headers_mut().insert(CONTENT_TYPE, kind);
                page
            }
            (&Method::POST, "/v1/attestation/generate") => self.generate(request).await,
            (&Method::POST, VERIFY_PATH) => judge(request).await,
            (_, "/health" | "/vault/health" | "/ready" | "/metrics") => {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this page is read", "Use GET.")
            }
            (_, "/v1/attestation/generate" | VERIFY_PATH) => {
                error(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", "this page is written to", "Use POST.")
            }
            _ => error(
                StatusCode::NOT_FOUND,
                "not_found",
                "there is no such page",
                "There are /health, /vault/health, /ready, /metrics, /v1/attestation/generate and /v1/attestation/verify.",
            ),
        }
    }

    fn health(&self, path: &str) -> Page {
        let observed = self.state.observe();
        let serves = health::verdict(&observed).serves();
        let status = if serves { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        if path == "/ready" {
            return page(status, &json!({ "ready": serves }));
        }
        page(status, &self.state.page())
    }

    async fn generate(&self, request: Request<Incoming>) -> Page {
        let Ok(body) = Limited::new(request.into_body(), BODY_BYTES).collect().await else {
            return error(
                StatusCode::PAYLOAD_TOO_LARGE,
                "too_large",
                "the body has more than 4096 bytes",
                "Send {\"nonce\": \"…\"} with 8 to 64 bytes in base64.",
            );
        };
        let body = body.to_bytes();
        let nonce = serde_json::from_slice::<Generate>(&body)
            .ok()
            .and_then(|asked| BASE64.decode(asked.nonce.as_bytes()).ok())
            .filter(|nonce| (NONCE_MIN_BYTES..=limits::NONCE_BYTES).contains(&nonce.len()));
        let Some(nonce) = nonce else {
            return error(
                StatusCode::BAD_REQUEST,
                "invalid_argument",
                "the body is not a nonce",
                "Send {\"nonce\": \"…\"} with 8 to 64 bytes in base64.",
            );
        };
        match self.enclave.attest(nonce, ATTEST_TIMEOUT).await {
            Ok(AttestReply { refused: Some(refusal), .. }) | Err(refusal) => refused(&refusal),
            Ok(reply) => page(StatusCode::OK, &evidence(&reply)),
        }
    }
}

/// Judges evidence of any platform by the asker's own policy. A convenience: whoever relies on a verdict verifies by himself, because
/// this machine is not trusted.
async fn judge(request: Request<Incoming>) -> Page {
    // Before the body is read, so that those who wait hold no memory.
    let Ok(place) = VERIFYING.try_acquire() else {
        let mut page =
            error(StatusCode::TOO_MANY_REQUESTS, "busy", "others are being judged", "Try again in a second.");
        page.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        return page;
    };
    let Ok(body) = Limited::new(request.into_body(), VERIFY_BODY_BYTES).collect().await else {
        return error(StatusCode::PAYLOAD_TOO_LARGE, "too_large", "the body is larger than any evidence", VERIFY_BODY);
    };
    let body = body.to_bytes();
    let judged = tokio::task::spawn_blocking(move || verdict(&body)).await;
    drop(place);
    judged
        .unwrap_or_else(|_| error(StatusCode::INTERNAL_SERVER_ERROR, "internal", "the verdict was lost", "Try again."))
}

/// A refusal is a verdict too; only what cannot be judged at all is an error.
fn verdict(body: &[u8]) -> Page {
    let invalid = |message: &str| error(StatusCode::BAD_REQUEST, "invalid_argument", message, VERIFY_BODY);
    let Verify { policy, at, bundle } = match serde_json::from_slice(body) {
        Ok(asked) => asked,
        Err(error) => return invalid(&error.to_string()),
    };
    if policy.len() > POLICY_BYTES {
        return invalid(
            "the policy is longer than the 32 KiB that are taken here; judge by it with `casemate attest verify`",
        );
    }
    let policy = match Policy::parse(&policy) {
        Ok(policy) => policy,
        Err(error) => return invalid(&error.to_string()),
    };
    let bundle = match Bundle::from_value(bundle) {
        Ok(bundle) => bundle,
        Err(error) => return invalid(&error.to_string()),
    };
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let at = at.unwrap_or(now);
    page(
        StatusCode::OK,
        &match verify(&bundle.evidence, &bundle.collateral, at, &policy) {
            Ok(claims) => json!({ "verdict": "believed", "at": at, "claims": claims.to_json() }),
            Err(refusal) => json!({ "verdict": "refused", "at": at, "reason": refusal.to_string() }),
        },
    )
}

fn evidence(reply: &AttestReply) -> Value {
    json!({
        "platform": match reply.platform { 0 => "nitro".to_owned(), other => format!("unknown-{other}") },
        "evidence": BASE64.encode(&reply.evidence),
        "trust_configuration": BASE64.encode(&reply.trust_configuration),
        "cluster": ClusterId::of(&reply.trust_configuration).to_string(),
        "identity": hex::encode(reply.identity),
    })
}

fn refused(refusal: &Refusal) -> Page {
    let status = match refusal.code {
        ErrorCode::RateLimited | ErrorCode::Busy => StatusCode::TOO_MANY_REQUESTS,
        ErrorCode::DeadlineExceeded => StatusCode::GATEWAY_TIMEOUT,
        ErrorCode::Internal => StatusCode::BAD_GATEWAY,
        _ => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut page = error(status, refusal.code.as_str(), refusal.code.meaning(), refusal.code.remedy());
    if let Some(ms) = refusal.retry_after_ms {
        page.headers_mut().insert(RETRY_AFTER, HeaderValue::from(ms.div_ceil(1000)));
    }
    page
}

fn error(status: StatusCode, code: &str, message: &str, remedy: &str) -> Page {
    page(status, &json!({ "error": { "code": code, "message": message, "remedy": remedy } }))
}

fn page(status: StatusCode, value: &Value) -> Page {
    let mut page = Response::new(Full::from(value.to_string()));
    *page.status_mut() = status;
    page.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    page.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;

    async fn ask(address: SocketAddr, request: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        (answer[9..12].parse().unwrap(), answer)
    }

    #[tokio::test]
    async fn pages() {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let pages = Pages {
            state: Arc::new(NodeState::new("node-1", ClusterId([0; 32]))),
            enclave: Arc::default(),
            metrics: metric::install().unwrap(),
        };
        let server = tokio::spawn(serve(listener, pages));
        let get = |path: &str| format!("GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
        let post = |body: &str| {
            let path = "/v1/attestation/generate";
            let len = body.len();
            format!("POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {len}\r\n\r\n{body}")
        };
        for path in ["/health", "/vault/health"] {
            let (status, answer) = ask(address, &get(path)).await;
            assert_eq!(status, 503, "a node starts unhealthy");
            assert!(answer.contains("\"status\":\"unhealthy\"") && answer.contains("node-1"));
        }
        assert_eq!(ask(address, &get("/ready")).await.0, 503);
        metrics::counter!("casemate_requests_total", "outcome" => "test").increment(1);
        let (status, answer) = ask(address, &get("/metrics")).await;
        assert!(status == 200 && answer.contains("casemate_requests_total"), "{answer}");
        assert!(answer.contains("# TYPE casemate_stage_seconds histogram"), "{answer}");
        assert_eq!(ask(address, &get("/elsewhere")).await.0, 404);
        assert_eq!(ask(address, &post(r#"{"nonce":"AAAA"}"#)).await.0, 400);
        assert_eq!(ask(address, &post(&"x".repeat(5000))).await.0, 413);
        let (status, answer) = ask(address, &post(r#"{"nonce":"AAAAAAAAAAAAAAAAAAAAAA=="}"#)).await;
        assert!(status == 503 && answer.contains("retry-after: 1"), "{answer}");
        let post = |body: &str| post(body).replace("/generate", "/verify");
        let (status, answer) = ask(address, &post(r#"{"policy":"[nitro]","evidence":"hEA="}"#)).await;
        assert!(status == 200 && answer.contains("\"verdict\":\"refused\"") && answer.contains("COSE"), "{answer}");
        let (status, answer) = ask(address, &post(r#"{"policy":"[nitor]","evidence":""}"#)).await;
        assert!(status == 400 && answer.contains("nitor"), "{answer}");
        let long = format!(r#"{{"policy":"{}","evidence":""}}"#, "[".repeat(POLICY_BYTES + 1));
        let (status, answer) = ask(address, &post(&long)).await;
        assert!(status == 400 && answer.contains("32 KiB"), "{answer}");
        for body in [r#"{"policy":"[nitro]"}"#, r#"{"policy":"[nitro]","evidence":"*"}"#, "{"] {
            assert_eq!(ask(address, &post(body)).await.0, 400, "{body}");
        }
        assert_eq!(ask(address, &get(VERIFY_PATH)).await.0, 405);
        server.abort();
    }
}
