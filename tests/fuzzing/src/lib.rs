//! What all fuzz targets share.
//!
//! The parsers' own crates say what must hold for any bytes (`protocol/src/fuzz.rs` and its like); the packages `*/fuzz` name
//! these functions as targets, with the memory that each may take; here is the description of a target, the allocator that
//! measures, and the test that replays the corpora. Nothing that ships depends on this crate.

pub mod memory;
mod target;

pub use memory::{Meter, peak_of};
pub use target::{Target, chosen};
