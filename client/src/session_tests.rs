//! The device's machine against the vault's.

use super::*;
use casemate_attestation::{Bound, Claims, Guest, Identity, MeasurementSet, Measurements, Platform, Register};
use casemate_protocol::session::{Responder, public_key};
use casemate_protocol::statement::Statement;
use casemate_protocol::trust::TrustConfiguration;

use crate::judge::Image;
use crate::trust::{Roots, Trust};

const VAULT: VaultId = VaultId::from_bytes([9; 20]);
const DEVICE: [u8; 32] = [11; 32];
const MANAGER: [u8; 32] = [12; 32];
const HEAD: Head = Head { version: 4, hash: [4; 32], tag: [5; 32] };

fn credentials() -> Credentials {
    Credentials {
        platform: 0,
        evidence: vec![1; 4500],
        trust_configuration: vec![2; 200],
        identity: [3; 32],
        statement: Statement { vault: VAULT, static_key: public_key(&MANAGER), not_after: 5, signature: [6; 64] },
    }
}

fn trusted() -> Trusted {
    let set = MeasurementSet { pcr0: [1; 48], pcr1: [2; 48], pcr2: [3; 48] };
    let measurements: Measurements =
        set.indexed().into_iter().map(|(index, value)| (Register::Pcr(index), *value)).collect();
    Trusted {
        image: Image::SelfBuilt("test".to_owned()),
        claims: Claims {
            platform: Platform::Nitro,
            measurements,
            bound: Bound::default(),
            tcb: None,
            debug: None,
            identity: Identity::Nitro { module_id: String::new() },
            guest: Guest::Nitro,
            issued_at_unix_ms: Some(0),
            valid_until_unix: 0,
            revocation_checked: false,
            anchor_subject: String::new(),
            anchor_fingerprint: [0; 32],
        },
        cluster: ClusterId([0; 32]),
        configuration: TrustConfiguration {
            format: 1,
            kms_key_arn: String::new(),
            region: String::new(),
            release_keys: Vec::new(),
        },
        identity: [3; 32],
        is_development: true,
    }
}

fn judging() -> (Responder, Judging) {
    let (greeting, hello) = Greeting::start(&DEVICE, VAULT);
    let DeviceFrame::Hello { noise } = hello else { panic!("a hello") };
    let (responder, noise) = Responder::welcome(&MANAGER, VAULT, &noise, &credentials()).unwrap();
    let welcome = VaultFrame::Welcome { session: [7; 16], noise }.encode();
    (responder, greeting.welcome(&welcome).unwrap())
}

fn put(len: usize) -> Request {
    let operation =
        Operation::SecretPut { name: "n".to_owned(), value: vec![1; len].as_slice().into(), expected_revision: None };
    Request { sequence: Some(3), head: Some(HEAD), operation }
}

/// A session, the vault's end of it, what the finish was pending on, and the opening.
fn session(request: Option<&Request>) -> (Session, Channel, Pending, Opening) {
    let (responder, judging) = judging();
    let believed = judging.believe_blindly(trusted());
    let key = LockKey::generate().unwrap();
    let (frame, session, pending) = believed.finish(&key, Some(HEAD), request).unwrap();
    let DeviceFrame::Finish { session: id, noise } = frame else { panic!("a finish") };
    assert_eq!(id, [7; 16]);
    let (device, opening, channel) = responder.finish(&noise).unwrap();
    assert_eq!((device, &opening.lock_key), (public_key(&DEVICE), &key.to_secret()));
    (session, channel, pending, opening)
}

fn reply(request_hash: [u8; 32], outcome: Outcome) -> Vec<u8> {
    codec::encode(&Reply { request_hash, head: Some(HEAD), outcome })
}

fn sealed(channel: &mut Channel, plaintext: &[u8]) -> Vec<u8> {
    VaultFrame::Sealed { run: channel.seal(plaintext).unwrap() }.encode().to_vec()
}

fn hash(request: &Request) -> [u8; 32] {
    request_hash(request.sequence, &request.operation)
}

#[test]
fn nothing_is_sent_to_a_node_that_is_not_believed() {
    let (_, judging) = judging();
    let (roots, trust) = (Roots::released(), Trust::default());
    let grounds = Grounds { roots: &roots, trust: &trust, now: 1 };
    // The machine is gone with its judgement: there is no value left that could make message 3.
    let refused = judging.believe(&grounds, ClusterId([0; 32])).unwrap_err();
    assert!(matches!(refused, Distrust::Cluster { .. }));
}

