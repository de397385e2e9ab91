//! Messages between the parent and the supervisor. The enclave dials the parent, one connection per class; each begins with a
//! [`Hello`] from the dialling side and a [`HelloReply`], so that parent and image can be upgraded apart.
//!
//! Neither side believes the other: the parent is not trusted with secrets, and a broken enclave must not take the parent along.

use minicbor::{Decode, Encode};

use crate::codec;
use crate::error::ErrorCode;
use crate::health::EnclaveHealth;
use crate::id::VaultId;
use crate::limits;
use crate::resident::{VaultInfo, VaultsBy};

/// The oldest link protocol that this build speaks.
pub const LINK_MIN: u16 = 1;
/// The newest link protocol that this build speaks.
pub const LINK_MAX: u16 = 1;
/// A hello and its reply.
pub const HELLO_BYTES: usize = 1024;
/// A message on the control connection.
pub const CONTROL_BYTES: usize = 1024 * 1024;
/// A message on the requests connection: a frame and its address.
pub const REQUEST_BYTES: usize = limits::FRAME_BYTES + 1024;
/// A message on the blobs connection.
pub const BLOB_BYTES: usize = limits::LOAD_BYTES + 64 * 1024;

/// Objects that one [`BlobCall::Delete`] may name.
pub const DELETE_PATHS: usize = 64;
/// Versions, and wrapped keys, in one [`BlobReply::Loaded`]: a snapshot and its deltas.
pub const LOADED_OBJECTS: usize = limits::DELTAS_PER_SNAPSHOT + 1;
/// Versions in one [`BlobReply::Versions`].
pub const TOLD_VERSIONS: usize = 4096;
/// Vaults in one [`ControlReply::Vaults`].
pub const TOLD_VAULTS: usize = 8192;

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum Class {
    /// Configuration, health, credentials, operators' orders; the first connection of a boot.
    #[n(0)]
    Control,
    /// Device traffic.
    #[n(1)]
    Requests,
    /// The object store.
    #[n(2)]
    Blobs,
    /// One TCP connection to an allowed host; after the reply, raw bytes.
    #[n(3)]
    Relay,
}

/// The first message of a connection, from the enclave.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Hello {
    /// Oldest link protocol spoken.
    #[n(0)]
    pub min: u16,
    /// Newest link protocol spoken.
    #[n(1)]
    pub max: u16,
    /// The build, for people.
    #[n(2)]
    pub build: String,
    /// Random, new at each boot: a parent tells by it that the enclave is another one.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub boot_id: [u8; 16],
    /// What the connection is for.
    #[n(4)]
    pub class: Class,
    /// With [`Class::Relay`]: where to.
    #[n(5)]
    pub relay: Option<RelayTarget>,
}

/// Where a relayed connection goes.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RelayTarget {
    /// A DNS name, at most 253 characters.
    #[n(0)]
    pub host: String,
    /// A TCP port.
    #[n(1)]
    pub port: u16,
}

/// The parent's answer to a [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct HelloReply {
    /// The link protocol from here on; absent when the connection is refused.
    #[n(0)]
    pub version: Option<u16>,
    /// The parent's build, for people.
    #[n(1)]
    pub build: String,
    /// Why the connection is refused, for people.
    #[n(2)]
    pub refused: Option<String>,
}

/// Parent to enclave, on the requests connection. Each is answered by exactly one [`RequestReply`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RequestCall {
    /// A device's frame.
    #[n(0)]
    Vault {
        /// The vault, from the subject.
        #[n(0)]
        vault: VaultId,
        /// Milliseconds that are left.
        #[n(1)]
        deadline_ms: u32,
        /// The frame as it came.
        #[cbor(n(2), with = "minicbor::bytes")]
        frame: Vec<u8>,
    },
    /// Somebody asks for fresh evidence.
    #[n(1)]
    Attest {
        /// The asker's nonce, at most 64 bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        nonce: Vec<u8>,
    },
}

