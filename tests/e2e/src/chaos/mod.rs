//! The fault harness: a load of known writes and reads, a node that is hurt meanwhile, and a judge of what was seen.
//!
//! A run has rounds, a round has a [`plan`]: which parts are hurt, how, and after how many operations. It follows from the seed. The
//! [`run`] keeps a few nodes alive over many rounds and starts again only what was killed. On each, [`subject`]s (vaults, with several
//! sessions and several requests in flight) work through a round while [`strike`] carries out its plan; then everything that there is is
//! read, by the devices and in the [`store`], and [`check`] judges the vault's [`history`] from its first day.

pub mod check;
pub mod dice;
pub mod history;
pub mod plan;
pub mod run;
mod store;
mod strike;
mod subject;

pub use plan::Part;
pub use run::{Failure, Options, Report, run};
