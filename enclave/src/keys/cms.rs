//! The envelope in which the key service hands a key to this enclave: CMS EnvelopedData (RFC 5652), read strictly.
//!
//! AWS KMS answers a request that carried evidence with `CiphertextForRecipient`: the key, encrypted under a fresh AES key,
//! which is encrypted to the RSA key in the evidence. Exactly that shape is read, in both of BER's length forms; every option
//! that KMS does not use is refused rather than skipped. Reading ([`Envelope::parse`]) touches public bytes only and says what
//! it did not like; opening ([`super::recipient`]) touches secrets and says nothing but "no".

use super::ber::{self, BerError, Reader, constructed, primitive};

/// The longest envelope that is read. Real ones are about 500 bytes.
pub const MAX_ENVELOPE: usize = 6 * 1024;

/// The longest encrypted content that is read, in bytes. A shard key with its padding is 48.
pub const MAX_CONTENT: usize = 1024;

/// An RSA-2048 ciphertext, in bytes.
const WRAPPED_KEY: usize = 256;

/// 1.2.840.113549.1.7.3, id-envelopedData.
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1, id-data.
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7, id-RSAES-OAEP.
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8, id-mgf1.
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1, id-sha256.
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42, id-aes256-CBC.
const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// Why bytes are not an envelope of the key service. Speaks of public bytes only, so it may be told and logged; the remedy is
/// the same for all: no honest key service sends such an answer, so look at who is on the path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// Longer than [`MAX_ENVELOPE`].
    #[error("the envelope is longer than 6 KiB")]
    TooLong,
    /// Not the BER that is read here.
    #[error("the envelope is malformed: {0}")]
    Ber(#[from] BerError),
    /// Not EnvelopedData, or not with plain data in it.
    #[error("the envelope is of another type than EnvelopedData over data")]
    ContentType,
    /// Another version than 2.
    #[error("the envelope's version is not 2")]
    Version,
    /// The recipient is not named by a 32-byte subject key identifier.
    #[error("the envelope's recipient is not named by a SHA-256 key identifier")]
    RecipientIdentifier,
    /// The key is not encrypted with RSAES-OAEP over SHA-256 and MGF1 with SHA-256.
    #[error("the envelope's key is not encrypted with RSAES-OAEP-SHA-256")]
    KeyAlgorithm,
    /// The encrypted key is not as long as an RSA-2048 ciphertext.
    #[error("the envelope's encrypted key is not 256 bytes long")]
    KeyLength,
    /// The content is not encrypted with AES-256-CBC and an IV of 16 bytes.
    #[error("the envelope's content is not encrypted with AES-256-CBC")]
    ContentAlgorithm,
    /// The content is empty, longer than [`MAX_CONTENT`], or no whole number of AES blocks.
    #[error("the envelope's content is not 1 to 64 whole AES blocks long")]
    ContentLength,
}

/// An envelope as read: well-formed, of the one shape that is accepted, not yet opened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// Names the recipient's key: SHA-256 of its DER SubjectPublicKeyInfo, as KMS does it.
    pub recipient: [u8; 32],
    /// The AES key under RSAES-OAEP.
    pub wrapped_key: [u8; WRAPPED_KEY],
    /// AES-CBC's initialisation vector.
    pub iv: [u8; 16],
    /// The content under AES-256-CBC with PKCS #7 padding.
    pub content: Vec<u8>,
}

impl Envelope {
    /// Reads an envelope.
    ///
    /// # Errors
    /// Says which part of the one accepted shape the bytes do not have.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvelopeError> {
        if bytes.len() > MAX_ENVELOPE {
            return Err(EnvelopeError::TooLong);
        }
        let mut reader = Reader::new(bytes);
        // ContentInfo ::= SEQUENCE { contentType, content [0] EXPLICIT }
        let envelope = reader.constructed(ber::SEQUENCE, |info| {
            expect_oid(info, ENVELOPED_DATA, EnvelopeError::ContentType)?;
            info.constructed(constructed(0), |explicit| explicit.constructed(ber::SEQUENCE, enveloped_data))
        })?;
        reader.end()?;
        Ok(envelope)
    }
}

/// EnvelopedData ::= SEQUENCE { version, recipientInfos SET, encryptedContentInfo }. Originator information and unprotected
/// attributes, which would stand before and after, are refused as unexpected elements.
fn enveloped_data(data: &mut Reader<'_>) -> Result<Envelope, EnvelopeError> {
    expect_version(data)?;
    let (recipient, wrapped_key) = data.constructed(ber::SET, |recipients| {
        // One recipient exactly: a second would be refused by the end of the set.
        recipients.constructed(ber::SEQUENCE, key_transport)
    })?;
    let (iv, content) = data.constructed(ber::SEQUENCE, encrypted_content)?;
    Ok(Envelope { recipient, wrapped_key, iv, content })
}

