//! Labels: the one way in which this project separates the domains of its derivations, MACs, hashes and signatures.
//!
//! Attack stopped: two inputs of different meaning that are the same bytes. Every input starts with its own label, and every
//! field carries its length, so that no field can borrow bytes of its neighbour.

use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// `u16 BE len(label) ‖ label ‖ for each field: u32 BE len ‖ field`.
pub fn info(label: &str, fields: &[&[u8]]) -> Vec<u8> {
    let size = 2 + label.len() + fields.iter().map(|field| 4 + field.len()).sum::<usize>();
    let mut out = Vec::with_capacity(size);
    feed(label, fields, |bytes| out.extend_from_slice(bytes));
    out
}

/// Gives the bytes of [`info`] piece by piece, without putting them together.
pub fn feed(label: &str, fields: &[&[u8]], mut take: impl FnMut(&[u8])) {
    let label_len = u16::try_from(label.len()).expect("labels are short constants");
    take(&label_len.to_be_bytes());
    take(label.as_bytes());
    for field in fields {
        let len = u32::try_from(field.len()).expect("fields are bounded far below 4 GiB");
        take(&len.to_be_bytes());
        take(field);
    }
}

/// SHA-256 over [`info`].
pub fn hash(label: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    feed(label, fields, |bytes| hash.update(bytes));
    hash.finalize().into()
}

/// HKDF-SHA256 with [`info`] as its info; 32 bytes.
pub fn derive(key: &[u8], salt: &[u8], label: &str, fields: &[&[u8]]) -> Zeroizing<[u8; 32]> {
    let mut out = Zeroizing::new([0; 32]);
    hkdf::Hkdf::<Sha256>::new(Some(salt), key)
        .expand(&info(label, fields), out.as_mut_slice())
        .expect("32 bytes are within HKDF-SHA256's 8,160");
    out
}

/// HMAC-SHA256 over [`info`].
pub fn mac(key: &[u8], label: &str, fields: &[&[u8]]) -> [u8; 32] {
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(key).expect("HMAC takes keys of any length");
    feed(label, fields, |bytes| mac.update(bytes));
    mac.finalize().into_bytes().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_cannot_borrow_bytes() {
        assert_ne!(info("a", &[b"bc", b"d"]), info("a", &[b"b", b"cd"]));
        assert_ne!(info("ab", &[b"c"]), info("a", &[b"bc"]));
        assert_eq!(hex::encode(info("a", &[b"bc", b""])), "00016100000002626300000000");
    }

    #[test]
    fn golden_derivation() {
        let key = derive(&[1; 32], &[2; 20], "casemate/test/v1", &[b"field"]);
        assert_eq!(hex::encode(*key), "44f8fcfef2e89df6a5ee75da9954a61cf58cafc0f891e54949b038bccc56e9af");
        assert_eq!(
            hex::encode(mac(&[1; 32], "casemate/test/v1", &[b"field"])),
            "0edceb98c19d03b9cb4b813763ce8935de4d2872ef207b2ddc5be8578273e992"
        );
    }
}
