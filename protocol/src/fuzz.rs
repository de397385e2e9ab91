//! What must hold for any bytes at all, one plain function for each family of parsers. Tests replay corpora and arbitrary and
//! mutated bytes through them; coverage-guided fuzzing (`protocol/fuzz`) calls the same.
//!
//! Each returns whether the bytes were taken, and panics when a parser breaks its promise. A parser may refuse; it may not panic,
//! hang, exceed a limit, or take back what it gave: whatever decodes encodes to something that decodes to the same.

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt;

use bytes::{Bytes, BytesMut};

use crate::codec::{self, DecodeError};
use crate::id::{Shard, VaultId};
use crate::session::{Channel, Initiator, Opening, Responder, SessionError};
use crate::{frame, limits, link, object, path, record, reply, request, secret, session, statement, subject, trust};

/// Bytes by which an encoding of ours may be longer than what it was read from: the fields that an older peer leaves out.
const DEFAULTS_BYTES: usize = 64;

fn again<T>(bytes: &[u8], limit: usize, defaults_bytes: usize) -> bool
where
    T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()> + PartialEq + fmt::Debug,
{
    let Ok(value) = codec::decode::<T>(bytes, limit) else { return false };
    let encoded = codec::encode(&value);
    assert!(encoded.len() <= bytes.len() + defaults_bytes, "our encoding is the shortest");
    assert_eq!(codec::decode::<T>(&encoded, limit + defaults_bytes).as_ref(), Ok(&value));
    assert_eq!(codec::decode::<T>(bytes, bytes.len() - 1), Err(DecodeError::TooLarge), "a limit is one");
    true
}

/// All parsers of this crate, for tests that do not choose. Taken: by any parser that reads messages.
///
/// # Panics
/// When a parser breaks its promise.
pub fn parsers(bytes: &[u8]) -> bool {
    sessions(bytes);
    let families = [frames, requests, messages, records, objects, configurations, subjects];
    families.into_iter().fold(false, |taken, family| family(bytes) | taken)
}

/// Frames of devices and vaults, as the parent, the supervisor, the vault-manager and the device read them.
///
/// # Panics
/// When a parser breaks its promise.
pub fn frames(bytes: &[u8]) -> bool {
    let peeked = frame::DeviceFrame::peek(bytes);
    let device = frame::DeviceFrame::decode(bytes);
    if let Ok(decoded) = &device {
        let deadline = peeked.expect("what decodes can be peeked at").deadline;
        assert!(!deadline.is_zero() && deadline <= limits::DEADLINE_MAX);
        assert_eq!(frame::DeviceFrame::decode(&decoded.encode(deadline)).as_ref(), Ok(decoded));
    }
    let vault = frame::VaultFrame::decode(bytes);
    if let Ok(decoded) = &vault {
        assert_eq!(frame::VaultFrame::decode(&decoded.encode()).as_ref(), Ok(decoded));
    }
    assert!(bytes.len() <= limits::FRAME_BYTES || (device.is_err() && vault.is_err()));
    device.is_ok() || vault.is_ok()
}

/// What travels inside a session and its handshake: requests, replies, credentials, openings.
///
/// # Panics
/// When a parser breaks its promise.
pub fn requests(bytes: &[u8]) -> bool {
    if codec::check(bytes).is_err() {
        return false;
    }
    let request = again::<request::Request>(bytes, limits::FRAME_BYTES, 0);
    let reply = again::<reply::Reply>(bytes, limits::FRAME_BYTES, 0);
    let credentials = again::<statement::Credentials>(bytes, limits::FRAME_BYTES, 0);
    let opening = again::<Opening>(bytes, limits::FRAME_BYTES, 0);
    request || reply || credentials || opening
}

/// What parent and enclave say to each other, and what anybody asks on the `attest` subject.
///
/// # Panics
/// When a parser breaks its promise.
pub fn messages(bytes: &[u8]) -> bool {
    // What `decode` would ask first, once for all of them.
    if codec::check(bytes).is_err() {
        return false;
    }
    [
        again::<link::Hello>(bytes, link::HELLO_BYTES, DEFAULTS_BYTES),
        again::<link::HelloReply>(bytes, link::HELLO_BYTES, DEFAULTS_BYTES),
        again::<link::RequestCall>(bytes, link::REQUEST_BYTES, DEFAULTS_BYTES),
        again::<link::RequestReply>(bytes, link::REQUEST_BYTES, DEFAULTS_BYTES),
        again::<link::AttestRequest>(bytes, link::HELLO_BYTES, DEFAULTS_BYTES),
        again::<link::AttestReply>(bytes, link::REQUEST_BYTES, DEFAULTS_BYTES),
        again::<link::BlobCall>(bytes, link::BLOB_BYTES, DEFAULTS_BYTES),
        again::<link::BlobReply>(bytes, link::BLOB_BYTES, DEFAULTS_BYTES),
        again::<link::ControlCall>(bytes, link::CONTROL_BYTES, DEFAULTS_BYTES),
        again::<link::ControlReply>(bytes, link::CONTROL_BYTES, DEFAULTS_BYTES),
        again::<link::LogRecord>(bytes, link::CONTROL_BYTES, DEFAULTS_BYTES),
    ]
    .contains(&true)
}

