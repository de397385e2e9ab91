//! The writer: sections in AWS's order, a header that names them, and nothing that depends on where or when it runs.
//!
//! Source: `aws-nitro-enclaves-image-format` 0.8.1, `EifBuilder`, whose files these equal byte for byte (`eif/check`).

use std::io::{self, Write};

use crate::header::{
    self, Architecture, Crc, DEFAULT_CPUS, DEFAULT_MEMORY_BYTES, HEADER_BYTES, Header, Kind, MAX_SECTIONS, Place,
    SECTION_HEADER_BYTES,
};
use crate::measure::{self, Measurements, Meter, Part};
use crate::metadata::Metadata;
use crate::parse::{IMAGE_BYTES, METADATA_BYTES};
use crate::sign::Signer;

/// Longest command line: what an x86 kernel takes (`COMMAND_LINE_SIZE`, with the final NUL). The rest would be dropped in
/// silence, and the hypervisor's devices, which it appends, with it.
pub const COMMAND_LINE_BYTES: usize = 2047;

/// Sections beside ramdisks: kernel, command line, metadata, signature.
const OTHER_SECTIONS: usize = 4;

/// Why there is no image of these parts.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not text for a kernel.
    #[error("the command line has a control character or a NUL: write it as one line, without a line break at its end")]
    CommandLine,
    /// Beyond what the kernel takes.
    #[error("the command line has {0} bytes, and the kernel takes {COMMAND_LINE_BYTES}")]
    CommandLineBytes(usize),
    /// None, or more than the header has places for.
    #[error("{0} ramdisks, and an image has 1 to {max}", max = MAX_SECTIONS - OTHER_SECTIONS)]
    Ramdisks(usize),
    /// More than is read back.
    #[error("{0} bytes of metadata, and at most {METADATA_BYTES} are read back")]
    Metadata(usize),
    /// More than is read back.
    #[error("the image would have {0} bytes, and at most {IMAGE_BYTES} are read back: leave something out")]
    Bytes(u64),
}

/// An image that can be written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    architecture: Architecture,
    memory_bytes: u64,
    cpus: u64,
    /// In the order of the file.
    sections: Vec<(Kind, Vec<u8>)>,
    measurements: Measurements,
}

impl Image {
    /// An unsigned image for x86-64 of a kernel, its command line, and ramdisks: the first boots, the others are the application.
    ///
    /// # Errors
    /// [`ImageError`] for parts that no enclave would boot as they are meant, or that would not be read back.
    pub fn new(
        kernel: Vec<u8>,
        command_line: &str,
        metadata: &Metadata,
        ramdisks: Vec<Vec<u8>>,
    ) -> Result<Self, ImageError> {
        if command_line.chars().any(char::is_control) {
            return Err(ImageError::CommandLine);
        }
        if command_line.len() > COMMAND_LINE_BYTES {
            return Err(ImageError::CommandLineBytes(command_line.len()));
        }
        if !(1..=MAX_SECTIONS - OTHER_SECTIONS).contains(&ramdisks.len()) {
            return Err(ImageError::Ramdisks(ramdisks.len()));
        }
        let metadata = metadata.encode();
        if metadata.len() > METADATA_BYTES {
            return Err(ImageError::Metadata(metadata.len()));
        }
        let mut meter = Meter::new();
        meter.update(Part::Kernel, &kernel);
        meter.update(Part::CommandLine, command_line.as_bytes());
        let parts = [Part::BootRamdisk].into_iter().chain(std::iter::repeat(Part::ApplicationRamdisk));
        parts.zip(&ramdisks).for_each(|(part, ramdisk)| meter.update(part, ramdisk));

        let mut sections = vec![
            (Kind::Kernel, kernel),
            (Kind::CommandLine, command_line.as_bytes().to_vec()),
            (Kind::Metadata, metadata),
        ];
        sections.extend(ramdisks.into_iter().map(|ramdisk| (Kind::Ramdisk, ramdisk)));
        let image = Self {
            architecture: Architecture::X86_64,
            memory_bytes: DEFAULT_MEMORY_BYTES,
            cpus: DEFAULT_CPUS,
            sections,
            measurements: meter.finish(),
        };
        if image.bytes() > IMAGE_BYTES { Err(ImageError::Bytes(image.bytes())) } else { Ok(image) }
    }

    /// The image with the memory (bytes) and processors that it gets when whoever starts it does not say. Not measured.
    #[must_use]
    pub fn with_defaults(self, memory_bytes: u64, cpus: u64) -> Self {
        Self { memory_bytes, cpus, ..self }
    }

    /// The image, signed.
    #[must_use]
    pub fn signed(mut self, signer: &Signer) -> Self {
        self.sections.retain(|(kind, _)| *kind != Kind::Signature);
        self.sections.push((Kind::Signature, signer.sign(&self.measurements.pcr0)));
        self.measurements.pcr8 = Some(measure::of_certificate(signer.certificate_der()));
        self
    }

    /// What the hypervisor will measure.
    pub fn measurements(&self) -> &Measurements {
        &self.measurements
    }

    /// Kind and content of its sections, in the order of the file.
    pub fn sections(&self) -> impl Iterator<Item = (Kind, &[u8])> {
        self.sections.iter().map(|(kind, bytes)| (*kind, bytes.as_slice()))
    }

