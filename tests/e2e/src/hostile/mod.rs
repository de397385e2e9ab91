//! A host that lies: a parent and a store in memory, on the link of a real enclave process with a real stand-in KMS behind it.
//!
//! A [`Host`] speaks the parent's own protocol with the parent's own library and is honest until a test tells it otherwise: it can
//! answer for the store ([`Host::lie`]), break the link ([`Host::misbehave`]), relay elsewhere ([`Host::relay_to`]) and carry any frame
//! to any vault ([`Host::carry`]). An [`Owner`] is the device library over a [`Wire`] that the host has in its hands; a [`Puppet`] is a
//! device made by hand, which also says what no honest device says.

mod door;
mod host;
mod objects;
mod owner;
mod puppet;
mod wire;

pub use door::Misdeed;
pub use host::{Host, Plan};
pub use objects::Objects;
pub use owner::Owner;
pub use puppet::{Puppet, get, put};
pub use wire::{Deed, Wire};
