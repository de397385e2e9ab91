//! The attestation document: the CBOR map that the security module signs.
//!
//! Fields and sizes are AWS's (attestation_process.md, section 3.1):
//!
//! ```text
//! { module_id: tstr, digest: "SHA384", timestamp: uint (ms), pcrs: { 1*32 index => bstr },
//!   certificate: bstr 1..1024, cabundle: [ 1* bstr 1..1024 ],
//!   ? public_key: bstr 1..1024 / null, ? user_data: bstr 0..512 / null, ? nonce: bstr 0..512 / null }
//! ```
//!
//! Real documents leave optional fields out, set them to null or leave them empty, and write the outer map with a definite
//! length or (since late 2025) an indefinite one. Fields that nobody knows yet are skipped: AWS signed them, and refusing them
//! would stop every verifier on the day AWS adds one.

use minicbor::Decoder;
use minicbor::data::Type;

use super::items::Items;
use crate::{Measurement, MeasurementSet, Pcrs};

/// The longest certificate.
pub const MAX_CERTIFICATE_BYTES: usize = 1024;
/// The most certificates above the leaf; AWS sends four.
pub const MAX_CABUNDLE: usize = 8;
/// The longest `user_data`, and the longest `nonce`.
pub const MAX_BOUND_BYTES: usize = 512;
/// The longest `public_key`.
pub const MAX_PUBLIC_KEY_BYTES: usize = 1024;
/// The longest `module_id`; AWS sends 39 bytes.
pub const MAX_MODULE_ID_BYTES: usize = 128;

/// The only digest there is.
const DIGEST: &str = "SHA384";
/// How deep a value of an unknown field may be nested.
const MAX_SKIP_DEPTH: u8 = 4;

/// A parsed document. Nothing in it is verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document<'a> {
    /// The security module's name: printable ASCII.
    pub module_id: &'a str,
    /// When it was made, in milliseconds since the Unix epoch; not zero.
    pub timestamp_unix_ms: u64,
    /// PCR0–15, and those of 16–31 that are locked.
    pub pcrs: Pcrs,
    /// PCR0–2 of these.
    pub measurements: MeasurementSet,
    /// The leaf certificate, whose key signed the envelope; DER.
    pub certificate: &'a [u8],
    /// The certificates above it, root first; DER.
    pub cabundle: Vec<&'a [u8]>,
    /// A public key that the enclave had bound.
    pub public_key: Option<&'a [u8]>,
    /// Bytes that the enclave had bound.
    pub user_data: Option<&'a [u8]>,
    /// A nonce that the enclave had bound.
    pub nonce: Option<&'a [u8]>,
}

/// Why a payload is no attestation document.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    /// Not the CBOR that was wanted there.
    #[error("the payload is no attestation document: no {wanted} at byte {at}")]
    Malformed {
        /// What was wanted.
        wanted: &'static str,
        /// Where, in bytes from the payload's start.
        at: usize,
    },
    /// A field that must be there is not.
    #[error("the attestation document has no field {field}")]
    MissingField {
        /// The field.
        field: &'static str,
    },
    /// A field twice: two readers could believe two different things.
    #[error("the attestation document has field {field} twice, wanted once")]
    DuplicateField {
        /// The field.
        field: &'static str,
    },
    /// A field that is too short or too long.
    #[error("the attestation document's field {field} has {found} bytes, wanted {min} to {max}")]
    FieldSize {
        /// The field.
        field: &'static str,
        /// Bytes found.
        found: usize,
        /// Bytes wanted at least.
        min: usize,
        /// Bytes wanted at most.
        max: usize,
    },
    /// A module id that could forge a line of a log or a terminal's contents.
    #[error("the attestation document's module_id has a character that is not printable ASCII")]
    ModuleId,
    /// Another digest.
    #[error("the attestation document's digest is not SHA384")]
    Digest,
    /// A time that was never set.
    #[error("the attestation document's timestamp is zero")]
    Timestamp,
    /// A register that does not exist.
    #[error("the attestation document has PCR{found}, wanted 0 to 31")]
    PcrIndex {
        /// The index.
        found: u64,
    },
    /// A register twice.
    #[error("the attestation document has PCR{index} twice, wanted once")]
    DuplicatePcr {
        /// The index.
        index: u8,
    },
    /// A register that is no SHA-384 value.
    #[error("the attestation document's PCR{index} has {found} bytes, wanted 48 as the digest is SHA384")]
    PcrLength {
        /// The index.
        index: u8,
        /// Bytes found.
        found: usize,
    },
    /// A register without which the image has no name.
    #[error("the attestation document has no PCR{index}")]
    MissingPcr {
        /// The index.
        index: u8,
    },
    /// No certificate above the leaf.
    #[error("the attestation document's cabundle is empty, wanted the root and what leads to the leaf")]
    EmptyCabundle,
    /// More certificates than a chain of this PKI has.
    #[error("the attestation document's cabundle has more than {max} certificates")]
    CabundleLength {
        /// How many are allowed.
        max: usize,
    },
    /// A value of an unknown field that nests too deep.
    #[error("an unknown field of the attestation document nests deeper than {max} levels")]
    Depth {
        /// How deep is allowed.
        max: u8,
    },
    /// Bytes after the document.
    #[error("{found} bytes follow the attestation document in the payload, wanted none")]
    TrailingBytes {
        /// How many.
        found: usize,
    },
}

