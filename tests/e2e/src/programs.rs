//! Where the programs under test are.

use std::path::{Path, PathBuf};

/// A program of this project, out of `CASEMATE_BIN_DIR` or beside this test.
///
/// # Panics
/// When it was not built.
pub fn program(name: &str) -> PathBuf {
    let directory = std::env::var_os("CASEMATE_BIN_DIR").map_or_else(beside, PathBuf::from);
    let path = directory.join(name);
    assert!(path.exists(), "{} is not built; `./dev build` builds it", path.display());
    path
}

/// Tests run from `<target>/<triple>/release/deps`; programs are one folder up.
fn beside() -> PathBuf {
    let test = std::env::current_exe().expect("a process has a program");
    test.parent().and_then(Path::parent).expect("tests run from a target folder").to_owned()
}

/// The nats-server, out of `CASEMATE_NATS_SERVER` or the path.
pub fn nats_server() -> PathBuf {
    std::env::var_os("CASEMATE_NATS_SERVER").map_or_else(|| PathBuf::from("nats-server"), PathBuf::from)
}

/// The checkout.
pub fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("this package lies in a checkout")
}
