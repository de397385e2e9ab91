//! Signatures over images: who built one, as evidence shows it in PCR8.
//!
//! The section is AWS's: CBOR, a list of one map `{signing_certificate, signature}`, both as *lists of numbers* (what serde makes
//! of a `Vec<u8>`). The first is the certificate in PEM, the second an untagged COSE_Sign1 (RFC 9052) with ES384, whose payload
//! is the map `{register_index: 0, register_value: PCR0}`, again with a list of numbers. Source:
//! `aws-nitro-enclaves-image-format`, `src/utils/eif_signer.rs`.
//!
//! ECDSA here takes its nonce from key and message (RFC 6979): a signed image, too, is the same in every build.

use std::fmt;

use coset::iana::Algorithm;
use coset::{CborSerializable, CoseSign1, CoseSign1Builder, HeaderBuilder, RegisteredLabelWithPrivate};
use p384::SecretKey;
use p384::ecdsa::signature::{Signer as _, Verifier};
use p384::ecdsa::{SigningKey, VerifyingKey};
use p384::pkcs8::DecodePrivateKey;
use serde::{Deserialize, Serialize};
use x509_cert::Certificate;
use x509_cert::der::{Decode, pem};

use crate::measure::Pcr;

/// Longest signature section: a certificate of 16 KiB in PEM, each byte as a number of CBOR, and the signature.
pub const SIGNATURE_BYTES: usize = 64 * 1024;

/// Why an image cannot be signed with what was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    /// Not a key.
    #[error(
        "the key is no P-384 private key in PEM: make one with `openssl ecparam -name secp384r1 -genkey -noout -out key.pem`"
    )]
    Key,
    /// Not a certificate.
    #[error(
        "the certificate is not one certificate in PEM, for a key on P-384: make one with `openssl req -new -x509 -key key.pem -sha384 -out certificate.pem`"
    )]
    Certificate,
    /// AWS's hypervisor would refuse to start the image.
    #[error("the certificate is for another key: pass the key that it was made for")]
    Mismatch,
}

/// Why the signature of an image is not good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SignatureError {
    /// Not the structure above.
    #[error("the signature section is not one signature with its certificate, in at most {SIGNATURE_BYTES} bytes")]
    Encoding,
    /// Not a certificate for a P-384 key.
    #[error("the signing certificate is not one certificate in PEM, for a key on P-384")]
    Certificate,
    /// Another algorithm than ES384.
    #[error("the signature is not ES384 (ECDSA on P-384 with SHA-384)")]
    Algorithm,
    /// Signed, but not this.
    #[error("the signature is over another image: its PCR0 is not the one of this file")]
    OtherImage,
    /// Not made with the certificate's key.
    #[error("the signature was not made with the certificate's key")]
    Forged,
}

#[derive(Serialize, Deserialize)]
struct PcrSignature {
    signing_certificate: Vec<u8>,
    signature: Vec<u8>,
}

#[derive(Serialize)]
struct PcrInfo<'a> {
    register_index: i32,
    register_value: &'a [u8],
}

fn cbor(value: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    ciborium::into_writer(value, &mut bytes).expect("numbers and names always encode");
    bytes
}

fn payload(pcr0: &Pcr) -> Vec<u8> {
    cbor(&PcrInfo { register_index: 0, register_value: &pcr0.0 })
}

/// DER and key of one certificate in PEM.
fn read_certificate(certificate: &[u8]) -> Option<(Vec<u8>, VerifyingKey)> {
    let (label, der) = pem::decode_vec(certificate).ok()?;
    let parsed = Certificate::from_der(&der).ok()?;
    let key = parsed.tbs_certificate().subject_public_key_info().subject_public_key.as_bytes()?;
    let key = VerifyingKey::from_sec1_bytes(key).ok()?;
    (label == "CERTIFICATE").then_some((der, key))
}

/// A key and the certificate that goes into the image with each signature. The key is wiped when this is dropped.
pub struct Signer {
    key: SigningKey,
    certificate_pem: Vec<u8>,
    certificate_der: Vec<u8>,
}

impl fmt::Debug for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Signer(redacted)")
    }
}

