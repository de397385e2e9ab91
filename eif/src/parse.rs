//! Reads an image. It may come from anybody: every length is checked against the bytes that are there before it is used, and
//! what is accepted has one reading only.

use crate::header::{self, Crc, HEADER_BYTES, Header, Kind, SECTION_HEADER_BYTES};
use crate::measure::{self, Measurements, Meter, Part};
use crate::metadata::Metadata;
use crate::sign::{Signature, SignatureError};

/// Largest image that is read or written: 1 GiB, some fifty times one of ours.
pub const IMAGE_BYTES: u64 = 1 << 30;
/// Longest metadata. What AWS's builder copies from Docker takes a few thousand bytes.
pub const METADATA_BYTES: usize = 1 << 20;

/// Why bytes are no image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Shorter or longer than its header says.
    #[error(
        "the file ends at byte {0}, which its header does not say: it is cut short, or something was appended. Fetch it again"
    )]
    Length(usize),
    /// Not an image at all.
    #[error("no enclave image: the file does not begin with \".eif\"")]
    Magic,
    /// Another version of the format.
    #[error(
        "version {0} of the image format, and this program reads version 4: build the image again with a current builder"
    )]
    Version(u16),
    /// An unknown flag.
    #[error("unknown flags {0:#06x} in the header")]
    Flags(u16),
    /// More sections than the header has places for.
    #[error("{0} sections, and an image has at most 32")]
    TooManySections(usize),
    /// A byte that has no meaning is not zero.
    #[error("a reserved field of the header is not zero")]
    Reserved,
    /// An unknown kind.
    #[error("a section of the unknown kind {0}")]
    UnknownSection(u16),
    /// Header and section disagree.
    #[error("section {0} is not where the header says, or not of that size")]
    Place(usize),
    /// Sections that nobody would measure in one way.
    #[error(
        "section {0} is a {1} that does not belong there: a kernel, its command line, then ramdisks, and at most one metadata and signature"
    )]
    Order(usize, &'static str),
    /// No kernel, command line or ramdisk.
    #[error("the image has no {0}")]
    Missing(&'static str),
    /// Metadata beyond its limit.
    #[error("{0} bytes of metadata, and at most {METADATA_BYTES} are read")]
    Metadata(usize),
    /// The checksum is another.
    #[error(
        "the checksum is {found:08x} and the header says {named:08x}: the file was damaged on its way. Fetch it again"
    )]
    Checksum {
        /// In the header.
        named: u32,
        /// Of the file.
        found: u32,
    },
}

/// A section of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Section<'a> {
    /// What it holds.
    pub kind: Kind,
    /// Its content.
    pub bytes: &'a [u8],
}

/// An image whose structure was checked. Nothing in it was believed: compare its measurements.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed<'a> {
    header: Header,
    sections: Vec<Section<'a>>,
}

impl<'a> Parsed<'a> {
    /// Reads an image.
    ///
    /// # Errors
    /// [`ParseError`] names what is wrong.
    pub fn parse(file: &'a [u8]) -> Result<Self, ParseError> {
        let short = ParseError::Length(file.len());
        let (first, mut rest) = file.split_first_chunk::<HEADER_BYTES>().ok_or(short.clone())?;
        let header = Header::decode(first)?;
        let mut sections = Vec::with_capacity(header.places.len());
        for (index, place) in header.places.iter().enumerate() {
            let began = file.len() - rest.len();
            let (head, after) = rest.split_first_chunk::<SECTION_HEADER_BYTES>().ok_or(short.clone())?;
            let (kind, size) = header::decode_section(head)?;
            // Attack stopped: sections that overlap, or lie elsewhere than the next reader looks, so that what is measured
            // here is not what boots.
            if u64::try_from(began) != Ok(place.offset) || size != place.size {
                return Err(ParseError::Place(index));
            }
            let size = usize::try_from(size).ok().filter(|size| *size <= after.len()).ok_or(short.clone())?;
            let (bytes, after) = after.split_at(size);
            rest = after;
            sections.push(Section { kind, bytes });
        }
        // Attack stopped: bytes behind the last section that no measurement covers, carried along under a good name.
        if !rest.is_empty() {
            return Err(short);
        }
        check_order(&sections)?;
        let found = checksum(file);
        if found != header.crc {
            return Err(ParseError::Checksum { named: header.crc, found });
        }
        Ok(Self { header, sections })
    }

    /// The header.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The sections in the order of the file.
    pub fn sections(&self) -> &[Section<'a>] {
        &self.sections
    }

