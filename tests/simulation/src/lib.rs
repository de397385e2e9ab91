//! The whole system in one thread and in simulated time: what no crash may lose and no bad luck may break, tried on thousands of
//! schedules a minute.
//!
//! What runs here is the product itself: the client's `Vault` with its retries and its record, both ends of the Noise session, the
//! supervisor's router with its commit order, the vault-managers' machine, the cache of shard keys, the wrapping of vault keys, and the
//! check of evidence. What is played is everything around it: the network and the bridge ([`network`]), the object store ([`store`]),
//! the key service ([`kms`]), processes that die ([`node`]), programs that are killed ([`program`]), and time, which jumps from one event
//! to the next ([`time`]).
//!
//! One seed gives one schedule: which parts have trouble ([`weather`]), when, and what the devices do. The same seed gives the same trace,
//! byte for byte. (Noise draws its ephemeral keys from the system, and evidence is signed anew in each process: both make bytes inside
//! sealed frames differ, and no decision depends on these bytes.)
//!
//! What must hold is checked as it happens ([`findings`]) and, at the end, against every object that ever stood in the store
//! ([`history`]).

pub mod dice;
pub mod event;
pub mod evidence;
pub mod findings;
pub mod history;
pub mod kms;
pub mod network;
pub mod node;
pub mod program;
pub mod store;
pub mod tasks;
pub mod time;
pub mod weather;
pub mod world;

pub use findings::Violation;
pub use world::{Report, play, play_told};
