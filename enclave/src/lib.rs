//! The enclave: a supervisor that alone speaks with the security module, the key service and the parent, and one sandboxed
//! vault-manager process per user.

pub mod ipc;
pub mod outside;

pub mod keys;
