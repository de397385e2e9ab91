//! The vault-manager's machine with simulated clock, randomness, supervisor and store.

mod golden;
pub(crate) mod harness;
mod heads;
mod operations;
mod parking;
mod properties;
mod versions;
