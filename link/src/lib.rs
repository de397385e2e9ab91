//! The link between the parent and the enclave: one connection, and both ends of it.
//!
//! A connection begins with a [`hello`] that fixes its class and version. From there (relays excepted, which carry raw bytes) a
//! [`Connection`] carries calls, each answered exactly once, and notices, which are not answered. Messages over 64 KiB are cut
//! and interleaved; the sender counts what is in flight and is refused at once beyond the [`Limits`] of the class.
//!
//! Neither end believes the other: every length is checked before memory is spent on it, and the first record that breaks the
//! rules ends the connection, because nothing after it can be believed to be in step.

pub mod address;
pub mod connection;
pub mod hello;
mod queue;
pub mod stream;

pub use address::{Address, Listener, Peer, connect};
pub use connection::{CallError, Caller, CloseReason, Closed, Connection, InFlight, Incoming, Limits, Replier};
pub use hello::{HelloError, accept_hello, answer_hello, dial_hello, negotiate};
pub use stream::{Detached, Stream};