    /// Bytes of the file.
    pub fn bytes(&self) -> u64 {
        let sections = self.sections.iter().map(|(_, bytes)| size(bytes) + SECTION_HEADER_BYTES as u64);
        HEADER_BYTES as u64 + sections.sum::<u64>()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// The sink's.
    pub fn write(&self, mut sink: impl Write) -> io::Result<()> {
        let mut offset = HEADER_BYTES as u64;
        let mut places = Vec::with_capacity(self.sections.len());
        for (_, bytes) in &self.sections {
            places.push(Place { offset, size: size(bytes) });
            offset += SECTION_HEADER_BYTES as u64 + size(bytes);
        }
        let Self { architecture, memory_bytes, cpus, .. } = *self;
        let mut header = Header { architecture, memory_bytes, cpus, places, crc: 0 };
        let mut crc = Crc::new();
        crc.update(&header.encode()[..header::CRC_AT]);
        for (kind, bytes) in &self.sections {
            crc.update(&header::section_header(*kind, size(bytes)));
            crc.update(bytes);
        }
        header.crc = crc.value();
        sink.write_all(&header.encode())?;
        for (kind, bytes) in &self.sections {
            sink.write_all(&header::section_header(*kind, size(bytes)))?;
            sink.write_all(bytes)?;
        }
        sink.flush()
    }
}

fn size(bytes: &[u8]) -> u64 {
    bytes.len() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse::Parsed;
    use crate::sign::SignatureError;
    use crate::sign::tests::key_and_certificate;
    use proptest::prelude::*;

    fn metadata() -> Metadata {
        Metadata::new("n".into(), "1".into(), "1970-01-01T00:00:00Z".into(), "6.12".into())
    }

    fn image(command_line: &str, ramdisks: usize) -> Result<Image, ImageError> {
        Image::new(b"kernel".to_vec(), command_line, &metadata(), vec![b"ramdisk".to_vec(); ramdisks])
    }

    fn written(image: &Image) -> Vec<u8> {
        let mut file = Vec::new();
        image.write(&mut file).unwrap();
        file
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(
            kernel in prop::collection::vec(any::<u8>(), 0..300),
            command_line in "[ -~]{0,60}",
            ramdisks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..300), 1..=28),
            memory_bytes in any::<u64>(),
            cpus in any::<u64>(),
        ) {
            let image = Image::new(kernel.clone(), &command_line, &metadata(), ramdisks.clone()).unwrap().with_defaults(memory_bytes, cpus);
            let file = written(&image);
            prop_assert_eq!(file.len() as u64, image.bytes());
            let parsed = Parsed::parse(&file).unwrap();
            prop_assert_eq!(parsed.verify(), Ok(*image.measurements()));
            prop_assert_eq!(parsed.of_kind(Kind::Kernel).collect::<Vec<_>>(), vec![kernel]);
            prop_assert_eq!(parsed.of_kind(Kind::CommandLine).collect::<Vec<_>>(), vec![command_line.as_bytes()]);
            prop_assert_eq!(parsed.of_kind(Kind::Ramdisk).collect::<Vec<_>>(), ramdisks);
            prop_assert_eq!(parsed.metadata(), Some(metadata()));
            prop_assert_eq!((parsed.header().memory_bytes, parsed.header().cpus), (memory_bytes, cpus));
        }
    }

    #[test]
    fn parts_that_would_not_boot_are_refused() {
        assert_eq!(image("quiet\n", 1), Err(ImageError::CommandLine));
        assert_eq!(image("quiet\0", 1), Err(ImageError::CommandLine));
        assert_eq!(image(&"x".repeat(2048), 1), Err(ImageError::CommandLineBytes(2048)));
        assert!(image(&"x".repeat(2047), 1).is_ok());
        assert_eq!(image("", 0), Err(ImageError::Ramdisks(0)));
        assert!(image("", 28).is_ok());
        assert_eq!(image("", 29), Err(ImageError::Ramdisks(29)));
    }

    #[test]
    fn a_signed_image_differs_in_signature_and_header_only() {
        let (key, certificate) = key_and_certificate();
        let signer = Signer::from_pem(&key, certificate.as_bytes()).unwrap();
        let unsigned = image("quiet", 2).unwrap();
        let signed = unsigned.clone().signed(&signer);
        let (before, after) = (written(&unsigned), written(&signed));
        assert_eq!(before[HEADER_BYTES..], after[HEADER_BYTES..before.len()]);
        let measurements = Parsed::parse(&after).unwrap().verify().unwrap();
        assert_eq!(measurements, *signed.measurements());
        assert_eq!(measurements.pcr8, Some(measure::of_certificate(signer.certificate_der())));
        assert_eq!(Measurements { pcr8: None, ..measurements }, *unsigned.measurements());
        assert_eq!(written(&signed.clone().signed(&signer)), after, "signing again changes nothing");
    }

    #[test]
    fn a_signature_does_not_move_to_another_image() {
        let (key, certificate) = key_and_certificate();
        let signer = Signer::from_pem(&key, certificate.as_bytes()).unwrap();
        let signed = image("quiet", 2).unwrap().signed(&signer);
        let mut other = image("loud", 2).unwrap();
        other.sections.extend(signed.sections.into_iter().filter(|(kind, _)| *kind == Kind::Signature));
        let file = written(&other);
        assert_eq!(Parsed::parse(&file).unwrap().verify(), Err(SignatureError::OtherImage));
    }
}
