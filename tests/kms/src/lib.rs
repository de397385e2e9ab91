//! A stand-in for AWS KMS that is as strict as the real one: no evidence, no key.
//!
//! It speaks the KMS JSON 1.1 API over TLS for one symmetric key. Every request must be signed (SigV4, verified); evidence in
//! `Recipient` must be genuine and fresh; then the key policy that we ship decides, its conditions and denials evaluated as
//! IAM evaluates them. Keys leave as CMS envelopes in the real service's BER shape. Through a control socket it can be told to
//! throttle, fail, delay, lie or go away, and it counts what it answered.
//!
//! The way of a request: [`server`] → [`sigv4`] → [`service`] → [`recipient`] → [`policy`] → [`blob`] → [`cms`].
//!
//! For tests and the local run only. Its certificate authority and the evidence root that it is given are development ones,
//! which release binaries refuse.

pub mod authority;
pub mod blob;
pub mod cms;
pub mod condition;
pub mod control;
pub mod fault;
pub mod policy;
pub mod recipient;
pub mod server;
pub mod service;
pub mod sigv4;
pub mod state;
pub mod wire;

pub use server::{Running, Settings, StartError, start};
