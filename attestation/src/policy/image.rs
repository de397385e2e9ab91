//! An image that is believed: what it measures as, and when.

use std::collections::BTreeMap;

use ed25519_dalek::{Signature, VerifyingKey};

use crate::claims::{MeasurementSet, Platform, Register};

/// Separates this signature from every other.
const LABEL: &[u8] = b"casemate/image/v1";
/// The longest name, in characters.
const MAX_NAME: usize = 64;

/// A time, both ends of which belong to it, in seconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// First second.
    pub not_before_unix: u64,
    /// Last second.
    pub not_after_unix: u64,
}

impl Window {
    /// All time.
    pub const ALWAYS: Self = Self { not_before_unix: 0, not_after_unix: u64::MAX };

    /// Whether a time belongs to it.
    pub const fn contains(&self, unix: u64) -> bool {
        self.not_before_unix <= unix && unix <= self.not_after_unix
    }
}

/// An image that is believed while its window lasts, so that an old and a new one are both good during an upgrade. What it names must be
/// so in the evidence; what it does not name may be anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// A name for people.
    pub name: String,
    /// The platform that it runs on.
    pub platform: Platform,
    /// What it measures as.
    pub registers: BTreeMap<Register, Vec<u8>>,
    /// SGX: the product number (ISVPRODID).
    pub product: Option<u16>,
    /// SGX and SEV-SNP: the lowest security version (ISVSVN, GUEST_SVN).
    pub min_svn: Option<u32>,
    /// When it is believed.
    pub window: Window,
}

/// Why an image says too little, or what it cannot.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// A name that would confuse a terminal.
    #[error("an image's name has 1 to {MAX_NAME} characters and no control characters")]
    Name,
    /// A register of another platform.
    #[error("image {image} names {register}, which {platform} does not have")]
    ForeignRegister {
        /// The image.
        image: String,
        /// The register.
        register: Register,
        /// Its platform.
        platform: Platform,
    },
    /// A value of another length.
    #[error("image {image} gives {register} {found} bytes, wanted {wanted}")]
    Length {
        /// The image.
        image: String,
        /// The register.
        register: Register,
        /// Bytes found.
        found: usize,
        /// Bytes wanted.
        wanted: usize,
    },
    /// Nothing that tells this image from others.
    #[error("image {image} names nothing that tells it from others, wanted {wanted}")]
    Vague {
        /// The image.
        image: String,
        /// What would.
        wanted: &'static str,
    },
    /// Zeros where they stand for nobody.
    #[error("image {image} gives {register} as zeros, which every image has that nobody signed")]
    Nobody {
        /// The image.
        image: String,
        /// The register.
        register: Register,
    },
    /// A number that the platform does not have.
    #[error("image {image} gives a {what}, which {platform} does not have")]
    ForeignNumber {
        /// The image.
        image: String,
        /// Which.
        what: &'static str,
        /// Its platform.
        platform: Platform,
    },
    /// A window that never is.
    #[error("image {image} ends before it begins")]
    Window {
        /// The image.
        image: String,
    },
}

impl Image {
    /// Checks that the image says enough to be told from others, and nothing that its platform cannot.
    ///
    /// # Errors
    ///
    /// The first rule that it breaks.
    pub fn check(&self) -> Result<(), ImageError> {
        let image = || self.name.clone();
        if !(1..=MAX_NAME).contains(&self.name.chars().count()) || self.name.chars().any(char::is_control) {
            return Err(ImageError::Name);
        }
        for (register, value) in &self.registers {
            if register.platform() != self.platform {
                return Err(ImageError::ForeignRegister {
                    image: image(),
                    register: *register,
                    platform: self.platform,
                });
            }
            if value.len() != register.bytes() {
                let (found, wanted) = (value.len(), register.bytes());
                return Err(ImageError::Length { image: image(), register: *register, found, wanted });
            }
        }
        for register in [Register::Pcr(8), Register::IdKeyDigest] {
            // Attack stopped: a rule for images of one signer that every unsigned image meets.
            if self.registers.get(&register).is_some_and(|value| value.iter().all(|byte| *byte == 0)) {
                return Err(ImageError::Nobody { image: image(), register });
            }
        }
        let names = |registers: &[Register]| registers.iter().all(|register| self.registers.contains_key(register));
        let whole_image = [Register::Pcr(0), Register::Pcr(1), Register::Pcr(2)];
        let (is_told, wanted) = match self.platform {
            Platform::Nitro => (
                names(&whole_image) || names(&[Register::Pcr(8)]),
                "pcr0, pcr1 and pcr2, or pcr8 (who signed the image)",
            ),
            Platform::SevSnp => (
                names(&[Register::Measurement]) || names(&[Register::IdKeyDigest]),
                "measurement, or id_key_digest (who signed the guest)",
            ),
            Platform::Sgx => (
                names(&[Register::MrEnclave]) || (names(&[Register::MrSigner]) && self.product.is_some()),
                "mrenclave, or mrsigner and product",
            ),
            Platform::Tdx => (names(&[Register::MrTd]), "mrtd"),
        };
        if !is_told {
            return Err(ImageError::Vague { image: image(), wanted });
        }
        let foreign = |what| ImageError::ForeignNumber { image: image(), what, platform: self.platform };
        if self.product.is_some() && self.platform != Platform::Sgx {
            return Err(foreign("product"));
        }
        if self.min_svn.is_some() && !matches!(self.platform, Platform::Sgx | Platform::SevSnp) {
            return Err(foreign("min_svn"));
        }
        if self.window.not_after_unix < self.window.not_before_unix {
            return Err(ImageError::Window { image: image() });
        }
        Ok(())
    }

    /// What a release key signs: a label, then every field with its length before it (8 bytes, big-endian), so that no two images
    /// have the same bytes.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut field = |value: &[u8]| {
            bytes.extend((value.len() as u64).to_be_bytes());
            bytes.extend_from_slice(value);
        };
        field(LABEL);
        field(self.name.as_bytes());
        field(self.platform.id().as_bytes());
        field(&self.window.not_before_unix.to_be_bytes());
        field(&self.window.not_after_unix.to_be_bytes());
        field(&self.product.map(u16::to_be_bytes).map_or(Vec::new(), Vec::from));
        field(&self.min_svn.map(u32::to_be_bytes).map_or(Vec::new(), Vec::from));
        for (register, value) in &self.registers {
            field(register.to_string().as_bytes());
            field(value);
        }
        bytes
    }

    /// Whether one of `release_keys` (Ed25519) made `signature` over it.
    pub fn is_signed(&self, signature: &[u8; 64], release_keys: &[[u8; 32]]) -> bool {
        let (signed, signature) = (self.signed_bytes(), Signature::from_bytes(signature));
        let mut keys = release_keys.iter().filter_map(|key| VerifyingKey::from_bytes(key).ok());
        keys.any(|key| key.verify_strict(&signed, &signature).is_ok())
    }
}

impl From<MeasurementSet> for Image {
    fn from(set: MeasurementSet) -> Self {
        let registers = set.indexed().map(|(index, value)| (Register::Pcr(index), value.to_vec()));
        Self {
            name: "by PCR0, PCR1 and PCR2".to_owned(),
            platform: Platform::Nitro,
            registers: registers.into(),
            product: None,
            min_svn: None,
            window: Window::ALWAYS,
        }
    }
}
