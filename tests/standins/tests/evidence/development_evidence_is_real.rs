//! Development evidence passes through the verifier that judges Amazon's, under its own root and under no other.

use std::os::unix::fs::PermissionsExt;

use casemate_attestation::nitro::{Document, Envelope};
use casemate_attestation::{ChainError, MAX_EVIDENCE_BYTES, NitroRules, Platform, Policy, Refusal};
use casemate_standins::{DevelopmentAuthority, Forgery, LEAF_LIFETIME_SECONDS};

use crate::{NOW_UNIX, PCRS, document, policy, verify};

#[test]
fn honest_evidence_is_believed_in_each_shape() {
    let authority = DevelopmentAuthority::new();
    for (indefinite, tagged) in [(true, false), (true, true), (false, false), (false, true)] {
        let forgery = Forgery::of(&authority, document());
        let evidence = forgery.with(|forgery| (forgery.indefinite, forgery.tagged) = (indefinite, tagged)).build();
        let claims = verify(&evidence, NOW_UNIX, &policy(&authority)).unwrap();
        assert_eq!(claims.platform, Platform::Nitro);
        assert_eq!(claims.measurements.pcr(0), Some(&PCRS[0]));
        assert_eq!(claims.measurements.len(), 16);
        assert_eq!(claims.bound.nonce.as_deref(), Some(&b"nonce"[..]));
        assert_eq!(claims.bound.user_data.as_deref(), Some(&b"user data"[..]));
        assert_eq!(claims.bound.public_key.as_deref(), Some(&b"public key"[..]));
        assert_eq!(claims.issued_at_unix_ms, Some(NOW_UNIX * 1000 + 500));
        assert_eq!(claims.valid_until_unix, NOW_UNIX - 3 + LEAF_LIFETIME_SECONDS);
        assert_eq!(claims.debug, None);
    }
}

#[test]
fn its_shape_is_the_real_ones() {
    let authority = DevelopmentAuthority::new();
    let evidence = authority.sign(document());
    assert!((2_000..MAX_EVIDENCE_BYTES / 2).contains(&evidence.len()), "{} bytes", evidence.len());
    // Untagged array of four, protected {1: -35}, unprotected {}.
    assert_eq!(&evidence[..7], &[0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0]);
    let payload = Envelope::parse(&evidence).unwrap().payload();
    assert_eq!((payload[0], payload[payload.len() - 1]), (0xbf, 0xff), "an indefinite map");
    let document = Document::parse(payload).unwrap();
    assert_eq!(document.cabundle.len(), 4);
    assert_eq!(document.cabundle[0], authority.root_der());
}

#[test]
fn amazons_root_does_not_believe_it() {
    let authority = DevelopmentAuthority::new();
    let release = Policy { nitro: Some(NitroRules::default()), ..policy(&authority) };
    let refusal = verify(&authority.sign(document()), NOW_UNIX, &release).unwrap_err();
    assert!(matches!(&refusal, Refusal::Chain(ChainError::ForeignRoot { .. })), "{refusal}");
    assert!(refusal.to_string().contains("641a0321"), "{refusal}");
}

#[test]
fn its_root_says_that_it_is_for_development_only() {
    let authority = DevelopmentAuthority::new();
    let claims = verify(&authority.sign(document()), NOW_UNIX, &policy(&authority)).unwrap();
    assert_eq!(claims.anchor_subject, "CN=Casemate DEV ONLY root,OU=DEV ONLY,O=Casemate");
    assert_eq!(&claims.anchor_fingerprint, authority.anchor().fingerprint());
    assert!(format!("{authority:?}").contains("redacted"));
}

#[test]
fn a_saved_authority_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let directory = folder.path().join("authority");
    let authority = DevelopmentAuthority::new();
    authority.save(&directory).unwrap();
    authority.save(&directory).expect("saving again replaces");
    let mode = |name: &str| directory.join(name).metadata().unwrap().permissions().mode() & 0o777;
    assert_eq!((mode("issuing-key.pem"), mode("root.der"), mode(".")), (0o600, 0o600, 0o700));
    assert_eq!(std::fs::read(directory.join("root.der")).unwrap(), authority.root_der());
    let loaded = DevelopmentAuthority::load(&directory).unwrap();
    assert!(verify(&loaded.sign(document()), NOW_UNIX, &policy(&authority)).is_ok());

    let missing = DevelopmentAuthority::load(&folder.path().join("absent")).unwrap_err();
    assert!(missing.to_string().contains("root.der"), "{missing}");
}
