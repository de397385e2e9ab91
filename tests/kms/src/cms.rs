//! `CiphertextForRecipient`: CMS EnvelopedData (RFC 5652) in the shape in which the real service writes it.
//!
//! Version 2, one KeyTransRecipientInfo that names the key by subject key identifier (SHA-256 of the DER public key),
//! RSAES-OAEP with SHA-256 and MGF1-SHA-256 (RFC 4055), AES-256-CBC. The real service encodes it in BER with indefinite
//! lengths and the ciphertext as a constructed octet string of several chunks, which strict DER parsers refuse; the
//! definite shape carries the same values, so that a client's parser can be held to both.

use std::str::FromStr;

use aws_lc_rs::cipher::{AES_256, DecryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};
use zeroize::Zeroizing;

/// How the lengths are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    /// BER, indefinite lengths, ciphertext in chunks of up to 1,000 bytes: what the real service sends, for which a data key
    /// is one chunk.
    #[default]
    Ber,
    /// The same with the last cipher block in a chunk of its own, as OpenSSL streams it: a data key is two chunks.
    Chunked,
    /// DER, definite lengths, ciphertext in one primitive string.
    Der,
}

impl FromStr for Shape {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "ber" => Ok(Self::Ber),
            "chunked" => Ok(Self::Chunked),
            "der" => Ok(Self::Der),
            other => Err(format!("'{other}' is not a CMS shape: ber, chunked or der")),
        }
    }
}

/// Why no envelope could be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// The evidence's public key is not what Recipient takes.
    #[error("the public key in the attestation document must be an RSA-2048 key as DER SubjectPublicKeyInfo")]
    RecipientKey,
    /// The library refused to encrypt.
    #[error("the envelope could not be encrypted")]
    Encryption,
}

/// Bits of a recipient key; the real service takes others, our enclave makes this one only.
const RECIPIENT_KEY_BITS: usize = 2_048;
/// Largest chunk of the constructed octet string.
const CHUNK_BYTES: usize = 1_000;
const BLOCK_BYTES: usize = 16;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const NULL: [u8; 2] = [0x05, 0x00];
const END_OF_CONTENTS: [u8; 2] = [0x00, 0x00];
/// Context tag 0, primitive and constructed; 1, constructed.
const CONTEXT_0: u8 = 0x80;
const CONTEXT_0_CONSTRUCTED: u8 = 0xa0;
const CONTEXT_1_CONSTRUCTED: u8 = 0xa1;

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1
const SHA_256: &[u8] = &[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES_256_CBC: &[u8] = &[0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// A recipient's RSA key, checked to be one that can be encrypted to.
pub struct RecipientKey {
    key: OaepPublicEncryptingKey,
    identifier: [u8; 32],
}

impl std::fmt::Debug for RecipientKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecipientKey").field("identifier", &hex::encode(self.identifier)).finish_non_exhaustive()
    }
}

impl RecipientKey {
    /// Reads a DER SubjectPublicKeyInfo.
    ///
    /// # Errors
    /// [`EnvelopeError::RecipientKey`] unless it is an RSA key of 2,048 bits.
    pub fn from_spki(spki: &[u8]) -> Result<Self, EnvelopeError> {
        let refused = EnvelopeError::RecipientKey;
        let public = PublicEncryptingKey::from_der(spki).map_err(|_| refused)?;
        // The library also reads other forms of a key and bytes behind it; the identifier is over exactly one encoding.
        let canonical = AsDer::<PublicKeyX509Der<'_>>::as_der(&public).map_err(|_| refused)?;
        if public.key_size_bits() != RECIPIENT_KEY_BITS || canonical.as_ref() != spki {
            return Err(refused);
        }
        let key = OaepPublicEncryptingKey::new(public).map_err(|_| refused)?;
        let mut identifier = [0; 32];
        identifier.copy_from_slice(digest(&SHA256, spki).as_ref());
        Ok(Self { key, identifier })
    }

