//! How an enclave fares, told to its parent once a second: for health, metrics and the verdicts that the parent makes of them. A host can
//! write anything in its place, so no device believes it.

use minicbor::{Decode, Encode};

use crate::codec;
use crate::stage::{StageTimes, TOLD_STAGES};

/// Sandbox layers, and reasons, in one [`EnclaveHealth`].
pub const TOLD_WORDS: usize = 64;

/// What the enclave tells of itself. Numbers are since boot unless they are states.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct EnclaveHealth {
    /// Seconds since boot.
    #[n(0)]
    pub uptime_s: u64,
    /// PCR0–PCR2, 144 bytes one after the other.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub measurements: Vec<u8>,
    /// Age of the evidence in use, seconds; absent before the first.
    #[n(2)]
    pub evidence_age_s: Option<u64>,
    /// The sandbox layers in force, by name.
    #[cbor(n(3), with = "codec::AtMost::<TOLD_WORDS>")]
    pub sandbox: Vec<String>,
    /// Vaults.
    #[n(4)]
    pub vaults: VaultNumbers,
    /// The key service.
    #[n(5)]
    pub kms: KmsNumbers,
    /// Memory of the enclave in bytes: total, available.
    #[n(6)]
    pub memory_total: u64,
    /// See `memory_total`.
    #[n(7)]
    pub memory_available: u64,
    /// The cluster id, 32 bytes; absent before configuration.
    #[cbor(n(8), with = "minicbor::bytes")]
    pub cluster: Option<[u8; 32]>,
    /// Whether the node drains.
    #[n(9)]
    pub draining: bool,
    /// Nonfatal conditions, for people, from a fixed vocabulary.
    #[cbor(n(10), with = "codec::AtMost::<TOLD_WORDS>")]
    pub reasons: Vec<String>,
    /// Answers of the object store that were failures.
    #[n(11)]
    pub store_failures: u64,
    /// What was not believed. A host can write a zero here as well as any other number: it tells honest operators.
    #[n(12)]
    #[cbor(default)]
    pub refusals: RefusalNumbers,
    /// The sandbox layers that are not in force: name, colon, reason.
    #[cbor(n(13), with = "codec::AtMost::<TOLD_WORDS>")]
    #[cbor(default)]
    pub sandbox_missing: Vec<String>,
    /// How long the stages of requests took, in the order of [`crate::stage::Stage::ALL`].
    #[cbor(n(14), with = "codec::AtMost::<TOLD_STAGES>", default)]
    pub stages: Vec<StageTimes>,
}

macro_rules! refusal_numbers {
    ($($number:literal $name:ident $text:literal)*) => {
        /// What was refused since boot because somebody lied, or erred in the same way: one number for each kind.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
        #[cbor(map)]
        pub struct RefusalNumbers {
            $(#[doc = $text] #[n($number)] pub $name: u64,)*
        }

        impl RefusalNumbers {
            /// Each number with its name, as health and metrics show them.
            pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name)),*].into_iter()
            }
        }
    };
}

refusal_numbers! {
    0 rollback "A device presented a newer head than the store showed."
    1 fork "A device presented another history than the store showed."
    2 history_unknown "A device presented a head that is older than the kept history."
    3 head_invalid "A head was presented that its vault did not make."
    4 vanished "A vault was not there for a device that says it holds a head of it. Unauthenticated."
    5 lock_turned "A lock key was presented that is not the one of the newest version."
    6 state_corrupt "A stored object or a stored key did not authenticate."
    7 bad_frame "A frame was malformed, forged or replayed."
    8 session_unknown "A frame was for a session that its vault does not know: an eviction, or a frame carried elsewhere."
    9 stranger "A device without a place in the vault asked."
    10 link_broken "The parent broke the rules of the link; the connection was ended."
    11 reconfiguration "Another trust configuration was offered after the first."
}

/// Vaults in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct VaultNumbers {
    /// Open vaults.
    #[n(0)]
    pub resident: u64,
    /// Half-open ones: strangers that have not shown a device key yet.
    #[n(1)]
    pub half_open: u64,
    /// How many may be resident.
    #[n(2)]
    pub limit: u64,
    /// Requests in flight.
    #[n(3)]
    pub in_flight: u64,
    /// Evictions.
    #[n(4)]
    pub evicted: u64,
    /// Cold starts.
    #[n(5)]
    pub opened: u64,
    /// Vault-managers that died by themselves, but not by their sandbox.
    #[n(6)]
    pub crashed: u64,
    /// Vault-managers killed because they did not answer.
    #[n(7)]
    pub stuck: u64,
    /// Requests answered.
    #[n(8)]
    pub requests: u64,
    /// Requests refused by the supervisor.
    #[n(9)]
    pub refused: u64,
    /// Sum of cold start times, microseconds.
    #[n(10)]
    pub open_us: u64,
    /// Vault-managers that made a forbidden system call. A sound one never does: an alarm.
    #[n(11)]
    #[cbor(default)]
    pub sandbox_killed: u64,
    /// Vaults of which enough is kept that their next process goes on without a handshake. How much that is would tell the host the size
    /// of a vault that it has pushed out.
    #[n(12)]
    #[cbor(default)]
    pub parked: u64,
}

/// The key service in numbers.
#[derive(Debug, Clone, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct KmsNumbers {
    /// `ok`, `degraded` or `down`.
    #[n(0)]
    pub state: String,
    /// Unsealed shard keys held.
    #[n(1)]
    pub cached: u64,
    /// Cache hits.
    #[n(2)]
    pub hits: u64,
    /// Cache misses.
    #[n(3)]
    pub misses: u64,
    /// Calls made.
    #[n(4)]
    pub calls: u64,
    /// Calls throttled.
    #[n(5)]
    pub throttled: u64,
    /// Calls failed otherwise.
    #[n(6)]
    pub failures: u64,
    /// The last call's time, milliseconds.
    #[n(7)]
    pub latency_ms: u64,
    /// Answers that the key service cannot have given, and stored shard keys that cannot be any; failures too.
    #[n(8)]
    #[cbor(default)]
    pub forged: u64,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::CONTROL_BYTES;
    use crate::stage::TOLD_BUCKETS;

    fn is_read(health: &EnclaveHealth) -> bool {
        codec::decode::<EnclaveHealth>(&codec::encode(health), CONTROL_BYTES).is_ok()
    }

    /// Attack stopped: a list of the smallest entries, each of which costs many times its byte.
    #[test]
    fn lists_have_limits() {
        let words = |sandbox, reasons, missing| {
            let words = |count| vec![String::new(); count];
            EnclaveHealth {
                sandbox: words(sandbox),
                reasons: words(reasons),
                sandbox_missing: words(missing),
                ..EnclaveHealth::default()
            }
        };
        assert!(is_read(&words(TOLD_WORDS, TOLD_WORDS, TOLD_WORDS)));
        assert!(!is_read(&words(TOLD_WORDS + 1, 0, 0)) && !is_read(&words(0, TOLD_WORDS + 1, 0)));
        assert!(!is_read(&words(0, 0, TOLD_WORDS + 1)));
        let stages = |stages, buckets| {
            let times = StageTimes { counts: vec![0; buckets], sum_us: 0 };
            EnclaveHealth { stages: vec![times; stages], ..EnclaveHealth::default() }
        };
        assert!(is_read(&stages(TOLD_STAGES, TOLD_BUCKETS)));
        assert!(!is_read(&stages(TOLD_STAGES + 1, 0)) && !is_read(&stages(1, TOLD_BUCKETS + 1)));
    }
}