impl Signer {
    /// From a key in PEM (PKCS #8, or `EC PRIVATE KEY` as OpenSSL writes it) and its certificate in PEM.
    ///
    /// # Errors
    /// [`SignError`] when they are not, or do not belong together.
    pub fn from_pem(key: &str, certificate: &[u8]) -> Result<Self, SignError> {
        let secret = SecretKey::from_pkcs8_pem(key).or_else(|_| SecretKey::from_sec1_pem(sec1(key)));
        let key = SigningKey::from(secret.map_err(|_| SignError::Key)?);
        let (certificate_der, certified) = read_certificate(certificate).ok_or(SignError::Certificate)?;
        if *key.verifying_key() != certified {
            return Err(SignError::Mismatch);
        }
        Ok(Self { key, certificate_pem: certificate.to_vec(), certificate_der })
    }

    /// The certificate in DER, which PCR8 measures.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// The signature section for an image with this PCR0.
    pub fn sign(&self, pcr0: &Pcr) -> Vec<u8> {
        let sign = |message: &[u8]| {
            let signature: p384::ecdsa::Signature = self.key.sign(message);
            signature.to_bytes().to_vec()
        };
        let cose = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(Algorithm::ES384).build())
            .payload(payload(pcr0))
            .create_signature(&[], sign)
            .build()
            .to_vec()
            .expect("a signature always encodes");
        cbor(&[PcrSignature { signing_certificate: self.certificate_pem.clone(), signature: cose }])
    }
}

/// `openssl ecparam -genkey` writes the curve's parameters before the key.
fn sec1(key: &str) -> &str {
    key.find("-----BEGIN EC PRIVATE KEY-----").map_or(key, |at| &key[at..])
}

/// A signature as an image carries it.
#[derive(Debug, Clone)]
pub struct Signature {
    certificate_der: Vec<u8>,
    key: VerifyingKey,
    cose: CoseSign1,
}

impl Signature {
    /// Reads the signature section.
    ///
    /// # Errors
    /// [`SignatureError`] when it is not one signature with a certificate for a key that can make it.
    pub fn decode(section: &[u8]) -> Result<Self, SignatureError> {
        if section.len() > SIGNATURE_BYTES {
            return Err(SignatureError::Encoding);
        }
        let mut rest = section;
        let list: [PcrSignature; 1] = ciborium::from_reader(&mut rest).map_err(|_| SignatureError::Encoding)?;
        let [PcrSignature { signing_certificate, signature }] = list;
        let cose = CoseSign1::from_slice(&signature).map_err(|_| SignatureError::Encoding)?;
        if !rest.is_empty() {
            return Err(SignatureError::Encoding);
        }
        let (certificate_der, key) = read_certificate(&signing_certificate).ok_or(SignatureError::Certificate)?;
        Ok(Self { certificate_der, key, cose })
    }

    /// The signer's certificate in DER. Nothing says who that is: compare PCR8.
    pub fn certificate_der(&self) -> &[u8] {
        &self.certificate_der
    }

