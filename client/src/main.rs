//! `casemate`: the released command line. It believes AWS's root and nothing else.

use std::process::ExitCode;

use casemate_client::Roots;

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`).
#[global_allocator]
static ALLOCATOR: dlmalloc::GlobalDlmalloc = dlmalloc::GlobalDlmalloc;

fn main() -> ExitCode {
    casemate_client::cli::main(Roots::released())
}