/// KeyTransRecipientInfo ::= SEQUENCE { version, rid [0] IMPLICIT SubjectKeyIdentifier, keyEncryptionAlgorithm, encryptedKey }
fn key_transport(info: &mut Reader<'_>) -> Result<([u8; 32], [u8; WRAPPED_KEY]), EnvelopeError> {
    expect_version(info)?;
    if !info.next_is(primitive(0)) {
        return Err(EnvelopeError::RecipientIdentifier);
    }
    let recipient = info.primitive(primitive(0))?.try_into().map_err(|_| EnvelopeError::RecipientIdentifier)?;
    info.constructed(ber::SEQUENCE, |algorithm| {
        expect_oid(algorithm, RSAES_OAEP, EnvelopeError::KeyAlgorithm)?;
        algorithm.constructed(ber::SEQUENCE, oaep_parameters)
    })?;
    let wrapped_key = info.primitive(ber::OCTET_STRING)?.try_into().map_err(|_| EnvelopeError::KeyLength)?;
    Ok((recipient, wrapped_key))
}

/// RSAES-OAEP-params (RFC 4055, section 4.1): both hashes named, the label absent. Absent fields mean SHA-1 and are refused.
fn oaep_parameters(parameters: &mut Reader<'_>) -> Result<(), EnvelopeError> {
    for number in [0, 1] {
        if !parameters.next_is(constructed(number)) {
            return Err(EnvelopeError::KeyAlgorithm);
        }
        parameters.constructed(constructed(number), |tagged| {
            tagged.constructed(ber::SEQUENCE, |identifier| {
                if number == 0 {
                    return sha256_identifier(identifier);
                }
                expect_oid(identifier, MGF1, EnvelopeError::KeyAlgorithm)?;
                identifier.constructed(ber::SEQUENCE, sha256_identifier)
            })
        })?;
    }
    if parameters.at_end() { Ok(()) } else { Err(EnvelopeError::KeyAlgorithm) }
}

/// SHA-256 with its parameters NULL or absent: RFC 4055, section 2.1, has every reader accept both.
fn sha256_identifier(identifier: &mut Reader<'_>) -> Result<(), EnvelopeError> {
    expect_oid(identifier, SHA256, EnvelopeError::KeyAlgorithm)?;
    if identifier.next_is(ber::NULL) && !identifier.primitive(ber::NULL)?.is_empty() {
        return Err(EnvelopeError::KeyAlgorithm);
    }
    Ok(())
}

/// EncryptedContentInfo ::= SEQUENCE { contentType, contentEncryptionAlgorithm, encryptedContent [0] IMPLICIT OCTET STRING }
fn encrypted_content(info: &mut Reader<'_>) -> Result<([u8; 16], Vec<u8>), EnvelopeError> {
    expect_oid(info, DATA, EnvelopeError::ContentType)?;
    let iv = info.constructed(ber::SEQUENCE, |algorithm| {
        expect_oid(algorithm, AES256_CBC, EnvelopeError::ContentAlgorithm)?;
        let iv = algorithm.primitive(ber::OCTET_STRING)?;
        iv.try_into().map_err(|_| EnvelopeError::ContentAlgorithm)
    })?;
    let mut content = Vec::new();
    if info.next_is(primitive(0)) {
        append(&mut content, info.primitive(primitive(0))?)?;
    } else {
        // In chunks, each a primitive octet string; chunks of chunks are legal BER that nobody sends.
        info.constructed(constructed(0), |chunks| {
            while !chunks.at_end() {
                append(&mut content, chunks.primitive(ber::OCTET_STRING)?)?;
            }
            Ok::<_, EnvelopeError>(())
        })?;
    }
    if content.is_empty() || !content.len().is_multiple_of(16) {
        return Err(EnvelopeError::ContentLength);
    }
    Ok((iv, content))
}

/// Appends a chunk, its length checked before anything is allocated for it.
fn append(content: &mut Vec<u8>, chunk: &[u8]) -> Result<(), EnvelopeError> {
    if content.len() + chunk.len() > MAX_CONTENT {
        return Err(EnvelopeError::ContentLength);
    }
    content.extend_from_slice(chunk);
    Ok(())
}

fn expect_oid(reader: &mut Reader<'_>, oid: &[u8], otherwise: EnvelopeError) -> Result<(), EnvelopeError> {
    if reader.primitive(ber::OBJECT_IDENTIFIER)? == oid { Ok(()) } else { Err(otherwise) }
}

/// Version 2 is what a recipient named by key identifier makes of both structures (RFC 5652, sections 6.1 and 6.2.1).
fn expect_version(reader: &mut Reader<'_>) -> Result<(), EnvelopeError> {
    if reader.primitive(ber::INTEGER)? == [2] { Ok(()) } else { Err(EnvelopeError::Version) }
}

#[cfg(test)]
#[path = "cms_tests.rs"]
mod tests;