    /// Whether the certificate's key signed the image with this PCR0.
    ///
    /// # Errors
    /// [`SignatureError`] when it did not.
    pub fn verify(&self, pcr0: &Pcr) -> Result<(), SignatureError> {
        let es384 = RegisteredLabelWithPrivate::Assigned(Algorithm::ES384);
        if self.cose.protected.header.alg != Some(es384) {
            return Err(SignatureError::Algorithm);
        }
        // Attack stopped: a good signature taken from another image of the same signer.
        if self.cose.payload != Some(payload(pcr0)) {
            return Err(SignatureError::OtherImage);
        }
        self.cose.verify_signature(&[], |signature, message| {
            let signature = p384::ecdsa::Signature::from_slice(signature).map_err(|_| SignatureError::Forged)?;
            self.key.verify(message, &signature).map_err(|_| SignatureError::Forged)
        })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A key and a certificate made for this run, in PEM.
    pub(crate) fn key_and_certificate() -> (String, String) {
        let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
        let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
        (key.serialize_pem(), certificate.pem())
    }

    fn signer() -> Signer {
        let (key, certificate) = key_and_certificate();
        Signer::from_pem(&key, certificate.as_bytes()).unwrap()
    }

    const PCR0: Pcr = Pcr([7; 48]);

    #[test]
    fn what_is_signed_verifies_and_is_the_same_each_time() {
        let signer = signer();
        let section = signer.sign(&PCR0);
        assert_eq!(section, signer.sign(&PCR0));
        let signature = Signature::decode(&section).unwrap();
        assert_eq!(signature.verify(&PCR0), Ok(()));
        assert_eq!(signature.certificate_der(), signer.certificate_der());
        assert_eq!(signature.verify(&Pcr([8; 48])), Err(SignatureError::OtherImage));
        assert_eq!(format!("{signer:?}"), "Signer(redacted)");
    }

    /// The bytes that AWS's own test of its encoder names (`src/utils/cbor.rs`).
    #[test]
    fn the_payload_is_aws_byte_for_byte() {
        let mut pcr0 = Pcr::ZERO;
        pcr0.0.iter_mut().zip(0..).for_each(|(byte, value)| *byte = value);
        let expected = concat!(
            "a26e72656769737465725f696e646578006e72656769737465725f76616c75659830",
            "000102030405060708090a0b0c0d0e0f1011121314151617",
            "18181819181a181b181c181d181e181f1820182118221823182418251826182718281829182a182b182c182d182e182f",
        );
        assert_eq!(hex::encode(payload(&pcr0)), expected);
    }

    #[test]
    fn another_key_in_the_certificate_is_a_forgery() {
        let (ours, theirs) = (signer(), signer());
        let section = ours.sign(&PCR0);
        let cose = Signature::decode(&section).unwrap().cose.to_vec().unwrap();
        let forged = [PcrSignature { signing_certificate: theirs.certificate_pem.clone(), signature: cose }];
        let forged = Signature::decode(&cbor(&forged)).unwrap();
        assert_eq!(forged.verify(&PCR0), Err(SignatureError::Forged));
    }

    #[test]
    fn other_algorithms_and_shapes_are_refused() {
        let signer = signer();
        let with = |certificate: &[u8], cose: Vec<u8>| PcrSignature {
            signing_certificate: certificate.to_vec(),
            signature: cose,
        };
        let es256 = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(Algorithm::ES256).build())
            .payload(payload(&PCR0))
            .signature(vec![0; 96])
            .build();
        let es256 = es256.to_vec().unwrap();
        let pem = signer.certificate_pem.as_slice();
        let decoded = Signature::decode(&cbor(&[with(pem, es256.clone())])).unwrap();
        assert_eq!(decoded.verify(&PCR0), Err(SignatureError::Algorithm));

        let two = [with(pem, es256.clone()), with(pem, es256.clone())];
        let none: [PcrSignature; 0] = [];
        let trailing = [signer.sign(&PCR0), vec![0]].concat();
        let no_cose = [with(pem, vec![0x80])];
        let large = vec![0; SIGNATURE_BYTES + 1];
        for section in [cbor(&two), cbor(&none), trailing, cbor(&no_cose), large, Vec::new()] {
            assert_eq!(Signature::decode(&section).err(), Some(SignatureError::Encoding));
        }
        let no_certificate = cbor(&[with(b"-----BEGIN CERTIFICATE-----", es256)]);
        assert_eq!(Signature::decode(&no_certificate).err(), Some(SignatureError::Certificate));
    }

    #[test]
    fn key_and_certificate_must_belong_together() {
        let (key, certificate) = key_and_certificate();
        let (other, _) = key_and_certificate();
        let refused = |key: &str, certificate: &[u8]| Signer::from_pem(key, certificate).err();
        assert_eq!(refused(&other, certificate.as_bytes()), Some(SignError::Mismatch));
        assert_eq!(refused("", certificate.as_bytes()), Some(SignError::Key));
        assert_eq!(refused(&key, key.as_bytes()), Some(SignError::Certificate));
        let chain = format!("{certificate}{certificate}");
        assert_eq!(refused(&key, chain.as_bytes()), Some(SignError::Certificate));
        let p256 = rcgen::KeyPair::generate().unwrap();
        assert_eq!(refused(&p256.serialize_pem(), certificate.as_bytes()), Some(SignError::Key));
    }

    /// Both forms that `openssl` writes of a private key.
    #[test]
    fn openssls_keys_are_read() {
        let (pem, certificate) = key_and_certificate();
        let secret = SecretKey::from_pkcs8_pem(&pem).unwrap();
        let sec1 = secret.to_sec1_pem(p384::pkcs8::LineEnding::LF).unwrap();
        let parameters = "-----BEGIN EC PARAMETERS-----\nBgUrgQQAIg==\n-----END EC PARAMETERS-----\n";
        for key in [sec1.to_string(), format!("{parameters}{}", *sec1)] {
            assert!(Signer::from_pem(&key, certificate.as_bytes()).is_ok());
        }
    }
}
