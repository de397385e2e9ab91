//! Everything outside the enclave's own logic, as small traits: each has one real and one simulated implementation, and the
//! logic never knows which it was given.
//!
//! The real ones live beside the protocol they speak (`nsm`, `kms`, `link`); the simulated ones live under `tests/`, where no
//! release binary can reach them.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use zeroize::Zeroizing;

/// A boxed future, so that the traits below stay object-safe.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// What the platform's security module says of this enclave.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measurements {
    /// PCR0–PCR2, SHA-384 each: the whole image, kernel and boot ramdisk, application.
    pub pcrs: [[u8; 48]; 3],
}

impl Measurements {
    /// A debug-mode Nitro enclave measures as zeros; its memory can be read from the host's console.
    pub fn is_debug(&self) -> bool {
        self.pcrs.iter().any(|pcr| pcr.iter().all(|byte| *byte == 0))
    }
}

/// What evidence shall bind. Sizes as AWS allows them: user data and nonce ≤ 512 bytes, public key ≤ 1,024 bytes.
#[derive(Debug, Clone, Default)]
pub struct EvidenceRequest {
    /// Bound as `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// Bound as `nonce`.
    pub nonce: Option<Vec<u8>>,
    /// Bound as `public_key`.
    pub public_key: Option<Vec<u8>>,
}

/// Why the security module did not do what it was asked.
#[derive(Debug, Clone, thiserror::Error)]
#[error("the security module refused {operation}: {reason}")]
pub struct ModuleError {
    /// The operation, as the platform names it.
    pub operation: &'static str,
    /// The platform's own word for the refusal. Never holds a secret.
    pub reason: String,
}

/// The security module: measures, attests, and hands out hardware randomness. Calls block for milliseconds; callers keep them
/// off the hot thread.
pub trait SecurityModule: Send + Sync + fmt::Debug {
    /// Reads PCR0–PCR2.
    ///
    /// # Errors
    /// [`ModuleError`] when the module cannot be read.
    fn measurements(&self) -> Result<Measurements, ModuleError>;
    /// Signs fresh evidence over `request`; returns the platform's document (COSE_Sign1 on Nitro).
    ///
    /// # Errors
    /// [`ModuleError`], for a field over its limit too.
    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError>;
    /// Extends PCR `index` (16–31 are ours) with `data` and returns its new value.
    ///
    /// # Errors
    /// [`ModuleError`] for a register that is not ours or is locked.
    fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, ModuleError>;
    /// Locks PCR `index` until the enclave ends.
    ///
    /// # Errors
    /// [`ModuleError`] for a register that is not ours.
    fn lock(&self, index: u16) -> Result<(), ModuleError>;
    /// What the module's own clock says, milliseconds since the Unix epoch; none on a platform whose module has no clock.
    ///
    /// # Errors
    /// [`ModuleError`] when the module cannot be asked, or does not tell.
    fn unix_ms(&self) -> Result<Option<u64>, ModuleError>;
    /// Fills `out` with hardware randomness, to be mixed into the kernel's pool.
    ///
    /// # Errors
    /// [`ModuleError`] when the module gives none.
    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError>;
}

/// Time. Monotonic time serves time-outs and caches, Unix time serves expiry; the host's clock is never asked.
pub trait Clock: Send + Sync + fmt::Debug {
    /// Monotonic time since an arbitrary start.
    fn monotonic(&self) -> Duration;
    /// Seconds since the Unix epoch, from the enclave's own kernel clock.
    fn unix_seconds(&self) -> u64;
    /// Ends when `duration` has passed. A clock that is moved by hand and says nothing else waits in real time.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        Box::pin(async move { tokio::time::sleep(duration).await })
    }
}

/// What `future` gives within `duration` of `clock`; nothing when that ends first.
pub async fn within<T>(clock: &dyn Clock, duration: Duration, future: impl Future<Output = T>) -> Option<T> {
    let limit = clock.sleep(duration);
    tokio::select! {
        biased;
        value = future => Some(value),
        () = limit => None,
    }
}

/// Randomness: one getrandom(2) call per request, never a userspace generator (a fork would duplicate it).
pub trait Randomness: Send + Sync + fmt::Debug {
    /// Fills `out` completely or the process ends: there is no safe way on without randomness.
    fn fill(&self, out: &mut [u8]);
}

