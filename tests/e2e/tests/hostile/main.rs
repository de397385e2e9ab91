//! A hostile host: a parent, a store, a key service and devices that lie, one behaviour a file, each named after the attack.
//!
//! Every attack is refused with its own code, is counted where the enclave counts, and leaves everybody else alone: after it a device
//! with another vault is served as before. `casemate_e2e::hostile` plays the host.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod absurd_tuning;
mod another_trust_configuration;
mod broken_links;
mod cross_vault_frames;
mod earlier_states;
mod false_evidence;
mod false_loads;
mod false_lock_key_copies;
mod false_refusals;
mod flipped_frames;
mod forged_key_services;
mod held_back_writes;
mod malformed_requests;
mod oversize_frames;
mod planted_shard_keys;
mod reordered_and_replayed_frames;
mod requests_out_of_state;
mod requests_over_limits;
mod strangers;
mod swapped_replies;
mod swapped_wrapped_keys;
mod truncated_frames;
mod two_branches;
mod unknown_versions;
mod what_is_refused_is_counted;
