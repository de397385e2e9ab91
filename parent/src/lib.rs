//! The parent: bridges NATS and the enclave on the EC2 host, and carries what the enclave cannot reach itself (sealed objects, TLS
//! bytes to the key service, logs and numbers).
//!
//! It is not trusted with a secret: everything that passes here is sealed for somebody else. It is trusted to be there.

pub mod admin;
pub mod autoscaling;
pub mod aws;
pub mod blobs;
pub mod bridge;
pub mod check;
pub mod cloudwatch;
pub mod config;
pub mod control;
pub mod diagnosis;
pub mod enclave;
pub mod fuzz;
pub mod health;
pub mod http;
pub mod instance;
pub mod issue;
pub mod log;
pub mod metric;
pub mod nats;
pub mod nitro;
pub mod notify;
pub mod relay;
pub mod run;
pub mod sdk;
pub mod stage;
pub mod state;
pub mod store;
pub mod strangers;
