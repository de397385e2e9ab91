//! Measurements: what the Nitro hypervisor computes over an image when it starts it, and evidence names.
//!
//! Each register is SHA-384(48 zero bytes ‖ SHA-384(data)), the value of a TPM register that was extended once. The data are
//! concatenations **without lengths between them**: registers fix the sequence of bytes, not where one section ends and the
//! next begins (`docs/image.md` tells what follows from that).

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::{Digest, Sha384};

/// Bytes of a register.
pub const PCR_BYTES: usize = 48;

/// The value of a register. Printed as 96 lower-case hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Pcr(pub [u8; PCR_BYTES]);

/// A text that is no register's value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a measurement is 96 hexadecimal digits")]
pub struct InvalidPcr;

impl Pcr {
    /// What debug enclaves report instead of their measurements.
    pub const ZERO: Self = Self([0; PCR_BYTES]);

    fn extended_with(data: Sha384) -> Self {
        let mut register = Sha384::new_with_prefix(Self::ZERO.0);
        register.update(data.finalize());
        Self(register.finalize().into())
    }
}

impl fmt::Display for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Pcr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Pcr {
    type Err = InvalidPcr;

    fn from_str(text: &str) -> Result<Self, InvalidPcr> {
        let mut bytes = [0; PCR_BYTES];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| InvalidPcr)?;
        Ok(Self(bytes))
    }
}

impl Serialize for Pcr {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Pcr {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The measurements of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// The whole image: kernel, command line, all ramdisks.
    #[serde(rename = "PCR0")]
    pub pcr0: Pcr,
    /// What boots: kernel, command line, first ramdisk.
    #[serde(rename = "PCR1")]
    pub pcr1: Pcr,
    /// The application: the further ramdisks.
    #[serde(rename = "PCR2")]
    pub pcr2: Pcr,
    /// The certificate that signed the image; the register of an unsigned one stays zero.
    #[serde(rename = "PCR8", default, skip_serializing_if = "Option::is_none")]
    pub pcr8: Option<Pcr>,
}

/// What is being measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The kernel.
    Kernel,
    /// The command line.
    CommandLine,
    /// The first ramdisk.
    BootRamdisk,
    /// A further ramdisk.
    ApplicationRamdisk,
}

/// Measures an image as its bytes come by, in the order of its sections. A part may come in pieces.
#[derive(Debug, Clone)]
pub struct Meter {
    image: Sha384,
    boot: Sha384,
    application: Sha384,
}

impl Meter {
    /// Nothing measured.
    pub fn new() -> Self {
        Self { image: Sha384::new(), boot: Sha384::new(), application: Sha384::new() }
    }

    /// Measures the next bytes of a part.
    pub fn update(&mut self, part: Part, bytes: &[u8]) {
        self.image.update(bytes);
        match part {
            Part::Kernel | Part::CommandLine | Part::BootRamdisk => self.boot.update(bytes),
            Part::ApplicationRamdisk => self.application.update(bytes),
        }
    }

    /// The measurements of an image that nobody signed.
    pub fn finish(self) -> Measurements {
        Measurements {
            pcr0: Pcr::extended_with(self.image),
            pcr1: Pcr::extended_with(self.boot),
            pcr2: Pcr::extended_with(self.application),
            pcr8: None,
        }
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self::new()
    }
}

/// PCR8 of an image that was signed under this certificate, which comes in DER.
pub fn of_certificate(certificate: &[u8]) -> Pcr {
    Pcr::extended_with(Sha384::new_with_prefix(certificate))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `printf` and `sha384sum` computed these: SHA-384(48 zero bytes ‖ SHA-384("")) and the same of "abc".
    const OF_NOTHING: &str =
        "21b9efbc184807662e966d34f390821309eeac6802309798826296bf3e8bec7c10edb30948c90ba67310f7b964fc500a";

    #[test]
    fn no_application_is_the_register_of_nothing() {
        let mut meter = Meter::new();
        meter.update(Part::Kernel, b"kernel");
        let measurements = meter.finish();
        assert_eq!(measurements.pcr2.to_string(), OF_NOTHING);
        assert_eq!(measurements.pcr0, measurements.pcr1);
        assert_eq!(of_certificate(b""), measurements.pcr2);
    }

    #[test]
    fn pieces_measure_like_the_whole() {
        let parts = [
            (Part::Kernel, b"k1"),
            (Part::CommandLine, b"c1"),
            (Part::BootRamdisk, b"b1"),
            (Part::ApplicationRamdisk, b"a1"),
        ];
        let (mut whole, mut pieces) = (Meter::new(), Meter::new());
        for (part, bytes) in parts {
            whole.update(part, bytes);
            for byte in bytes {
                pieces.update(part, &[*byte]);
            }
        }
        assert_eq!(whole.finish(), pieces.finish());
    }

    /// Not a promise but a fact of the format that the rest of the project must not forget.
    #[test]
    fn borders_between_sections_are_not_measured() {
        let measured = |kernel: &[u8], command_line: &[u8]| {
            let mut meter = Meter::new();
            meter.update(Part::Kernel, kernel);
            meter.update(Part::CommandLine, command_line);
            meter.finish()
        };
        assert_eq!(measured(b"kernel", b"quiet"), measured(b"kernelquiet", b""));
        assert_ne!(measured(b"kernel", b"quiet"), measured(b"kernel", b""));
    }

    #[test]
    fn values_are_written_in_hexadecimal() {
        let text = "00".repeat(47) + "Ff";
        let pcr: Pcr = text.parse().unwrap();
        assert_eq!(pcr.to_string(), text.to_lowercase());
        for text in ["", "00", &"0".repeat(95), &"0".repeat(97), &"0".repeat(98), &"g".repeat(96)] {
            assert_eq!(text.parse::<Pcr>(), Err(InvalidPcr));
        }
    }
}
