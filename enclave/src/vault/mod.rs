//! The vault-manager: one user's vault, in a process of its own.
//!
//! A frame comes in, a session opens it, the state machine executes it, a commit seals it, and only when the supervisor has
//! reported the new version durable does the answer go out. Everything but `process` is deterministic: a function of the state,
//! the message and the two seams it is given (clock and randomness).

pub mod audit;
pub mod body;
pub mod chain;
pub mod cipher;
pub mod device;
mod entrant;
pub mod execute;
pub mod keys;
pub mod lock;
pub mod manager;
pub mod open;
pub mod parking;
pub mod process;
pub mod rehearsal;
mod resume;
pub mod ring;
pub mod sessions;
pub mod state;

#[cfg(test)]
mod tests;
