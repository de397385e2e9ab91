//! The certificates that a host hands to its guest with a report: a table of names and places, then the certificates (GHCB
//! specification, publication 56421, section 4.1.8.1). Linux gives it as `auxblob`; other tools write it right after the report.

use super::REPORT_BYTES;

/// Bytes of one entry: a GUID, an offset and a length, the numbers little-endian.
const ENTRY_BYTES: usize = 24;
/// The most entries that are read; the specification names five.
const MAX_ENTRIES: usize = 8;
/// The longest table that is looked at.
pub(crate) const MAX_TABLE_BYTES: usize = 64 * 1024;

// The GUIDs, as their bytes stand in memory.
const VCEK: [u8; 16] = guid(0x63da_758d, 0xe664, 0x4564, 0xadc5_f4b9_3be8_accd);
const VLEK: [u8; 16] = guid(0xa807_4bc2, 0xa25a, 0x483e, 0xaae6_39c0_45a0_b8a1);
const ASK: [u8; 16] = guid(0x4ab7_b379, 0xbbac, 0x4fe4, 0xa02f_05ae_f327_c782);
const ARK: [u8; 16] = guid(0xc0b4_06a4, 0xa803, 0x4952, 0x9743_3fb6_014c_d0ae);

/// A GUID in the order of RFC 9562, section 4, which is big-endian: AMD's tables write it so.
const fn guid(first: u32, second: u16, third: u16, rest: u64) -> [u8; 16] {
    let (a, b, c, d) = (first.to_be_bytes(), second.to_be_bytes(), third.to_be_bytes(), rest.to_be_bytes());
    [a[0], a[1], a[2], a[3], b[0], b[1], c[0], c[1], d[0], d[1], d[2], d[3], d[4], d[5], d[6], d[7]]
}

/// The same GUID as Microsoft's tools write it: the first three numbers little-endian.
const fn mixed(guid: [u8; 16]) -> [u8; 16] {
    let g = guid;
    [g[3], g[2], g[1], g[0], g[5], g[4], g[7], g[6], g[8], g[9], g[10], g[11], g[12], g[13], g[14], g[15]]
}

/// Why bytes are no certificate table.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TableError {
    /// More than any host sends.
    #[error("the certificate table has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// An entry that points outside, or no end of the entries.
    #[error("entry {entry} of the certificate table points outside of it, or the table has no end")]
    Entry {
        /// Which, from 0.
        entry: usize,
    },
}

/// The certificates of a table, DER.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct CertificateTable<'a> {
    /// The key that signed: VCEK, or VLEK where there is one.
    pub leaf: Option<&'a [u8]>,
    /// AMD's intermediate.
    pub intermediate: Option<&'a [u8]>,
    /// AMD's root.
    pub root: Option<&'a [u8]>,
}

impl<'a> CertificateTable<'a> {
    /// Reads a table.
    ///
    /// # Errors
    ///
    /// When an entry points outside of it. Entries of unknown names are skipped.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, TableError> {
        if bytes.len() > MAX_TABLE_BYTES {
            return Err(TableError::TooLarge { found: bytes.len(), limit: MAX_TABLE_BYTES });
        }
        let mut table = Self::default();
        // No certificates at all is what a host sends that has none.
        if bytes.iter().all(|byte| *byte == 0) {
            return Ok(table);
        }
        let (mut vcek, mut vlek) = (None, None);
        for entry in 0..=MAX_ENTRIES {
            let refused = TableError::Entry { entry };
            let place = entry * ENTRY_BYTES;
            let head = bytes.get(place..place + ENTRY_BYTES).ok_or_else(|| refused.clone())?;
            let (name, place) = head.split_at(16);
            if head.iter().all(|byte| *byte == 0) {
                table.leaf = vlek.or(vcek);
                return Ok(table);
            }
            let number = |at: usize| u32::from_le_bytes(place[at..at + 4].try_into().expect("four bytes"));
            let (offset, length) = (number(0), number(4));
            let range = usize::try_from(offset).ok().zip(usize::try_from(length).ok());
            let certificate = range
                .and_then(|(offset, length)| bytes.get(offset..offset.checked_add(length)?))
                .ok_or_else(|| refused.clone())?;
            let is = |guid: [u8; 16]| name == guid || name == mixed(guid);
            if is(VCEK) {
                vcek = Some(certificate);
            } else if is(VLEK) {
                vlek = Some(certificate);
            } else if is(ASK) {
                table.intermediate = Some(certificate);
            } else if is(ARK) {
                table.root = Some(certificate);
            }
        }
        Err(TableError::Entry { entry: MAX_ENTRIES })
    }

    /// The certificates, leaf first.
    pub fn certificates(&self) -> Vec<Vec<u8>> {
        [self.leaf, self.intermediate, self.root].into_iter().flatten().map(<[u8]>::to_vec).collect()
    }

    /// A table with these certificates, as a host would make it.
    pub fn encode(&self) -> Vec<u8> {
        let named = [(VCEK, self.leaf), (ASK, self.intermediate), (ARK, self.root)];
        let present: Vec<_> = named.into_iter().filter_map(|(guid, der)| Some((guid, der?))).collect();
        let mut offset = (present.len() + 1) * ENTRY_BYTES;
        let (mut head, mut body) = (Vec::new(), Vec::new());
        for (guid, der) in present {
            head.extend(guid);
            head.extend(u32::try_from(offset).unwrap_or(u32::MAX).to_le_bytes());
            head.extend(u32::try_from(der.len()).unwrap_or(u32::MAX).to_le_bytes());
            body.extend_from_slice(der);
            offset += der.len();
        }
        head.extend([0; ENTRY_BYTES]);
        head.extend(body);
        head
    }
}

/// A report and the table behind it, if there is one.
pub(crate) fn split(evidence: &[u8]) -> (&[u8], Option<&[u8]>) {
    match evidence.split_at_checked(REPORT_BYTES) {
        Some((report, table)) if !table.is_empty() => (report, Some(table)),
        _ => (evidence, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let table = CertificateTable { leaf: Some(b"leaf"), intermediate: Some(b"ask"), root: Some(b"root") };
        let bytes = table.encode();
        assert_eq!(CertificateTable::parse(&bytes), Ok(table));
        assert_eq!(CertificateTable::parse(&[0; 4096]), Ok(CertificateTable::default()));
        assert_eq!(CertificateTable::parse(&bytes[..bytes.len() - 1]), Err(TableError::Entry { entry: 2 }));
        assert_eq!(CertificateTable::parse(&bytes[..24]), Err(TableError::Entry { entry: 0 }));
        let mut outside = bytes.clone();
        outside[16..24].fill(0xff);
        assert_eq!(CertificateTable::parse(&outside), Err(TableError::Entry { entry: 0 }));
        assert!(matches!(CertificateTable::parse(&vec![1; MAX_TABLE_BYTES + 1]), Err(TableError::TooLarge { .. })));
        assert!(CertificateTable::parse(&[1; 4096]).is_err());
    }
}
