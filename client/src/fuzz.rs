//! What must hold for any bytes at all, one plain function for each family of parsers: for coverage-guided fuzzing
//! (`client/fuzz`), and replayed by the tests over corpora.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken. What comes from a node is parsed by
//! `casemate-protocol` and `casemate-attestation`, which have functions of their own.

use std::sync::LazyLock;

use casemate_attestation::MeasurementSet;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::device::Device;
use crate::record::VaultRecord;
use crate::trust::{Roots, Trust, TrustFile};

/// The Ed25519 public key that belongs to the seed of 32 threes: whoever wants to can sign releases of this client.
const RELEASE_KEY: [u8; 32] = [
    0xed, 0x49, 0x28, 0xc6, 0x28, 0xd1, 0xc2, 0xc6, 0xea, 0xe9, 0x03, 0x38, 0x90, 0x59, 0x95, 0x61, 0x29, 0x59, 0x27,
    0x3a, 0x5c, 0x63, 0xf9, 0x36, 0x36, 0xc1, 0x46, 0x14, 0xac, 0x87, 0x37, 0xd1,
];

static ROOTS: LazyLock<Roots> = LazyLock::new(|| Roots { release_keys: vec![RELEASE_KEY], ..Roots::released() });

/// A trust file, added to a home that trusts nothing. Taken: when it is added.
///
/// # Panics
/// When a file is added in part, when it brings what no file may, or when adding it again changes something.
pub fn trust_files(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let Ok(file) = toml::from_str::<TrustFile>(text) else { return false };
    let mut trust = Trust::default();
    let new = match trust.add(&file, &ROOTS) {
        Ok(new) => new,
        Err(error) => {
            assert_eq!(trust, Trust::default(), "all of it or nothing");
            assert!(!error.to_string().is_empty() && !error.remedy().is_empty());
            return false;
        }
    };
    assert!((1..=Trust::LIMIT).contains(&new) && new == trust.images().len() + trust.releases().len());
    assert_eq!(trust.cluster().map(|cluster| cluster.0), Some(file.cluster.0));
    let images = trust.images().iter().map(|image| image.measurements);
    for measurements in images.chain(trust.releases().iter().map(|release| release.measurements)) {
        assert_eq!(MeasurementSet::from(measurements).debug_register(), None, "no debug enclave is trusted");
    }
    assert!(trust.releases().iter().all(|release| release.is_genuine(&[RELEASE_KEY])));
    assert!(trust.images().iter().all(|image| !image.name.is_empty() && !image.name.contains(char::is_control)));
    assert_eq!(trust.add(&file, &ROOTS), Ok(0), "adding twice changes nothing");
    let mut other = file;
    other.cluster.0[0] ^= 1;
    assert!(trust.add(&other, &ROOTS).is_err(), "one home, one cluster");
    assert!(again::<Trust>(&serde_json::to_vec(&trust).expect("serialises into memory")));
    true
}

/// The files of a home.
///
/// # Panics
/// When a file is read that writes back as another.
pub fn home_files(bytes: &[u8]) -> bool {
    again::<Device>(bytes) | again::<Trust>(bytes) | again::<VaultRecord>(bytes)
}

fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> bool {
    let Ok(value) = serde_json::from_slice::<T>(bytes) else { return false };
    let written = serde_json::to_vec(&value).expect("serialises into memory");
    let read: T = serde_json::from_slice(&written).expect("what we write we read");
    assert_eq!(serde_json::to_vec(&read).expect("serialises into memory"), written);
    true
}
