//! A device asks for more than it may.

use casemate_e2e::hostile::{Host, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::limits::{FIRST_REQUEST_BYTES, KEY_INPUT_BYTES, NAME_BYTES, SECRET_BYTES};
use casemate_protocol::reply::{Answer, Outcome};
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};

fn write(name: &str, length: usize) -> Operation {
    Operation::SecretPut { name: name.to_owned(), value: vec![7; length].as_slice().into(), expected_revision: None }
}

#[test]
fn each_names_the_field_and_leaves_the_vault_as_it_was() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    device.sequence += 1;
    let sequence = device.sequence - 1;
    let policy = KeyPolicy::default();
    let generate = Operation::KeyGenerate { name: "k".to_owned(), algorithm: KeyAlgorithm::Ed25519, policy };
    device.ask(&host, Some(sequence), &generate).unwrap();
    let objects = host.objects().clone();
    let long = "n".repeat(NAME_BYTES + 1);
    let message = || vec![1; KEY_INPUT_BYTES + 1].as_slice().into();
    let cases = [
        (write("b", SECRET_BYTES + 1), ErrorCode::TooLarge, "value"),
        (write("b", 700 * 1024), ErrorCode::TooLarge, "value"),
        (write(&long, 1), ErrorCode::TooLarge, "name"),
        (write("", 1), ErrorCode::InvalidArgument, "name"),
        (write("a\u{1b}[2J", 1), ErrorCode::InvalidArgument, "name"),
        (get(&long), ErrorCode::TooLarge, "name"),
        (Operation::SecretList { prefix: long.clone(), after: None }, ErrorCode::TooLarge, "prefix"),
        (Operation::KeyList { after: Some(long) }, ErrorCode::TooLarge, "after"),
        (Operation::KeySign { name: "k".to_owned(), message: message() }, ErrorCode::TooLarge, "message"),
        (
            Operation::KeyVerify { name: "k".to_owned(), message: b"m".as_slice().into(), signature: vec![0; 257] },
            ErrorCode::TooLarge,
            "signature",
        ),
        (
            Operation::KeyImport {
                name: "i".to_owned(),
                algorithm: KeyAlgorithm::P256,
                policy,
                material: vec![1; 65].as_slice().into(),
            },
            ErrorCode::TooLarge,
            "material",
        ),
    ];
    for (operation, code, field) in cases {
        device.sequence += 1;
        let frame = device.seal(Some(device.sequence - 1), &operation);
        let answer = host.carry(device.vault, &frame);
        let Outcome::Refused(refusal) = device.open(&answer).unwrap().outcome else { panic!("{operation:?}") };
        assert_eq!((refusal.code, refusal.field.as_deref()), (code, Some(field)), "{operation:?}");
    }
    assert_eq!(*host.objects(), objects);
    device.sequence += 1;
    let largest = device.ask(&host, Some(device.sequence - 1), &write("b", SECRET_BYTES));
    assert!(matches!(largest, Ok(Answer::Written { .. })), "the largest that may be: {largest:?}");
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    bystander.is_served();
}

#[test]
fn a_first_request_over_its_limit_ends_the_handshake() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let (session, _) = device.greet(&host);
    let frame = device.finish_with(session, Some(&vec![0; FIRST_REQUEST_BYTES + 1]));
    let answer = host.carry(device.vault, &frame);
    assert_eq!(device.read(&answer), Err(ErrorCode::Malformed));
    assert_eq!(host.refusals().bad_frame, 1);
    device.enter(&host, None, &get("a")).expect_err("let in; nothing is written");
    bystander.is_served();
}

#[test]
fn a_full_vault_takes_no_more_and_gives_what_it_has() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let mut refused = None;
    for number in 0..80 {
        device.sequence += 1;
        let answer = device.ask(&host, Some(device.sequence - 1), &write(&number.to_string(), SECRET_BYTES));
        if let Err(code) = answer {
            refused = Some(code);
            break;
        }
    }
    assert_eq!(refused, Some(ErrorCode::QuotaExceeded));
    assert_eq!(device.get(&host, "a"), Ok("1".to_owned()));
    host.evict(device.vault);
    device.enter(&host, None, &get("a")).expect("it opens again");
    device.sequence += 1;
    let delete = Operation::SecretDelete { name: "0".to_owned(), expected_revision: None };
    device.ask(&host, Some(device.sequence - 1), &delete).expect("and can be made smaller");
    device.put(&host, "b", "2").expect("then it takes more");
    bystander.is_served();
}