/// The value of an optional field that is there: null, or bytes that may be empty.
struct Bound<'a>(Option<&'a [u8]>);

/// The fields as they are found: `None` is "not yet", so that a second one is noticed even if the first was null.
#[derive(Default)]
struct Fields<'a> {
    module_id: Option<&'a str>,
    digest: Option<()>,
    timestamp_unix_ms: Option<u64>,
    pcrs: Option<Pcrs>,
    certificate: Option<&'a [u8]>,
    cabundle: Option<Vec<&'a [u8]>>,
    public_key: Option<Bound<'a>>,
    user_data: Option<Bound<'a>>,
    nonce: Option<Bound<'a>>,
}

impl<'a> Document<'a> {
    /// Reads a document that fills `payload` to its last byte.
    ///
    /// # Errors
    ///
    /// When the bytes are anything but one document within AWS's limits.
    pub fn parse(payload: &'a [u8]) -> Result<Self, DocumentError> {
        let mut decoder = Decoder::new(payload);
        let mut entries = Items::of(wanted(0, decoder.map(), "map")?);
        let mut fields = Fields::default();
        while wanted(decoder.position(), entries.another(&mut decoder), "field, or end of the map")? {
            fields.read(&mut decoder)?;
        }
        let trailing = payload.len() - decoder.position();
        if trailing > 0 {
            return Err(DocumentError::TrailingBytes { found: trailing });
        }
        fields.complete()
    }
}

impl<'a> Fields<'a> {
    /// Reads one field, name and value.
    fn read(&mut self, decoder: &mut Decoder<'a>) -> Result<(), DocumentError> {
        let name = wanted(decoder.position(), decoder.str(), "field name (text)")?;
        match name {
            "module_id" => once("module_id", &mut self.module_id, module_id(decoder)?),
            "digest" => once("digest", &mut self.digest, digest(decoder)?),
            "timestamp" => once("timestamp", &mut self.timestamp_unix_ms, timestamp(decoder)?),
            "pcrs" => once("pcrs", &mut self.pcrs, pcrs(decoder)?),
            "certificate" => {
                once("certificate", &mut self.certificate, bytes(decoder, "certificate", 1, MAX_CERTIFICATE_BYTES)?)
            }
            "cabundle" => once("cabundle", &mut self.cabundle, cabundle(decoder)?),
            "public_key" => {
                once("public_key", &mut self.public_key, optional(decoder, "public_key", MAX_PUBLIC_KEY_BYTES)?)
            }
            "user_data" => once("user_data", &mut self.user_data, optional(decoder, "user_data", MAX_BOUND_BYTES)?),
            "nonce" => once("nonce", &mut self.nonce, optional(decoder, "nonce", MAX_BOUND_BYTES)?),
            _ => skip(decoder, MAX_SKIP_DEPTH),
        }
    }

    /// All fields are read: are all there that must be?
    fn complete(self) -> Result<Document<'a>, DocumentError> {
        let missing = |field| DocumentError::MissingField { field };
        self.digest.ok_or(missing("digest"))?;
        let pcrs = self.pcrs.ok_or(missing("pcrs"))?;
        let pcr = |index| pcrs.get(index).copied().ok_or(DocumentError::MissingPcr { index });
        let measurements = MeasurementSet { pcr0: pcr(0)?, pcr1: pcr(1)?, pcr2: pcr(2)? };
        Ok(Document {
            module_id: self.module_id.ok_or(missing("module_id"))?,
            timestamp_unix_ms: self.timestamp_unix_ms.ok_or(missing("timestamp"))?,
            measurements,
            pcrs,
            certificate: self.certificate.ok_or(missing("certificate"))?,
            cabundle: self.cabundle.ok_or(missing("cabundle"))?,
            public_key: self.public_key.and_then(|bound| bound.0),
            user_data: self.user_data.and_then(|bound| bound.0),
            nonce: self.nonce.and_then(|bound| bound.0),
        })
    }
}

fn once<T>(field: &'static str, slot: &mut Option<T>, value: T) -> Result<(), DocumentError> {
    match slot.replace(value) {
        None => Ok(()),
        Some(_) => Err(DocumentError::DuplicateField { field }),
    }
}

fn wanted<T>(at: usize, result: Result<T, minicbor::decode::Error>, wanted: &'static str) -> Result<T, DocumentError> {
    result.map_err(|_| DocumentError::Malformed { wanted, at })
}