/// Enclave to parent, on the requests connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum RequestReply {
    /// The frame to send back.
    #[n(0)]
    Frame(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// Evidence, answering [`RequestCall::Attest`]: an encoded [`AttestReply`].
    #[n(1)]
    Evidence(#[cbor(n(0), with = "minicbor::bytes")] Vec<u8>),
    /// A refusal before any vault was reached; the parent wraps it into a frame.
    #[n(2)]
    Refused(#[n(0)] crate::error::Refusal),
}

/// The request on the `attest` subject.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AttestRequest {
    /// 8–64 bytes, bound by the evidence as its nonce.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: Vec<u8>,
}

/// The answer on the `attest` subject.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct AttestReply {
    /// The platform: 0 is AWS Nitro.
    #[n(0)]
    pub platform: u8,
    /// Evidence over the nonce, the identity key and the cluster.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub evidence: Vec<u8>,
    /// The trust configuration.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub trust_configuration: Vec<u8>,
    /// The node's Ed25519 identity key.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub identity: [u8; 32],
    /// Set instead of the rest (which is then empty) when the node refuses.
    #[n(4)]
    pub refused: Option<crate::error::Refusal>,
}

/// Enclave to parent, on the blobs connection. Each is answered by exactly one [`BlobReply`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum BlobCall {
    /// All that opening a vault needs: the newest snapshot and every version above it, and the wrapped keys.
    #[n(0)]
    Load(#[n(0)] VaultId),
    /// The newest version's object alone.
    #[n(1)]
    Newest(#[n(0)] VaultId),
    /// One object by its path.
    #[n(2)]
    Get {
        /// The path; only below `v1/`.
        #[n(0)]
        path: String,
        /// Larger objects are refused.
        #[n(1)]
        limit: u32,
    },
    /// Creates an object durably, if none has this path.
    #[n(3)]
    Create {
        /// The path.
        #[n(0)]
        path: String,
        /// The object.
        #[cbor(n(1), with = "minicbor::bytes")]
        bytes: Vec<u8>,
    },
    /// Deletes objects, in this order; absent ones count as deleted.
    #[n(4)]
    Delete {
        /// The paths, at most 64.
        #[cbor(n(0), with = "codec::AtMost::<DELETE_PATHS>")]
        paths: Vec<String>,
    },
    /// The versions of a vault that exist, ascending; at most 4,096.
    #[n(5)]
    Versions(#[n(0)] VaultId),
}

/// Parent to enclave, on the blobs connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum BlobReply {
    /// Answers [`BlobCall::Load`].
    #[n(0)]
    Loaded {
        /// Versions ascending, a snapshot and its deltas; empty when there are none.
        #[cbor(n(0), with = "codec::AtMost::<LOADED_OBJECTS>")]
        versions: Vec<VersionObject>,
        /// Wrapped keys, by generation.
        #[cbor(n(1), with = "codec::AtMost::<LOADED_OBJECTS>")]
        keys: Vec<KeyObject>,
    },
    /// Answers [`BlobCall::Newest`].
    #[n(1)]
    Newest(#[n(0)] Option<VersionObject>),
    /// Answers [`BlobCall::Get`].
    #[n(2)]
    Object(#[cbor(n(0), with = "minicbor::bytes")] Option<Vec<u8>>),
    /// Answers [`BlobCall::Create`]: durable and ours.
    #[n(3)]
    Created,
    /// Answers [`BlobCall::Create`]: the store says that one is there.
    #[n(4)]
    Exists,
    /// Answers [`BlobCall::Delete`].
    #[n(5)]
    Deleted,
    /// Answers [`BlobCall::Versions`].
    #[n(6)]
    Versions(#[cbor(n(0), with = "codec::AtMost::<TOLD_VERSIONS>")] Vec<u64>),
    /// The store failed; a put's outcome is unknown. The text is for the enclave's memory only, never logged there.
    #[n(7)]
    Failed(#[n(0)] String),
}

/// One version of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VersionObject {
    /// The version in its name.
    #[n(0)]
    pub version: u64,
    /// The object.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// One wrapped key of a vault.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct KeyObject {
    /// The generation in its name.
    #[n(0)]
    pub generation: u32,
    /// The object.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub bytes: Vec<u8>,
}

/// Parent to enclave, on the control connection. Each is answered by exactly one [`ControlReply`].
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ControlCall {
    /// The first call of a boot. The first trust configuration is kept for good; the tuning may change.
    #[n(0)]
    Configure {
        /// The trust configuration's bytes.
        #[cbor(n(0), with = "minicbor::bytes")]
        trust_configuration: Vec<u8>,
        /// Limits and time-outs.
        #[n(1)]
        tuning: Tuning,
    },
    /// New short-lived IAM credentials.
    #[n(1)]
    Credentials {
        /// AWS access key id.
        #[n(0)]
        access_key_id: String,
        /// AWS secret access key.
        #[n(1)]
        secret_access_key: crate::secret::Secret,
        /// AWS session token.
        #[n(2)]
        session_token: Option<crate::secret::Secret>,
    },
    /// How are you?
    #[n(2)]
    Health,
    /// The resident vaults. An older enclave takes no notice of what is asked and tells them all.
    #[n(3)]
    Vaults {
        /// By what they are put in order; by memory when it is absent.
        #[n(0)]
        by: Option<VaultsBy>,
        /// How many at most; as many as an answer holds when it is absent.
        #[n(1)]
        limit: Option<u32>,
    },
    /// Closes a vault; the next request opens it anew.
    #[n(4)]
    Evict(#[n(0)] VaultId),
    /// Finishes what is in flight, refuses new work, closes all vaults.
    #[n(5)]
    Drain,
}

/// Enclave to parent, on the control connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
pub enum ControlReply {
    /// Done.
    #[n(0)]
    Done,
    /// Answers [`ControlCall::Health`].
    #[n(1)]
    Health(#[n(0)] Box<EnclaveHealth>),
    /// Answers [`ControlCall::Vaults`].
    #[n(2)]
    Vaults(#[cbor(n(0), with = "codec::AtMost::<TOLD_VAULTS>")] Vec<VaultInfo>),
    /// Not done; the text is for people.
    #[n(3)]
    Refused(#[n(0)] ErrorCode, #[n(1)] String),
}

/// Enclave to parent without being asked, on the control connection.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LogRecord {
    /// How bad.
    #[n(0)]
    pub level: LogLevel,
    /// What happened.
    #[n(1)]
    pub event: LogEvent,
    /// A number that belongs to the event (a count, a signal, a generation).
    #[n(2)]
    pub value: Option<u64>,
    /// How many records were dropped before this one, because nobody took them.
    #[n(3)]
    pub dropped: u64,
}

/// How bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Encode, Decode)]
#[cbor(index_only)]
pub enum LogLevel {
    /// Somebody must act.
    #[n(0)]
    Error,
    /// Somebody should know.
    #[n(1)]
    Warn,
    /// It happened.
    #[n(2)]
    Info,
}

macro_rules! log_events {
    ($($number:literal $name:ident $text:literal)*) => {
        /// All that the enclave can say in a log: a fixed vocabulary without free text, so that it cannot be made to log a
        /// secret.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
        #[cbor(index_only)]
        pub enum LogEvent {
            $(#[doc = $text] #[n($number)] $name,)*
        }

        impl LogEvent {
            /// Every event there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The event as people read it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }
        }
    };
}

log_events! {
    0 Booted "the supervisor has booted"
    1 Configured "the trust configuration is locked"
    2 ReconfigureRefused "another trust configuration was offered and refused"
    3 EvidenceRenewed "evidence was renewed"
    4 EvidenceFailed "evidence could not be made"
    5 ManagerCrashed "a vault-manager died; value: signal or exit status"
    6 ManagerSandboxKilled "a vault-manager made a forbidden system call and was killed"
    7 ManagerStuck "a vault-manager did not answer by the deadline and was killed"
    8 VaultEvicted "a vault was evicted"
    9 VaultMoved "another writer owns a vault; its state was dropped"
    10 StoreFailed "the object store failed"
    11 OutcomeUnknown "a write's outcome could not be learnt by its deadline"
    12 KeyServiceThrottled "the key service throttles"
    13 KeyServiceFailed "the key service failed"
    14 KeyServiceRefused "the key service refused this enclave"
    15 KeyServiceForged "a key service answer was not believed"
    16 RollbackDetected "a device presented a newer head than the store showed"
    17 ForkDetected "a device presented another history than the store showed"
    18 StateCorrupt "a stored object did not authenticate"
    19 MemoryPressure "idle vaults are evicted to free memory"
    20 LimitLowered "the limit of vaults was lowered to what the machine allows; value: the limit"
    21 Draining "draining"
    22 CredentialsReceived "IAM credentials were received"
    23 ManagerProtocol "a vault-manager broke the socket's protocol and was killed"
    24 LayerWaived "a sandbox layer was waived by name; value: the layer"
    25 LayerAbsent "a sandbox layer is absent for want of a controller; value: the layer"
    26 ClockDiffers "the kernel's clock and the security module's are too far apart: no evidence is made; start the enclave anew"
    27 ClockJumped "the kernel's clock was set; evidence is made anew"
}

/// Limits and time-outs, from the parent: they can only deny service.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Tuning {
    /// Resident vaults.
    #[n(0)]
    pub vault_limit: u32,
    /// Idle time after which a vault is closed, milliseconds.
    #[n(1)]
    pub idle_ms: u64,
    /// Requests waiting for one vault.
    #[n(2)]
    pub queue_per_vault: u32,
    /// Used share of memory, percent, at which eviction begins.
    #[n(3)]
    pub memory_high_percent: u8,
    /// Used share of memory, percent, at which eviction ends.
    #[n(4)]
    pub memory_low_percent: u8,
    /// How long an unsealed shard key is used before KMS is asked again, milliseconds.
    #[n(5)]
    pub shard_key_ttl_ms: u64,
    /// How long an unsealed shard key is used when KMS does not answer, milliseconds.
    #[n(6)]
    pub shard_key_hard_ms: u64,
    /// Creations per second, node-wide.
    #[n(7)]
    pub creates_per_second: u32,
    /// Evidence requests per second, node-wide.
    #[n(8)]
    pub attests_per_second: u32,
    /// Cold vaults opened per second, node-wide.
    #[n(9)]
    pub opens_per_second: u32,
    /// Old versions kept behind the newest.
    #[n(10)]
    pub versions_kept: u32,
    /// Longest wait for one answer of the object store, milliseconds.
    #[n(11)]
    pub store_timeout_ms: u64,
    /// Memory that one vault-manager may have for data, bytes.
    #[n(12)]
    pub vault_memory_bytes: u64,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            vault_limit: 1000,
            idle_ms: 15 * 60 * 1000,
            queue_per_vault: 64,
            memory_high_percent: 85,
            memory_low_percent: 75,
            shard_key_ttl_ms: 3_600_000,
            shard_key_hard_ms: 6 * 3_600_000,
            creates_per_second: 50,
            attests_per_second: 20,
            opens_per_second: 500,
            versions_kept: 10,
            store_timeout_ms: 5000,
            vault_memory_bytes: 64 * 1024 * 1024,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_read<T: Encode<()> + for<'b> Decode<'b, ()>>(message: &T) -> bool {
        codec::decode::<T>(&codec::encode(message), BLOB_BYTES).is_ok()
    }

    /// Attack stopped: a list of the smallest entries, each of which costs many times its byte.
    #[test]
    fn lists_have_limits() {
        let paths = |count| BlobCall::Delete { paths: vec![String::new(); count] };
        let object = VersionObject { version: 0, bytes: Vec::new() };
        let key = KeyObject { generation: 0, bytes: Vec::new() };
        let loaded = |versions, keys| BlobReply::Loaded {
            versions: vec![object.clone(); versions],
            keys: vec![key.clone(); keys],
        };
        let info = VaultInfo {
            vault: VaultId::from_bytes([1; 20]),
            state: String::new(),
            in_flight: 0,
            idle_ms: 0,
            pid: 0,
            memory_bytes: 0,
            queued: None,
            lately: None,
            latency_us: None,
        };
        let vaults = |count| ControlReply::Vaults(vec![info.clone(); count]);
        assert!(is_read(&paths(DELETE_PATHS)) && !is_read(&paths(DELETE_PATHS + 1)));
        assert!(is_read(&loaded(LOADED_OBJECTS, LOADED_OBJECTS)));
        assert!(!is_read(&loaded(LOADED_OBJECTS + 1, 0)) && !is_read(&loaded(0, LOADED_OBJECTS + 1)));
        assert!(is_read(&BlobReply::Versions(vec![0; TOLD_VERSIONS])));
        assert!(!is_read(&BlobReply::Versions(vec![0; TOLD_VERSIONS + 1])));
        assert!(is_read(&vaults(TOLD_VAULTS)) && !is_read(&vaults(TOLD_VAULTS + 1)));
    }
}
