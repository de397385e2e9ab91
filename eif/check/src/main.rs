//! Compares `casemate-eif` with AWS's own builder and reader, and writes the vectors that the main tests hold it to.
//!
//! ```text
//! cargo run --release --locked             compares some hundred images
//! cargo run --release --locked -- vectors  writes eif/vectors as well
//! ```

use std::collections::BTreeMap;
use std::error::Error;
use std::fs::{self, File};
use std::path::Path;

use aws_nitro_enclaves_image_format::defs::{EifBuildInfo, EifIdentityInfo};
use aws_nitro_enclaves_image_format::utils::eif_reader::EifReader;
use aws_nitro_enclaves_image_format::utils::{EifBuilder, SignKeyData};
use casemate_eif::metadata::Metadata;
use casemate_eif::ramdisk::{Content, Entry};
use casemate_eif::sign::Signer;
use casemate_eif::{Image, Measurements, Parsed, Ramdisk, cpio};
use openssl::asn1::Asn1Time;
use openssl::bn::BigNum;
use openssl::ec::{EcGroup, EcKey};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::PKey;
use openssl::x509::{X509, X509Name};
use sha2::{Digest, Sha384};

const IMAGES: u64 = 200;

/// What an image is made of.
struct Parts {
    kernel: Vec<u8>,
    command_line: String,
    ramdisks: Vec<Vec<u8>>,
    metadata: Metadata,
}

fn main() -> Result<(), Box<dyn Error>> {
    let folder = tempfile::tempdir()?;
    let (key, certificate) = key_and_certificate()?;
    for seed in 0..IMAGES {
        let parts = parts(seed);
        let image = compare(folder.path(), &parts)?;
        let signed = image.signed(&Signer::from_pem(&key, certificate.as_bytes())?);
        compare_signed(folder.path(), &parts, &signed, &key, &certificate)?;
    }
    println!(
        "{IMAGES} images: each byte is AWS's; {IMAGES} signed ones: each but the signature's, and each reads the other's"
    );
    if std::env::args().nth(1).as_deref() == Some("vectors") {
        vectors(folder.path(), &key, &certificate)?;
        println!("wrote eif/vectors");
    }
    Ok(())
}

/// Both write the same file with the same measurements, and both read it so.
fn compare(folder: &Path, parts: &Parts) -> Result<Image, Box<dyn Error>> {
    let (theirs, named) = aws(folder, parts, None)?;
    let image = Image::new(parts.kernel.clone(), &parts.command_line, &parts.metadata, parts.ramdisks.clone())?;
    let mut ours = Vec::new();
    image.write(&mut ours)?;
    assert_eq!(ours, theirs, "the same parts, the same bytes");
    same_measurements(image.measurements(), &named);
    same_measurements(&Parsed::parse(&theirs)?.verify()?, &named);
    let mut reader = read_by_aws(folder, &ours)?;
    same_measurements(image.measurements(), &reader.get_measurements()?);
    Ok(image)
}

/// AWS's signature has a random nonce and ours has none: everything else is the same, and each verifies the other's.
fn compare_signed(
    folder: &Path,
    parts: &Parts,
    image: &Image,
    key: &str,
    certificate: &str,
) -> Result<(), Box<dyn Error>> {
    let (theirs, named) = aws(folder, parts, Some((key, certificate)))?;
    let mut ours = Vec::new();
    image.write(&mut ours)?;
    same_measurements(image.measurements(), &named);
    same_measurements(&Parsed::parse(&theirs)?.verify()?, &named);
    let mut reader = read_by_aws(folder, &ours)?;
    let read = reader.get_measurements()?;
    same_measurements(image.measurements(), &read);
    reader.get_certificate_info(read)?;
    assert_eq!(reader.sign_check, Some(true), "AWS verifies our signature");
    // The numbers of a random signature take one or two bytes each, so its section has another length; what comes before it,
    // the sizes in the header apart, is the same.
    let before = |file: &[u8]| -> Result<Vec<Vec<u8>>, Box<dyn Error>> {
        let parsed = Parsed::parse(file)?;
        Ok(parsed.sections().iter().rev().skip(1).map(|section| section.bytes.to_vec()).collect())
    };
    assert_eq!(before(&ours)?, before(&theirs)?);
    Ok(())
}

