//! The first 548 bytes of an image, and the 12 before each of its sections.
//!
//! All numbers are big-endian. Source: `aws-nitro-enclaves-image-format`, `src/defs/mod.rs`, format version 4.
//!
//! ```text
//!   0  magic ".eif"            4   version (4)          6   flags (bit 0: aarch64)
//!   8  memory in bytes        16   virtual CPUs        24   zero             26   number of sections
//!  28  32 offsets of sections, 8 bytes each           284   their 32 sizes, without the 12 bytes before each
//! 540  zero                  544   CRC-32 of the whole file but this field
//! ```

use crate::parse::ParseError;

/// Bytes of the header.
pub const HEADER_BYTES: usize = 548;
/// Bytes before each section: kind, flags (zero), size.
pub const SECTION_HEADER_BYTES: usize = 12;
/// Places for sections.
pub const MAX_SECTIONS: usize = 32;
/// Memory that an enclave is given when nobody says otherwise, as AWS's builder writes it.
pub const DEFAULT_MEMORY_BYTES: u64 = 1 << 30;
/// Virtual CPUs that an enclave is given when nobody says otherwise, as AWS's builder writes it.
pub const DEFAULT_CPUS: u64 = 2;

/// Where the checksum stands.
pub(crate) const CRC_AT: usize = HEADER_BYTES - 4;

const MAGIC: &[u8; 4] = b".eif";
const VERSION: u16 = 4;
const FLAG_AARCH64: u16 = 1;
const OFFSETS_AT: usize = 28;
const SIZES_AT: usize = OFFSETS_AT + 8 * MAX_SECTIONS;

/// The processor that an image is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit x86.
    X86_64,
    /// 64-bit Arm.
    Aarch64,
}

/// What a section holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Kind {
    /// The kernel.
    Kernel = 1,
    /// The kernel's command line.
    CommandLine = 2,
    /// A cpio archive. The first is the one that boots, further ones are the application.
    Ramdisk = 3,
    /// Signatures over PCR0, with their certificates.
    Signature = 4,
    /// Who built what, when: not measured.
    Metadata = 5,
}

impl Kind {
    fn of(number: u16) -> Option<Self> {
        [Self::Kernel, Self::CommandLine, Self::Ramdisk, Self::Signature, Self::Metadata]
            .into_iter()
            .find(|kind| *kind as u16 == number)
    }

    /// Its name for people.
    pub fn name(self) -> &'static str {
        match self {
            Self::Kernel => "kernel",
            Self::CommandLine => "command line",
            Self::Ramdisk => "ramdisk",
            Self::Signature => "signature",
            Self::Metadata => "metadata",
        }
    }
}

/// Where a section lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Byte of the file at which its own header begins.
    pub offset: u64,
    /// Bytes of its content.
    pub size: u64,
}

/// The header of an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The processor.
    pub architecture: Architecture,
    /// Memory in bytes, when whoever starts the enclave does not say.
    pub memory_bytes: u64,
    /// Virtual CPUs, when whoever starts the enclave does not say.
    pub cpus: u64,
    /// The sections in the order of the file, at most [`MAX_SECTIONS`].
    pub places: Vec<Place>,
    /// CRC-32 of the file without this field.
    pub crc: u32,
}

impl Header {
    /// Its bytes. The checksum comes last, so that a checksum of all but the last four is the one to begin with.
    ///
    /// # Panics
    /// With more than [`MAX_SECTIONS`] places.
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
        let flags = match self.architecture {
            Architecture::X86_64 => 0,
            Architecture::Aarch64 => FLAG_AARCH64,
        };
        assert!(self.places.len() <= MAX_SECTIONS, "an image has no more sections than places");
        let count = u16::try_from(self.places.len()).expect("at most 32");
        put(0, MAGIC);
        put(4, &VERSION.to_be_bytes());
        put(6, &flags.to_be_bytes());
        put(8, &self.memory_bytes.to_be_bytes());
        put(16, &self.cpus.to_be_bytes());
        put(26, &count.to_be_bytes());
        for (index, place) in self.places.iter().enumerate() {
            put(OFFSETS_AT + 8 * index, &place.offset.to_be_bytes());
            put(SIZES_AT + 8 * index, &place.size.to_be_bytes());
        }
        put(CRC_AT, &self.crc.to_be_bytes());
        bytes
    }

    /// Reads a header: what is taken is, encoded again, the same bytes.
    ///
    /// # Errors
    /// Another magic, version or flag, more sections than places, and bytes where the format has none.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, ParseError> {
        if bytes[..4] != *MAGIC {
            return Err(ParseError::Magic);
        }
        let version = u16_at(bytes, 4);
        if version != VERSION {
            return Err(ParseError::Version(version));
        }
        let architecture = match u16_at(bytes, 6) {
            0 => Architecture::X86_64,
            FLAG_AARCH64 => Architecture::Aarch64,
            flags => return Err(ParseError::Flags(flags)),
        };
        let count = usize::from(u16_at(bytes, 26));
        if count > MAX_SECTIONS {
            return Err(ParseError::TooManySections(count));
        }
        let place =
            |index| Place { offset: u64_at(bytes, OFFSETS_AT + 8 * index), size: u64_at(bytes, SIZES_AT + 8 * index) };
        let header = Self {
            architecture,
            memory_bytes: u64_at(bytes, 8),
            cpus: u64_at(bytes, 16),
            places: (0..count).map(place).collect(),
            crc: u32::from_be_bytes(at(bytes, CRC_AT)),
        };
        // Attack stopped: a section that is named behind the count, which one reader loads and another does not measure.
        if header.encode() == *bytes { Ok(header) } else { Err(ParseError::Reserved) }
    }
}

