use std::collections::VecDeque;
use std::io;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use data_encoding::BASE64;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls::{RootCertStore, ServerConfig};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use serde_json::{Value, json};
use tokio_rustls::TlsAcceptor;

use super::super::evidence::ModuleEvidence;
use super::super::fake_envelope::shape;
use super::super::fakes::{FakeModule, ManualClock};
use super::*;
use crate::outside::{IamCredentials, Stream};

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const HOST: &str = "kms.eu-central-1.amazonaws.com";

/// What the false service does with one request.
#[derive(Clone)]
enum Answer {
    Json(u16, Value),
    Bytes(u16, Vec<u8>),
    /// Never answers.
    Silence,
    /// Hangs up instead.
    HangUp,
}

/// A key service behind TLS behind a relay, all in memory.
struct FakeKms {
    acceptor: TlsAcceptor,
    dials: AtomicUsize,
    requests: Mutex<Vec<(http::request::Parts, Value)>>,
    answers: Mutex<VecDeque<Answer>>,
}

impl std::fmt::Debug for FakeKms {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("FakeKms")
    }
}

#[derive(Debug)]
struct FakeRelay(Arc<FakeKms>);

impl Relay for FakeRelay {
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, io::Result<Box<dyn Stream>>> {
        Box::pin(async move {
            assert_eq!((host, port), (HOST, 443));
            self.0.dials.fetch_add(1, Ordering::SeqCst);
            let (ours, theirs) = tokio::io::duplex(16 * 1024);
            tokio::spawn(serve(self.0.clone(), theirs));
            Ok(Box::new(ours) as Box<dyn Stream>)
        })
    }
}

async fn serve(kms: Arc<FakeKms>, stream: tokio::io::DuplexStream) {
    let Ok(stream) = kms.acceptor.accept(stream).await else { return };
    let answer = service_fn(|request: http::Request<hyper::body::Incoming>| {
        let kms = kms.clone();
        async move {
            let (parts, body) = request.into_parts();
            let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
            kms.requests.lock().unwrap().push((parts, serde_json::from_slice(&body).unwrap()));
            let answer = kms.answers.lock().unwrap().pop_front().expect("an answer for each request");
            let (status, bytes) = match answer {
                Answer::Json(status, value) => (status, value.to_string().into_bytes()),
                Answer::Bytes(status, bytes) => (status, bytes),
                Answer::Silence => std::future::pending().await,
                Answer::HangUp => return Err(io::Error::other("told to hang up")),
            };
            let response =
                http::Response::builder().status(status).header("content-type", "application/x-amz-json-1.1");
            Ok(response.body(Full::new(Bytes::from(bytes))).unwrap())
        }
    });
    drop(hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await);
}

struct Rig {
    kms: Arc<FakeKms>,
    module: Arc<FakeModule>,
    recipient: Arc<RecipientKey>,
    credentials: CredentialCell,
    service: AwsKms,
}

/// The client under test, with `answers` waiting for it. Its roots are the false service's or, to test distrust, Amazon's.
fn rig_with(answers: impl IntoIterator<Item = Answer>, trusted: bool) -> Rig {
    let certified = rcgen::generate_simple_self_signed([HOST.to_owned()]).unwrap();
    let certificate: CertificateDer<'static> = certified.cert.der().clone();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der()));
    let mut tls = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.clone()], key)
        .unwrap();
    tls.alpn_protocols = vec![b"http/1.1".to_vec()];
    let kms = Arc::new(FakeKms {
        acceptor: TlsAcceptor::from(Arc::new(tls)),
        dials: AtomicUsize::new(0),
        requests: Mutex::default(),
        answers: Mutex::new(answers.into_iter().collect()),
    });
    let key: KeyArn = ARN.parse().unwrap();
    let mut endpoint = Endpoint::aws(&key);
    if trusted {
        let mut roots = RootCertStore::empty();
        roots.add(certificate).unwrap();
        endpoint.roots = Arc::new(roots);
    }
    let (module, recipient) = (Arc::new(FakeModule::default()), Arc::new(RecipientKey::generate().unwrap()));
    let credentials = CredentialCell::default();
    credentials.set(IamCredentials {
        access_key_id: "AKIDEXAMPLE".to_owned(),
        secret_access_key: Zeroizing::new("secret".to_owned()),
        session_token: Some(Zeroizing::new("session".to_owned())),
    });
    let evidence = ModuleEvidence::new(module.clone(), Arc::new(ManualClock::default()), recipient.clone());
    let service = AwsKms::new(AwsKmsParts {
        key,
        endpoint,
        relay: Arc::new(FakeRelay(kms.clone())),
        credentials: credentials.clone(),
        recipient: recipient.clone(),
        evidence: Arc::new(evidence),
        deadline: Duration::from_millis(500),
    })
    .unwrap();
    Rig { kms, module, recipient, credentials, service }
}

