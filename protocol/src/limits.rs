//! Every limit of the protocol in one place. Sizes are bytes unless the name says otherwise.

use std::time::Duration;

/// A secret's value.
pub const SECRET_BYTES: usize = 64 * 1024;
/// A whole vault's sealed state, before padding.
pub const VAULT_BYTES: usize = 4 * 1024 * 1024;
/// Part of [`VAULT_BYTES`] that only revoke, delete and turning the lock key may use.
pub const RESERVED_BYTES: usize = 64 * 1024;
/// A name of a secret, key or device.
pub const NAME_BYTES: usize = 256;
/// A frame on NATS.
pub const FRAME_BYTES: usize = 960 * 1024;
/// The first request inside handshake message 3.
pub const FIRST_REQUEST_BYTES: usize = 32 * 1024;
/// Input of one key operation (message to sign, plaintext to encrypt).
pub const KEY_INPUT_BYTES: usize = 64 * 1024;
/// One evidence document.
pub const EVIDENCE_BYTES: usize = 16 * 1024;
/// The trust configuration.
pub const TRUST_CONFIGURATION_BYTES: usize = 4 * 1024;
/// A nonce for `attest`.
pub const NONCE_BYTES: usize = 64;

/// Plaintext of one Noise transport message, its two-byte position included.
pub const PART_BYTES: usize = 60 * 1024;
/// Messages of one direction of a session before it must be made anew.
pub const SESSION_MESSAGES: u64 = 1 << 20;
/// Age of a session before it must be made anew.
pub const SESSION_AGE: Duration = Duration::from_hours(24);
/// How far counters may arrive out of order.
pub const REPLAY_WINDOW: u64 = 1024;

/// Outcomes that a vault remembers for each device.
pub const OUTCOMES_PER_DEVICE: usize = 64;
/// Mutations that a device may leave unresolved.
pub const UNRESOLVED_PER_DEVICE: usize = 32;
/// An outcome that is kept with its reply; larger ones are kept as "done" and computed again.
pub const OUTCOME_BYTES: usize = 512;
/// Version hashes that the state keeps to tell a fork.
pub const HEAD_HASHES: usize = 1024;
/// Entries of the audit ring.
pub const AUDIT_ENTRIES: usize = 1024;
/// Deltas above one snapshot.
pub const DELTAS_PER_SNAPSHOT: usize = 16;
/// Former revisions kept of one secret.
pub const SECRET_HISTORY: usize = 8;
/// Devices of one vault.
pub const DEVICES: usize = 32;
/// Entries of one page of a list, history or audit reply.
pub const PAGE_ENTRIES: usize = 256;

/// One sealed object: the vault's limit, its padding (one eighth at most) and its header.
pub const OBJECT_BYTES: usize = VAULT_BYTES + VAULT_BYTES / 8 + 64 * 1024;
/// Everything that opening a vault reads: a snapshot and deltas that do not outweigh it by more than one.
pub const LOAD_BYTES: usize = 3 * OBJECT_BYTES;
/// One wrapped vault key object.
pub const WRAPPED_KEY_BYTES: usize = 4 * 1024;

/// The default deadline of a request.
pub const DEADLINE_DEFAULT: Duration = Duration::from_secs(10);
/// The longest deadline that a request may have; longer ones are cut to it.
pub const DEADLINE_MAX: Duration = Duration::from_mins(1);

/// In-flight requests of one link connection, counted by the sender.
pub const WINDOW_REQUESTS: usize = 1024;
/// In-flight bytes of one link connection, counted by the sender.
pub const WINDOW_BYTES: usize = 64 * 1024 * 1024;
/// Payload of one record on the link and on a vault-manager's socket, so that header and payload have at most 64 KiB.
pub const RECORD_BYTES: usize = 64 * 1024 - 13;
