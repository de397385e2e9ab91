//! AWS KMS as the key service: two calls, each carrying evidence, each answer believed only in the one form it must have.
//!
//! What the real service promises and this file insists on: the answer names the pinned key, carries the key in
//! `CiphertextForRecipient` (see [`super::cms`]), and carries no `Plaintext`. A `Plaintext` would mean that whoever answered did not
//! look at the evidence.

use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use aws_sdk_kms::Client;
use aws_sdk_kms::config::retry::RetryConfig;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, IdentityCache, Region, StalledStreamProtectionConfig};
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, EncryptionAlgorithmSpec, KeyEncryptionMechanism, RecipientInfo};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use zeroize::Zeroizing;

use super::SHARD_BLOB_BYTES;
use super::arn::KeyArn;
use super::cms::Envelope;
use super::connector::{ConnectorSetupError, Endpoint, RelayConnector};
use super::credentials::CredentialCell;
use super::evidence::RecipientEvidence;
use super::recipient::RecipientKey;
use crate::outside::{BoxFuture, GeneratedKey, KeyContext, KeyService, KeyServiceError, Relay};

/// How long one call may take in all: evidence, connection, TLS, request and answer.
pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(3);

/// Encryption context: the cluster (SHA-256 of the trust configuration, hex).
pub const CONTEXT_CLUSTER: &str = "casemate:cluster";
/// Encryption context: the shard, two hex digits.
pub const CONTEXT_SHARD: &str = "casemate:shard";
/// Encryption context: the shard key's generation, decimal.
pub const CONTEXT_GENERATION: &str = "casemate:generation";

/// What [`AwsKms`] is made of.
#[derive(Debug, Clone)]
pub struct AwsKmsParts {
    /// The pinned key.
    pub key: KeyArn,
    /// Where KMS is and who vouches for it: [`Endpoint::aws`] everywhere but in development mains.
    pub endpoint: Endpoint,
    /// The way out.
    pub relay: Arc<dyn Relay>,
    /// Where the parent's credentials stand.
    pub credentials: CredentialCell,
    /// The recipient key of this boot.
    pub recipient: Arc<RecipientKey>,
    /// Evidence over that recipient key.
    pub evidence: Arc<dyn RecipientEvidence>,
    /// How long one call may take in all.
    pub deadline: Duration,
}

/// AWS KMS, reached through the relay.
#[derive(Debug)]
pub struct AwsKms {
    client: Client,
    key: KeyArn,
    credentials: CredentialCell,
    recipient: Arc<RecipientKey>,
    evidence: Arc<dyn RecipientEvidence>,
    deadline: Duration,
}

impl AwsKms {
    /// Puts the parts together. Nothing is sent yet.
    ///
    /// # Errors
    /// When the endpoint cannot be used for TLS.
    pub fn new(parts: AwsKmsParts) -> Result<Self, ConnectorSetupError> {
        let AwsKmsParts { key, endpoint, relay, credentials, recipient, evidence, deadline } = parts;
        let connector = RelayConnector::new(relay, &endpoint)?;
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new(key.region().to_owned()))
            .endpoint_url(endpoint.url())
            .http_client(connector)
            .credentials_provider(credentials.clone())
            // The cell always has the newest; a cache would go on with credentials that the parent has replaced.
            .identity_cache(IdentityCache::no_cache())
            // There is one retry policy, the shard key cache's. Two would multiply.
            .retry_config(RetryConfig::disabled())
            .timeout_config(TimeoutConfig::builder().operation_timeout(deadline).build())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .build();
        Ok(Self { client: Client::from_conf(config), key, credentials, recipient, evidence, deadline })
    }

    async fn recipient_info(&self) -> Result<RecipientInfo, KeyServiceError> {
        if !self.credentials.is_set() {
            return Err(KeyServiceError::Unavailable("the parent has fed no IAM credentials yet".to_owned()));
        }
        let document = self.evidence.evidence().await?;
        Ok(RecipientInfo::builder()
            .attestation_document(Blob::new(document))
            .key_encryption_algorithm(KeyEncryptionMechanism::RsaesOaepSha256)
            .build())
    }

    async fn generate_key(&self, context: &KeyContext) -> Result<GeneratedKey, KeyServiceError> {
        let mut call = self.client.generate_data_key().key_id(self.key.as_str()).key_spec(DataKeySpec::Aes256);
        for (name, value) in encryption_context(context) {
            call = call.encryption_context(name, value);
        }
        let answer = call.recipient(self.recipient_info().await?).send().await.map_err(|error| judge(&error))?;
        let plaintext = self.believe(answer.key_id.as_deref(), answer.plaintext, answer.ciphertext_for_recipient)?;
        let ciphertext = answer.ciphertext_blob.map(Blob::into_inner).unwrap_or_default();
        if ciphertext.is_empty() || ciphertext.len() > SHARD_BLOB_BYTES {
            return Err(KeyServiceError::NotBelieved("its ciphertext is absent or longer than 1 KiB"));
        }
        Ok(GeneratedKey { plaintext, ciphertext })
    }

    async fn unseal_key(
        &self,
        context: &KeyContext,
        ciphertext: &[u8],
    ) -> Result<Zeroizing<[u8; 32]>, KeyServiceError> {
        let mut call = self
            .client
            .decrypt()
            .key_id(self.key.as_str())
            .encryption_algorithm(EncryptionAlgorithmSpec::SymmetricDefault)
            .ciphertext_blob(Blob::new(ciphertext));
        for (name, value) in encryption_context(context) {
            call = call.encryption_context(name, value);
        }
        let answer = call.recipient(self.recipient_info().await?).send().await.map_err(|error| judge(&error))?;
        self.believe(answer.key_id.as_deref(), answer.plaintext, answer.ciphertext_for_recipient)
    }

    /// Takes the key out of an answer, if it is one that the key service could have given.
    fn believe(
        &self,
        key_id: Option<&str>,
        plaintext: Option<Blob>,
        envelope: Option<Blob>,
    ) -> Result<Zeroizing<[u8; 32]>, KeyServiceError> {
        // Owned from the first line on, so that it is wiped on each way out: it may be a real key.
        let plaintext = Zeroizing::new(plaintext.map(Blob::into_inner).unwrap_or_default());
        if !plaintext.is_empty() {
            return Err(KeyServiceError::NotBelieved("it carries a Plaintext although evidence was sent"));
        }
        if key_id != Some(self.key.as_str()) {
            return Err(KeyServiceError::NotBelieved("it names another key than the pinned one"));
        }
        let envelope =
            envelope.ok_or(KeyServiceError::NotBelieved("it carries no CiphertextForRecipient"))?.into_inner();
        let envelope = Envelope::parse(&envelope).map_err(|error| {
            // Public bytes only: the reason may be told.
            tracing::warn!(%error, "the key service's envelope was refused");
            KeyServiceError::NotBelieved("its CiphertextForRecipient is malformed")
        })?;
        self.recipient
            .open(&envelope)
            .map_err(|_| KeyServiceError::NotBelieved("its CiphertextForRecipient does not open"))
    }

    /// Runs one call under the whole deadline.
    async fn timed<T>(
        &self,
        call: impl Future<Output = Result<T, KeyServiceError>> + Send,
    ) -> Result<T, KeyServiceError> {
        let result = tokio::time::timeout(self.deadline, call)
            .await
            .unwrap_or_else(|_| Err(KeyServiceError::Unavailable(format!("no answer within {:?}", self.deadline))));
        if matches!(result, Err(KeyServiceError::Refused(_))) {
            self.evidence.forget();
        }
        result
    }
}