#[test]
fn a_small_request_goes_with_the_handshake() {
    let request = put(1000);
    let (mut session, mut vault, pending, opening) = session(Some(&request));
    let carried: Request = codec::decode(&opening.first_request.unwrap(), limits::FRAME_BYTES).unwrap();
    assert_eq!((carried, opening.head), (request.clone(), Some(HEAD)));
    assert!(pending.carries_request());
    let answer = reply(hash(&request), Outcome::Done(Answer::Written { revision: 1 }));
    let answer = sealed(&mut vault, &answer);
    assert_eq!(session.open(&answer, &pending).unwrap().outcome, Outcome::Done(Answer::Written { revision: 1 }));
}

#[test]
fn a_large_request_follows_the_handshake() {
    let request = put(limits::SECRET_BYTES);
    let (mut session, mut vault, pending, opening) = session(Some(&request));
    assert!(opening.first_request.is_none() && !pending.carries_request());
    let answer = sealed(&mut vault, &reply([0; 32], Outcome::Done(Answer::Nothing)));
    session.open(&answer, &pending).unwrap();

    let (frame, pending) = session.seal(request.sequence, request.head, &request.operation).unwrap();
    let DeviceFrame::Sealed { session: id, run } = frame else { panic!("a sealed request") };
    assert_eq!(id, session.id());
    let found: Request = codec::decode(&vault.open(&run).unwrap(), limits::FRAME_BYTES).unwrap();
    assert_eq!(found, request);
    let answer = sealed(&mut vault, &reply(hash(&request), Outcome::Done(Answer::Nothing)));
    session.open(&answer, &pending).unwrap();
}

#[test]
fn an_answer_belongs_to_its_request() {
    let (mut session, mut vault, opened, _) = session(None);
    let first = sealed(&mut vault, &reply([0; 32], Outcome::Done(Answer::Nothing)));
    session.open(&first, &opened).unwrap();
    assert_eq!(session.open(&first, &opened), Err(Fault::Session(SessionError::Replayed)));

    let ask = |session: &mut Session, name: &str| {
        let operation = Operation::SecretGet { name: name.to_owned(), revision: None };
        let (_, pending) = session.seal(None, Some(HEAD), &operation).unwrap();
        (pending, request_hash(None, &operation))
    };
    let (a, hash_a) = ask(&mut session, "a");
    let (b, hash_b) = ask(&mut session, "b");
    let to_a = sealed(&mut vault, &reply(hash_a, Outcome::Done(Answer::Nothing)));
    assert_eq!(session.open(&to_a, &b), Err(Fault::Mismatch), "exchanged answers");
    let to_b = sealed(&mut vault, &reply(hash_b, Outcome::Done(Answer::Nothing)));
    session.open(&to_b, &b).unwrap();
    let to_none = sealed(&mut vault, &reply([0; 32], Outcome::Refused(ErrorCode::NotFound.into())));
    assert_eq!(session.open(&to_none, &a), Err(Fault::Mismatch), "only a finish can be answered for no request");
}

#[test]
fn a_finish_may_be_refused_before_its_request_is_looked_at() {
    let request = put(10);
    let (mut session, mut vault, pending, _) = session(Some(&request));
    let done = sealed(&mut vault, &reply([0; 32], Outcome::Done(Answer::Nothing)));
    assert_eq!(session.open(&done, &pending), Err(Fault::Mismatch));
    let refused = sealed(&mut vault, &reply([0; 32], Outcome::Refused(ErrorCode::LockTurned.into())));
    session.open(&refused, &pending).unwrap();
}

#[test]
fn other_frames_are_out_of_place() {
    let (greeting, _) = Greeting::start(&DEVICE, VAULT);
    let (_, mut vault, ..) = session(None);
    let answer = sealed(&mut vault, b"x");
    assert_eq!(greeting.welcome(&answer).unwrap_err(), Fault::OutOfPlace);
    let plain = VaultFrame::Refused(Refusal::retry(ErrorCode::Busy, 5)).encode();
    let (greeting, _) = Greeting::start(&DEVICE, VAULT);
    assert_eq!(greeting.welcome(&plain).unwrap_err(), Fault::Plain(Refusal::retry(ErrorCode::Busy, 5)));
    let (mut session, _, pending, _) = session(None);
    for bytes in [b"".as_slice(), b"hello", &[0xa1, 0x00, 0x09]] {
        assert!(matches!(session.open(bytes, &pending), Err(Fault::Frame(_))));
    }
    assert_eq!(session.open(&plain, &pending), Err(Fault::Plain(Refusal::retry(ErrorCode::Busy, 5))));
}

#[test]
fn another_session_s_answer_is_forged() {
    let (mut one, _, pending, _) = session(None);
    let (_, mut other, ..) = session(None);
    let answer = sealed(&mut other, &reply([0; 32], Outcome::Done(Answer::Nothing)));
    assert_eq!(one.open(&answer, &pending), Err(Fault::Session(SessionError::Forged)));
}
