//! What a device can do.

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, AuditEvent};
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};
use casemate_protocol::secret::Secret;

use super::harness::{World, code, get, put, value};

#[test]
fn secrets() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let big = vec![9; limits::SECRET_BYTES];
    assert_eq!(device.ask(&mut node, put("a", &big)), Ok(Answer::Written { revision: 1 }));
    assert_eq!(value(device.ask(&mut node, get("a"))), big);
    assert_eq!(code(device.ask(&mut node, get("b"))), ErrorCode::NotFound);
    let swap = |expected| Operation::SecretPut {
        name: "a".into(),
        value: Secret::new(vec![1]),
        expected_revision: Some(expected),
    };
    assert_eq!(code(device.ask(&mut node, swap(0))), ErrorCode::Conflict);
    assert_eq!(device.ask(&mut node, swap(1)), Ok(Answer::Written { revision: 2 }));
    let old = Operation::SecretGet { name: "a".into(), revision: Some(1) };
    assert_eq!(value(device.ask(&mut node, old)), big);
    let Ok(Answer::History { entries }) = device.ask(&mut node, Operation::SecretHistory { name: "a".into() }) else {
        panic!()
    };
    assert_eq!(entries.iter().map(|entry| (entry.revision, entry.bytes)).collect::<Vec<_>>(), [(2, 1), (1, 65_536)]);
    (0..20).for_each(|i| drop(device.ask(&mut node, put("a", &[i])).unwrap()));
    let Ok(Answer::History { entries }) = device.ask(&mut node, Operation::SecretHistory { name: "a".into() }) else {
        panic!()
    };
    assert_eq!(entries.len(), limits::SECRET_HISTORY + 1);
    let delete = Operation::SecretDelete { name: "a".into(), expected_revision: Some(5) };
    assert_eq!(code(device.ask(&mut node, delete)), ErrorCode::Conflict);
    let delete = Operation::SecretDelete { name: "a".into(), expected_revision: None };
    assert_eq!(device.ask(&mut node, delete.clone()), Ok(Answer::Nothing));
    assert_eq!(code(device.ask(&mut node, delete)), ErrorCode::NotFound);
}

#[test]
fn lists_have_pages_and_prefixes() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    for i in 0..300 {
        device.ask(&mut node, put(&format!("name-{i:03}"), b"x")).unwrap();
    }
    device.ask(&mut node, put("other", b"x")).unwrap();
    let list = |prefix: &str, after: Option<&str>| Operation::SecretList {
        prefix: prefix.into(),
        after: after.map(Into::into),
    };
    let Ok(Answer::Secrets { entries, more }) = device.ask(&mut node, list("name", None)) else { panic!() };
    assert_eq!((entries.len(), more), (256, true));
    let last = entries.last().unwrap().name.clone();
    let Ok(Answer::Secrets { entries, more }) = device.ask(&mut node, list("name", Some(&last))) else { panic!() };
    assert_eq!((entries.len(), more), (44, false));
    let Ok(Answer::Secrets { entries, .. }) = device.ask(&mut node, list("o", None)) else { panic!() };
    assert_eq!(entries[0].name, "other");
    // A page begins at the prefix, with a name that is the prefix itself, wherever the page before is said to have ended.
    device.ask(&mut node, put("name", b"x")).unwrap();
    for (prefix, after, first) in [
        ("name", None, Some("name")),
        ("name", Some(""), Some("name")),
        ("name", Some("a"), Some("name")),
        ("name", Some("name"), Some("name-000")),
        ("name-2", Some("name-1"), Some("name-200")),
        ("name", Some("o"), None),
        ("nam\u{0}", None, None),
        ("", None, Some("name")),
    ] {
        let Ok(Answer::Secrets { entries, .. }) = device.ask(&mut node, list(prefix, after)) else { panic!() };
        assert_eq!(entries.first().map(|entry| entry.name.as_str()), first, "{prefix:?} after {after:?}");
    }
}

#[test]
fn a_full_vault_refuses_more_and_still_deletes() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let big = vec![9; limits::SECRET_BYTES];
    let full = (0..100).find(|i| device.ask(&mut node, put(&format!("{i}"), &big)).is_err()).unwrap();
    assert!((60..64).contains(&full), "{full}");
    assert_eq!(code(device.ask(&mut node, put("more", &big))), ErrorCode::QuotaExceeded);
    let delete = Operation::SecretDelete { name: "0".into(), expected_revision: None };
    assert_eq!(device.ask(&mut node, delete), Ok(Answer::Nothing));
    assert!(device.ask(&mut node, put("more", &big)).is_ok());
    let newest = world.store.borrow().versions.values().map(Vec::len).max().unwrap();
    assert!(newest <= limits::OBJECT_BYTES);
}

