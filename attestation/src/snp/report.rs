//! The report: what the security processor signs. Little-endian throughout.

use crate::claims::{GuestPolicy, Product, SnpSigner, SnpTcb};

/// How long a report is, whatever its version.
pub const REPORT_BYTES: usize = 0x4a0;
/// How much of it is signed.
const SIGNED_BYTES: usize = 0x2a0;
/// Bytes of each half of a signature.
const SCALAR_BYTES: usize = 72;
/// Bytes of a scalar of P-384.
const P384_BYTES: usize = 48;
/// ECDSA on P-384 with SHA-384.
const ALGORITHM: u32 = 1;
/// Versions whose layout is known.
const VERSIONS: std::ops::RangeInclusive<u32> = 2..=5;
/// From this version on a report says which processor it comes from.
const FIRST_WITH_CPUID: u32 = 3;

/// Why bytes are no report.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReportError {
    /// Another length.
    #[error("the SEV-SNP report has {found} bytes, wanted {REPORT_BYTES}")]
    Length {
        /// Bytes found.
        found: usize,
    },
    /// A version that nobody here can read.
    #[error("the SEV-SNP report has version {found}, wanted 2 to 5")]
    Version {
        /// The version.
        found: u32,
    },
    /// Another signature algorithm.
    #[error("the SEV-SNP report is signed with algorithm {found}, wanted 1 (ECDSA on P-384 with SHA-384)")]
    Algorithm {
        /// AMD's number of the algorithm.
        found: u32,
    },
    /// Signed by nobody, or by a key that nobody here knows.
    #[error("the SEV-SNP report is signed by key kind {found}, wanted 0 (VCEK) or 1 (VLEK)")]
    SigningKey {
        /// AMD's number of the kind.
        found: u32,
    },
    /// Bytes of the signature that nobody signed and that are not zero.
    #[error("the SEV-SNP report's signature is not two numbers of 48 bytes with zeros after them")]
    Signature,
}

/// A parsed report. Nothing in it is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report<'a> {
    raw: &'a [u8; REPORT_BYTES],
}