/// The bytes before a section.
pub(crate) fn section_header(kind: Kind, size: u64) -> [u8; SECTION_HEADER_BYTES] {
    let mut bytes = [0; SECTION_HEADER_BYTES];
    bytes[..2].copy_from_slice(&(kind as u16).to_be_bytes());
    bytes[4..].copy_from_slice(&size.to_be_bytes());
    bytes
}

/// Kind and size of the section that follows.
pub(crate) fn decode_section(bytes: &[u8; SECTION_HEADER_BYTES]) -> Result<(Kind, u64), ParseError> {
    let number = u16_at(bytes, 0);
    let kind = Kind::of(number).ok_or(ParseError::UnknownSection(number))?;
    if u16_at(bytes, 2) == 0 { Ok((kind, u64_at(bytes, 4))) } else { Err(ParseError::Reserved) }
}

fn at<const N: usize>(bytes: &[u8], at: usize) -> [u8; N] {
    *bytes[at..].first_chunk().expect("every field lies within the header")
}

fn u16_at(bytes: &[u8], place: usize) -> u16 {
    u16::from_be_bytes(at(bytes, place))
}

fn u64_at(bytes: &[u8], place: usize) -> u64 {
    u64::from_be_bytes(at(bytes, place))
}

/// CRC-32 as in IEEE 802.3 and gzip (reflected 0x04C11DB7): a check against accidents, not against people.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Crc(u32);

const CRC_TABLE: [u32; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut remainder = byte;
        let mut bit = 0;
        while bit < 8 {
            remainder = if remainder & 1 == 1 { remainder >> 1 ^ 0xEDB8_8320 } else { remainder >> 1 };
            bit += 1;
        }
        table[byte as usize] = remainder;
        byte += 1;
    }
    table
};

impl Crc {
    pub(crate) fn new() -> Self {
        Self(u32::MAX)
    }

    pub(crate) fn update(&mut self, bytes: &[u8]) {
        for byte in bytes {
            let [low, ..] = self.0.to_le_bytes();
            self.0 = self.0 >> 8 ^ CRC_TABLE[usize::from(low ^ byte)];
        }
    }

    pub(crate) fn value(self) -> u32 {
        !self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            architecture: Architecture::X86_64,
            memory_bytes: 0x0102_0304_0506_0708,
            cpus: 9,
            places: vec![Place { offset: 548, size: 10 }, Place { offset: 570, size: 0x11 }],
            crc: 0xAABB_CCDD,
        }
    }

    #[test]
    fn the_fields_stand_where_the_format_says() {
        let bytes = header().encode();
        assert_eq!(&bytes[..28], b".eif\0\x04\0\0\x01\x02\x03\x04\x05\x06\x07\x08\0\0\0\0\0\0\0\x09\0\0\0\x02");
        assert_eq!(bytes[28..44], [0, 0, 0, 0, 0, 0, 2, 0x24, 0, 0, 0, 0, 0, 0, 2, 0x3A]);
        assert_eq!(bytes[284..300], [0, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0x11]);
        assert_eq!(bytes[540..], [0, 0, 0, 0, 0xAA, 0xBB, 0xCC, 0xDD]);
        assert_eq!(Header::decode(&bytes), Ok(header()));
    }

    #[test]
    fn what_has_no_meaning_is_refused() {
        let changed = |at: usize, value: u8| {
            let mut bytes = header().encode();
            bytes[at] = value;
            Header::decode(&bytes)
        };
        assert_eq!(changed(0, b'x'), Err(ParseError::Magic));
        assert_eq!(changed(5, 3), Err(ParseError::Version(3)));
        assert_eq!(changed(7, 2), Err(ParseError::Flags(2)));
        assert_eq!(changed(7, 1).map(|header| header.architecture), Ok(Architecture::Aarch64));
        assert_eq!(changed(27, 33), Err(ParseError::TooManySections(33)));
        // Reserved bytes, and places beyond the two sections.
        for at in [24, 25, 28 + 16, 283, 284 + 16, 539, 540, 543] {
            assert_eq!(changed(at, 1), Err(ParseError::Reserved), "{at}");
        }
    }

    #[test]
    fn sections_have_a_kind_a_size_and_no_flags() {
        let bytes = section_header(Kind::Metadata, 0x0102);
        assert_eq!(bytes, [0, 5, 0, 0, 0, 0, 0, 0, 0, 0, 1, 2]);
        assert_eq!(decode_section(&bytes), Ok((Kind::Metadata, 0x0102)));
        assert_eq!(decode_section(&[0; 12]), Err(ParseError::UnknownSection(0)));
        assert_eq!(decode_section(&[0, 6, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(ParseError::UnknownSection(6)));
        assert_eq!(decode_section(&[0, 1, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0]), Err(ParseError::Reserved));
    }

    /// The check value of CRC-32/ISO-HDLC in the catalogue of parametrised CRC algorithms.
    #[test]
    fn the_checksum_is_the_standards() {
        let mut crc = Crc::new();
        crc.update(b"12345");
        crc.update(b"6789");
        assert_eq!(crc.value(), 0xCBF4_3926);
    }
}
