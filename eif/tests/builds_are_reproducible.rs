//! Two builds from two folders are one image, and the program says so in the same words.

#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::{Command, Output};

use casemate_eif::Parsed;

fn program(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_casemate-eif")).args(arguments).output().unwrap()
}

fn said(output: &Output) -> (String, String) {
    (String::from_utf8(output.stdout.clone()).unwrap(), String::from_utf8(output.stderr.clone()).unwrap())
}

/// The fields of a bzImage's header that the program looks at.
fn kernel() -> Vec<u8> {
    let mut kernel = vec![0; 0x400];
    kernel[0x1FE..0x200].copy_from_slice(&[0x55, 0xAA]);
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    kernel[0x20E..0x210].copy_from_slice(&0x100_u16.to_le_bytes());
    kernel[0x300..0x307].copy_from_slice(b"6.12.9 ");
    kernel
}

/// The inputs of an image, in an order and with a umask of the folder's own.
fn inputs(folder: &Path, reversed: bool) {
    let mode = |path: &Path, mode: u32| fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    fs::write(folder.join("bzImage"), kernel()).unwrap();
    fs::write(folder.join("cmdline"), "quiet panic=1\n").unwrap();
    fs::write(folder.join("init.bin"), "init").unwrap();
    let list = "dir /dev 0755 0 0\nnod /dev/console 0600 0 0 c 5 1\nfile /init ${INIT} 0755 0 0\n";
    fs::write(folder.join("boot.list"), list).unwrap();
    let application = folder.join("application");
    fs::create_dir(&application).unwrap();
    let mut files = vec![("one", 0o755), ("two", 0o600), ("three", 0o644)];
    if reversed {
        files.reverse();
        for (_, mode) in &mut files {
            *mode &= 0o700;
        }
    }
    for (name, permissions) in files {
        fs::write(application.join(name), name).unwrap();
        mode(&application.join(name), permissions);
    }
    symlink("one", application.join("link")).unwrap();
}

fn build(folder: &Path, more: &[&str]) -> Output {
    let at = |name: &str| folder.join(name).to_str().unwrap().to_owned();
    let set = format!("INIT={}", at("init.bin"));
    let (kernel, cmdline, boot, application, output) =
        (at("bzImage"), at("cmdline"), at("boot.list"), at("application"), at("image.eif"));
    let mut arguments = vec![
        "build",
        "--kernel",
        &kernel,
        "--cmdline-file",
        &cmdline,
        "--ramdisk",
        &boot,
        "--ramdisk",
        &application,
        "--set",
        &set,
        "--output",
        &output,
    ];
    arguments.extend(more);
    program(&arguments)
}

#[test]
fn two_folders_one_image_one_line() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    inputs(one.path(), false);
    inputs(two.path(), true);
    let (first, second) = (build(one.path(), &["--json"]), build(two.path(), &["--json"]));
    assert!(first.status.success(), "{first:?}");
    let (line, _) = said(&first);
    assert_eq!(line, said(&second).0);
    let read = |folder: &Path, name: &str| fs::read(folder.join(name)).unwrap();
    assert_eq!(read(one.path(), "image.eif"), read(two.path(), "image.eif"));
    assert_eq!(read(one.path(), "image.eif.pcrs.json"), line.as_bytes());
    assert!(!line.contains('/'), "no paths: {line}");

    let file = read(one.path(), "image.eif");
    let measurements = Parsed::parse(&file).unwrap().verify().unwrap();
    let value: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert_eq!(value["PCR0"], measurements.pcr0.to_string());
    assert_eq!(value["size"], file.len());

    let described = program(&["describe", one.path().join("image.eif").to_str().unwrap(), "--files", "--json"]);
    let (described, _) = said(&described);
    assert_eq!(described.lines().last(), Some(line.trim_end()));
    let names: Vec<String> = described
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["name"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(names, ["dev", "dev/console", "init", "link", "one", "three", "two"]);

    // A byte more is another image.
    fs::write(two.path().join("application/one"), "One").unwrap();
    let third: serde_json::Value = serde_json::from_str(&said(&build(two.path(), &["--json"])).0).unwrap();
    assert_eq!(third["PCR1"], value["PCR1"], "the application is not what boots");
    assert_ne!(third["PCR0"], value["PCR0"]);
    assert_ne!(third["PCR2"], value["PCR2"]);
}

