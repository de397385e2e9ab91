//! The supervisor: the enclave's one process with a security module, a link to the parent and keys of shards.
//!
//! ```text
//!  parent ══ requests ══▶ shell ◀──▶ router (pure)          one thread: the hot path
//!                           │  └────▶ managers ═══ vault-manager processes, zygote
//!                           ▼ jobs
//!         ══ blobs ═════▶ store ◀── vault_keys ──▶ keys     the other thread
//!         ══ control ═══▶ control ─▶ configure ──▶ node      (identity, cluster, evidence)
//!         ══ relay ═════▶ relay ◀── keys (KMS over TLS)
//! ```

pub mod backoff;
pub mod configure;
pub mod control;
pub mod deletion;
pub mod dial;
mod habit;
pub mod identity;
pub mod jobs;
pub mod log;
pub mod machine;
pub mod managers;
pub mod memory;
pub mod negative;
pub mod node;
pub mod relay;
pub mod router;
pub mod shell;
pub mod stages;
pub mod store;
pub mod vault_keys;
pub mod wall_clock;

#[cfg(test)]
mod fakes;
