//! The envelope: a COSE_Sign1 message (RFC 9052, section 4.2) as the Nitro security module writes it.
//!
//! ```text
//! [ protected: bstr .cbor { 1: -35 },  unprotected: {},  payload: bstr,  signature: bstr .size 96 ]
//! ```
//!
//! Everything outside the payload is unsigned, so it is held to exactly one encoding: evidence that differs in a single bit is
//! either refused or says something else under another signature. Only the optional tag 18 is a choice.

use minicbor::data::Type;
use minicbor::{Decoder, Encoder};

use super::items::Items;
use crate::MAX_EVIDENCE_BYTES;

/// COSE_Sign1's tag (RFC 9052, section 2, table 1).
const TAG_COSE_SIGN1: u64 = 18;
/// Label of the algorithm in a COSE header (RFC 9052, section 3.1).
const LABEL_ALGORITHM: i64 = 1;
/// ECDSA with SHA-384 (RFC 9053, section 2.1).
const ALGORITHM_ES384: i64 = -35;
/// `r ‖ s` on P-384.
const SIGNATURE_BYTES: usize = 96;

/// A parsed envelope. Nothing in it is verified yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Envelope<'a> {
    protected: &'a [u8],
    payload: &'a [u8],
    signature: &'a [u8; SIGNATURE_BYTES],
}

/// Why bytes are no envelope.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// More than any evidence has.
    #[error("the evidence has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not the CBOR that was wanted there.
    #[error("the evidence is no COSE_Sign1 envelope: no {wanted} at byte {at}")]
    Malformed {
        /// What was wanted.
        wanted: &'static str,
        /// Where, in bytes from the start of the evidence, or of the protected header if that was read.
        at: usize,
    },
    /// Another tag than COSE_Sign1's.
    #[error("the evidence has CBOR tag {found}, wanted 18 (COSE_Sign1) or none")]
    Tag {
        /// The tag.
        found: u64,
    },
    /// Another algorithm.
    #[error("the evidence is signed with COSE algorithm {found}, wanted -35 (ES384)")]
    Algorithm {
        /// The algorithm's COSE number.
        found: i64,
    },
    /// No algorithm at all.
    #[error("the evidence's protected header names no algorithm, wanted -35 (ES384)")]
    NoAlgorithm,
    /// A protected parameter that Nitro does not use: it could be critical, and nobody here knows what it asks for.
    #[error("the evidence's protected header has parameter {found}, wanted the algorithm only")]
    ProtectedParameter {
        /// The parameter's label.
        found: i64,
    },
    /// Unsigned parameters.
    #[error("the evidence has {found} unprotected parameters, wanted none: nobody signed them")]
    UnprotectedParameters {
        /// How many.
        found: u64,
    },
    /// Not a P-384 signature.
    #[error("the evidence's signature has {found} bytes, wanted 96 (r and s on P-384)")]
    SignatureLength {
        /// Bytes found.
        found: usize,
    },
    /// Bytes after the envelope.
    #[error("{found} bytes follow the evidence, wanted none")]
    TrailingBytes {
        /// How many.
        found: usize,
    },
    /// A length written in more bytes than it needs, where nobody signed how it is written.
    #[error("the evidence's envelope takes {found} bytes, wanted {wanted}: a length in it is not in its shortest form")]
    NotShortest {
        /// Bytes found.
        found: usize,
        /// Bytes that the same envelope needs.
        wanted: usize,
    },
}