#[test]
fn a_signed_build_is_reproducible_and_described() {
    let folder = tempfile::tempdir().unwrap();
    inputs(folder.path(), false);
    let key = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384).unwrap();
    let certificate = rcgen::CertificateParams::default().self_signed(&key).unwrap();
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    fs::write(at("key.pem"), key.serialize_pem()).unwrap();
    fs::write(at("certificate.pem"), certificate.pem()).unwrap();
    let (key, certificate) = (at("key.pem"), at("certificate.pem"));
    let signing = ["--sign-key", &key, "--sign-certificate", &certificate];
    let (said_first, _) = said(&build(folder.path(), &signing));
    assert!(said_first.contains("PCR8") && !said_first.contains('\u{1b}'), "{said_first}");
    let first = fs::read(at("image.eif")).unwrap();
    build(folder.path(), &signing);
    assert_eq!(first, fs::read(at("image.eif")).unwrap());
    let (described, _) = said(&program(&["describe", &at("image.eif")]));
    assert!(described.contains("signature     good") && described.contains("quiet panic=1"), "{described}");

    // One bit of an archive, on its way.
    let mut damaged = first.clone();
    let archive = damaged.windows(6).position(|bytes| bytes == b"070701").unwrap();
    damaged[archive + 200] ^= 1;
    fs::write(at("damaged.eif"), &damaged).unwrap();
    let refused = program(&["describe", &at("damaged.eif")]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(said(&refused).1.contains("checksum"), "{refused:?}");
}

#[test]
fn refusals_say_what_to_do() {
    let folder = tempfile::tempdir().unwrap();
    inputs(folder.path(), false);
    let at = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let refused = |output: Output, part: &str| {
        let (_, error) = said(&output);
        assert!(output.status.code() == Some(1) && error.contains(part), "{part}: {output:?}");
        assert!(!Path::new(&at("image.eif")).exists(), "nothing half done");
    };
    fs::write(at("application/init"), "another").unwrap();
    refused(build(folder.path(), &[]), "its own /init in the place of an earlier ramdisk's");
    fs::remove_file(at("application/init")).unwrap();
    fs::write(at("boot.list"), "dir /dev 0755 0 0\n").unwrap();
    refused(build(folder.path(), &[]), "no /init");
    fs::write(at("boot.list"), "file /init ${OTHER} 0755 0 0\n").unwrap();
    refused(build(folder.path(), &[]), "line 1: '${OTHER}' was given no value");
    fs::write(at("bzImage"), b"\x7fELF").unwrap();
    refused(build(folder.path(), &[]), "not vmlinux");
    refused(program(&["describe", &at("cmdline")]), "cut short");
    assert_eq!(program(&["build", "--kernel", "k"]).status.code(), Some(2));
}

#[test]
fn the_policy_follows_from_the_measurements() {
    let folder = tempfile::tempdir().unwrap();
    inputs(folder.path(), false);
    let built: serde_json::Value = serde_json::from_str(&said(&build(folder.path(), &["--json"])).0).unwrap();
    let pcrs = folder.path().join("image.eif.pcrs.json");
    let policy = |account: &str| {
        let roles = ["--account", account, "--role", "enclave", "--admin-role", "admin"];
        program(&[&["policy", "--pcrs", pcrs.to_str().unwrap()][..], &roles].concat())
    };
    let policy_of = policy("111122223333");
    let written: serde_json::Value = serde_json::from_slice(&policy_of.stdout).unwrap();
    let condition = &written["Statement"][0]["Condition"]["StringEqualsIgnoreCase"];
    for name in ["PCR0", "PCR1", "PCR2"] {
        assert_eq!(condition[format!("kms:RecipientAttestation:{name}")], built[name]);
    }
    assert!(said(&policy("1")).1.contains("twelve digits"));
}