fn rig(answers: impl IntoIterator<Item = Answer>) -> Rig {
    rig_with(answers, true)
}

impl Rig {
    /// A good answer to either operation.
    fn good(&self, secret: u8) -> Value {
        json!({
            "KeyId": ARN,
            "CiphertextBlob": BASE64.encode(b"sealed"),
            "CiphertextForRecipient": BASE64.encode(&shape(&self.recipient, &[secret; 32]).write()),
        })
    }

    fn answer(&self, answer: Answer) {
        self.kms.answers.lock().unwrap().push_back(answer);
    }

    async fn unseal(&self) -> Result<[u8; 32], KeyServiceError> {
        self.service.unseal(&context(), b"sealed").await.map(|key| *key)
    }

    /// The result of one call that is answered with `change`d good JSON.
    async fn with(&self, change: impl FnOnce(&mut Value)) -> Result<[u8; 32], KeyServiceError> {
        let mut value = self.good(7);
        change(&mut value);
        self.answer(Answer::Json(200, value));
        self.unseal().await
    }
}

fn context() -> KeyContext {
    KeyContext { cluster_id: "cc".repeat(32), shard: "ab".to_owned(), generation: 3 }
}

#[tokio::test]
async fn asks_as_the_design_says_and_opens_the_answer() {
    let rig = rig([]);
    rig.answer(Answer::Json(200, rig.good(0x42)));
    rig.answer(Answer::Json(200, rig.good(0x42)));
    let generated = rig.service.generate(&context()).await.unwrap();
    assert_eq!((*generated.plaintext, generated.ciphertext.as_slice()), ([0x42; 32], b"sealed".as_slice()));
    assert_eq!(rig.unseal().await, Ok([0x42; 32]));
    assert_eq!(rig.kms.dials.load(Ordering::SeqCst), 1, "one connection serves both");
    assert_eq!(rig.module.documents(), 1, "and one document");
    let encryption_context = json!({
        "casemate:cluster": "cc".repeat(32), "casemate:shard": "ab", "casemate:generation": "3"
    });
    let recipient = json!({
        "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256", "AttestationDocument": BASE64.encode(b"document 0")
    });
    let requests = rig.kms.requests.lock().unwrap();
    assert_eq!(
        requests[0].1,
        json!({ "KeyId": ARN, "KeySpec": "AES_256", "EncryptionContext": encryption_context, "Recipient": recipient })
    );
    assert_eq!(
        requests[1].1,
        json!({
            "KeyId": ARN, "CiphertextBlob": BASE64.encode(b"sealed"), "EncryptionAlgorithm": "SYMMETRIC_DEFAULT",
            "EncryptionContext": encryption_context, "Recipient": recipient
        })
    );
    for ((parts, _), target) in requests.iter().zip(["TrentService.GenerateDataKey", "TrentService.Decrypt"]) {
        let header = |name: &str| parts.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        assert_eq!((parts.method.as_str(), parts.uri.path()), ("POST", "/"));
        assert_eq!(header("x-amz-target"), target);
        assert_eq!(header("host"), HOST);
        assert_eq!(header("x-amz-security-token"), "session");
        assert!(header("authorization").starts_with("AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/"));
        assert!(header("authorization").contains("/eu-central-1/kms/aws4_request"));
    }
}

