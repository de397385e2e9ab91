//! Whether the kernel's clock may be believed.
//!
//! Statements, time stamps and certificates are judged by it. The host cannot set it, but it may have kept an enclave from running; the
//! security module has a clock of its own, which is asked before the first evidence and each time that it is renewed. In between, a clock
//! that is set shows by the one that cannot be.

use std::time::Duration;

use crate::outside::{Clock, ModuleError, SecurityModule};

/// How far the two may be apart. Clients bear with five minutes (`client/src/judge.rs`).
const TOLERANCE: Duration = Duration::from_mins(1);

/// What both of the kernel's clocks said at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// Time that only runs.
    pub monotonic: Duration,
    /// Time that can be set, seconds since the Unix epoch.
    pub unix_seconds: u64,
}

impl Moment {
    /// This moment.
    pub fn now(clock: &dyn Clock) -> Self {
        Self { monotonic: clock.monotonic(), unix_seconds: clock.unix_seconds() }
    }

    /// Whether the one was set since then, by more than is borne.
    pub fn has_jumped(&self, clock: &dyn Clock) -> bool {
        let now = Self::now(clock);
        let expected = self.unix_seconds.saturating_add(now.monotonic.saturating_sub(self.monotonic).as_secs());
        now.unix_seconds.abs_diff(expected) > TOLERANCE.as_secs()
    }
}

/// Why the kernel's clock is not believed.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ClockError {
    /// The module did not tell the time.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// They are too far apart.
    #[error(
        "the kernel's clock says {kernel} and the security module's says {module} (seconds since 1970), more than {TOLERANCE:?} apart: \
         was the enclave stopped for long? Start it anew"
    )]
    Apart {
        /// The kernel's.
        kernel: u64,
        /// The module's.
        module: u64,
    },
}

/// Compares the two clocks. Blocks as long as the module does. A platform whose module has no clock has nothing to compare.
///
/// # Errors
/// See [`ClockError`].
pub fn check(module: &dyn SecurityModule, clock: &dyn Clock) -> Result<(), ClockError> {
    let before = clock.unix_seconds();
    let Some(told) = module.unix_ms()? else { return Ok(()) };
    let after = clock.unix_seconds();
    let told = told / 1000;
    // Attack stopped: an enclave that is not run for a day, and then takes what has ended meanwhile for valid. The module was asked
    // between the two readings; how long it took, or for how long we were stopped there, counts for nobody.
    if told.saturating_add(TOLERANCE.as_secs()) < before {
        return Err(ClockError::Apart { kernel: before, module: told });
    }
    if told > after.saturating_add(TOLERANCE.as_secs()) {
        return Err(ClockError::Apart { kernel: after, module: told });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use crate::outside::{EvidenceRequest, Measurements};

    const NOON: u64 = 1_800_000_000;

    #[derive(Debug)]
    struct Told(Option<u64>);

    impl SecurityModule for Told {
        fn measurements(&self) -> Result<Measurements, ModuleError> {
            unreachable!("nobody asks")
        }
        fn attest(&self, _: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
            unreachable!("nobody asks")
        }
        fn extend(&self, _: u16, _: &[u8]) -> Result<Vec<u8>, ModuleError> {
            unreachable!("nobody asks")
        }
        fn lock(&self, _: u16) -> Result<(), ModuleError> {
            unreachable!("nobody asks")
        }
        fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
            Ok(self.0.map(|seconds| seconds * 1000 + 999))
        }
        fn random(&self, _: &mut [u8]) -> Result<(), ModuleError> {
            unreachable!("nobody asks")
        }
    }

    /// Says one thing before the module is asked and the last thing after.
    #[derive(Debug)]
    struct Readings(Mutex<Vec<u64>>);

    impl Clock for Readings {
        fn monotonic(&self) -> Duration {
            unreachable!("nobody asks")
        }
        fn unix_seconds(&self) -> u64 {
            let mut readings = self.0.lock().unwrap();
            if readings.len() > 1 { readings.remove(0) } else { readings[0] }
        }
    }

    fn checked(told: Option<u64>, readings: &[u64]) -> Result<(), (u64, u64)> {
        match check(&Told(told), &Readings(Mutex::new(readings.to_vec()))) {
            Ok(()) => Ok(()),
            Err(ClockError::Apart { kernel, module }) => Err((kernel, module)),
            Err(ClockError::Module(error)) => panic!("{error}"),
        }
    }

    #[test]
    fn a_minute_apart_is_borne_and_no_more() {
        for told in [NOON - 60, NOON, NOON + 60] {
            assert_eq!(checked(Some(told), &[NOON]), Ok(()), "{told}");
        }
        for told in [0, NOON - 61, NOON + 61, u64::MAX / 2000] {
            assert_eq!(checked(Some(told), &[NOON]), Err((NOON, told)), "{told}");
        }
        assert_eq!(checked(None, &[0]), Ok(()));
    }

    #[test]
    fn how_long_the_module_took_is_nobodys_fault() {
        // Asked at noon, answered ten minutes later: it may have looked at its clock at either moment.
        let readings = [NOON, NOON + 600];
        assert_eq!(checked(Some(NOON), &readings), Ok(()));
        assert_eq!(checked(Some(NOON + 600), &readings), Ok(()));
        assert_eq!(checked(Some(NOON - 61), &readings), Err((NOON, NOON - 61)));
        assert_eq!(checked(Some(NOON + 661), &readings), Err((NOON + 600, NOON + 661)));
    }
}
