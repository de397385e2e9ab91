use std::process::{Command, Stdio};

use proptest::prelude::*;
use sha2::{Digest, Sha256};

use super::super::fake_envelope::writer::{nest, tlv};
use super::super::fake_envelope::{Shape, dummy, rsa, shape};
use super::super::recipient::{OpenError, RecipientKey};
use super::*;

#[test]
fn opens_both_shapes() {
    let key = RecipientKey::generate().unwrap();
    assert_eq!(key.identifier(), <[u8; 32]>::from(Sha256::digest(key.public_key())));
    assert_eq!(key.public_key().len(), 294, "an RSA-2048 SubjectPublicKeyInfo");
    let kms = shape(&key, &[0x42; 32]);
    let primitive_inside = Shape { chunks: None, ..kms.clone() };
    let one_chunk = Shape { chunks: Some(4096), ..kms.clone() };
    let uneven_chunks = Shape { chunks: Some(7), ..kms.clone() };
    let no_null = Shape { null_parameters: false, ..kms.clone() };
    for shape in [kms.clone(), kms.definite(), primitive_inside, one_chunk, uneven_chunks, no_null] {
        let bytes = shape.write();
        let envelope = Envelope::parse(&bytes).unwrap();
        assert_eq!(*key.open(&envelope).unwrap(), [0x42; 32]);
    }
}

#[test]
fn a_written_envelope_begins_as_the_real_ones_do() {
    let bytes = shape(&RecipientKey::generate().unwrap(), &[0x42; 32]).write();
    let expected = "308006092a864886f70d010703a080308002010231820";
    assert!(hex::encode(&bytes).starts_with(expected), "{}", hex::encode(&bytes[..32]));
}

#[test]
fn refuses_every_other_option_by_name() {
    type Change = fn(&mut Shape);
    let changes: [(Change, EnvelopeError); 15] = [
        (|s| s.version = 0, EnvelopeError::Version),
        (|s| s.recipient_version = 0, EnvelopeError::Version),
        (|s| s.recipient_tag = 0x30, EnvelopeError::RecipientIdentifier),
        (|s| s.recipient.truncate(20), EnvelopeError::RecipientIdentifier),
        (|s| s.recipients = 2, EnvelopeError::Ber(BerError::Trailing)),
        (|s| s.recipients = 0, EnvelopeError::Ber(BerError::UnexpectedTag)),
        // SHA-1: 1.3.14.3.2.26
        (|s| s.oaep_hash = vec![0x2b, 0x0e, 0x03, 0x02, 0x1a], EnvelopeError::KeyAlgorithm),
        (|s| s.mgf_hash = vec![0x2b, 0x0e, 0x03, 0x02, 0x1a], EnvelopeError::KeyAlgorithm),
        (|s| s.label = true, EnvelopeError::KeyAlgorithm),
        (|s| s.wrapped_key.truncate(255), EnvelopeError::KeyLength),
        // AES-128-CBC
        (|s| s.content_algorithm[8] = 0x02, EnvelopeError::ContentAlgorithm),
        (|s| s.iv.truncate(12), EnvelopeError::ContentAlgorithm),
        (|s| s.content.truncate(47), EnvelopeError::ContentLength),
        (|s| s.content.clear(), EnvelopeError::ContentLength),
        (|s| s.unprotected_attributes = true, EnvelopeError::Ber(BerError::Trailing)),
    ];
    for base in [dummy(), dummy().definite()] {
        Envelope::parse(&base.write()).unwrap();
        for (number, (change, expected)) in changes.iter().enumerate() {
            let mut shape = base.clone();
            change(&mut shape);
            assert_eq!(Envelope::parse(&shape.write()), Err(*expected), "change {number}");
        }
    }
}

#[test]
fn refuses_what_is_too_long_or_goes_on() {
    let mut long = dummy();
    long.content = vec![1; MAX_CONTENT];
    assert_eq!(Envelope::parse(&long.write()).unwrap().content.len(), MAX_CONTENT);
    long.content = vec![1; MAX_CONTENT + 16];
    assert_eq!(Envelope::parse(&long.write()), Err(EnvelopeError::ContentLength));
    assert_eq!(Envelope::parse(&[0x30; MAX_ENVELOPE + 1]), Err(EnvelopeError::TooLong));
    for base in [dummy(), dummy().definite()] {
        let bytes = base.write();
        for end in 0..bytes.len() {
            assert!(Envelope::parse(&bytes[..end]).is_err(), "cut at {end}");
        }
        assert!(Envelope::parse(&[&bytes[..], &[0]].concat()).is_err(), "a byte more");
        assert!(Envelope::parse(&[&bytes[..], &bytes].concat()).is_err(), "twice");
    }
    // Chunks of chunks.
    let nested = Shape { chunks: Some(48), ..dummy() };
    let bytes = nested.write();
    let chunk = tlv(4, &[1; 48]);
    let at = bytes.windows(chunk.len()).position(|window| window == chunk).unwrap();
    let inner = nest(0x24, true, std::slice::from_ref(&chunk));
    let bytes = [&bytes[..at], &inner, &bytes[at + chunk.len()..]].concat();
    assert_eq!(Envelope::parse(&bytes), Err(EnvelopeError::Ber(BerError::UnexpectedTag)));
}