    /// Content of the sections of one kind.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = &'a [u8]> {
        self.sections.iter().filter(move |section| section.kind == kind).map(|section| section.bytes)
    }

    /// What the metadata says, if there is any that can be read. Nobody measured it.
    pub fn metadata(&self) -> Option<Metadata> {
        self.of_kind(Kind::Metadata).next().and_then(|bytes| Metadata::decode(bytes).ok())
    }

    /// The measurements, without PCR8.
    pub fn measure(&self) -> Measurements {
        let mut meter = Meter::new();
        let mut ramdisk = Part::BootRamdisk;
        for Section { kind, bytes } in &self.sections {
            match kind {
                Kind::Kernel => meter.update(Part::Kernel, bytes),
                Kind::CommandLine => meter.update(Part::CommandLine, bytes),
                Kind::Ramdisk => {
                    meter.update(ramdisk, bytes);
                    ramdisk = Part::ApplicationRamdisk;
                }
                Kind::Signature | Kind::Metadata => {}
            }
        }
        meter.finish()
    }

    /// The measurements, and PCR8 if the image is signed and the signature is over this image.
    ///
    /// # Errors
    /// [`SignatureError`] when there is a signature and it is not good.
    pub fn verify(&self) -> Result<Measurements, SignatureError> {
        let mut measurements = self.measure();
        if let Some(section) = self.of_kind(Kind::Signature).next() {
            let signature = Signature::decode(section)?;
            signature.verify(&measurements.pcr0)?;
            measurements.pcr8 = Some(measure::of_certificate(signature.certificate_der()));
        }
        Ok(measurements)
    }
}

