//! The simulated Nitro security module: as strict as the real one, and signed by a development authority.

use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{SystemTime, UNIX_EPOCH};

use casemate_attestation::Pcrs;
use casemate_attestation::nitro::{MAX_BOUND_BYTES, MAX_PUBLIC_KEY_BYTES};
use casemate_enclave::outside::{Clock, EvidenceRequest, Measurements, ModuleError, SecurityModule};
use sha2::{Digest, Sha384};

use crate::{DevelopmentAuthority, SimulatedDocument};

/// PCR0–15 belong to the hypervisor and are locked from the start.
const FIRST_OWN_PCR: u16 = 16;
/// The driver's request buffer: no request is longer, whatever it asks for.
const MAX_REQUEST_BYTES: usize = 4096;

// The real module's words (aws-nitro-enclaves-nsm-api, `ErrorCode`).
const INVALID_INDEX: &str = "InvalidIndex";
const READ_ONLY_INDEX: &str = "ReadOnlyIndex";
const INPUT_TOO_LARGE: &str = "InputTooLarge";
const INTERNAL_ERROR: &str = "InternalError";

/// A security module of an enclave that measures as it was told.
#[derive(Debug)]
pub struct SimulatedModule {
    authority: Arc<DevelopmentAuthority>,
    registers: Mutex<[Register; Pcrs::MAX_COUNT as usize]>,
    clock: Option<Arc<dyn Clock>>,
    offset_seconds: AtomicI64,
    failing: AtomicBool,
}

#[derive(Debug, Clone, Copy)]
struct Register {
    value: [u8; 48],
    locked: bool,
}

impl SimulatedModule {
    /// A module whose PCR0–2 are `measurements`; zeros make it a debug enclave's. It tells the time by the system's clock.
    pub fn new(authority: Arc<DevelopmentAuthority>, measurements: [[u8; 48]; 3]) -> Self {
        let mut registers = [Register { value: [0; 48], locked: false }; Pcrs::MAX_COUNT as usize];
        for (register, value) in registers.iter_mut().zip(measurements) {
            register.value = value;
        }
        for register in &mut registers[..usize::from(FIRST_OWN_PCR)] {
            register.locked = true;
        }
        // PCR4 covers the EC2 instance's id, so it is never zero, not even in debug mode.
        registers[4].value = extended(&[0; 48], &Sha384::digest(b"i-0123456789abcdef0"));
        Self {
            authority,
            registers: Mutex::new(registers),
            clock: None,
            offset_seconds: AtomicI64::new(0),
            failing: AtomicBool::new(false),
        }
    }

    /// Lets it tell the time by `clock` instead.
    #[must_use]
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Sets its clock ahead of (or, negative, behind) everybody else's.
    pub fn set_time_offset(&self, seconds: i64) {
        self.offset_seconds.store(seconds, Ordering::SeqCst);
    }

    /// Makes every call fail, or work again.
    pub fn set_failing(&self, failing: bool) {
        self.failing.store(failing, Ordering::SeqCst);
    }

    /// The value of PCR `index`, if there is one.
    pub fn pcr(&self, index: u16) -> Option<[u8; 48]> {
        self.registers().get(usize::from(index)).map(|register| register.value)
    }

    fn registers(&self) -> MutexGuard<'_, [Register; Pcrs::MAX_COUNT as usize]> {
        self.registers.lock().expect("nobody panics while holding the registers")
    }

    fn working(&self, operation: &'static str) -> Result<(), ModuleError> {
        if self.failing.load(Ordering::SeqCst) { Err(refused(operation, INTERNAL_ERROR)) } else { Ok(()) }
    }

    fn now_unix_ms(&self) -> u64 {
        let now = match &self.clock {
            Some(clock) => clock.unix_seconds().saturating_mul(1000),
            None => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
        };
        now.saturating_add_signed(self.offset_seconds.load(Ordering::SeqCst).saturating_mul(1000))
    }

    /// Does `change` to an own register that is not locked.
    fn change<T>(
        &self,
        operation: &'static str,
        index: u16,
        change: impl FnOnce(&mut Register) -> T,
    ) -> Result<T, ModuleError> {
        self.working(operation)?;
        match self.registers().get_mut(usize::from(index)) {
            None => Err(refused(operation, INVALID_INDEX)),
            Some(register) if register.locked => Err(refused(operation, READ_ONLY_INDEX)),
            Some(register) => Ok(change(register)),
        }
    }
}

fn refused(operation: &'static str, reason: &str) -> ModuleError {
    ModuleError { operation, reason: reason.to_owned() }
}

fn extended(old: &[u8; 48], data: &[u8]) -> [u8; 48] {
    Sha384::new().chain_update(old).chain_update(data).finalize().into()
}

impl SecurityModule for SimulatedModule {
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        self.working("DescribePCR")?;
        let registers = self.registers();
        Ok(Measurements { pcrs: [registers[0].value, registers[1].value, registers[2].value] })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        const OPERATION: &str = "Attestation";
        self.working(OPERATION)?;
        for (bytes, limit) in [
            (&request.user_data, MAX_BOUND_BYTES),
            (&request.nonce, MAX_BOUND_BYTES),
            (&request.public_key, MAX_PUBLIC_KEY_BYTES),
        ] {
            if bytes.as_ref().is_some_and(|bytes| bytes.len() > limit) {
                return Err(refused(OPERATION, INPUT_TOO_LARGE));
            }
        }
        // The document lists the locked registers only: what may still change says nothing.
        let registers = *self.registers();
        let locked = (0..).zip(registers).filter(|(_, register)| register.locked);
        let document = SimulatedDocument {
            pcrs: locked.map(|(index, register)| (index, register.value)).collect(),
            user_data: request.user_data,
            nonce: request.nonce,
            public_key: request.public_key,
            ..SimulatedDocument::measuring([[0; 48]; 3], self.now_unix_ms())
        };
        Ok(self.authority.sign(document))
    }

    fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, ModuleError> {
        const OPERATION: &str = "ExtendPCR";
        if data.len() > MAX_REQUEST_BYTES {
            return Err(refused(OPERATION, INPUT_TOO_LARGE));
        }
        self.change(OPERATION, index, |register| {
            register.value = extended(&register.value, data);
            register.value.to_vec()
        })
    }

    fn lock(&self, index: u16) -> Result<(), ModuleError> {
        self.change("LockPCR", index, |register| register.locked = true)
    }

    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        self.working("Attestation")?;
        Ok(Some(self.now_unix_ms()))
    }

    fn random(&self, out: &mut [u8]) -> Result<(), ModuleError> {
        self.working("GetRandom")?;
        getrandom::fill(out).map_err(|error| refused("GetRandom", &error.to_string()))
    }
}
