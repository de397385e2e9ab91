//! Keys from the key service: how they are asked for, what is believed of the answer, and how long they stay in memory.
//!
//! ```text
//! ShardKeyring (shards) ── cache, single flight, back-off (cache) ──▶ KeyService
//!        │                                                              │
//!        └─ v1/shards/<shard>/<generation> in the blob store            └─ AwsKms (service)
//!                                                                            ├─ evidence over the recipient key (evidence)
//!                                                                            ├─ TLS through the parent's relay (connector, roots)
//!                                                                            └─ CiphertextForRecipient (ber, cms, recipient)
//! ```
//!
//! A shard key never leaves the supervisor. What vaults get is their own key, which stands wrapped under it ([`wrap`]).

pub mod arn;
mod ber;
pub mod cache;
pub mod cms;
pub mod connector;
pub mod credentials;
pub mod evidence;
pub mod ledger;
pub mod recipient;
pub mod roots;
pub mod service;
pub mod shards;
pub mod stored;
pub mod wrap;

#[cfg(test)]
mod fake_envelope;
#[cfg(test)]
mod fakes;

/// The longest key-service ciphertext of a shard key that is kept. Real ones are about 200 bytes.
pub const SHARD_BLOB_BYTES: usize = 1024;