impl<'a> Envelope<'a> {
    /// Reads an envelope that fills `evidence` to its last byte.
    ///
    /// # Errors
    ///
    /// When the bytes are longer than [`MAX_EVIDENCE_BYTES`] or anything but one envelope.
    pub fn parse(evidence: &'a [u8]) -> Result<Self, EnvelopeError> {
        if evidence.len() > MAX_EVIDENCE_BYTES {
            return Err(EnvelopeError::TooLarge { found: evidence.len(), limit: MAX_EVIDENCE_BYTES });
        }
        let mut decoder = Decoder::new(evidence);
        let mut shortest = 0;
        if matches!(decoder.datatype(), Ok(Type::Tag)) {
            let tag = wanted(decoder.position(), decoder.tag(), "tag")?.as_u64();
            if tag != TAG_COSE_SIGN1 {
                return Err(EnvelopeError::Tag { found: tag });
            }
            shortest += head_bytes(TAG_COSE_SIGN1);
        }
        let at = decoder.position();
        if wanted(at, decoder.array(), "array of four")? != Some(4) {
            return Err(EnvelopeError::Malformed { wanted: "array of four", at });
        }
        let protected = wanted(decoder.position(), decoder.bytes(), "protected header (byte string)")?;
        let at = decoder.position();
        match wanted(at, decoder.map(), "unprotected header (map)")? {
            Some(0) => {}
            Some(found) => return Err(EnvelopeError::UnprotectedParameters { found }),
            None => return Err(EnvelopeError::Malformed { wanted: "empty unprotected header", at }),
        }
        let payload = wanted(decoder.position(), decoder.bytes(), "payload (byte string)")?;
        let signature = wanted(decoder.position(), decoder.bytes(), "signature (byte string)")?;
        let found = decoder.position();
        if found < evidence.len() {
            return Err(EnvelopeError::TrailingBytes { found: evidence.len() - found });
        }
        shortest +=
            head_bytes(4) + string_bytes(protected) + head_bytes(0) + string_bytes(payload) + string_bytes(signature);
        if found != shortest {
            return Err(EnvelopeError::NotShortest { found, wanted: shortest });
        }
        judge_protected(protected)?;
        let signature = signature.try_into().map_err(|_| EnvelopeError::SignatureLength { found: signature.len() })?;
        Ok(Self { protected, payload, signature })
    }

    /// The attestation document, still as bytes.
    pub fn payload(&self) -> &'a [u8] {
        self.payload
    }

    /// The ES384 signature, `r ‖ s`.
    pub fn signature(&self) -> &'a [u8; SIGNATURE_BYTES] {
        self.signature
    }

    /// What the signature is over: RFC 9052's `Sig_structure`, without external data.
    pub fn signed_bytes(&self) -> Vec<u8> {
        let mut encoder = Encoder::new(Vec::with_capacity(self.protected.len() + self.payload.len() + 32));
        encoder
            .array(4)
            .and_then(|encoder| encoder.str("Signature1"))
            .and_then(|encoder| encoder.bytes(self.protected))
            .and_then(|encoder| encoder.bytes(&[]))
            .and_then(|encoder| encoder.bytes(self.payload))
            .expect("writing to a vector cannot fail");
        encoder.into_writer()
    }
}

/// The protected header must name ES384 and nothing else.
fn judge_protected(header: &[u8]) -> Result<(), EnvelopeError> {
    let mut decoder = Decoder::new(header);
    let mut parameters = Items::of(wanted(0, decoder.map(), "protected header (map)")?);
    let mut algorithm = None;
    while wanted(decoder.position(), parameters.another(&mut decoder), "end of the protected header")? {
        let label = wanted(decoder.position(), decoder.i64(), "label (integer)")?;
        if label != LABEL_ALGORITHM || algorithm.is_some() {
            return Err(EnvelopeError::ProtectedParameter { found: label });
        }
        algorithm = Some(wanted(decoder.position(), decoder.i64(), "algorithm (integer)")?);
    }
    let trailing = header.len() - decoder.position();
    if trailing > 0 {
        return Err(EnvelopeError::TrailingBytes { found: trailing });
    }
    match algorithm {
        Some(ALGORITHM_ES384) => Ok(()),
        Some(found) => Err(EnvelopeError::Algorithm { found }),
        None => Err(EnvelopeError::NoAlgorithm),
    }
}

fn wanted<T>(at: usize, result: Result<T, minicbor::decode::Error>, wanted: &'static str) -> Result<T, EnvelopeError> {
    result.map_err(|_| EnvelopeError::Malformed { wanted, at })
}

/// How many bytes the shortest head of a CBOR item with this argument takes (RFC 8949, section 3).
fn head_bytes(argument: u64) -> usize {
    match argument {
        0..=0x17 => 1,
        0x18..=0xff => 2,
        0x100..=0xffff => 3,
        0x1_0000..=0xffff_ffff => 5,
        _ => 9,
    }
}

