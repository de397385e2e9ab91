//! `casemate`: the released command line. It believes AWS's root and nothing else.

use std::process::ExitCode;

use casemate_client::Roots;

fn main() -> ExitCode {
    casemate_client::cli::main(Roots::released())
}