fn same_measurements(ours: &Measurements, theirs: &BTreeMap<String, String>) {
    let pcr = |name: &str| theirs.get(name).cloned();
    assert_eq!(Some(ours.pcr0.to_string()), pcr("PCR0"));
    assert_eq!(Some(ours.pcr1.to_string()), pcr("PCR1"));
    assert_eq!(Some(ours.pcr2.to_string()), pcr("PCR2"));
    assert_eq!(ours.pcr8.map(|pcr| pcr.to_string()), pcr("PCR8"));
}

/// The file that AWS's builder writes, and the measurements that it names.
fn aws(
    folder: &Path,
    parts: &Parts,
    signing: Option<(&str, &str)>,
) -> Result<(Vec<u8>, BTreeMap<String, String>), Box<dyn Error>> {
    let written = |name: &str, bytes: &[u8]| fs::write(folder.join(name), bytes).map(|()| folder.join(name));
    let signing = match signing {
        Some((key, certificate)) => {
            let key = written("key.pem", key.as_bytes())?;
            let certificate = written("certificate.pem", certificate.as_bytes())?;
            Some(SignKeyData::new(key.to_str().ok_or("a path")?, &certificate)?)
        }
        None => None,
    };
    let Metadata { name, version, build, custom, .. } = parts.metadata.clone();
    let identity = EifIdentityInfo {
        img_name: name,
        img_version: version,
        build_info: EifBuildInfo {
            build_time: build.time,
            build_tool: build.tool,
            build_tool_version: build.tool_version,
            img_os: build.operating_system,
            img_kernel: build.kernel_version,
        },
        docker_info: serde_json::Value::Null,
        custom_info: serde_json::to_value(custom)?,
    };
    let kernel = written("kernel", &parts.kernel)?;
    let mut builder = EifBuilder::new(&kernel, parts.command_line.clone(), signing, Sha384::new(), 0, identity);
    for (index, ramdisk) in parts.ramdisks.iter().enumerate() {
        builder.add_ramdisk(&written(&format!("ramdisk{index}"), ramdisk)?);
    }
    let path = folder.join("theirs.eif");
    let mut file = File::create(&path)?;
    let named = builder.write_to(&mut file);
    Ok((fs::read(path)?, named))
}

fn read_by_aws(folder: &Path, file: &[u8]) -> Result<EifReader, Box<dyn Error>> {
    let path = folder.join("ours.eif");
    fs::write(&path, file)?;
    let reader = EifReader::from_eif(path.to_str().ok_or("a path")?.to_owned())?;
    assert!(reader.check_crc(), "AWS computes the same checksum");
    assert!(reader.get_metadata().is_some());
    Ok(reader)
}

/// SplitMix64 (Steele and others 2014): the same parts for the same seed, everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ mixed >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) % limit as u64).expect("below a usize")
    }

    fn bytes(&mut self, limit: usize) -> Vec<u8> {
        (0..self.below(limit)).map(|_| u8::try_from(self.below(256)).expect("a byte")).collect()
    }

    fn text(&mut self, limit: usize) -> String {
        (0..self.below(limit)).map(|_| char::from(b' ' + u8::try_from(self.below(95)).expect("printable"))).collect()
    }
}