fn string_bytes(string: &[u8]) -> usize {
    head_bytes(string.len() as u64) + string.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ES384: &[u8] = &[0xa1, 0x01, 0x38, 0x22];

    /// Builds an envelope from encoded parts.
    fn envelope(start: &[u8], protected: &[u8], unprotected: &[u8], payload: &[u8], signature: &[u8]) -> Vec<u8> {
        let mut bytes = start.to_vec();
        for (string, before) in [(protected, &[][..]), (payload, unprotected), (signature, &[][..])] {
            bytes.extend_from_slice(before);
            bytes.extend(minicbor::to_vec(minicbor::bytes::ByteVec::from(string.to_vec())).unwrap());
        }
        bytes
    }

    fn refusal(evidence: &[u8]) -> EnvelopeError {
        Envelope::parse(evidence).unwrap_err()
    }

    #[test]
    fn tagged_and_untagged_envelopes_are_read() {
        for start in [&[0x84][..], &[0xd2, 0x84]] {
            let bytes = envelope(start, ES384, &[0xa0], b"payload", &[7; 96]);
            let parsed = Envelope::parse(&bytes).unwrap();
            assert_eq!(parsed.payload(), b"payload");
            assert_eq!(parsed.signature(), &[7; 96]);
        }
    }

    #[test]
    fn an_indefinite_protected_header_is_read() {
        let bytes = envelope(&[0x84], &[0xbf, 0x01, 0x38, 0x22, 0xff], &[0xa0], b"", &[7; 96]);
        assert!(Envelope::parse(&bytes).is_ok());
    }

    #[test]
    fn the_signed_bytes_are_those_of_rfc_9052() {
        let bytes = envelope(&[0x84], ES384, &[0xa0], b"pay", &[7; 96]);
        let signed = Envelope::parse(&bytes).unwrap().signed_bytes();
        assert_eq!(hex::encode(signed), "846a5369676e61747572653144a10138224043706179");
    }

    #[test]
    fn each_rule_has_its_own_refusal() {
        assert_eq!(refusal(&vec![0; MAX_EVIDENCE_BYTES + 1]), EnvelopeError::TooLarge { found: 16_385, limit: 16_384 });
        assert!(matches!(refusal(&[]), EnvelopeError::Malformed { wanted: "array of four", at: 0 }));
        assert!(matches!(refusal(&[0x83]), EnvelopeError::Malformed { wanted: "array of four", at: 0 }));
        assert!(matches!(refusal(&[0x9f]), EnvelopeError::Malformed { wanted: "array of four", at: 0 }));
        let tagged = envelope(&[0xd1, 0x84], ES384, &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&tagged), EnvelopeError::Tag { found: 17 });
        let es256 = envelope(&[0x84], &[0xa1, 0x01, 0x26], &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&es256), EnvelopeError::Algorithm { found: -7 });
        let none = envelope(&[0x84], &[0xa0], &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&none), EnvelopeError::NoAlgorithm);
        let twice = envelope(&[0x84], &[0xa2, 0x01, 0x38, 0x22, 0x01, 0x26], &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&twice), EnvelopeError::ProtectedParameter { found: 1 });
        let critical = envelope(&[0x84], &[0xa2, 0x01, 0x38, 0x22, 0x02, 0x80], &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&critical), EnvelopeError::ProtectedParameter { found: 2 });
        let unprotected = envelope(&[0x84], ES384, &[0xa1, 0x04, 0x00], b"", &[7; 96]);
        assert_eq!(refusal(&unprotected), EnvelopeError::UnprotectedParameters { found: 1 });
        let short = envelope(&[0x84], ES384, &[0xa0], b"", &[7; 95]);
        assert_eq!(refusal(&short), EnvelopeError::SignatureLength { found: 95 });
        let mut trailing = envelope(&[0x84], ES384, &[0xa0], b"", &[7; 96]);
        trailing.push(0);
        assert_eq!(refusal(&trailing), EnvelopeError::TrailingBytes { found: 1 });
        let mut long_head = envelope(&[0x98, 0x04], ES384, &[0xa0], b"", &[7; 96]);
        assert_eq!(refusal(&long_head), EnvelopeError::NotShortest { found: 107, wanted: 106 });
        long_head.truncate(50);
        assert!(matches!(refusal(&long_head), EnvelopeError::Malformed { wanted: "signature (byte string)", .. }));
    }

    #[test]
    fn a_claimed_length_is_not_believed() {
        let huge = [0x84, 0x5b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff];
        assert!(matches!(refusal(&huge), EnvelopeError::Malformed { wanted: "protected header (byte string)", at: 1 }));
    }
}
