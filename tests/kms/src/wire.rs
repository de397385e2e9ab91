//! The words of the AWS KMS JSON 1.1 API: requests, answers and exceptions, with the real service's limits.

use std::collections::BTreeMap;
use std::fmt;

use data_encoding::BASE64;
use serde::{Deserialize, Deserializer, Serialize};

/// Prefix of `X-Amz-Target`: the real service's internal name.
pub const TARGET_PREFIX: &str = "TrentService.";
/// The media type of requests and answers.
pub const CONTENT_TYPE: &str = "application/x-amz-json-1.1";
/// Largest request body that is read.
pub const MAX_BODY_BYTES: usize = 64 * 1024;
/// Largest `CiphertextBlob` that the API takes.
pub const MAX_BLOB_BYTES: usize = 6_144;
/// Most encryption context pairs taken.
pub const MAX_CONTEXT_PAIRS: usize = 32;
/// Largest encryption context, keys and values together.
pub const MAX_CONTEXT_BYTES: usize = 8_192;
/// Most bytes that GenerateDataKey makes.
pub const MAX_DATA_KEY_BYTES: usize = 1_024;

/// An operation of the API that this stand-in knows by name. The set is closed so that counters stay bounded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs, reason = "the names are the API's own")]
pub enum Operation {
    GenerateDataKey,
    GenerateDataKeyWithoutPlaintext,
    GenerateDataKeyPair,
    Decrypt,
    DescribeKey,
    Encrypt,
    ReEncrypt,
    CreateGrant,
    /// Anything else.
    Unknown,
}

impl Operation {
    /// Reads the value of `X-Amz-Target`.
    pub fn from_target(target: &str) -> Self {
        match target.strip_prefix(TARGET_PREFIX).unwrap_or_default() {
            "GenerateDataKey" => Self::GenerateDataKey,
            "GenerateDataKeyWithoutPlaintext" => Self::GenerateDataKeyWithoutPlaintext,
            "GenerateDataKeyPair" => Self::GenerateDataKeyPair,
            "Decrypt" => Self::Decrypt,
            "DescribeKey" => Self::DescribeKey,
            "Encrypt" => Self::Encrypt,
            "ReEncrypt" => Self::ReEncrypt,
            "CreateGrant" => Self::CreateGrant,
            _ => Self::Unknown,
        }
    }

