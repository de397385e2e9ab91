//! `casemate`: the released command line. It believes AWS's root and nothing else.

use std::process::ExitCode;

use casemate_client::Roots;
use casemate_memory::Heap;

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

fn main() -> ExitCode {
    casemate_client::cli::main(Roots::released())
}
