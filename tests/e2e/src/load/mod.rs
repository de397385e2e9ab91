//! Load that does not ask how the node fares: requests at a rate, and what strangers throw at a vault.
//!
//! A [`volley`] is made of requests that were sealed before, and all of it goes by connections that cost next to nothing (`wire.rs`), because
//! what the load itself takes of the machine looks like slowness of the node.

pub mod attack;
mod bystander;
pub mod volley;
mod wire;

pub use attack::{Attack, Flood};
pub use volley::{Answers, Volley, Work};