    /// Encrypts `plaintext` so that only this recipient reads it.
    ///
    /// # Errors
    /// [`EnvelopeError::Encryption`] when the library refuses.
    pub fn envelope(&self, plaintext: &[u8], shape: Shape) -> Result<Vec<u8>, EnvelopeError> {
        let failed = EnvelopeError::Encryption;
        let mut content_key = Zeroizing::new([0_u8; 32]);
        getrandom::fill(content_key.as_mut_slice()).map_err(|_| failed)?;
        let cipher = UnboundCipherKey::new(&AES_256, content_key.as_slice())
            .and_then(PaddedBlockEncryptingKey::cbc_pkcs7)
            .map_err(|_| failed)?;
        // Room for the padding, so that the buffer is not moved and its plaintext left behind.
        let mut content = Vec::with_capacity(plaintext.len() + BLOCK_BYTES);
        content.extend_from_slice(plaintext);
        let DecryptionContext::Iv128(iv) = cipher.encrypt(&mut content).map_err(|_| failed)? else {
            return Err(failed);
        };
        let mut wrapped_key = vec![0; self.key.ciphertext_size()];
        let wrapped = self
            .key
            .encrypt(&OAEP_SHA256_MGF1SHA256, content_key.as_slice(), &mut wrapped_key, None)
            .map_err(|_| failed)?;
        Ok(encode(&self.identifier, wrapped, iv.as_ref(), &content, shape))
    }
}

fn encode(identifier: &[u8], wrapped_key: &[u8], iv: &[u8], ciphertext: &[u8], shape: Shape) -> Vec<u8> {
    let version = [INTEGER, 1, 2];
    let sha256 = tlv(SEQUENCE, &[SHA_256, &NULL]);
    let mgf1 = tlv(SEQUENCE, &[MGF1, &sha256]);
    let oaep_parameters =
        tlv(SEQUENCE, &[&tlv(CONTEXT_0_CONSTRUCTED, &[&sha256]), &tlv(CONTEXT_1_CONSTRUCTED, &[&mgf1])]);
    let recipient = tlv(
        SEQUENCE,
        &[
            &version,
            &tlv(CONTEXT_0, &[identifier]),
            &tlv(SEQUENCE, &[RSAES_OAEP, &oaep_parameters]),
            &tlv(OCTET_STRING, &[wrapped_key]),
        ],
    );
    let content_algorithm = tlv(SEQUENCE, &[AES_256_CBC, &tlv(OCTET_STRING, &[iv])]);
    let encrypted_content = match shape {
        Shape::Der => tlv(CONTEXT_0, &[ciphertext]),
        Shape::Ber => indefinite(CONTEXT_0_CONSTRUCTED, &[&chunks(ciphertext, 0)]),
        Shape::Chunked => indefinite(CONTEXT_0_CONSTRUCTED, &[&chunks(ciphertext, BLOCK_BYTES)]),
    };

    let wrap = |tag, parts: &[&[u8]]| match shape {
        Shape::Der => tlv(tag, parts),
        Shape::Ber | Shape::Chunked => indefinite(tag, parts),
    };
    let content_info = wrap(SEQUENCE, &[DATA, &content_algorithm, &encrypted_content]);
    let enveloped = wrap(SEQUENCE, &[&version, &tlv(SET, &[&recipient]), &content_info]);
    wrap(SEQUENCE, &[ENVELOPED_DATA, &wrap(CONTEXT_0_CONSTRUCTED, &[&enveloped])])
}

/// The ciphertext as octet strings, its last `apart` bytes in one of their own.
fn chunks(ciphertext: &[u8], apart: usize) -> Vec<u8> {
    let (body, last) = ciphertext.split_at(ciphertext.len().saturating_sub(apart));
    let last = (!last.is_empty()).then_some(last);
    body.chunks(CHUNK_BYTES).chain(last).flat_map(|chunk| tlv(OCTET_STRING, &[chunk])).collect()
}

fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    let bytes = length.to_be_bytes();
    let significant = &bytes[bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1)..];
    match significant {
        [short @ ..=0x7f] => out.push(*short),
        long => {
            out.push(0x80 | u8::try_from(long.len()).expect("a usize has at most 8 bytes"));
            out.extend_from_slice(long);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}

fn indefinite(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let mut out = vec![tag, 0x80];
    for part in parts {
        out.extend_from_slice(part);
    }
    out.extend_from_slice(&END_OF_CONTENTS);
    out
}

#[cfg(test)]
#[path = "cms_tests.rs"]
mod tests;