#[tokio::test]
async fn answers_that_the_key_service_cannot_give_are_not_believed() {
    let rig = rig([]);
    assert_eq!(rig.with(|_| {}).await, Ok([7; 32]));
    assert_eq!(rig.with(|value| value["Plaintext"] = json!("")).await, Ok([7; 32]), "empty is as good as absent");
    let refused = async |change: fn(&mut Value)| match rig.with(change).await {
        Err(KeyServiceError::NotBelieved(what)) => what,
        other => panic!("believed: {other:?}"),
    };
    assert!(refused(|value| value["Plaintext"] = json!(BASE64.encode(&[7; 32]))).await.contains("Plaintext"));
    assert!(
        refused(|value| value["KeyId"] = json!(ARN.replace("1234abcd-12ab", "1234abcd-12ac"))).await.contains("key")
    );
    assert!(refused(|value| value["KeyId"] = Value::Null).await.contains("key"));
    assert!(refused(|value| value["CiphertextForRecipient"] = Value::Null).await.contains("no Ciphertext"));
    assert!(refused(|value| value["CiphertextForRecipient"] = json!("AAAA")).await.contains("malformed"));
    let other = RecipientKey::generate().unwrap();
    let foreign = BASE64.encode(&shape(&other, &[7; 32]).write());
    let result = rig.with(|value| value["CiphertextForRecipient"] = json!(foreign)).await;
    assert_eq!(result, Err(KeyServiceError::NotBelieved("its CiphertextForRecipient does not open")));
    rig.answer(Answer::Bytes(200, b"<html>".to_vec()));
    assert!(matches!(rig.unseal().await, Err(KeyServiceError::NotBelieved(_))));
    let mut long = rig.good(7);
    long["CiphertextBlob"] = json!(BASE64.encode(&[1; 1_025]));
    rig.answer(Answer::Json(200, long));
    assert!(matches!(rig.service.generate(&context()).await, Err(KeyServiceError::NotBelieved(_))));
}

#[tokio::test]
async fn errors_become_what_they_mean() {
    let rig = rig([]);
    let cases = [
        (400, "ThrottlingException", "throttles"),
        (400, "LimitExceededException", "throttles"),
        (400, "AccessDeniedException", "refused: AccessDeniedException"),
        (400, "DisabledException", "refused: DisabledException"),
        (400, "KMSInvalidStateException", "refused: KMSInvalidStateException"),
        (400, "InvalidCiphertextException", "refused: InvalidCiphertextException"),
        (400, "IncorrectKeyException", "refused: IncorrectKeyException"),
        (400, "NotFoundException", "refused: NotFoundException"),
        (400, "ValidationException", "refused: ValidationException"),
        (500, "KMSInternalException", "unavailable: KMSInternalException"),
        (503, "DependencyTimeoutException", "unavailable: DependencyTimeoutException"),
        (400, "ExpiredTokenException", "unavailable: ExpiredTokenException (the credentials"),
        (400, "InvalidSignatureException", "unavailable: InvalidSignatureException (the credentials"),
        (503, "SomethingNew", "unavailable: SomethingNew"),
    ];
    for (status, code, expected) in cases {
        // KMS's own message is dropped: only the code is told.
        rig.answer(Answer::Json(status, json!({ "__type": code, "message": "details of no interest" })));
        let error = rig.unseal().await.unwrap_err().to_string();
        assert!(error.contains(expected) && !error.contains("details"), "{code}: {error}");
    }
    for status in [403, 502] {
        rig.answer(Answer::Bytes(status, b"<html>from some gateway</html>".to_vec()));
        let error = rig.unseal().await.unwrap_err();
        assert!(matches!(error, KeyServiceError::Unavailable(_)), "{status}: {error}");
    }
    assert_eq!(rig.kms.requests.lock().unwrap().len(), cases.len() + 2, "the SDK repeats nothing by itself");
}

