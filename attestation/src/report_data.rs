//! How Casemate fills the one field of 64 bytes that SEV-SNP, SGX and TDX let a guest bind, where Nitro has three of many bytes.

use sha2::{Digest, Sha512};

use crate::claims::Bound;

/// Separates this hash from every other.
const LABEL: &[u8] = b"casemate/report-data/v1";

/// SHA-512 over a label and over user data, nonce and public key, each with a byte that says whether it is there and, if it is, its length
/// in 8 bytes, big-endian. `report_data` itself is not looked at.
pub fn report_data(bound: &Bound) -> [u8; 64] {
    let mut hash = Sha512::new();
    hash.update((LABEL.len() as u64).to_be_bytes());
    hash.update(LABEL);
    for field in [&bound.user_data, &bound.nonce, &bound.public_key] {
        match field {
            // Attack stopped: an absent field taken for an empty one, or one field's end for the next one's beginning.
            None => hash.update([0]),
            Some(bytes) => {
                hash.update([1]);
                hash.update((bytes.len() as u64).to_be_bytes());
                hash.update(bytes);
            }
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_bindings_have_one_value() {
        let some = |bytes: &[u8]| Some(bytes.to_vec());
        let values = [None, some(b""), some(b"a"), some(b"aa")];
        let mut seen = BTreeSet::new();
        for user_data in &values {
            for nonce in &values {
                for public_key in &values {
                    let (user_data, nonce, public_key) = (user_data.clone(), nonce.clone(), public_key.clone());
                    assert!(seen.insert(report_data(&Bound { user_data, nonce, public_key, report_data: None })));
                }
            }
        }
    }
}
