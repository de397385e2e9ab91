//! The promises of the running system, one behaviour a file, in one program: linking is what takes the time.

#![allow(clippy::unwrap_used, reason = "a test program")]

mod a_forbidden_call_is_an_alarm;
mod a_stuck_vault_stops_nobody;
mod commands;
mod eviction;
mod kms_is_called_once;
mod large_answers;
mod main_job;
mod managers_are_reaped;
mod operators_see_the_node_at_work;
mod release_binaries;
mod restarts;
mod small_requests_stay_at_home;
