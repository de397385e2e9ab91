//! A quote's framing (Intel's "DCAP Quote Library API", appendix A.4, and the header `sgx_quote_5.h`): every length is held against the
//! bytes that are there before anything is read by it. Little-endian throughout.

/// Intel's quoting enclave.
const INTEL: [u8; 16] =
    [0x93, 0x9a, 0x72, 0x33, 0xf7, 0x9c, 0x4c, 0xa9, 0x94, 0x0a, 0x0d, 0xb3, 0x95, 0x7f, 0x06, 0x07];
const HEADER_BYTES: usize = 48;
const ENCLAVE_REPORT_BYTES: usize = 384;
const TD_REPORT_10_BYTES: usize = 584;
/// ECDSA on P-256 with SHA-256.
const KEY_TYPE: u16 = 2;
/// Signature and attestation key.
const SIGNATURE_BYTES: usize = 64 + 64;
/// The quoting enclave's report and its signature.
const QE_REPORT_BYTES: usize = ENCLAVE_REPORT_BYTES + 64;
/// The certification data is a quoting enclave's report with certification data of its own.
const KIND_QE_REPORT: u16 = 6;
/// The certification data is a chain of certificates, PEM, leaf first.
const KIND_CHAIN: u16 = 5;
/// The longest certification data; a chain has about 3,700 bytes.
pub const MAX_CERTIFICATION_BYTES: usize = 12 * 1024;

/// What made a quote's body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TeeKind {
    /// An SGX enclave.
    Sgx,
    /// A TDX domain.
    Tdx,
}

/// Why bytes are no quote.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QuoteError {
    /// Fewer bytes than are announced.
    #[error("the quote ends within its {part}, which wants {wanted} bytes more than there are")]
    Truncated {
        /// Where.
        part: &'static str,
        /// How many bytes are missing.
        wanted: usize,
    },
    /// A version that nobody here can read.
    #[error("the quote has version {found}, wanted 3 for SGX, 4 or 5 for TDX")]
    Version {
        /// The version.
        found: u16,
    },
    /// Neither an enclave's nor a domain's.
    #[error("the quote has TEE type {found:#x}, wanted 0 (SGX) in version 3 or 0x81 (TDX) in versions 4 and 5")]
    TeeType {
        /// The type.
        found: u32,
    },
    /// Another signature algorithm.
    #[error("the quote is signed by a key of type {found}, wanted 2 (ECDSA on P-256 with SHA-256)")]
    KeyType {
        /// Intel's number of the type.
        found: u16,
    },
    /// Another quoting enclave.
    #[error("the quote was made by a quoting enclave of another vendor than Intel")]
    Vendor,
    /// A body that nobody here can read.
    #[error("the quote's body has type {kind} and {bytes} bytes, wanted a TD report of 584, 648 or 885")]
    Body {
        /// Intel's number of the type.
        kind: u16,
        /// Its bytes.
        bytes: u32,
    },
    /// A length that is not that of what is in it.
    #[error("{found} bytes of the quote's {part} are left over, wanted none")]
    LeftOver {
        /// Where.
        part: &'static str,
        /// How many.
        found: usize,
    },
    /// More than a chain of certificates has.
    #[error("the quote's certification data has {found} bytes, at most {limit} are allowed")]
    CertificationSize {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Certification data of another kind where a QE report is wanted.
    #[error("the quote's certification data has kind {found}, wanted 6 (a quoting enclave's report)")]
    CertificationKind {
        /// Intel's number of the kind.
        found: u16,
    },
}

/// A quote whose lengths are right. Nothing in it is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quote<'a> {
    raw: &'a [u8],
    /// What made it.
    pub kind: TeeKind,
    signed: usize,
    certification_kind: u16,
    certification: &'a [u8],
}

struct Cursor<'a> {
    left: &'a [u8],
    part: &'static str,
}

impl<'a> Cursor<'a> {
    fn take(&mut self, bytes: usize) -> Result<&'a [u8], QuoteError> {
        let wanted = bytes.saturating_sub(self.left.len());
        let (taken, left) =
            self.left.split_at_checked(bytes).ok_or(QuoteError::Truncated { part: self.part, wanted })?;
        self.left = left;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, QuoteError> {
        let bytes = self.take(2)?;
        Ok(u16::from_le_bytes([bytes[0], bytes[1]]))
    }

