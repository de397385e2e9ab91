//! Lets each part of the program begin with a huge page (`casemate_link::move_text`, `docs/decisions/0019`).

fn main() {
    println!("cargo:rustc-link-arg-bins=-Wl,-z,max-page-size=0x200000");
    println!("cargo:rerun-if-changed=build.rs");
}
