//! One vault, two owners, one store: a model small enough that a checker tries every order of what can happen, where the simulations try
//! many. `tests/eviction.rs` explores it with `stateright` and holds each state against [`Promise`].
//!
//! States and transitions have the code's names, and a change there is a change here:
//!
//! | here | repeats |
//! |---|---|
//! | [`slot`], `router`, `writing` | `casemate_enclave::supervisor::router`: the slot's states, opening, leaving, parking, `late_put` |
//! | [`manager`] | `casemate_enclave::vault::manager` and `entrant`: phases, group commit, heads and reloads |
//! | [`device`] | `casemate_client::vault`: one request after the other, asked again until it is answered |
//! | [`store`] | the object store: create-only, with puts that are unclear, silent, late or adrift |
//!
//! What decides about a write is not repeated but run: [`Commit`](casemate_enclave::supervisor::router::Commit) is the router's own
//! machine. The router as a whole and the vault-manager are not: they hold absolute times, ciphers and numbers that only grow, so that no
//! two of their states are ever the same. The simulations (`enclave/src/supervisor/router/simulation.rs`, `tests/simulation/`) run those.
//!
//! **What can go wrong**, [`Bounds::trouble`] times in one history: a vault-manager crashes or is killed; a supervisor ends with all it has;
//! a put is unclear, never sent, answered with a false "exists", or silent until its write is given up; a read of the store fails or is
//! silent; a deadline ends, and the device asks again while its first attempt goes on, is answered in vain, or is never heard of again.
//! One that comes back from what was parked may find no place, too. **At any time**: an idle vault makes room and is parked, an operator evicts, a request comes to either node, a put lands that outlived its sender.
//!
//! **What stands in for a lease.** One node has none yet, and two nodes over one store do not know of each other. So a resident may be
//! overtaken and still answer. What is promised, and checked here, is less: such a resident answers only devices that have not heard of the
//! newer version (each request carries the newest head that its device has seen), it can never commit, and drops everything when it tries.
//!
//! **What is left out.** Creating and deleting a vault; old versions that are collected; several requests of one device at once, and with
//! them the window of sequence numbers; sessions (a request brings its handshake along, so a replay reaches every process); limits and
//! rates; hosts that lie. Time passes only where the code waits for it.

pub mod device;
pub mod event;
pub mod manager;
pub mod mutation;
pub mod promise;
mod router;
pub mod sign;
pub mod slot;
mod step;
pub mod store;
pub mod world;
mod writing;

pub use device::Operation;
pub use event::{Event, Step};
pub use mutation::Mutation;
pub use promise::Promise;
pub use sign::Sign;
pub use world::{Bounds, World};