/// A stream of records, put together beside a model that only appends. Taken: to its last byte.
///
/// # Panics
/// When a parser breaks its promise.
pub fn records(mut bytes: &[u8]) -> bool {
    let bounds = record::Bounds { message_bytes: 512, messages: 4, bytes: 1024 };
    let mut assembler = record::Assembler::new(bounds);
    let mut model: HashMap<record::StreamId, (usize, Vec<u8>)> = HashMap::new();
    while let Some((header, rest)) = bytes.split_first_chunk() {
        let Ok(header) = record::Header::parse(header) else { return false };
        assert!(header.payload_len <= limits::RECORD_BYTES);
        let Some((payload, rest)) = rest.split_at_checked(header.payload_len) else { return false };
        let Ok(complete) = assembler.take(header, &Bytes::copy_from_slice(payload)) else { return false };
        let (announced, body) = if let Some((announced, body)) = model.remove(&header.stream) {
            (announced, [body.as_slice(), payload].concat())
        } else {
            // The first record of a message begins with the message's length.
            let (length, payload) = payload.split_first_chunk().expect("a first record has a length");
            (usize::try_from(u32::from_be_bytes(*length)).expect("at least 32 bits"), payload.to_vec())
        };
        match complete {
            Some((stream, message)) => {
                assert_eq!((stream, message.as_ref()), (header.stream, body.as_slice()));
                assert!(message.len() == announced && announced <= bounds.message_bytes);
                cut_and_joined(stream, &message);
            }
            None => drop(model.insert(header.stream, (announced, body))),
        }
        let held: usize = model.values().map(|(_, body)| body.len()).sum();
        assert!(model.len() <= bounds.messages && held <= bounds.bytes);
        bytes = rest;
    }
    bytes.is_empty()
}

fn cut_and_joined(stream: record::StreamId, message: &Bytes) {
    let mut wire = BytesMut::new();
    let mut outgoing = record::Outgoing::new(stream, message.clone());
    assert!(outgoing.write_piece(&mut wire), "it fits into one record");
    let (header, payload) = wire.split_first_chunk().expect("a record has a header");
    let header = record::Header::parse(header).expect("our own header");
    let bounds = record::Bounds { message_bytes: message.len(), messages: 1, bytes: message.len() };
    let joined = record::Assembler::new(bounds).take(header, &Bytes::copy_from_slice(payload));
    assert_eq!(joined, Ok(Some((stream, message.clone()))));
}

/// The clear header of a sealed object.
///
/// # Panics
/// When a parser breaks its promise.
pub fn objects(bytes: &[u8]) -> bool {
    let Ok(parsed) = object::Object::parse(bytes) else { return false };
    assert_eq!(parsed.associated.len() + parsed.sealed.len(), bytes.len(), "every byte is authenticated");
    assert!(bytes.len() <= limits::OBJECT_BYTES && parsed.sealed.len() > object::TAG_BYTES);
    assert!(parsed.header.copies.len() <= limits::DEVICES + 1);
    assert!((1..=parsed.header.version).contains(&parsed.header.base));
    let mut bytes_again = parsed.header.encode_prefix();
    assert!(bytes_again.len() <= parsed.associated.len());
    bytes_again.extend_from_slice(parsed.sealed);
    assert_eq!(object::Object::parse(&bytes_again).map(|object| object.header), Ok(parsed.header));
    true
}

/// The trust configuration that a host hands in, and that devices are shown.
///
/// # Panics
/// When a parser breaks its promise.
pub fn configurations(bytes: &[u8]) -> bool {
    let Ok(configuration) = trust::TrustConfiguration::decode(bytes) else { return false };
    assert!(bytes.len() <= limits::TRUST_CONFIGURATION_BYTES);
    assert_eq!(codec::encode(&configuration), bytes, "one configuration, one cluster");
    true
}

