//! The bytes and measurements of AWS's own builder, written by `eif/check`: `aws-nitro-enclaves-image-format` 0.8.1.

use casemate_eif::header::Kind;
use casemate_eif::metadata::Metadata;
use casemate_eif::ramdisk::{Content, Entry};
use casemate_eif::sign::Signature;
use casemate_eif::{Image, Measurements, Parsed, Ramdisk, cpio};

const KERNEL: &[u8] = include_bytes!("../vectors/kernel");
const COMMAND_LINE: &str = include_str!("../vectors/cmdline");
const BOOT: &[u8] = include_bytes!("../vectors/boot.cpio");
const APPLICATION: &[u8] = include_bytes!("../vectors/application.cpio");
const UNSIGNED: &[u8] = include_bytes!("../vectors/unsigned.eif");
const UNSIGNED_PCRS: &str = include_str!("../vectors/unsigned.json");
const SIGNED: &[u8] = include_bytes!("../vectors/signed.eif");
const SIGNED_PCRS: &str = include_str!("../vectors/signed.json");

fn image() -> Image {
    let mut metadata = Metadata::new("vector".into(), "1".into(), "1970-01-01T00:00:00Z".into(), "6.12.9".into());
    metadata.build.tool_version = "1".into();
    metadata.custom.insert("commit".into(), "none".into());
    Image::new(KERNEL.to_vec(), COMMAND_LINE, &metadata, vec![BOOT.to_vec(), APPLICATION.to_vec()])
        .expect("parts of an image")
}

fn named(text: &str) -> Measurements {
    serde_json::from_str(text).expect("measurements that AWS named")
}

#[test]
fn an_image_is_aws_byte_for_byte() {
    let mut written = Vec::new();
    image().write(&mut written).unwrap();
    assert!(written == UNSIGNED, "{} bytes and AWS wrote {}", written.len(), UNSIGNED.len());
}

#[test]
fn measurements_are_aws() {
    assert_eq!(*image().measurements(), named(UNSIGNED_PCRS));
    assert_eq!(Parsed::parse(UNSIGNED).unwrap().verify(), Ok(named(UNSIGNED_PCRS)));
}

#[test]
fn aws_signature_verifies_and_its_certificate_is_pcr8() {
    let parsed = Parsed::parse(SIGNED).unwrap();
    let measurements = parsed.verify().unwrap();
    assert_eq!(measurements, named(SIGNED_PCRS));
    assert!(measurements.pcr8.is_some());
    assert_eq!(Measurements { pcr8: None, ..measurements }, *image().measurements());
    let unsigned: Vec<_> = image().sections().map(|(kind, bytes)| (kind, bytes.to_vec())).collect();
    let signed: Vec<_> = parsed.sections().iter().map(|section| (section.kind, section.bytes.to_vec())).collect();
    assert_eq!(signed[..unsigned.len()], unsigned);
    assert_eq!(signed.len(), unsigned.len() + 1);
    let section = parsed.of_kind(Kind::Signature).next().unwrap();
    for at in [section.len() - 1, section.len() / 2] {
        let mut forged = section.to_vec();
        forged[at] ^= 1;
        let verified = Signature::decode(&forged).and_then(|signature| signature.verify(&measurements.pcr0));
        assert!(verified.is_err(), "changed at {at}");
    }
}

/// The ramdisks of the vectors, as they have been packed since: a change of the packer is a change of every measurement.
#[test]
fn ramdisks_are_packed_as_ever() {
    let mut boot = Ramdisk::new();
    boot.insert("dev", Entry { mode: 0o755, content: Content::Directory }).unwrap();
    boot.insert("dev/console", Entry { mode: 0o600, content: Content::Device { major: 5, minor: 1 } }).unwrap();
    boot.insert("init", Entry { mode: 0o755, content: Content::File(b"init".to_vec()) }).unwrap();
    assert!(cpio::write(&boot) == BOOT);
    let mut application = Ramdisk::new();
    application.insert("application", Entry { mode: 0o755, content: Content::File(vec![0x5A; 700]) }).unwrap();
    assert!(cpio::write(&application) == APPLICATION);
}
