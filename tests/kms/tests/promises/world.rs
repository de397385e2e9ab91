//! A running stand-in, an enclave that can attest itself, and a KMS client.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockDecryptingKey, UnboundCipherKey};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{KeyEncryptionMechanism, RecipientInfo};
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
use aws_smithy_types::body::SdkBody;
use casemate_standin_kms::cms::Shape;
use casemate_standin_kms::sigv4::Caller;
use casemate_standin_kms::{Running, Settings, start};
use casemate_standins::{DevelopmentAuthority, SimulatedDocument};
use http_body_util::{BodyExt, Full};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use zeroize::Zeroizing;

pub(crate) const ACCESS_KEY: &str = "AKIDSTANDIN";
pub(crate) const SECRET_KEY: &str = "a secret of the test";
pub(crate) const TOKEN: &str = "a session token";
pub(crate) const ADMIN_ACCESS_KEY: &str = "AKIDADMIN";
/// The image that the key policy names.
pub(crate) const IMAGE: [[u8; 48]; 3] = [[0xa0; 48], [0xa1; 48], [0xa2; 48]];
const POLICY: &str = include_str!("../../../../deploy/kms-key-policy.json");
const ACCOUNT: &str = "111122223333";

/// A stand-in in a directory that goes with it.
pub(crate) struct World {
    pub(crate) kms: Running,
    pub(crate) authority: Arc<DevelopmentAuthority>,
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let authority = Arc::new(DevelopmentAuthority::new());
        let kms = start(settings(folder.path(), &authority)).await.expect("the stand-in starts");
        Self { kms, authority, folder }
    }

    /// Ends the stand-in and starts it again over the same state.
    pub(crate) async fn restarted(self) -> Self {
        let Self { kms, authority, folder } = self;
        drop(kms);
        // Dropping aborts its tasks; the runtime closes their sockets when it next runs them.
        tokio::task::yield_now().await;
        let kms = start(settings(folder.path(), &authority)).await.expect("the stand-in starts again");
        Self { kms, authority, folder }
    }

    pub(crate) fn client(&self) -> Client {
        self.client_as(ACCESS_KEY, SECRET_KEY, Some(TOKEN))
    }

    pub(crate) fn client_as(&self, access_key: &str, secret_key: &str, token: Option<&str>) -> Client {
        let credentials = Credentials::new(access_key, secret_key, token.map(str::to_owned), None, "test");
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-east-1"))
            .endpoint_url(format!("https://localhost:{}", self.kms.address().port()))
            .credentials_provider(credentials)
            .retry_config(RetryConfig::disabled())
            .http_client(Https::trusting(self.kms.ca_der(), self.kms.address().port()))
            .build();
        Client::from_conf(config)
    }
}