#[tokio::test]
async fn a_refusal_makes_the_next_call_carry_new_evidence() {
    let rig = rig([]);
    rig.answer(Answer::Json(400, json!({ "__type": "ValidationException" })));
    rig.unseal().await.unwrap_err();
    rig.with(|_| {}).await.unwrap();
    assert_eq!(rig.module.documents(), 2);
}

#[tokio::test]
async fn a_host_that_answers_itself_is_not_believed() {
    let rig = rig_with([], false);
    let error = rig.unseal().await.unwrap_err();
    assert!(matches!(&error, KeyServiceError::Unavailable(text) if text.contains("certificate")), "{error}");
    assert!(rig.kms.requests.lock().unwrap().is_empty(), "nothing was sent to it, evidence and credentials included");
}

#[tokio::test]
async fn silence_ends_at_the_deadline() {
    let rig = rig([Answer::Silence]);
    let begun = std::time::Instant::now();
    assert!(matches!(rig.unseal().await, Err(KeyServiceError::Unavailable(_))));
    assert!(begun.elapsed() < Duration::from_secs(5));
    // And the connection that was silent is not used again.
    rig.with(|_| {}).await.unwrap();
    assert_eq!(rig.kms.dials.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn endless_answers_are_cut() {
    let rig = rig([Answer::Bytes(200, vec![b' '; super::super::connector::MAX_BODY + 1])]);
    let error = rig.unseal().await.unwrap_err();
    assert!(matches!(error, KeyServiceError::Unavailable(_)), "{error}");
}

#[tokio::test]
async fn a_connection_that_died_idle_costs_nothing() {
    let rig = rig([]);
    rig.with(|_| {}).await.unwrap();
    // The service hangs up on the second request, which is then sent again on a fresh connection.
    rig.answer(Answer::HangUp);
    assert_eq!(rig.with(|_| {}).await, Ok([7; 32]));
    assert_eq!(rig.kms.dials.load(Ordering::SeqCst), 2);
    // On a fresh connection the same is an answer.
    let rig = self::rig([Answer::HangUp]);
    assert!(matches!(rig.unseal().await, Err(KeyServiceError::Unavailable(_))));
}

#[tokio::test]
async fn without_credentials_nothing_is_sent() {
    let mut rig = rig([]);
    rig.credentials = CredentialCell::default();
    rig.service.credentials = CredentialCell::default();
    let error = rig.unseal().await.unwrap_err();
    assert!(matches!(&error, KeyServiceError::Unavailable(text) if text.contains("credentials")), "{error}");
    assert_eq!(rig.kms.dials.load(Ordering::SeqCst), 0);
}

#[test]
fn an_endpoint_without_roots_or_name_is_refused() {
    let rig = rig([]);
    let parts = |host: &str, roots| AwsKmsParts {
        key: ARN.parse().unwrap(),
        endpoint: Endpoint { host: host.to_owned(), port: 443, roots: Arc::new(roots) },
        relay: Arc::new(FakeRelay(rig.kms.clone())),
        credentials: rig.credentials.clone(),
        recipient: rig.recipient.clone(),
        evidence: rig.service.evidence.clone(),
        deadline: DEFAULT_DEADLINE,
    };
    assert_eq!(AwsKms::new(parts(HOST, RootCertStore::empty())).map(|_| ()), Err(ConnectorSetupError::NoRoots));
    let roots = RootCertStore::clone(&super::super::roots::amazon());
    assert!(matches!(AwsKms::new(parts("no host", roots)).map(|_| ()), Err(ConnectorSetupError::Host(_))));
}
