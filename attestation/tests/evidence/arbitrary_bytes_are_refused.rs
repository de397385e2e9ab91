//! Whatever a hostile host sends as evidence, the parsers neither panic nor exceed a limit, and nothing is believed.

use casemate_attestation::fuzz;
use proptest::collection::vec;
use proptest::prelude::*;

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn arbitrary_bytes(bytes in vec(any::<u8>(), 0..600)) {
        fuzz::evidence(&bytes);
    }

    /// Bytes that begin as an envelope, so that more than the first one is read.
    #[test]
    fn arbitrary_payloads(payload in vec(any::<u8>(), 0..256)) {
        let mut bytes = vec![0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0];
        bytes.extend(minicbor::to_vec(minicbor::bytes::ByteVec::from(payload)).unwrap());
        bytes.extend([0x58, 0x60]);
        bytes.extend([1; 96]);
        fuzz::evidence(&bytes);
    }

    /// Valid CBOR of the document's own words in wrong places.
    #[test]
    fn arbitrary_fields(
        fields in vec((prop::sample::select(FIELDS), prop::sample::select(VALUES)), 0..12),
        claimed in any::<bool>(),
    ) {
        let mut payload = vec![if claimed { 0xa9 } else { 0xbf }];
        for (name, value) in fields {
            payload.extend(minicbor::to_vec(name).unwrap());
            payload.extend(value);
        }
        payload.push(0xff);
        fuzz::evidence(&payload);
    }
}

const FIELDS: &[&str] = &[
    "module_id",
    "digest",
    "timestamp",
    "pcrs",
    "certificate",
    "cabundle",
    "public_key",
    "user_data",
    "nonce",
    "future",
];
const VALUES: &[&[u8]] = &[
    &[0xf6],
    &[0xf7],
    &[0x40],
    &[0x60],
    &[0x61, b'i'],
    &[0x66, b'S', b'H', b'A', b'3', b'8', b'4'],
    &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x5b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9b, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff],
    &[0x9f, 0xff],
    &[0x81, 0x41, 0x30],
    &[0xbf, 0xff],
    &[0xff],
    &[0xc1],
];

#[test]
fn pieces_of_real_documents() {
    let Some(documents) = crate::vectors::nitro_documents() else { return };
    for document in &documents {
        let evidence = &document.evidence;
        for cut in (0..evidence.len()).step_by(97) {
            fuzz::evidence(&evidence[..cut]);
            fuzz::evidence(&evidence[cut..]);
            let mut changed = evidence.clone();
            changed[cut] = !changed[cut];
            fuzz::evidence(&changed);
            changed.remove(cut);
            fuzz::evidence(&changed);
        }
    }
}