/// Names: subjects of NATS, vault ids, shards, names of objects. What is read prints as it came.
///
/// # Panics
/// When a parser breaks its promise.
pub fn subjects(bytes: &[u8]) -> bool {
    let Ok(text) = std::str::from_utf8(bytes) else { return false };
    let subjects = subject::Subjects::default();
    let of_subject = subjects.parse_vault(text);
    if let Some(vault) = of_subject {
        assert_eq!(subjects.vault(vault), text);
    }
    let vault = text.parse::<VaultId>();
    if let Ok(vault) = vault {
        assert_eq!(vault.to_string(), text);
    }
    let shard = text.parse::<Shard>();
    if let Ok(shard) = shard {
        assert_eq!(shard.to_string(), text);
    }
    let version = path::parse_version(text);
    if let Some(version) = version {
        assert_eq!(path::vault_version(VaultId::from_bytes([0; 20]), version).rsplit('/').next(), Some(text));
    }
    let prefix = subject::Subjects::new(text);
    if let Ok(prefixed) = &prefix {
        assert!(prefixed.attest().split('.').eq([text, "v1", "attest"]), "a prefix is one token");
    }
    of_subject.is_some() || vault.is_ok() || shard.is_ok() || version.is_some() || prefix.is_ok()
}

/// An established session. The bytes are a run that nobody sealed, then a plaintext whose run is damaged before it is delivered:
/// `u8 kind of damage ‖ u16 BE place ‖ plaintext`. Taken: when the plaintext went through.
///
/// # Panics
/// When a forged, damaged or repeated run opens, or an honest one does not.
pub fn sessions(bytes: &[u8]) -> bool {
    thread_local! {
        static SESSION: RefCell<Option<(Channel, Channel)>> = const { RefCell::new(None) };
    }
    let Some(([kind, place @ ..], plaintext)) = bytes.split_first_chunk::<3>() else { return false };
    let place = usize::from(u16::from_be_bytes(*place));
    SESSION.with_borrow_mut(|session| {
        let (device, vault) = session.get_or_insert_with(established);
        let counter = bytes.first_chunk().map_or(0, |counter| u64::from_be_bytes(*counter));
        let forged = frame::SealedRun { counter, ciphertext: bytes.to_vec() };
        assert!(vault.open(&forged).is_err(), "nobody seals without the session's key");
        let Ok(run) = device.seal(plaintext) else { return false };
        let mut damaged = run.clone();
        let at = place % damaged.ciphertext.len();
        match kind % 6 {
            0 => damaged.ciphertext[at] ^= 1 << (place % 8),
            1 => damaged.ciphertext.truncate(at),
            2 => damaged.ciphertext.insert(at, *kind),
            3 => damaged.counter += 1 + u64::from(*kind),
            4 => damaged.ciphertext.extend_from_within(..=at),
            _ => damaged.ciphertext.rotate_left(at.max(1)),
        }
        if damaged != run {
            assert!(vault.open(&damaged).is_err(), "damage is seen");
        }
        let opened = vault.open(&run).expect("a refused run leaves no trace");
        assert_eq!(opened.as_slice(), plaintext);
        assert_eq!(vault.open(&run), Err(SessionError::Replayed));
        if device.is_exhausted(std::time::Duration::ZERO) {
            *session = None;
        }
        true
    })
}

fn established() -> (Channel, Channel) {
    let vault = VaultId::from_bytes([9; 20]);
    let statement = statement::Statement { vault, static_key: [4; 32], not_after: 5, signature: [6; 64] };
    let credentials = statement::Credentials {
        platform: 0,
        evidence: Vec::new(),
        trust_configuration: Vec::new(),
        identity: [3; 32],
        statement,
    };
    let (mut device, hello) = Initiator::start(&[1; 32], vault);
    let (manager, welcome) = Responder::welcome(&[2; 32], vault, &hello, &credentials).expect("an honest hello");
    let (_, key) = device.read_welcome(&welcome).expect("an honest welcome");
    assert_eq!(key, session::public_key(&[2; 32]));
    let opening = Opening { lock_key: secret::Secret::new(vec![8; 32]), head: None, first_request: None };
    let (finish, device) = device.finish(&opening).expect("a small opening");
    let (_, _, manager) = manager.finish(&finish).expect("an honest finish");
    (device, manager)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]
        #[test]
        fn arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
            parsers(&bytes);
        }

        #[test]
        fn mutated_messages(sample in any::<prop::sample::Index>(), at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
            let samples = crate::tests::goldens();
            let mut bytes = samples[sample.index(samples.len())].1.clone();
            let place = at.index(bytes.len());
            bytes[place] = byte;
            parsers(&bytes);
            bytes.truncate(cut.index(bytes.len()));
            parsers(&bytes);
        }
    }
}
