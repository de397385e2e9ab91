//! The link between the parent and the enclave: one connection, and both ends of it.
//!
//! A connection begins with a [`hello`] that fixes its class and version. From there (relays excepted, which carry raw bytes) a
//! [`Connection`] carries calls, each answered exactly once, and notices, which are not answered. Messages over 64 KiB are cut
//! and interleaved; the sender counts what is in flight and is refused at once beyond the [`Limits`] of the class. Devices' requests,
//! the hot path, go over the same records, but their ends have no tasks of their own: [`Exchange`] calls and [`Answers`] answers.
//!
//! Neither end believes the other: every length is checked before memory is spent on it, and the first record that breaks the
//! rules ends the connection, because nothing after it can be believed to be in step.

pub mod address;
mod answers;
mod bucket;
mod busy_poll;
mod calls;
pub mod connection;
pub mod hello;
mod port;
mod queue;
mod scheduling;
pub mod stream;

pub use address::{Address, Listener, Peer, connect};
pub use answers::{Answers, Ticket};
pub use bucket::TokenBucket;
pub use busy_poll::BusyPoll;
pub use calls::{Calls, Ended, Exchange};
pub use connection::{CallError, Caller, CloseReason, Closed, Connection, InFlight, Incoming, Limits, Replier};
pub use hello::{HelloError, accept_hello, answer_hello, dial_hello, negotiate};
pub use scheduling::{SHORT_SLICE_NS, let_run};
pub use stream::{Detached, Stream};