    fn u32(&mut self) -> Result<u32, QuoteError> {
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    }

    /// As many bytes as the number before them says, as a cursor of their own.
    fn counted(&mut self, part: &'static str) -> Result<Cursor<'a>, QuoteError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        Ok(Cursor { left: self.take(length)?, part })
    }

    fn end(&self) -> Result<(), QuoteError> {
        if self.left.is_empty() {
            Ok(())
        } else {
            Err(QuoteError::LeftOver { part: self.part, found: self.left.len() })
        }
    }
}

/// Kind and contents of certification data.
fn certification<'a>(cursor: &mut Cursor<'a>) -> Result<(u16, Cursor<'a>), QuoteError> {
    let kind = cursor.u16()?;
    let data = cursor.counted("certification data")?;
    if data.left.len() > MAX_CERTIFICATION_BYTES {
        return Err(QuoteError::CertificationSize { found: data.left.len(), limit: MAX_CERTIFICATION_BYTES });
    }
    Ok((kind, data))
}

/// A quoting enclave's report, its data, and what certifies it.
fn qe_report<'a>(cursor: &mut Cursor<'a>) -> Result<(u16, &'a [u8]), QuoteError> {
    cursor.take(QE_REPORT_BYTES)?;
    let data = usize::from(cursor.u16()?);
    cursor.take(data)?;
    let (kind, data) = certification(cursor)?;
    cursor.end()?;
    Ok((kind, data.left))
}

impl<'a> Quote<'a> {
    /// Whether `bytes` begin as a quote.
    pub(crate) fn is_one(bytes: &[u8]) -> bool {
        bytes.get(12..28) == Some(&INTEL[..])
            || (bytes.len() > HEADER_BYTES && matches!(bytes, [3..=5, 0, 2 | 3, 0, ..]))
    }

    /// Reads the quote that `raw` begins with. Clouds pad theirs to a fixed length, which nobody signs: whatever follows says nothing, is
    /// not looked at, and does not make it another quote.
    ///
    /// # Errors
    ///
    /// When a length is wrong, or the quote is of a kind that nobody here can read.
    pub fn parse(raw: &'a [u8]) -> Result<Self, QuoteError> {
        let mut cursor = Cursor { left: raw, part: "header" };
        let version = cursor.u16()?;
        let key_type = cursor.u16()?;
        let tee_type = cursor.u32()?;
        cursor.take(4)?;
        let vendor = cursor.take(16)?;
        cursor.take(20)?;
        let kind = match (version, tee_type) {
            (3, 0) => TeeKind::Sgx,
            (4 | 5, 0x81) => TeeKind::Tdx,
            (3..=5, found) => return Err(QuoteError::TeeType { found }),
            (found, _) => return Err(QuoteError::Version { found }),
        };
        if key_type != KEY_TYPE {
            return Err(QuoteError::KeyType { found: key_type });
        }
        if vendor != INTEL {
            return Err(QuoteError::Vendor);
        }
        cursor.part = "body";
        let body = match version {
            3 => ENCLAVE_REPORT_BYTES,
            4 => TD_REPORT_10_BYTES,
            _ => match (cursor.u16()?, cursor.u32()?) {
                (2, 584) => 584,
                (3, 648) => 648,
                (4, 885) => 885,
                (kind, bytes) => return Err(QuoteError::Body { kind, bytes }),
            },
        };
        cursor.take(body)?;
        let signed = raw.len() - cursor.left.len();
        let mut signature = cursor.counted("signature data")?;
        signature.take(SIGNATURE_BYTES)?;
        let (certification_kind, certification) = if version == 3 {
            qe_report(&mut signature)?
        } else {
            let (kind, mut data) = certification(&mut signature)?;
            if kind != KIND_QE_REPORT {
                return Err(QuoteError::CertificationKind { found: kind });
            }
            signature.end()?;
            qe_report(&mut data)?
        };
        Ok(Self { raw, kind, signed, certification_kind, certification })
    }

    /// Header and body: what the attestation key signed.
    pub fn signed_bytes(&self) -> &'a [u8] {
        &self.raw[..self.signed]
    }

    /// The certificates of the platform's key, PEM, leaf first, if the quote carries them.
    pub fn chain(&self) -> Option<&'a [u8]> {
        (self.certification_kind == KIND_CHAIN).then_some(self.certification)
    }

    /// All of it, with what follows.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.raw
    }
}
