//! Lets each part of the program begin with a huge page (`enclave/src/text.rs`, `docs/decisions/0019`).

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,-z,max-page-size=0x200000");
    println!("cargo:rerun-if-changed=build.rs");
}
