//! `casemate` with a development root: believes the root that `CASEMATE_DEV_ROOT` names, and nothing else.

use std::process::ExitCode;

use casemate_attestation::TrustAnchor;
use casemate_client::Roots;
use casemate_memory::Heap;

/// musl's own gives memory back to the kernel so eagerly that a request costs system calls (`docs/decisions/0009`); its copies of memory
/// are replaced with it (`docs/decisions/0022`).
#[global_allocator]
static ALLOCATOR: Heap = Heap;

#[expect(clippy::print_stderr, reason = "a program's main speaks to its user")]
fn main() -> ExitCode {
    let variable = casemate_dev::ROOT_VARIABLE;
    let anchor = std::env::var_os(variable)
        .ok_or_else(|| format!("{variable} names no file; `. target/dev/env` sets it while `./dev run` is up"))
        .and_then(|path| std::fs::read(&path).map_err(|error| format!("{}: {error}", path.to_string_lossy())))
        .and_then(|der| TrustAnchor::from_der(der).map_err(|error| error.to_string()));
    match anchor {
        Ok(anchor) => casemate_client::cli::main(Roots::of(anchor)),
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::from(2)
        }
    }
}
