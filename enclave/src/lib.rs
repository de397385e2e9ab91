//! The enclave: a supervisor that alone speaks with the security module, the key service and the parent, and one sandboxed
//! vault-manager process per user.

pub mod boot;
pub mod nsm;
pub mod ipc;
pub mod keys;
pub mod outside;
pub mod supervisor;
pub mod manager_socket;
pub mod sandbox;
pub mod socket;
pub mod supervisor_socket;
pub mod system;
pub mod zygote;
pub mod vault;
pub mod watch;