/// What a shard key is bound to: the KMS encryption context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyContext {
    /// SHA-256 of the trust configuration, lower-case hex (64 characters).
    pub cluster_id: String,
    /// The shard, two lower-case hex digits.
    pub shard: String,
    /// The shard key's generation, decimal.
    pub generation: u32,
}

/// A new shard key as the key service made it.
pub struct GeneratedKey {
    /// The key itself.
    pub plaintext: Zeroizing<[u8; 32]>,
    /// The same key under the key service's master key: what is stored.
    pub ciphertext: Vec<u8>,
}

impl fmt::Debug for GeneratedKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeneratedKey")
            .field("plaintext", &"redacted")
            .field("ciphertext", &self.ciphertext.len())
            .finish()
    }
}

/// Why the key service gave no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyServiceError {
    /// It asked us to slow down (`ThrottlingException`, `LimitExceededException`).
    #[error("the key service throttles")]
    Throttled,
    /// It cannot be reached or is failing; trying later may help.
    #[error("the key service is unavailable: {0}")]
    Unavailable(String),
    /// It refused this enclave, this key or this context (`AccessDeniedException`, `DisabledException`, …); trying again does
    /// not help.
    #[error("the key service refused: {0}")]
    Refused(String),
    /// It answered with something that it must not (another KeyId, a `Plaintext`, a malformed envelope): a host that forges?
    #[error("the key service's answer was not believed: {0}")]
    NotBelieved(&'static str),
}

/// Whether a refusal's code speaks of the ciphertext that was shown, which comes from the host, and not of this enclave or its key.
pub fn speaks_of_the_ciphertext(code: &str) -> bool {
    matches!(code, "InvalidCiphertextException" | "IncorrectKeyException")
}

impl KeyServiceError {
    /// Whether it is a refusal of the ciphertext that was shown: one of another context or key, or none at all.
    pub fn speaks_of_the_ciphertext(&self) -> bool {
        matches!(self, Self::Refused(code) if speaks_of_the_ciphertext(code))
    }
}

/// The key service: makes and unseals shard keys for attested enclaves.
pub trait KeyService: Send + Sync + fmt::Debug {
    /// Makes a new key in `context`.
    fn generate<'a>(&'a self, context: &'a KeyContext) -> BoxFuture<'a, Result<GeneratedKey, KeyServiceError>>;
    /// Unseals `ciphertext`, made by `generate` in the same `context`.
    fn unseal<'a>(
        &'a self,
        context: &'a KeyContext,
        ciphertext: &'a [u8],
    ) -> BoxFuture<'a, Result<Zeroizing<[u8; 32]>, KeyServiceError>>;
}

/// A byte stream to somewhere outside, TLS not included.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Dials TCP through the parent's relay. The parent can read, change, cut and invent every byte: whoever uses the stream ends
/// TLS in it.
pub trait Relay: Send + Sync + fmt::Debug {
    /// Opens a stream to `host:port`, which must be on the parent's allow-list.
    fn dial<'a>(&'a self, host: &'a str, port: u16) -> BoxFuture<'a, std::io::Result<Box<dyn Stream>>>;
}

/// Short-lived IAM credentials, fed by the parent. Not secrets of ours: whoever holds them still needs the attested image.
#[derive(Clone)]
pub struct IamCredentials {
    /// AWS access key id.
    pub access_key_id: String,
    /// AWS secret access key.
    pub secret_access_key: Zeroizing<String>,
    /// AWS session token, for role credentials.
    pub session_token: Option<Zeroizing<String>>,
}

impl fmt::Debug for IamCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("IamCredentials(redacted)")
    }
}

/// What became of a create-only put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is durable and it is ours.
    Created,
    /// The store says that an object is there already; its bytes must be read back before anything is concluded.
    Exists,
}

/// Why the store did not answer. After a failed put its outcome is unknown.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the object store failed: {0}")]
pub struct StoreError(pub String);

/// The blob store, reached through the parent, which is not believed: all that matters is sealed, chained and bound to its name.
pub trait BlobStore: Send + Sync + fmt::Debug {
    /// Reads an object of at most `limit` bytes; `None` when the store says that it is absent.
    fn get<'a>(&'a self, path: &'a str, limit: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>>;
    /// Creates an object durably, if and only if none has this path.
    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>>;
}