/// Anything that the format can carry, the smallest and the most sections among it.
fn parts(seed: u64) -> Parts {
    let mut random = Random(seed);
    let ramdisks = match seed {
        0 => 1,
        1 => 28,
        _ => 1 + random.below(6),
    };
    let mut metadata = Metadata::new(random.text(20), random.text(20), random.text(30), random.text(10));
    for _ in 0..random.below(4) {
        metadata.custom.insert(random.text(12), random.text(12));
    }
    Parts {
        kernel: random.bytes(5000),
        command_line: random.text(200),
        ramdisks: (0..ramdisks).map(|_| random.bytes(3000)).collect(),
        metadata,
    }
}

fn key_and_certificate() -> Result<(String, String), Box<dyn Error>> {
    let key = PKey::from_ec_key(EcKey::generate(&*EcGroup::from_curve_name(Nid::SECP384R1)?)?)?;
    let mut name = X509Name::builder()?;
    name.append_entry_by_text("CN", "casemate-eif-check")?;
    let name = name.build();
    let mut certificate = X509::builder()?;
    certificate.set_version(2)?;
    certificate.set_serial_number(&*BigNum::from_u32(1)?.to_asn1_integer()?)?;
    certificate.set_subject_name(&name)?;
    certificate.set_issuer_name(&name)?;
    certificate.set_not_before(&*Asn1Time::from_unix(0)?)?;
    certificate.set_not_after(&*Asn1Time::from_unix(4_000_000_000)?)?;
    certificate.set_pubkey(&key)?;
    certificate.sign(&key, MessageDigest::sha384())?;
    let key = String::from_utf8(key.private_key_to_pem_pkcs8()?)?;
    Ok((key, String::from_utf8(certificate.build().to_pem()?)?))
}

/// The parts of a small image, and what AWS makes of them. The key is forgotten: its signature stands in `signed.eif`.
fn vectors(folder: &Path, key: &str, certificate: &str) -> Result<(), Box<dyn Error>> {
    let mut metadata = Metadata::new("vector".into(), "1".into(), "1970-01-01T00:00:00Z".into(), "6.12.9".into());
    // Not this package's version, which changes.
    metadata.build.tool_version = "1".into();
    metadata.custom.insert("commit".into(), "none".into());
    let mut boot = Ramdisk::new();
    boot.insert("dev", Entry { mode: 0o755, content: Content::Directory })?;
    boot.insert("dev/console", Entry { mode: 0o600, content: Content::Device { major: 5, minor: 1 } })?;
    boot.insert("init", Entry { mode: 0o755, content: Content::File(b"init".to_vec()) })?;
    let mut application = Ramdisk::new();
    application.insert("application", Entry { mode: 0o755, content: Content::File(vec![0x5A; 700]) })?;
    let parts = Parts {
        kernel: Random(42).bytes(2000),
        command_line: "reboot=k panic=1 quiet".into(),
        ramdisks: vec![cpio::write(&boot), cpio::write(&application)],
        metadata,
    };
    let image = compare(folder, &parts)?;
    let signed = image.signed(&Signer::from_pem(key, certificate.as_bytes())?);
    compare_signed(folder, &parts, &signed, key, certificate)?;

    let to = Path::new(env!("CARGO_MANIFEST_DIR")).join("../vectors");
    fs::create_dir_all(&to)?;
    fs::write(to.join("kernel"), &parts.kernel)?;
    fs::write(to.join("cmdline"), &parts.command_line)?;
    fs::write(to.join("boot.cpio"), &parts.ramdisks[0])?;
    fs::write(to.join("application.cpio"), &parts.ramdisks[1])?;
    let (unsigned, named) = aws(folder, &parts, None)?;
    fs::write(to.join("unsigned.eif"), unsigned)?;
    fs::write(to.join("unsigned.json"), serde_json::to_string_pretty(&named)? + "\n")?;
    let (signed, named) = aws(folder, &parts, Some((key, certificate)))?;
    fs::write(to.join("signed.eif"), signed)?;
    fs::write(to.join("signed.json"), serde_json::to_string_pretty(&named)? + "\n")?;
    Ok(())
}
