//! What the development binaries share: the files of a development authority, and the parts of an enclave that believes them.
//!
//! These binaries stand under `tests/` because they believe a root that anybody can make. No release binary depends on this crate.

pub mod circumstances;
pub mod directory;
pub mod enclave;
pub mod settings;

/// Where `casemate-dev` finds the development root.
pub const ROOT_VARIABLE: &str = "CASEMATE_DEV_ROOT";