fn settings(folder: &Path, authority: &DevelopmentAuthority) -> Settings {
    let role = |name: &str| format!("arn:aws:iam::{ACCOUNT}:role/{name}");
    let caller = |access_key: &str, principal: &str, token: Option<&str>| Caller {
        access_key: access_key.to_owned(),
        secret_key: Zeroizing::new(SECRET_KEY.to_owned()),
        session_token: token.map(|token| Zeroizing::new(token.to_owned())),
        principal_arn: role(principal),
    };
    let mut values = BTreeMap::from([
        ("ACCOUNT".to_owned(), ACCOUNT.to_owned()),
        ("ENCLAVE_ROLE_ARN".to_owned(), role("casemate-enclave")),
        ("ADMIN_ROLE_ARN".to_owned(), role("casemate-admin")),
    ]);
    for (index, pcr) in IMAGE.iter().enumerate() {
        values.insert(format!("PCR{index}"), hex::encode(pcr));
    }
    Settings {
        state: folder.join("state"),
        listen: ([127, 0, 0, 1], 0).into(),
        names: vec!["kms.us-east-1.amazonaws.com".to_owned()],
        region: "us-east-1".to_owned(),
        account: ACCOUNT.to_owned(),
        key_policy: POLICY.to_owned(),
        values,
        anchor: authority.anchor(),
        callers: vec![
            caller(ACCESS_KEY, "casemate-enclave", Some(TOKEN)),
            caller(ADMIN_ACCESS_KEY, "casemate-admin", None),
        ],
        shape: Shape::Ber,
        control: None,
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// An enclave: its recipient key and the evidence over it.
pub(crate) struct Enclave {
    private: PrivateDecryptingKey,
    pub(crate) document: SimulatedDocument,
}

impl Enclave {
    pub(crate) fn running(image: [[u8; 48]; 3]) -> Self {
        let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("an RSA key");
        let mut document = SimulatedDocument::measuring(image, now() * 1000);
        let public = private.public_key();
        let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&public).expect("a public key encodes");
        document.public_key = Some(spki.as_ref().to_vec());
        Self { private, document }
    }

    pub(crate) fn recipient(&self, authority: &DevelopmentAuthority) -> RecipientInfo {
        recipient(authority.sign(self.document.clone()))
    }

    /// Opens an envelope around 32 bytes in the real service's BER shape, whose layout the unit tests fix. No parser, so that no
    /// parser's tolerance hides a fault.
    pub(crate) fn open(&self, envelope: &[u8]) -> Option<Vec<u8>> {
        let wrapped = envelope.get(131..387)?;
        let iv: [u8; 16] = envelope.get(415..431)?.try_into().ok()?;
        let mut content = envelope.get(435..483)?.to_vec();
        let oaep = OaepPrivateDecryptingKey::new(self.private.clone()).ok()?;
        let mut key = vec![0; oaep.min_output_size()];
        let key = oaep.decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut key, None).ok()?;
        let cipher = PaddedBlockDecryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key).ok()?).ok()?;
        let context = DecryptionContext::Iv128(FixedLength::from(iv));
        cipher.decrypt(&mut content, context).ok().map(|plain| plain.to_vec())
    }
}

pub(crate) fn recipient(evidence: Vec<u8>) -> RecipientInfo {
    RecipientInfo::builder()
        .attestation_document(Blob::new(evidence))
        .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
        .build()
}

/// The encryption context of a shard.
pub(crate) fn context(shard: &str) -> std::collections::HashMap<String, String> {
    [("casemate:cluster", "c".repeat(64).as_str()), ("casemate:shard", shard), ("casemate:generation", "1")]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into()
}

/// The name of the exception in a refusal.
pub(crate) fn exception<T, E>(result: Result<T, SdkError<E, HttpResponse>>) -> String
where
    E: ProvideErrorMetadata,
{
    match result {
        Ok(_) => "none: it was answered".to_owned(),
        Err(error) => error.code().unwrap_or("none: there was no answer").to_owned(),
    }
}

/// HTTPS with one root and one connection per request.
#[derive(Debug, Clone)]
struct Https {
    config: Arc<ClientConfig>,
    port: u16,
}

impl Https {
    fn trusting(root: &[u8], port: u16) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(root.to_vec().into()).expect("the CA is a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("rustls has its defaults")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config: Arc::new(config), port }
    }

    async fn exchange(&self, request: HttpRequest) -> Result<HttpResponse, Box<dyn std::error::Error + Send + Sync>> {
        let (mut parts, body) = request.try_into_http1x()?.into_parts();
        let body = Full::new(Bytes::copy_from_slice(body.bytes().ok_or("a body in memory")?));
        if !parts.headers.contains_key("host") {
            parts.headers.insert("host", format!("localhost:{}", self.port).parse()?);
        }
        parts.uri = "/".parse()?;
        let stream = TcpStream::connect(("127.0.0.1", self.port)).await?;
        let tls = TlsConnector::from(Arc::clone(&self.config));
        let tls = tls.connect(ServerName::try_from("localhost")?, stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(tls)).await?;
        tokio::spawn(connection);
        let (parts, body) = sender.send_request(http::Request::from_parts(parts, body)).await?.into_parts();
        let body = SdkBody::from(body.collect().await?.to_bytes());
        Ok(HttpResponse::try_from(http::Response::from_parts(parts, body))?)
    }
}

impl HttpClient for Https {
    fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
        SharedHttpConnector::new(self.clone())
    }
}

impl HttpConnector for Https {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let https = self.clone();
        HttpConnectorFuture::new(async move { https.exchange(request).await.map_err(ConnectorError::io) })
    }
}
