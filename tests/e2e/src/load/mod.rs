//! Load that does not ask how the node fares: requests at a rate, and what strangers throw at a vault.
//!
//! A [`volley`] is made of requests that were sealed before, so that what fires them needs little of the machine that they are fired at.

pub mod attack;
pub mod volley;

pub use attack::{Attack, Flood};
pub use volley::{Answers, Volley, Work};
