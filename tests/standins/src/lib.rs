//! Stand-ins for what only AWS and a real machine have, for tests and the local run and nothing else.
//!
//! No release program depends on this crate; a test reads their dependency trees and their bytes for the words `DEV ONLY`.
//! What it makes is real all the same: development evidence is a COSE_Sign1 document over a P-384 chain and passes through
//! the very code that judges Amazon's. Only its root differs, and release programs do not know that root.

mod authority;
mod clock;
mod countersigned;
mod document;
mod forgery;
mod issuing;
mod module;
mod randomness;

pub use authority::{AuthorityError, DevelopmentAuthority};
pub use clock::{HastenedClock, SimulatedClock};
pub use countersigned::CountersignedModule;
pub use document::SimulatedDocument;
pub use forgery::{Forgery, PayloadField};
pub use issuing::{ChainPlan, Curve, LEAF_LIFETIME_SECONDS, LeafPlan, Validity};
pub use module::SimulatedModule;
pub use randomness::SeededRandomness;