impl<'a> Report<'a> {
    /// Reads a report that fills `bytes` to its last byte.
    ///
    /// # Errors
    ///
    /// When the bytes are anything but one report of a known version.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, ReportError> {
        let raw = bytes.try_into().map_err(|_| ReportError::Length { found: bytes.len() })?;
        let report = Self { raw };
        if !VERSIONS.contains(&report.version()) {
            return Err(ReportError::Version { found: report.version() });
        }
        match report.u32(0x34) {
            ALGORITHM => {}
            found => return Err(ReportError::Algorithm { found }),
        }
        match report.key_kind() {
            0 | 1 => {}
            found => return Err(ReportError::SigningKey { found }),
        }
        // Attack stopped: two reports that say the same and differ in bytes, where nobody signed them.
        let signature = &raw[SIGNED_BYTES..];
        let (r, rest) = signature.split_at(SCALAR_BYTES);
        let (s, rest) = rest.split_at(SCALAR_BYTES);
        if [&r[P384_BYTES..], &s[P384_BYTES..], rest].into_iter().flatten().any(|byte| *byte != 0) {
            return Err(ReportError::Signature);
        }
        Ok(report)
    }

    fn array<const N: usize>(self, at: usize) -> &'a [u8; N] {
        self.raw[at..at + N].try_into().expect("offsets are constants within the report")
    }

    fn u32(self, at: usize) -> u32 {
        u32::from_le_bytes(*self.array(at))
    }

    fn u64(self, at: usize) -> u64 {
        u64::from_le_bytes(*self.array(at))
    }

    fn tcb(self, at: usize, product: Product) -> SnpTcb {
        let bytes = self.array::<8>(at);
        match product {
            Product::Milan | Product::Genoa => {
                SnpTcb { fmc: 0, bootloader: bytes[0], tee: bytes[1], snp: bytes[6], microcode: bytes[7] }
            }
            Product::Turin => {
                SnpTcb { fmc: bytes[0], bootloader: bytes[1], tee: bytes[2], snp: bytes[3], microcode: bytes[7] }
            }
        }
    }

    /// VERSION, 2 to 5.
    pub fn version(self) -> u32 {
        self.u32(0)
    }

    /// GUEST_SVN.
    pub fn guest_svn(self) -> u32 {
        self.u32(0x04)
    }

    /// POLICY.
    pub fn policy(self) -> GuestPolicy {
        GuestPolicy(self.u64(0x08))
    }

    /// FAMILY_ID.
    pub fn family_id(self) -> &'a [u8; 16] {
        self.array(0x10)
    }

    /// IMAGE_ID.
    pub fn image_id(self) -> &'a [u8; 16] {
        self.array(0x20)
    }

    /// VMPL, the privilege level that asked; all ones when the host asked.
    pub fn vmpl(self) -> u32 {
        self.u32(0x30)
    }

    fn key_kind(self) -> u32 {
        self.u32(0x48) >> 2 & 7
    }

    /// Which key signed.
    pub fn signer(self) -> SnpSigner {
        if self.key_kind() == 0 { SnpSigner::Vcek } else { SnpSigner::Vlek }
    }

    /// REPORT_DATA: what the guest had bound.
    pub fn report_data(self) -> &'a [u8; 64] {
        self.array(0x50)
    }

    /// MEASUREMENT.
    pub fn measurement(self) -> &'a [u8; 48] {
        self.array(0x90)
    }

    /// HOST_DATA.
    pub fn host_data(self) -> &'a [u8; 32] {
        self.array(0xc0)
    }

    /// ID_KEY_DIGEST.
    pub fn id_key_digest(self) -> &'a [u8; 48] {
        self.array(0xe0)
    }

    /// AUTHOR_KEY_DIGEST.
    pub fn author_key_digest(self) -> &'a [u8; 48] {
        self.array(0x110)
    }

    /// CPUID_FAM_ID and CPUID_MOD_ID, of versions that have them.
    pub fn cpuid(self) -> Option<(u8, u8)> {
        (self.version() >= FIRST_WITH_CPUID).then(|| (self.raw[0x188], self.raw[0x189]))
    }

    /// CHIP_ID; `None` when the host masks it.
    pub fn chip_id(self) -> Option<&'a [u8; 64]> {
        Some(self.array(0x1a0)).filter(|chip: &&[u8; 64]| chip.iter().any(|byte| *byte != 0))
    }

    /// CURRENT_TCB.
    pub fn current_tcb(self, product: Product) -> SnpTcb {
        self.tcb(0x38, product)
    }

    /// REPORTED_TCB.
    pub fn reported_tcb(self, product: Product) -> SnpTcb {
        self.tcb(0x180, product)
    }

    /// COMMITTED_TCB.
    pub fn committed_tcb(self, product: Product) -> SnpTcb {
        self.tcb(0x1e0, product)
    }

    /// LAUNCH_TCB.
    pub fn launch_tcb(self, product: Product) -> SnpTcb {
        self.tcb(0x1f0, product)
    }

    /// The bytes that are signed, as they came: never made anew from what was parsed, which would forget reserved ones.
    pub fn signed_bytes(self) -> &'a [u8] {
        &self.raw[..SIGNED_BYTES]
    }

    /// The signature, `r ‖ s`, big-endian as everybody else writes it.
    pub fn signature(self) -> [u8; 2 * P384_BYTES] {
        let mut signature = [0; 2 * P384_BYTES];
        for (half, at) in signature.chunks_mut(P384_BYTES).zip([SIGNED_BYTES, SIGNED_BYTES + SCALAR_BYTES]) {
            half.copy_from_slice(&self.raw[at..at + P384_BYTES]);
            half.reverse();
        }
        signature
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(version: u32) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        bytes[..4].copy_from_slice(&version.to_le_bytes());
        bytes[0x34] = 1;
        bytes
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        for version in 2..=5 {
            assert!(Report::parse(&report(version)).is_ok());
        }
        for version in [0, 1, 6, u32::MAX] {
            assert_eq!(Report::parse(&report(version)), Err(ReportError::Version { found: version }));
        }
        assert_eq!(Report::parse(&[]), Err(ReportError::Length { found: 0 }));
        assert_eq!(Report::parse(&[2; REPORT_BYTES + 1]), Err(ReportError::Length { found: REPORT_BYTES + 1 }));
        let with = |at: usize, value: u8| {
            let mut bytes = report(3);
            bytes[at] = value;
            Report::parse(&bytes).map(Report::signer)
        };
        assert_eq!(with(0x34, 2), Err(ReportError::Algorithm { found: 2 }));
        assert_eq!(with(0x48, 7 << 2), Err(ReportError::SigningKey { found: 7 }));
        assert_eq!(with(0x48, 1 << 2), Ok(SnpSigner::Vlek));
        for at in [0x2a0 + 48, 0x2a0 + 72 + 48, 0x2a0 + 144, REPORT_BYTES - 1] {
            assert_eq!(with(at, 1), Err(ReportError::Signature), "{at:#x}");
        }
    }

    #[test]
    fn versions_of_firmware_are_read_as_the_product_writes_them() {
        let mut bytes = report(5);
        bytes[0x180..0x188].copy_from_slice(&[1, 2, 3, 4, 5, 6, 7, 8]);
        let report = Report::parse(&bytes).unwrap();
        let milan = SnpTcb { fmc: 0, bootloader: 1, tee: 2, snp: 7, microcode: 8 };
        let turin = SnpTcb { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 8 };
        assert_eq!(report.reported_tcb(Product::Milan), milan);
        assert_eq!(report.reported_tcb(Product::Genoa), milan);
        assert_eq!(report.reported_tcb(Product::Turin), turin);
    }
}
