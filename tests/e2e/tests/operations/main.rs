//! What operators install and do, proved against what we did not write: systemd, emulators of AWS, a shell.
//!
//! `CASEMATE_EMULATORS` names the folder of programs of a Python environment with LocalStack and moto, `CASEMATE_AWS_CLI` an `aws`; `./dev
//! operations --test` makes both. What needs them says aloud that it is skipped when they are not there.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

mod alarms;
mod diagnose;
mod emulator;
mod figures;
mod machine;
mod nats_credentials;
mod runbooks;
mod site;
mod stacks;
mod truth;
mod units;
