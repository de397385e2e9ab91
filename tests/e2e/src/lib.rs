//! Starts the real parts as processes and speaks to them as their users do.
//!
//! A [`Node`] is a nats-server, the stand-in KMS, a parent and a development enclave in a directory of its own; a [`Device`] is a
//! `casemate` with a home of its own. Nothing is shared between two nodes, so that tests run beside each other.

pub mod bench;
pub mod captured;
pub mod census;
pub mod chaos;
pub mod device;
pub mod guest;
pub mod hostile;
pub mod http;
pub mod load;
pub mod node;
pub mod owner;
pub mod process;
pub mod programs;
pub mod soak;

pub use casemate_dev::circumstances::Circumstance;
pub use device::{Device, Ran};
pub use node::Node;