/// Attack stopped: two kernels or an order of one's own, where one loader boots the first and another the last of what was
/// measured together.
fn check_order(sections: &[Section<'_>]) -> Result<(), ParseError> {
    let (mut ramdisks, mut metadata, mut signatures) = (0, 0, 0);
    for (index, section) in sections.iter().enumerate() {
        let fits = match section.kind {
            Kind::Kernel => index == 0,
            Kind::CommandLine => index == 1,
            _ if index < 2 => false,
            Kind::Ramdisk => {
                ramdisks += 1;
                true
            }
            Kind::Metadata => {
                metadata += 1;
                if section.bytes.len() > METADATA_BYTES {
                    return Err(ParseError::Metadata(section.bytes.len()));
                }
                metadata == 1
            }
            Kind::Signature => {
                signatures += 1;
                signatures == 1
            }
        };
        if !fits {
            return Err(ParseError::Order(index, section.kind.name()));
        }
    }
    match sections.len() {
        0 => Err(ParseError::Missing(Kind::Kernel.name())),
        1 => Err(ParseError::Missing(Kind::CommandLine.name())),
        _ if ramdisks == 0 => Err(ParseError::Missing(Kind::Ramdisk.name())),
        _ => Ok(()),
    }
}

/// The checksum that belongs into a file's header.
pub(crate) fn checksum(file: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(file.get(..header::CRC_AT).unwrap_or_default());
    crc.update(file.get(HEADER_BYTES..).unwrap_or_default());
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::header::{Architecture, DEFAULT_CPUS, DEFAULT_MEMORY_BYTES, Place};

    fn file(sections: &[(Kind, &[u8])]) -> Vec<u8> {
        let mut places = Vec::new();
        let mut body = Vec::new();
        for (kind, bytes) in sections {
            let size = bytes.len() as u64;
            places.push(Place { offset: (HEADER_BYTES + body.len()) as u64, size });
            body.extend_from_slice(&header::section_header(*kind, size));
            body.extend_from_slice(bytes);
        }
        let architecture = Architecture::X86_64;
        let header = Header { architecture, memory_bytes: DEFAULT_MEMORY_BYTES, cpus: DEFAULT_CPUS, places, crc: 0 };
        sealed([&header.encode()[..], &body].concat())
    }

    /// With the checksum that belongs to it: what a forger would write.
    fn sealed(mut file: Vec<u8>) -> Vec<u8> {
        let crc = checksum(&file);
        file[header::CRC_AT..HEADER_BYTES].copy_from_slice(&crc.to_be_bytes());
        file
    }

    const GOOD: [(Kind, &[u8]); 5] = [
        (Kind::Kernel, b"kernel"),
        (Kind::CommandLine, b"quiet"),
        (Kind::Metadata, b"{}"),
        (Kind::Ramdisk, b"boot"),
        (Kind::Ramdisk, b"application"),
    ];

    #[test]
    fn sections_come_back_and_are_measured_in_order() {
        let file = file(&GOOD);
        let parsed = Parsed::parse(&file).unwrap();
        let found: Vec<_> = parsed.sections().iter().map(|section| (section.kind, section.bytes)).collect();
        assert_eq!(found, GOOD);
        let mut meter = Meter::new();
        meter.update(Part::Kernel, b"kernelquiet");
        meter.update(Part::BootRamdisk, b"boot");
        meter.update(Part::ApplicationRamdisk, b"application");
        assert_eq!(parsed.measure(), meter.finish());
        assert_eq!(parsed.verify(), Ok(parsed.measure()));
    }

    #[test]
    fn a_cut_or_longer_file_is_refused() {
        let file = file(&GOOD);
        for end in 0..file.len() {
            assert_eq!(Parsed::parse(&sealed_if_long(&file[..end])), Err(ParseError::Length(end)), "cut at {end}");
        }
        let longer = sealed([&file[..], b"x"].concat());
        assert_eq!(Parsed::parse(&longer), Err(ParseError::Length(longer.len())));
    }

    fn sealed_if_long(file: &[u8]) -> Vec<u8> {
        if file.len() < HEADER_BYTES { file.to_vec() } else { sealed(file.to_vec()) }
    }

    #[test]
    fn header_and_sections_must_agree() {
        let good = file(&GOOD);
        let changed = |at: usize, value: u8| {
            let mut bytes = good.clone();
            bytes[at] = value;
            Parsed::parse(&sealed(bytes)).unwrap_err()
        };
        // The low bytes of the first section's offset and size in the header, and of its size beside it.
        assert_eq!(changed(28 + 7, 0), ParseError::Place(0));
        assert_eq!(changed(284 + 7, 7), ParseError::Place(0));
        assert_eq!(changed(HEADER_BYTES + 11, 7), ParseError::Place(0));
        // Both agree on a size that the file does not have.
        let mut huge = good.clone();
        let last = GOOD.len() - 1;
        huge[284 + 8 * last] = 0xFF;
        let at = good.len() - b"application".len() - 8;
        huge[at] = 0xFF;
        assert_eq!(Parsed::parse(&sealed(huge)), Err(ParseError::Length(good.len())));
        // One section fewer than are there.
        assert_eq!(changed(27, 4), ParseError::Reserved);
    }

    #[test]
    fn sections_out_of_order_are_refused() {
        use Kind::{CommandLine, Kernel, Metadata, Ramdisk, Signature};
        let order = |kinds: &[Kind]| {
            let sections: Vec<(Kind, &[u8])> = kinds.iter().map(|kind| (*kind, &b"x"[..])).collect();
            let file = file(&sections);
            Parsed::parse(&file).map(|_| ())
        };
        assert_eq!(order(&[]), Err(ParseError::Missing("kernel")));
        assert_eq!(order(&[Kernel]), Err(ParseError::Missing("command line")));
        assert_eq!(order(&[Kernel, CommandLine, Metadata]), Err(ParseError::Missing("ramdisk")));
        assert_eq!(order(&[CommandLine, Kernel, Ramdisk]), Err(ParseError::Order(0, "command line")));
        assert_eq!(order(&[Kernel, Ramdisk, CommandLine]), Err(ParseError::Order(1, "ramdisk")));
        assert_eq!(order(&[Kernel, CommandLine, Ramdisk, Kernel]), Err(ParseError::Order(3, "kernel")));
        assert_eq!(order(&[Kernel, CommandLine, Metadata, Ramdisk, Metadata]), Err(ParseError::Order(4, "metadata")));
        assert_eq!(
            order(&[Kernel, CommandLine, Ramdisk, Signature, Signature]),
            Err(ParseError::Order(4, "signature"))
        );
        assert_eq!(order(&[Kernel, CommandLine, Ramdisk, Metadata, Signature, Ramdisk]), Ok(()));
    }

    #[test]
    fn metadata_has_a_limit() {
        let long = vec![b' '; METADATA_BYTES + 1];
        let sections: [(Kind, &[u8]); 4] =
            [(Kind::Kernel, b""), (Kind::CommandLine, b""), (Kind::Ramdisk, b""), (Kind::Metadata, &long)];
        assert_eq!(Parsed::parse(&file(&sections)), Err(ParseError::Metadata(long.len())));
    }

    #[test]
    fn damage_is_seen_by_the_checksum() {
        let good = file(&GOOD);
        for at in [good.len() - 1, HEADER_BYTES + 12, header::CRC_AT] {
            let mut damaged = good.clone();
            damaged[at] ^= 1;
            assert!(matches!(Parsed::parse(&damaged), Err(ParseError::Checksum { .. })), "{at}");
        }
    }

    #[test]
    fn a_signature_that_is_none_is_an_error_and_not_an_unsigned_image() {
        let sections: Vec<_> = GOOD.into_iter().chain([(Kind::Signature, &b"\x80"[..])]).collect();
        let file = file(&sections);
        assert!(Parsed::parse(&file).unwrap().verify().is_err());
    }
}
