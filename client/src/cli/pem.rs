//! Public keys as other programs read them: SubjectPublicKeyInfo (RFC 5280, 5480, 8410) in PEM (RFC 7468).

use casemate_protocol::request::KeyAlgorithm;
use data_encoding::BASE64;

/// A key as SubjectPublicKeyInfo, DER; none for keys without a public half, and for bytes that are not one.
pub(super) fn spki(algorithm: KeyAlgorithm, public: &[u8]) -> Option<Vec<u8>> {
    // Everything before the key itself is the same for all keys of an algorithm.
    let (prefix, len) = match algorithm {
        KeyAlgorithm::Ed25519 => ("302a300506032b6570032100", 32),
        KeyAlgorithm::X25519 => ("302a300506032b656e032100", 32),
        KeyAlgorithm::P256 => ("3059301306072a8648ce3d020106082a8648ce3d030107034200", 65),
        KeyAlgorithm::Secp256k1 => ("3056301006072a8648ce3d020106052b8104000a034200", 65),
        KeyAlgorithm::Aes256Gcm | KeyAlgorithm::HmacSha256 => return None,
    };
    let mut der = hex::decode(prefix).expect("constants");
    der.extend_from_slice(public);
    (public.len() == len).then_some(der)
}

/// A key as PEM.
pub(super) fn public_key(algorithm: KeyAlgorithm, public: &[u8]) -> Option<String> {
    let text = BASE64.encode(&spki(algorithm, public)?);
    let lines: Vec<_> = text.as_bytes().chunks(64).map(String::from_utf8_lossy).collect();
    Some(format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8410, section 10.1.
    #[test]
    fn the_example_of_the_rfc() {
        let public = hex::decode("19bf44096984cdfe8541bac167dc3b96c85086aa30b6b6cb0c5c38ad703166e1").unwrap();
        let pem = public_key(KeyAlgorithm::Ed25519, &public).unwrap();
        assert!(pem.contains("\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"), "{pem}");
    }

    #[test]
    fn lengths_agree() {
        for algorithm in KeyAlgorithm::ALL {
            for len in [31, 32, 33, 64, 65] {
                let Some(der) = spki(algorithm, &vec![4; len]) else { continue };
                assert_eq!(usize::from(der[1]) + 2, der.len(), "{algorithm:?}");
            }
        }
        assert!(public_key(KeyAlgorithm::Aes256Gcm, &[0; 32]).is_none());
        assert!(public_key(KeyAlgorithm::P256, &[0; 64]).is_none());
    }
}
