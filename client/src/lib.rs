//! The device's side of Casemate: what a phone, a program or the command line needs to own a vault.
//!
//! The core does no I/O and knows no runtime. [`device`] and [`record`] are what a device keeps, [`trust`] and [`judge`] decide
//! whether a node is believed, [`session`] is the machine that turns bytes into bytes, and whose states make it impossible to send
//! a lock key to a vault that was not judged. [`retry`] says when to ask again.
//!
//! Around it stand the parts that own something outside: [`home`] a directory, [`transport`] a NATS connection, [`vault`] the loop
//! that drives a session over a transport, and [`cli`] a terminal.

pub mod cli;
pub mod device;
mod encoding;
pub mod error;
pub mod fuzz;
pub mod home;
pub mod judge;
pub mod lock;
pub mod outside;
pub mod random;
pub mod record;
pub mod retry;
pub mod session;
pub mod transport;
pub mod trust;
pub mod vault;

pub use device::Device;
pub use error::{Explain, Kind, VaultError};
pub use home::Home;
pub use judge::{Distrust, Image, Trusted};
pub use outside::Outside;
pub use record::{Keep, VaultRecord};
pub use transport::{NatsOptions, NatsTransport, Transport, TransportError};
pub use trust::{Roots, Trust};
pub use vault::{Vault, VaultOptions};
