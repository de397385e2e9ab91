//! A fuzz target: a function over bytes, and the memory that it may take.

use std::sync::OnceLock;

use crate::memory::peak_of;

/// The environment variable that names the target of a fuzzing process.
const VARIABLE: &str = "CASEMATE_FUZZ_TARGET";

/// A function over bytes, and what it may allocate.
#[derive(Debug, Clone, Copy)]
pub struct Target {
    /// Its name, unique among all packages, and its folder's name below `corpus`.
    pub name: &'static str,
    /// Returns whether the bytes were taken; panics when a promise is broken.
    pub run: fn(&[u8]) -> bool,
    /// Bytes that may be allocated at one time for each byte of input.
    pub per_byte: usize,
    /// Bytes that may be allocated at one time whatever the input.
    pub fixed: usize,
}

impl Target {
    /// Runs the target on `bytes`.
    ///
    /// # Panics
    /// When the target does, and when more is allocated at one time than the target may.
    pub fn take(&self, bytes: &[u8]) -> bool {
        let (taken, peak) = peak_of(|| (self.run)(bytes));
        let allowed = self.per_byte * bytes.len() + self.fixed;
        assert!(peak <= allowed, "{}: {} bytes made it allocate {peak}, allowed {allowed}", self.name, bytes.len());
        taken
    }
}

/// The one of `targets` that `CASEMATE_FUZZ_TARGET` names, once for the whole process.
///
/// # Panics
/// When it names none of them.
pub fn chosen(targets: &'static [Target]) -> &'static Target {
    static CHOSEN: OnceLock<&'static Target> = OnceLock::new();
    CHOSEN.get_or_init(|| {
        let name = std::env::var(VARIABLE).unwrap_or_default();
        let found = targets.iter().find(|target| target.name == name);
        found.unwrap_or_else(|| panic!("{VARIABLE} is {name:?} and names no target of this package"))
    })
}