fn generate(name: &str, algorithm: KeyAlgorithm, policy: KeyPolicy) -> Operation {
    Operation::KeyGenerate { name: name.into(), algorithm, policy }
}

#[test]
fn keys_sign_agree_encrypt_and_mac() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    for algorithm in KeyAlgorithm::ALL {
        let Ok(Answer::Key(entry)) =
            device.ask(&mut node, generate(algorithm.as_str(), algorithm, KeyPolicy::default()))
        else {
            panic!()
        };
        let symmetric = matches!(algorithm, KeyAlgorithm::Aes256Gcm | KeyAlgorithm::HmacSha256);
        assert_eq!(entry.public.is_none(), symmetric);
        let again = generate(algorithm.as_str(), algorithm, KeyPolicy::default());
        assert_eq!(code(device.ask(&mut node, again)), ErrorCode::AlreadyExists);
    }
    for name in ["ed25519", "p256", "secp256k1"] {
        let sign = Operation::KeySign { name: name.into(), message: b"hello"[..].into() };
        let Ok(Answer::Signature(signature)) = device.ask(&mut node, sign) else { panic!() };
        let verify = |message: &[u8], signature: &[u8]| Operation::KeyVerify {
            name: name.into(),
            message: message.into(),
            signature: signature.to_vec(),
        };
        assert_eq!(device.ask(&mut node, verify(b"hello", &signature)), Ok(Answer::Verified(true)));
        assert_eq!(device.ask(&mut node, verify(b"hellO", &signature)), Ok(Answer::Verified(false)));
        assert_eq!(device.ask(&mut node, verify(b"hello", b"junk")), Ok(Answer::Verified(false)));
    }
    for name in ["x25519", "p256", "secp256k1"] {
        let other = format!("{name}-peer");
        let algorithm = KeyAlgorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == name).unwrap();
        let Ok(Answer::Key(peer)) = device.ask(&mut node, generate(&other, algorithm, KeyPolicy::default())) else {
            panic!()
        };
        let Ok(Answer::Key(own)) = device.ask(&mut node, Operation::KeyPublic { name: name.into() }) else { panic!() };
        let ours = device.ask(&mut node, Operation::KeyAgree { name: name.into(), peer: peer.public.unwrap() });
        let theirs = device.ask(&mut node, Operation::KeyAgree { name: other, peer: own.public.unwrap() });
        assert!(matches!(&ours, Ok(Answer::Bytes(secret)) if secret.len() == 32));
        assert_eq!(ours, theirs);
        let weak = Operation::KeyAgree { name: name.into(), peer: vec![0; 32] };
        assert_eq!(code(device.ask(&mut node, weak)), ErrorCode::VerificationFailed);
    }
    let encrypt =
        Operation::KeyEncrypt { name: "aes256-gcm".into(), plaintext: b"text"[..].into(), associated: vec![1] };
    let Ok(Answer::Ciphertext(ciphertext)) = device.ask(&mut node, encrypt) else { panic!() };
    let decrypt =
        |associated| Operation::KeyDecrypt { name: "aes256-gcm".into(), ciphertext: ciphertext.clone(), associated };
    assert_eq!(device.ask(&mut node, decrypt(vec![1])), Ok(Answer::Bytes(b"text"[..].into())));
    assert_eq!(code(device.ask(&mut node, decrypt(vec![2]))), ErrorCode::VerificationFailed);
    let mac = Operation::KeyMac { name: "hmac-sha256".into(), message: b"text"[..].into() };
    let Ok(Answer::Signature(mac)) = device.ask(&mut node, mac) else { panic!() };
    let verify = Operation::KeyVerify { name: "hmac-sha256".into(), message: b"text"[..].into(), signature: mac };
    assert_eq!(device.ask(&mut node, verify), Ok(Answer::Verified(true)));
    let wrong = Operation::KeySign { name: "x25519".into(), message: b""[..].into() };
    assert_eq!(code(device.ask(&mut node, wrong)), ErrorCode::WrongAlgorithm);
    assert_eq!(code(device.ask(&mut node, Operation::KeyExport { name: "p256".into() })), ErrorCode::NotExportable);
}

