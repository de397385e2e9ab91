//! Which platform made a piece of evidence, told by its first bytes.

use crate::claims::Platform;
use crate::intel::{Quote, TeeKind};
use crate::snp::REPORT_BYTES;

impl Platform {
    /// The platform whose evidence begins as `evidence` does. Whether it is any is for that platform's parser to say.
    pub fn of(evidence: &[u8]) -> Option<Self> {
        match evidence {
            // CBOR: an array, or a tag before it.
            [0x80..=0x9f | 0xc0..=0xdb, ..] => Some(Self::Nitro),
            // A version in four bytes, then at 0x34 the number of the signature algorithm.
            [1..=0xff, 0, 0, 0, ..] if evidence.len() >= REPORT_BYTES && evidence[0x35..0x38] == [0; 3] => {
                Some(Self::SevSnp)
            }
            _ if Quote::is_one(evidence) => Some(match Quote::parse(evidence).map(|quote| quote.kind) {
                Ok(TeeKind::Tdx) => Self::Tdx,
                // Named after what it says of itself; it is refused in any case.
                Err(_) if evidence.get(4..8) == Some(&[0x81, 0, 0, 0]) => Self::Tdx,
                _ => Self::Sgx,
            }),
            _ => None,
        }
    }
}
