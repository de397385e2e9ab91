//! Whom the TLS connection to AWS KMS is believed to end at: Amazon Trust Services, and nobody else.
//!
//! The parent relays the connection and could answer it itself. A host that held a certificate from any other public authority
//! could then forge `CiphertextForRecipient` (the recipient's public key is public) and choose the enclave's shard keys, so the
//! usual hundred and more roots are cut down to Amazon's own five.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls_pki_types::TrustAnchor;

/// The common names of the roots that AWS endpoints chain to (<https://www.amazontrust.com/repository/>).
pub const AMAZON_ROOTS: [&str; 5] = [
    "Amazon Root CA 1",
    "Amazon Root CA 2",
    "Amazon Root CA 3",
    "Amazon Root CA 4",
    "Starfield Services Root Certificate Authority - G2",
];

/// Amazon's roots, as compiled in.
pub fn amazon() -> Arc<RootCertStore> {
    let roots = webpki_roots::TLS_SERVER_ROOTS.iter().filter(|root| is_amazon(root)).cloned().collect();
    Arc::new(RootCertStore { roots })
}

/// Whether an anchor's subject ends with one of the common names, encoded exactly: type commonName, a string of that length.
fn is_amazon(root: &TrustAnchor<'_>) -> bool {
    const COMMON_NAME: &[u8] = &[0x06, 0x03, 0x55, 0x04, 0x03];
    AMAZON_ROOTS.iter().any(|name| {
        let Some(head) = root.subject.as_ref().strip_suffix(name.as_bytes()) else { return false };
        // … commonName, string tag (PrintableString or UTF8String), length
        let [before @ .., tag, length] = head else { return false };
        matches!(tag, 0x13 | 0x0c) && usize::from(*length) == name.len() && before.ends_with(COMMON_NAME)
    })
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    /// SHA-256 of each root's DER SubjectPublicKeyInfo. They are well known as HPKP pins and stay the same when a root is
    /// issued anew.
    const PINS: [(&str, &str); 5] = [
        ("Amazon Root CA 1", "++MBgDH5WGvL9Bcn5Be30cRcL0f5O+NyoXuWtQdX1aI="),
        ("Amazon Root CA 2", "f0KW/FtqTjs108NpYj42SrGvOB2PpxIVM8nWxjPqJGE="),
        ("Amazon Root CA 3", "NqvDJlas/GRcYbcWE8S/IceH9cq77kg0jVhZeAPXq8k="),
        ("Amazon Root CA 4", "9+ze1cZgR9KO1kZrVDxA4HQ6voHRCSVNz4RdTCx4U8U="),
        ("Starfield Services Root Certificate Authority - G2", "KwccWaCgrnaw6tsrrSO61FgLacNgG2MMLq8GE6+oP5I="),
    ];

    #[test]
    fn exactly_amazons_five_roots_are_compiled_in() {
        let store = amazon();
        assert_eq!(store.roots.len(), AMAZON_ROOTS.len());
        for (name, pin) in PINS {
            let root = store.roots.iter().find(|root| root.subject.as_ref().ends_with(name.as_bytes())).unwrap();
            // A trust anchor holds the contents of the SubjectPublicKeyInfo without its outer header.
            let contents = root.subject_public_key_info.as_ref();
            let mut spki = vec![0x30];
            match contents.len() {
                length @ 0..=0x7f => spki.push(u8::try_from(length).unwrap()),
                length @ 0x80..=0xff => spki.extend([0x81, u8::try_from(length).unwrap()]),
                length => {
                    spki.push(0x82);
                    spki.extend(u16::try_from(length).unwrap().to_be_bytes());
                }
            }
            spki.extend_from_slice(contents);
            assert_eq!(data_encoding::BASE64.encode(&Sha256::digest(&spki)), pin, "{name}");
        }
    }

    #[test]
    fn a_name_that_only_ends_alike_is_not_amazons() {
        let amazon = amazon();
        let mut lookalike = amazon.roots[0].clone();
        let subject = [b"1\x1a0\x18\x06\x03U\x04\x03\x13\x11".as_slice(), b"XAmazon Root CA 1"].concat();
        lookalike.subject = subject.as_slice().into();
        assert!(!is_amazon(&lookalike));
        let starfield = webpki_roots::TLS_SERVER_ROOTS
            .iter()
            .find(|root| root.subject.as_ref().ends_with(b"2Starfield Root Certificate Authority - G2"));
        assert!(starfield.is_none_or(|root| !is_amazon(root)), "Starfield's other root is not Amazon's");
    }
}