#[test]
fn imported_keys_give_published_results() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    // RFC 8032, section 7.1, test 2.
    let material = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
    let import = |name: &str, algorithm, material: &[u8]| Operation::KeyImport {
        name: name.into(),
        algorithm,
        policy: KeyPolicy { exportable: true, audit_use: false },
        material: material.into(),
    };
    device.ask(&mut node, import("rfc8032", KeyAlgorithm::Ed25519, &material)).unwrap();
    let sign = Operation::KeySign { name: "rfc8032".into(), message: [0x72][..].into() };
    let Ok(Answer::Signature(signature)) = device.ask(&mut node, sign) else { panic!() };
    assert_eq!(
        hex::encode(signature),
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    );
    assert_eq!(
        device.ask(&mut node, Operation::KeyExport { name: "rfc8032".into() }),
        Ok(Answer::Bytes(material[..].into()))
    );
    // RFC 7748, section 6.1.
    let alice = hex::decode("77076d0a7318a57d3c16c17251b26645df4c2f92ebc0ee99e65b2c3a1d5a5f1b").unwrap();
    let alice = if alice.len() == 32 { alice } else { unreachable!() };
    device.ask(&mut node, import("rfc7748", KeyAlgorithm::X25519, &alice)).unwrap();
    // RFC 4231, test case 2 has a key of 4 bytes: under our minimum of 16.
    let short = import("short", KeyAlgorithm::HmacSha256, b"Jefe");
    assert_eq!(device.ask(&mut node, short), Err(Refusal::field(ErrorCode::InvalidArgument, "material")));
    device.ask(&mut node, import("rfc4231", KeyAlgorithm::HmacSha256, &[0x0b; 20])).unwrap();
    let mac = Operation::KeyMac { name: "rfc4231".into(), message: b"Hi There"[..].into() };
    let Ok(Answer::Signature(mac)) = device.ask(&mut node, mac) else { panic!() };
    assert_eq!(hex::encode(mac), "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7");
    let zero = import("zero", KeyAlgorithm::P256, &[0; 32]);
    assert_eq!(device.ask(&mut node, zero), Err(Refusal::field(ErrorCode::InvalidArgument, "material")));
}

#[test]
fn audited_uses_are_durable_before_their_result() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let policy = KeyPolicy { exportable: false, audit_use: true };
    device.ask(&mut node, generate("k", KeyAlgorithm::Ed25519, policy)).unwrap();
    let version = device.head.unwrap().version;
    let sign = device.request(Operation::KeySign { name: "k".into(), message: b"m"[..].into() });
    node.auto_commit = false;
    let id = device.send_unanswered(&mut node, &sign);
    assert!(!node.replies.contains_key(&id), "no result before the entry is durable");
    node.finish_commit();
    let hash = casemate_protocol::request::request_hash(sign.sequence, &sign.operation);
    let Ok(Answer::Signature(first)) = device.receive(&mut node, id, hash) else { panic!() };
    assert_eq!(device.head.unwrap().version, version + 1);
    node.auto_commit = true;
    assert_eq!(device.send(&mut node, &sign), Ok(Answer::Signature(first)), "a retry leaves no second entry");
    assert_eq!(device.head.unwrap().version, version + 1);
    let Ok(Answer::Audit { entries, .. }) = device.ask(&mut node, Operation::Audit { after: None }) else { panic!() };
    let events: Vec<_> = entries.iter().map(|entry| entry.event).collect();
    assert_eq!(events.iter().filter(|event| **event == AuditEvent::KeyUsed).count(), 1);
    let mut before = [0; 32];
    for (number, entry) in (1..).zip(&entries) {
        assert_eq!((entry.number, entry.hash), (number, entry.chain(&before)));
        before = entry.hash;
    }
}

#[test]
fn wrong_requests_leave_the_vault_unharmed() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    let mut unnumbered = device.request(put("a", b"1"));
    unnumbered.sequence = None;
    assert_eq!(device.send(&mut node, &unnumbered), Err(Refusal::field(ErrorCode::InvalidArgument, "sequence")));
    let long = put(&"n".repeat(257), b"1");
    assert_eq!(code(device.ask(&mut node, long)), ErrorCode::TooLarge);
    let create = device.create_operation();
    assert_eq!(code(device.ask(&mut node, create)), ErrorCode::AlreadyExists);
    assert_eq!(device.head.unwrap().version, 1);
    assert!(device.ask(&mut node, put("a", b"1")).is_ok());
}