impl KeyService for AwsKms {
    fn generate<'a>(&'a self, context: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>> {
        Box::pin(self.timed(self.generate_key(context)))
    }

    fn unseal<'a>(
        &'a self,
        context: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>> {
        Box::pin(self.timed(self.unseal_key(context, ciphertext)))
    }
}

fn encryption_context(context: &KeyContext) -> [(&'static str, String); 3] {
    [
        (CONTEXT_CLUSTER, context.cluster_id.clone()),
        (CONTEXT_SHARD, context.shard.clone()),
        (CONTEXT_GENERATION, context.generation.to_string()),
    ]
}

/// What an SDK error means for us.
fn judge<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> KeyServiceError {
    match error {
        SdkError::ServiceError(refusal) => classify(refusal.err().code(), refusal.raw().status().as_u16()),
        SdkError::TimeoutError(_) => KeyServiceError::Unavailable("no answer by the deadline".to_owned()),
        SdkError::DispatchFailure(failure) => {
            let mut text = "no connection".to_owned();
            let mut cause: Option<&dyn Error> = failure.as_connector_error().map(|error| error as &dyn Error);
            while let Some(error) = cause {
                text = error.to_string();
                cause = error.source();
            }
            KeyServiceError::Unavailable(printable(&text))
        }
        SdkError::ResponseError(response) if response.raw().status().is_server_error() => {
            KeyServiceError::Unavailable(format!("HTTP status {}", response.raw().status().as_u16()))
        }
        SdkError::ResponseError(_) => KeyServiceError::NotBelieved("it is not of the key service's form"),
        // ConstructionFailure, and what later versions add: nothing was sent.
        _ => KeyServiceError::Unavailable("the request could not be made".to_owned()),
    }
}

/// Sorts the service's own error codes (KMS API reference, "Common Errors" and each operation's).
fn classify(code: Option<&str>, status: u16) -> KeyServiceError {
    let Some(code) = code.map(printable).filter(|code| !code.is_empty()) else {
        // Without a code it is not the service's verdict on this enclave, whatever the status: no refusal follows from it.
        return match status {
            429 => KeyServiceError::Throttled,
            400.. => KeyServiceError::Unavailable(format!("HTTP status {status}")),
            _ => KeyServiceError::NotBelieved("it is not of the key service's form"),
        };
    };
    match code.as_str() {
        "ThrottlingException"
        | "Throttling"
        | "LimitExceededException"
        | "RequestLimitExceeded"
        | "TooManyRequestsException" => KeyServiceError::Throttled,
        "DependencyTimeoutException"
        | "KMSInternalException"
        | "KeyUnavailableException"
        | "InternalFailure"
        | "ServiceUnavailable"
        | "ServiceUnavailableException"
        | "RequestTimeout" => KeyServiceError::Unavailable(code),
        // The host's credentials are missing, old or wrong. That says nothing about this enclave's right to its keys, so it
        // counts as an outage: keys in memory serve on until their hard limit.
        "ExpiredToken"
        | "ExpiredTokenException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "SignatureDoesNotMatch"
        | "IncompleteSignature"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "RequestExpired" => KeyServiceError::Unavailable(format!("{code} (the credentials that the parent feeds)")),
        _ if status >= 500 => KeyServiceError::Unavailable(code),
        // AccessDenied, Disabled, NotFound, KMSInvalidState, InvalidCiphertext, IncorrectKey, InvalidKeyUsage, Validation, …
        _ => KeyServiceError::Refused(code),
    }
}

/// Words from outside, fit for one line of a log.
fn printable(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() || *c == ' ').take(160).collect()
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