#[test]
fn every_failure_to_open_is_the_same_word() {
    let key = RecipientKey::generate().unwrap();
    let open = |shape: &Shape| key.open(&Envelope::parse(&shape.write()).unwrap()).map(|_| ());
    let good = shape(&key, &[0x42; 32]);
    assert_eq!(open(&good), Ok(()));
    let other = RecipientKey::generate().unwrap();
    assert_eq!(open(&shape(&other, &[0x42; 32])), Err(OpenError), "for another boot");
    let mut renamed = shape(&other, &[0x42; 32]);
    renamed.recipient = key.identifier().to_vec();
    assert_eq!(open(&renamed), Err(OpenError), "for another key under our name");
    for length in [0, 16, 31, 33, 47, 48, 64] {
        assert_eq!(open(&shape(&key, &vec![0x42; length])), Err(OpenError), "a key of {length} bytes");
    }
    for length in [16, 24, 33] {
        let mut short = good.clone();
        short.wrapped_key = rsa(&key, &vec![9; length]);
        assert_eq!(open(&short), Err(OpenError), "a content key of {length} bytes");
    }
    // Flips in the last block and in the one before it garble the padding; none of them tells which byte was wrong.
    for at in 16..48 {
        let mut flipped = good.clone();
        flipped.content[at] ^= 1;
        assert_eq!(open(&flipped), Err(OpenError), "flip at {at}");
    }
    let mut flipped = good;
    flipped.wrapped_key[255] ^= 1;
    assert_eq!(open(&flipped), Err(OpenError));
}

#[test]
fn debug_output_holds_no_key() {
    let text = format!("{:?}", RecipientKey::generate().unwrap());
    assert!(text.contains("redacted"), "{text}");
}

/// A second opinion: an envelope that OpenSSL made. Its `-stream` writes the shape of the real service.
#[test]
fn opens_what_openssl_makes() {
    if Command::new("openssl").arg("version").stdout(Stdio::null()).status().is_err() {
        println!("skipped: no openssl on PATH");
        return;
    }
    let key = RecipientKey::generate().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let run = |arguments: &str| {
        let output = Command::new("openssl")
            .args(arguments.split_whitespace())
            .current_dir(dir.path())
            .output()
            .expect("openssl is on PATH");
        assert!(output.status.success(), "openssl {arguments}: {}", String::from_utf8_lossy(&output.stderr));
    };
    let secret = [0x5a; 32];
    std::fs::write(dir.path().join("secret"), secret).unwrap();
    std::fs::write(dir.path().join("public.der"), key.public_key()).unwrap();
    // A certificate over our public key, its key identifier made as the key service makes it.
    let identifier = format!("subjectKeyIdentifier={}\n", hex::encode(key.identifier()));
    std::fs::write(dir.path().join("extensions"), identifier).unwrap();
    run("pkey -pubin -inform DER -in public.der -out public.pem");
    run("req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=test -out request.pem");
    run("x509 -req -in request.pem -signkey ca.key -force_pubkey public.pem -extfile extensions -out recipient.pem");
    for (mode, indefinite) in [("-stream", true), ("-nodetach", false)] {
        run(&format!(
            "cms -encrypt {mode} -binary -aes256 -keyid -in secret -outform DER -out envelope -recip recipient.pem \
             -keyopt rsa_padding_mode:oaep -keyopt rsa_oaep_md:sha256 -keyopt rsa_mgf1_md:sha256"
        ));
        let bytes = std::fs::read(dir.path().join("envelope")).unwrap();
        assert_eq!(bytes[1] == 0x80, indefinite, "{mode}");
        let envelope =
            Envelope::parse(&bytes).unwrap_or_else(|error| panic!("{mode}: {error}\n{}", hex::encode(&bytes)));
        assert_eq!(*key.open(&envelope).unwrap(), secret, "{mode}");
    }
}

proptest! {
    #[test]
    fn any_bytes_may_be_parsed(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzz::cms(&bytes);
    }

    #[test]
    fn any_change_to_an_envelope_may_be_parsed(
        indefinite in any::<bool>(),
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let shape = if indefinite { dummy() } else { dummy().definite() };
        let mut bytes = shape.write();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        crate::fuzz::cms(&bytes);
    }
}