fn sized(field: &'static str, found: usize, min: usize, max: usize) -> Result<(), DocumentError> {
    if (min..=max).contains(&found) { Ok(()) } else { Err(DocumentError::FieldSize { field, found, min, max }) }
}

fn bytes<'a>(
    decoder: &mut Decoder<'a>,
    field: &'static str,
    min: usize,
    max: usize,
) -> Result<&'a [u8], DocumentError> {
    let bytes = wanted(decoder.position(), decoder.bytes(), field)?;
    sized(field, bytes.len(), min, max)?;
    Ok(bytes)
}

fn optional<'a>(decoder: &mut Decoder<'a>, field: &'static str, max: usize) -> Result<Bound<'a>, DocumentError> {
    if matches!(decoder.datatype(), Ok(Type::Null)) {
        return wanted(decoder.position(), decoder.null(), field).map(|()| Bound(None));
    }
    // An empty public key is against AWS's grammar, but it binds nothing and no policy can ask for it by mistake.
    bytes(decoder, field, 0, max).map(|bytes| Bound(Some(bytes)))
}

fn module_id<'a>(decoder: &mut Decoder<'a>) -> Result<&'a str, DocumentError> {
    let id = wanted(decoder.position(), decoder.str(), "module_id (text)")?;
    sized("module_id", id.len(), 1, MAX_MODULE_ID_BYTES)?;
    if id.bytes().all(|byte| byte.is_ascii_graphic()) { Ok(id) } else { Err(DocumentError::ModuleId) }
}

fn digest(decoder: &mut Decoder<'_>) -> Result<(), DocumentError> {
    let digest = wanted(decoder.position(), decoder.str(), "digest (text)")?;
    if digest == DIGEST { Ok(()) } else { Err(DocumentError::Digest) }
}

fn timestamp(decoder: &mut Decoder<'_>) -> Result<u64, DocumentError> {
    match wanted(decoder.position(), decoder.u64(), "timestamp (unsigned integer)")? {
        0 => Err(DocumentError::Timestamp),
        milliseconds => Ok(milliseconds),
    }
}

fn pcrs(decoder: &mut Decoder<'_>) -> Result<Pcrs, DocumentError> {
    let mut entries = Items::of(wanted(decoder.position(), decoder.map(), "pcrs (map)")?);
    let mut pcrs = Pcrs::new();
    while wanted(decoder.position(), entries.another(decoder), "PCR, or end of the map")? {
        let found = wanted(decoder.position(), decoder.u64(), "PCR index (unsigned integer)")?;
        let index = u8::try_from(found).ok().filter(|index| *index < Pcrs::MAX_COUNT);
        let index = index.ok_or(DocumentError::PcrIndex { found })?;
        let value = wanted(decoder.position(), decoder.bytes(), "PCR value (byte string)")?;
        let value: Measurement =
            value.try_into().map_err(|_| DocumentError::PcrLength { index, found: value.len() })?;
        if pcrs.insert(index, value).is_some() {
            return Err(DocumentError::DuplicatePcr { index });
        }
    }
    Ok(pcrs)
}

fn cabundle<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<&'a [u8]>, DocumentError> {
    let mut items = Items::of(wanted(decoder.position(), decoder.array(), "cabundle (array)")?);
    let mut certificates = Vec::new();
    while wanted(decoder.position(), items.another(decoder), "certificate, or end of the cabundle")? {
        if certificates.len() == MAX_CABUNDLE {
            return Err(DocumentError::CabundleLength { max: MAX_CABUNDLE });
        }
        certificates.push(bytes(decoder, "cabundle", 1, MAX_CERTIFICATE_BYTES)?);
    }
    if certificates.is_empty() { Err(DocumentError::EmptyCabundle) } else { Ok(certificates) }
}

/// Skips the value of an unknown field. Recursion is bounded by `depth`, work by the payload's length.
fn skip(decoder: &mut Decoder<'_>, depth: u8) -> Result<(), DocumentError> {
    let at = decoder.position();
    let kind = wanted(at, decoder.datatype(), "value")?;
    let length = match kind {
        Type::Array | Type::ArrayIndef => wanted(at, decoder.array(), "array")?,
        Type::Map | Type::MapIndef => match wanted(at, decoder.map(), "map")? {
            Some(entries) => Some(entries.checked_mul(2).ok_or(DocumentError::Malformed { wanted: "map", at })?),
            None => None,
        },
        Type::Tag => {
            wanted(at, decoder.tag(), "tag")?;
            Some(1)
        }
        Type::Break => return Err(DocumentError::Malformed { wanted: "value", at }),
        _ => return wanted(at, decoder.skip(), "value"),
    };
    let depth = depth.checked_sub(1).ok_or(DocumentError::Depth { max: MAX_SKIP_DEPTH })?;
    let mut items = Items::of(length);
    while wanted(decoder.position(), items.another(decoder), "value, or end")? {
        skip(decoder, depth)?;
    }
    Ok(())
}

#[cfg(test)]
#[path = "document_tests.rs"]
mod tests;
