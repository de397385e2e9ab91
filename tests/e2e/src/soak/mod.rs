//! The long run: a node under half of the load that it can carry, looked at all the while, and a judge who finds what grows.

pub mod judge;
pub mod load;
pub mod run;

pub use judge::{Finding, Sample};
pub use run::{Options, Report, run};
