//! The enclave: a supervisor that alone speaks with the security module, the key service and the parent, and one sandboxed
//! vault-manager process per user.

pub mod boot;
pub mod fuzz;
pub mod gramine;
pub mod ipc;
pub mod keys;
pub mod manager_socket;
pub mod nsm;
pub mod outside;
pub mod pseudo_files;
pub mod sandbox;
pub mod socket;
pub mod supervisor;
pub mod supervisor_socket;
pub mod system;
mod text;
pub mod tsm;
pub mod vault;
pub mod watch;
pub mod zygote;
