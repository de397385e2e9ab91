//! `casemate-eif`: builds enclave images, describes them, and prints the key policy that they imply.

use std::process::ExitCode;

fn main() -> ExitCode {
    // A panic is a fault of the code: no half-written image may look like a whole one.
    let report = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        report(panic);
        std::process::abort();
    }));
    casemate_eif::cli::run(std::env::args_os())
}
