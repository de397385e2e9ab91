//! The envelope against OpenSSL: it must decrypt what we write, and write the same shape itself.

use std::path::Path;
use std::process::Command;

use aws_lc_rs::encoding::Pkcs8V1Der;
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};

use super::*;

fn key_pair() -> (Vec<u8>, Vec<u8>) {
    let private = PrivateDecryptingKey::generate(KeySize::Rsa2048).unwrap();
    let pkcs8 = AsDer::<Pkcs8V1Der<'_>>::as_der(&private).unwrap().as_ref().to_vec();
    let spki = AsDer::<PublicKeyX509Der<'_>>::as_der(&private.public_key()).unwrap().as_ref().to_vec();
    (pkcs8, spki)
}

/// Runs openssl in `folder`; nothing when the machine has none.
fn openssl(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = match Command::new("openssl").args(arguments).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            println!("skipped: no openssl on PATH");
            return None;
        }
        Err(error) => panic!("openssl: {error}"),
    };
    assert!(output.status.success(), "openssl {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// The parse as openssl prints it, without offsets, lengths and random values, and without the NULLs that algorithm
/// identifiers of SHA-256 may have or not (RFC 4055, 2.1): the real service writes them, OpenSSL 3.0 does not.
fn skeleton(folder: &Path, file: &str) -> Option<Vec<String>> {
    let text = openssl(folder, &["asn1parse", "-inform", "DER", "-in", file])?;
    let lines = text.lines().map(|line| {
        let (place, what) = line.split_once(": ").unwrap();
        let depth = place.split("d=").nth(1).unwrap().split(' ').next().unwrap();
        let length = if place.contains("l=inf") { "inf" } else { "def" };
        let what = what.split("[HEX DUMP]").next().unwrap().trim();
        format!("{depth} {length} {what}")
    });
    Some(lines.filter(|line| !line.ends_with("NULL")).collect())
}

#[test]
fn openssl_decrypts_both_shapes() {
    let (pkcs8, spki) = key_pair();
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("key.der"), pkcs8).unwrap();
    let key = RecipientKey::from_spki(&spki).unwrap();
    for shape in [Shape::Ber, Shape::Chunked, Shape::Der] {
        for length in [0_usize, 15, 16, 32, 4_096] {
            let plaintext: Vec<u8> = (0..length).map(|i| u8::try_from(i % 251).unwrap()).collect();
            std::fs::write(folder.path().join("cms"), key.envelope(&plaintext, shape).unwrap()).unwrap();
            let arguments = [
                "cms", "-decrypt", "-binary", "-inform", "DER", "-in", "cms", "-inkey", "key.der", "-keyform", "DER",
                "-out", "plain",
            ];
            if openssl(folder.path(), &arguments).is_none() {
                return;
            }
            assert_eq!(std::fs::read(folder.path().join("plain")).unwrap(), plaintext, "{shape:?} {length}");
        }
    }
}

#[test]
fn the_shape_is_the_one_that_openssl_streams() {
    let rsa = rcgen::KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, rcgen::RsaKeySize::_2048).unwrap();
    let spki = rcgen::PublicKeyData::subject_public_key_info(&rsa);
    // OpenSSL names a recipient by the identifier in its certificate.
    let mut params = rcgen::CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.key_identifier_method = rcgen::KeyIdMethod::PreSpecified(digest(&SHA256, &spki).as_ref().to_vec());
    let certificate = params.self_signed(&rsa).unwrap();

    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    std::fs::write(folder.path().join("plain"), [7_u8; 32]).unwrap();
    let arguments = [
        "cms",
        "-encrypt",
        "-binary",
        "-stream",
        "-keyid",
        "-aes-256-cbc",
        "-in",
        "plain",
        "-outform",
        "DER",
        "-out",
        "theirs",
        "-recip",
        "cert.pem",
        "-keyopt",
        "rsa_padding_mode:oaep",
        "-keyopt",
        "rsa_oaep_md:sha256",
        "-keyopt",
        "rsa_mgf1_md:sha256",
    ];
    if openssl(folder.path(), &arguments).is_none() {
        return;
    }
    let ours = RecipientKey::from_spki(&spki).unwrap().envelope(&[7; 32], Shape::Chunked).unwrap();
    std::fs::write(folder.path().join("ours"), &ours).unwrap();
    assert_eq!(skeleton(folder.path(), "ours"), skeleton(folder.path(), "theirs"));
}

/// The bytes between the four random fields, as answers of the real service to GenerateDataKey have them.
#[test]
fn a_data_key_is_enveloped_byte_for_byte_as_the_real_service_does() {
    const HEAD: &str = "308006092a864886f70d010703a0803080020102318201 6b30820167020102 8020";
    const OAEP: &str = "303c06092a864886f70d010107302fa00f300d06096086480165030402010500a11c301a06092a864886f70d010108\
                        300d06096086480165030402010500 04820100";
    const CONTENT: &str = "308006092a864886f70d010701301d060960864801650304012a 0410";
    const CHUNK: &str = "a0800430";
    const ENDS: &str = "00000000000000000000";

    let (_, spki) = key_pair();
    let envelope = RecipientKey::from_spki(&spki).unwrap().envelope(&[7; 32], Shape::Ber).unwrap();
    let mut rest = envelope.as_slice();
    let mut take = |length: usize| {
        let (taken, left) = rest.split_at(length);
        rest = left;
        taken.to_vec()
    };
    for (fixed, random) in [(HEAD, 32), (OAEP, 256), (CONTENT, 16), (CHUNK, 48), (ENDS, 0)] {
        let fixed = hex::decode(fixed.replace(' ', "")).unwrap();
        assert_eq!(hex::encode(take(fixed.len())), hex::encode(&fixed));
        let field = take(random);
        if random == 32 {
            assert_eq!(field, digest(&SHA256, &spki).as_ref());
        }
    }
    assert!(rest.is_empty());
}

#[test]
fn the_der_shape_has_no_indefinite_length() {
    let (_, spki) = key_pair();
    let folder = tempfile::tempdir().unwrap();
    let envelope = RecipientKey::from_spki(&spki).unwrap().envelope(&[1; 32], Shape::Der).unwrap();
    std::fs::write(folder.path().join("der"), envelope).unwrap();
    if let Some(lines) = skeleton(folder.path(), "der") {
        assert!(lines.iter().all(|line| !line.contains(" inf ")), "{lines:?}");
    }
}

#[test]
fn only_rsa_2048_receives() {
    let (_, spki) = key_pair();
    let larger = PrivateDecryptingKey::generate(KeySize::Rsa3072).unwrap().public_key();
    let larger = AsDer::<PublicKeyX509Der<'_>>::as_der(&larger).unwrap().as_ref().to_vec();
    let elliptic = rcgen::KeyPair::generate().unwrap();
    let elliptic = rcgen::PublicKeyData::subject_public_key_info(&elliptic);
    for wrong in [&[][..], &spki[..spki.len() - 1], &larger, &elliptic] {
        assert_eq!(RecipientKey::from_spki(wrong).unwrap_err(), EnvelopeError::RecipientKey);
    }
    let mut trailing = spki.clone();
    trailing.push(0);
    assert_eq!(RecipientKey::from_spki(&trailing).unwrap_err(), EnvelopeError::RecipientKey);
}
