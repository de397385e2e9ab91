//! A writer of envelopes for tests, made from RFC 5652 and not from the reader: it can write what the reader must refuse.

use aws_lc_rs::cipher::{AES_256, EncryptionContext, PaddedBlockEncryptingKey, UnboundCipherKey};
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::rsa::{OAEP_SHA256_MGF1SHA256, OaepPublicEncryptingKey, PublicEncryptingKey};

use super::recipient::RecipientKey;

/// 1.2.840.113549.1.7.3
const ENVELOPED_DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x03];
/// 1.2.840.113549.1.7.1
const DATA: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x01];
/// 1.2.840.113549.1.1.7
const RSAES_OAEP: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x07];
/// 1.2.840.113549.1.1.8
const MGF1: &[u8] = &[0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x08];
/// 2.16.840.1.101.3.4.2.1
const SHA256: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01];
/// 2.16.840.1.101.3.4.1.42
const AES256_CBC: &[u8] = &[0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x01, 0x2a];

/// A writer of BER that knows nothing of the reader. Values know whether they announce their length or end with a marker.
pub(crate) mod writer {
    fn length(len: usize) -> Vec<u8> {
        match len {
            0..=0x7f => vec![u8::try_from(len).unwrap()],
            0x80..=0xff => vec![0x81, u8::try_from(len).unwrap()],
            _ => [&[0x82][..], &u16::try_from(len).unwrap().to_be_bytes()].concat(),
        }
    }

    pub(crate) fn tlv(tag: u8, contents: &[u8]) -> Vec<u8> {
        [&[tag][..], &length(contents.len()), contents].concat()
    }

    pub(crate) fn nest(tag: u8, indefinite: bool, parts: &[Vec<u8>]) -> Vec<u8> {
        let contents = parts.concat();
        if indefinite { [&[tag, 0x80][..], &contents, &[0, 0]].concat() } else { tlv(tag, &contents) }
    }
}

use writer::{nest, tlv};

/// Everything about an envelope that a test may want otherwise.
#[derive(Clone)]
pub(crate) struct Shape {
    pub(crate) indefinite: bool,
    /// Chunk length; `None` writes the content as one primitive string.
    pub(crate) chunks: Option<usize>,
    pub(crate) null_parameters: bool,
    pub(crate) version: u8,
    pub(crate) recipient_version: u8,
    pub(crate) recipient_tag: u8,
    pub(crate) recipient: Vec<u8>,
    pub(crate) recipients: usize,
    pub(crate) oaep_hash: Vec<u8>,
    pub(crate) mgf_hash: Vec<u8>,
    pub(crate) label: bool,
    pub(crate) wrapped_key: Vec<u8>,
    pub(crate) content_algorithm: Vec<u8>,
    pub(crate) iv: Vec<u8>,
    pub(crate) content: Vec<u8>,
    pub(crate) unprotected_attributes: bool,
}

impl Shape {
    /// As AWS KMS writes it.
    pub(crate) fn kms(recipient: [u8; 32], wrapped_key: Vec<u8>, iv: [u8; 16], content: Vec<u8>) -> Self {
        Self {
            indefinite: true,
            chunks: Some(16),
            null_parameters: true,
            version: 2,
            recipient_version: 2,
            recipient_tag: 0x80,
            recipient: recipient.to_vec(),
            recipients: 1,
            oaep_hash: SHA256.to_vec(),
            mgf_hash: SHA256.to_vec(),
            label: false,
            wrapped_key,
            content_algorithm: AES256_CBC.to_vec(),
            iv: iv.to_vec(),
            content,
            unprotected_attributes: false,
        }
    }

    /// The same without any indefinite length.
    pub(crate) fn definite(mut self) -> Self {
        self.indefinite = false;
        self.chunks = None;
        self
    }

    pub(crate) fn write(&self) -> Vec<u8> {
        let any = self.indefinite;
        let hash = |oid: &[u8]| {
            let mut parts = vec![tlv(6, oid)];
            if self.null_parameters {
                parts.push(vec![5, 0]);
            }
            nest(0x30, false, &parts)
        };
        let mut parameters = vec![
            nest(0xa0, false, &[hash(&self.oaep_hash)]),
            nest(0xa1, false, &[nest(0x30, false, &[tlv(6, MGF1), hash(&self.mgf_hash)])]),
        ];
        if self.label {
            // 1.2.840.113549.1.1.9, id-pSpecified, with a label of one byte
            let p_specified = [0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x09];
            parameters.push(nest(0xa2, false, &[nest(0x30, false, &[tlv(6, &p_specified), tlv(4, b"x")])]));
        }
        let algorithm = nest(0x30, false, &[tlv(6, RSAES_OAEP), nest(0x30, false, &parameters)]);
        let recipient = nest(
            0x30,
            false,
            &[
                tlv(2, &[self.recipient_version]),
                tlv(self.recipient_tag, &self.recipient),
                algorithm,
                tlv(4, &self.wrapped_key),
            ],
        );
        let content = match self.chunks {
            Some(size) => {
                let chunks: Vec<_> = self.content.chunks(size).map(|chunk| tlv(4, chunk)).collect();
                nest(0xa0, any, &chunks)
            }
            None => tlv(0x80, &self.content),
        };
        let content_algorithm = nest(0x30, false, &[tlv(6, &self.content_algorithm), tlv(4, &self.iv)]);
        let mut data = vec![
            tlv(2, &[self.version]),
            nest(0x31, false, &vec![recipient; self.recipients]),
            nest(0x30, any, &[tlv(6, DATA), content_algorithm, content]),
        ];
        if self.unprotected_attributes {
            data.push(nest(0xa1, false, &[]));
        }
        nest(0x30, any, &[tlv(6, ENVELOPED_DATA), nest(0xa0, any, &[nest(0x30, any, &data)])])
    }
}

pub(crate) fn rsa(key: &RecipientKey, plaintext: &[u8]) -> Vec<u8> {
    let public = PublicEncryptingKey::from_der(key.public_key()).unwrap();
    let mut out = vec![0; 256];
    OaepPublicEncryptingKey::new(public).unwrap().encrypt(&OAEP_SHA256_MGF1SHA256, plaintext, &mut out, None).unwrap();
    out
}

pub(crate) fn aes(key: &[u8], iv: [u8; 16], plaintext: &[u8]) -> Vec<u8> {
    let mut content = plaintext.to_vec();
    PaddedBlockEncryptingKey::cbc_pkcs7(UnboundCipherKey::new(&AES_256, key).unwrap())
        .unwrap()
        .less_safe_encrypt(&mut content, EncryptionContext::Iv128(FixedLength::from(iv)))
        .unwrap();
    content
}

/// An envelope to `key` that holds `secret`.
pub(crate) fn shape(key: &RecipientKey, secret: &[u8]) -> Shape {
    Shape::kms(key.identifier(), rsa(key, &[9; 32]), [3; 16], aes(&[9; 32], [3; 16], secret))
}

/// One without any cryptography, for what only concerns parsing.
pub(crate) fn dummy() -> Shape {
    Shape::kms([7; 32], vec![5; 256], [3; 16], vec![1; 48])
}
