//! The vault-manager's machine with simulated clock, randomness, supervisor and store.

mod golden;
mod harness;
mod heads;
mod operations;
mod properties;
mod versions;
