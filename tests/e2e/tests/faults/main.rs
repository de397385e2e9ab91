//! The running system, hurt on purpose: one fault a file, real processes and real signals.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod chaos;
mod gate;
mod kms_away;
mod nats_server_killed;
mod parent_killed;
mod store_failing;
mod store_full;
mod store_slow;
mod supervisor_killed;
mod two_supervisors;
mod vault_manager_killed;
