//! What authenticated evidence says, in words that every platform shares.

use std::collections::BTreeMap;
use std::fmt;

/// A SHA-384 measurement: the value of one platform configuration register.
pub type Measurement = [u8; 48];

/// The kind of trusted execution environment that made the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Platform {
    /// An AWS Nitro enclave.
    Nitro,
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nitro => f.write_str("AWS Nitro"),
        }
    }
}

/// The three measurements that name an image.
///
/// PCR0 covers the whole image, PCR1 kernel, command line and first ramdisk, PCR2 the further ramdisks
/// (<https://docs.aws.amazon.com/enclaves/latest/user/set-up-attestation.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MeasurementSet {
    /// The whole image.
    pub pcr0: Measurement,
    /// Kernel, command line and first ramdisk.
    pub pcr1: Measurement,
    /// Further ramdisks: the application.
    pub pcr2: Measurement,
}

impl MeasurementSet {
    /// The measurements with their register's index.
    pub fn indexed(&self) -> [(u8, &Measurement); 3] {
        [(0, &self.pcr0), (1, &self.pcr1), (2, &self.pcr2)]
    }

    /// The first register that is all zero, if one is: the host started such an enclave in debug mode, where it can read the
    /// console, and the hypervisor measures nothing.
    pub fn debug_register(&self) -> Option<u8> {
        self.indexed().into_iter().find(|(_, pcr)| pcr.iter().all(|byte| *byte == 0)).map(|(index, _)| index)
    }
}

/// Platform configuration registers by index (0–31).
///
/// A Nitro document lists PCR0–15 and those of 16–31 that the enclave has locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pcrs(BTreeMap<u8, Measurement>);

impl Pcrs {
    /// How many registers there are at most.
    pub const MAX_COUNT: u8 = 32;

    /// No registers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of register `index`, if the evidence has it.
    pub fn get(&self, index: u8) -> Option<&Measurement> {
        self.0.get(&index)
    }

    /// Sets register `index`; returns the value it had.
    pub fn insert(&mut self, index: u8, value: Measurement) -> Option<Measurement> {
        self.0.insert(index, value)
    }

    /// The registers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Measurement)> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    /// How many registers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u8, Measurement)> for Pcrs {
    fn from_iter<I: IntoIterator<Item = (u8, Measurement)>>(registers: I) -> Self {
        Self(registers.into_iter().collect())
    }
}

/// What the platform says of an enclave: authenticated, and to be judged by a [`Policy`](crate::Policy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who made the evidence.
    pub platform: Platform,
    /// What the enclave runs.
    pub measurements: MeasurementSet,
    /// All registers that the evidence lists, [`measurements`](Self::measurements) included.
    pub pcrs: Pcrs,
    /// Bytes that the enclave had bound, ≤ 512.
    pub user_data: Option<Vec<u8>>,
    /// The asker's nonce, ≤ 512 bytes.
    pub nonce: Option<Vec<u8>>,
    /// The enclave's public key in a form of its choosing, ≤ 1,024 bytes.
    pub public_key: Option<Vec<u8>>,
    /// The security module's name: on Nitro the EC2 instance id and the enclave id. Printable ASCII.
    pub module_id: String,
    /// When the security module signed, in milliseconds since the Unix epoch.
    pub issued_at_unix_ms: u64,
    /// Until when the chain holds, in seconds since the Unix epoch: the earliest end of its certificates, in practice the
    /// leaf's, about three hours after it was made.
    pub valid_until_unix: u64,
    /// Whether the host can look into the enclave (a zero among PCR0–2).
    pub debug: bool,
    /// The subject of the root that the chain led to, as in RFC 4514. A development root says `DEV ONLY` here.
    pub anchor_subject: String,
    /// SHA-256 of that root's DER.
    pub anchor_fingerprint: [u8; 32],
}

impl Claims {
    /// When the security module signed, in whole seconds since the Unix epoch.
    pub fn issued_at_unix(&self) -> u64 {
        self.issued_at_unix_ms / 1000
    }
}