    /// The actions that the key policy must allow. ReEncrypt needs one on the key it reads from and one on the key it
    /// writes to.
    pub fn actions(self) -> &'static [&'static str] {
        match self {
            Self::GenerateDataKey => &["kms:GenerateDataKey"],
            Self::GenerateDataKeyWithoutPlaintext => &["kms:GenerateDataKeyWithoutPlaintext"],
            Self::GenerateDataKeyPair => &["kms:GenerateDataKeyPair"],
            Self::Decrypt => &["kms:Decrypt"],
            Self::DescribeKey => &["kms:DescribeKey"],
            Self::Encrypt => &["kms:Encrypt"],
            Self::ReEncrypt => &["kms:ReEncryptFrom", "kms:ReEncryptTo"],
            Self::CreateGrant => &["kms:CreateGrant"],
            Self::Unknown => &[],
        }
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// An exception of the API: what the caller reads in `__type` and `message`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the variants are the API's own exceptions; the messages say what each means")]
pub enum Exception {
    #[error("{0}")]
    AccessDenied(String),
    #[error("{0}")]
    MissingAuthenticationToken(String),
    #[error("{0}")]
    IncompleteSignature(String),
    #[error("{0}")]
    InvalidSignature(String),
    #[error("{0}")]
    UnrecognizedClient(String),
    #[error("{0}")]
    Validation(String),
    #[error("{0}")]
    NotFound(String),
    #[error("the ciphertext is not one of this key under this encryption context")]
    InvalidCiphertext,
    #[error("The key ID in the request does not identify a CMK that can perform this operation.")]
    IncorrectKey,
    #[error("this key knows the encryption algorithm SYMMETRIC_DEFAULT only")]
    InvalidKeyUsage,
    #[error("grant tokens are not valid here: the key policy denies CreateGrant")]
    InvalidGrantToken,
    #[error("The request would have succeeded, but the DryRun option is set.")]
    DryRunOperation,
    #[error("the operation is not one of this API, or not one that the stand-in performs")]
    UnknownOperation,
    #[error("the body is not a request of this operation: {0}")]
    Serialization(String),
    #[error("the request is larger than {MAX_BODY_BYTES} bytes")]
    RequestEntityTooLarge,
    #[error("You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls.")]
    Throttling,
    #[error("{0}")]
    KmsInternal(&'static str),
}

impl Exception {
    /// The name under `__type`, which SDKs dispatch on.
    pub fn code(&self) -> &'static str {
        match self {
            Self::AccessDenied(_) => "AccessDeniedException",
            Self::MissingAuthenticationToken(_) => "MissingAuthenticationTokenException",
            Self::IncompleteSignature(_) => "IncompleteSignatureException",
            Self::InvalidSignature(_) => "InvalidSignatureException",
            Self::UnrecognizedClient(_) => "UnrecognizedClientException",
            Self::Validation(_) => "ValidationException",
            Self::NotFound(_) => "NotFoundException",
            Self::InvalidCiphertext => "InvalidCiphertextException",
            Self::IncorrectKey => "IncorrectKeyException",
            Self::InvalidKeyUsage => "InvalidKeyUsageException",
            Self::InvalidGrantToken => "InvalidGrantTokenException",
            Self::DryRunOperation => "DryRunOperationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Serialization(_) => "SerializationException",
            Self::RequestEntityTooLarge => "RequestEntityTooLargeException",
            Self::Throttling => "ThrottlingException",
            Self::KmsInternal(_) => "KMSInternalException",
        }
    }

    /// The HTTP status that the real service sends with it.
    pub fn status(&self) -> u16 {
        match self {
            Self::KmsInternal(_) => 500,
            Self::RequestEntityTooLarge => 413,
            _ => 400,
        }
    }

    /// The body of the answer.
    pub fn body(&self) -> serde_json::Value {
        serde_json::json!({ "__type": self.code(), "message": self.to_string() })
    }
}

/// A blob: base64 in JSON.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        BASE64
            .decode(text.as_bytes())
            .map(Self)
            .map_err(|error| serde::de::Error::custom(format!("a blob is not base64: {error}")))
    }
}

/// Pairs that the ciphertext is bound to, sorted by key.
pub type EncryptionContext = BTreeMap<String, String>;

/// Evidence and how to encrypt to the key in it.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Recipient {
    /// The Nitro attestation document.
    pub attestation_document: Option<Blob>,
    /// `RSAES_OAEP_SHA_256`, the only one there is.
    pub key_encryption_algorithm: Option<String>,
}

/// `GenerateDataKey`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are the API's own")]
pub struct GenerateDataKeyRequest {
    pub key_id: String,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    pub key_spec: Option<String>,
    pub number_of_bytes: Option<usize>,
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    pub recipient: Option<Recipient>,
    #[serde(default)]
    pub dry_run: bool,
}

/// `Decrypt`.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are the API's own")]
pub struct DecryptRequest {
    pub ciphertext_blob: Blob,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    pub key_id: Option<String>,
    pub encryption_algorithm: Option<String>,
    #[serde(default)]
    pub grant_tokens: Vec<String>,
    pub recipient: Option<Recipient>,
    #[serde(default)]
    pub dry_run: bool,
}

/// What an operation that is only judged by policy names: enough for its conditions.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "PascalCase")]
#[allow(missing_docs, reason = "the fields are the API's own")]
pub struct PolicyOnlyRequest {
    pub key_id: Option<String>,
    #[serde(default)]
    pub encryption_context: EncryptionContext,
    pub recipient: Option<Recipient>,
}

/// Checks an encryption context against the API's limits.
///
/// # Errors
/// `ValidationException`.
pub fn check_context(context: &EncryptionContext) -> Result<(), Exception> {
    let bytes: usize = context.iter().map(|(key, value)| key.len() + value.len()).sum();
    if context.len() > MAX_CONTEXT_PAIRS || bytes > MAX_CONTEXT_BYTES {
        return Err(Exception::Validation(format!(
            "the encryption context is larger than {MAX_CONTEXT_PAIRS} pairs or {MAX_CONTEXT_BYTES} bytes"
        )));
    }
    // The real service keeps this prefix for AWS services.
    if context.keys().any(|key| key.is_empty() || key.starts_with("aws:")) {
        return Err(Exception::Validation("an encryption context key is empty or starts with 'aws:'".to_owned()));
    }
    Ok(())
}
