//! One vault as operators see it, and the orders in which they ask for some of them.
//!
//! What is told of a single vault leaves the enclave in buckets: see [`VaultInfo`].

use std::str::FromStr;

use minicbor::{Decode, Encode};

use crate::id::VaultId;

/// What "lately" means in [`VaultInfo`], seconds.
pub const LATELY_S: u64 = 8;

/// One resident vault, for operators. Its id is no secret: it is a NATS subject.
///
/// The host sees each frame of a vault come and go, and so knows when and how often it is used, and how long an answer takes, better
/// than from here. What it does not see is the inside of the enclave. Hence figures are coarse enough to say nothing of a single
/// request: counts and times in powers of two over several seconds, memory in steps of 64 KiB, idle time in whole seconds.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct VaultInfo {
    /// The vault.
    #[n(0)]
    pub vault: VaultId,
    /// `half_open`, `opening`, `open`, `closing`.
    #[n(1)]
    pub state: String,
    /// Requests in flight and waiting.
    #[n(2)]
    pub in_flight: u32,
    /// Milliseconds since the last request, in whole seconds.
    #[n(3)]
    pub idle_ms: u64,
    /// The vault-manager's process id inside the enclave.
    #[n(4)]
    pub pid: u32,
    /// Resident memory, rounded up to 64 KiB; zero while it is not known.
    #[n(5)]
    pub memory_bytes: u64,
    /// Those of `in_flight` that wait for the process.
    #[n(6)]
    pub queued: Option<u32>,
    /// Requests answered lately ([`LATELY_S`]), rounded up to a power of two.
    #[n(7)]
    pub lately: Option<u64>,
    /// Mean time of those inside the enclave, microseconds, rounded up to a power of two.
    #[n(8)]
    pub latency_us: Option<u64>,
}

macro_rules! orders {
    ($($number:literal $name:ident $word:literal $text:literal)*) => {
        /// By what vaults are listed, the largest first: a list may be cut at its end.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
        #[cbor(index_only)]
        pub enum VaultsBy {
            #[default]
            $(#[doc = $text] #[n($number)] $name,)*
        }

        impl VaultsBy {
            /// Every order there is.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The order as operators write it.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$name => $word,)* }
            }
        }
    };
}

orders! {
    0 Memory "memory" "By resident memory."
    1 Rate "rate" "By requests answered lately."
    2 Latency "latency" "By their mean time inside the enclave."
    3 Queue "queue" "By requests in flight and waiting."
    4 Idle "idle" "By idle time: who leaves next."
}

/// There is no such order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("vaults are listed by memory, rate, latency, queue or idle")]
pub struct NoSuchOrder;

impl FromStr for VaultsBy {
    type Err = NoSuchOrder;

    fn from_str(text: &str) -> Result<Self, NoSuchOrder> {
        Self::ALL.iter().copied().find(|by| by.as_str() == text).ok_or(NoSuchOrder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for by in VaultsBy::ALL {
            assert_eq!(by.as_str().parse(), Ok(*by));
            assert!(NoSuchOrder.to_string().contains(by.as_str()));
        }
        assert_eq!("size".parse::<VaultsBy>(), Err(NoSuchOrder));
    }
}
