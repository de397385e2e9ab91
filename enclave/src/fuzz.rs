//! What must hold for any bytes at all, one plain function for each family of parsers: for coverage-guided fuzzing
//! (`enclave/fuzz`), and replayed by the tests over corpora and arbitrary bytes.
//!
//! Each returns whether the bytes were taken, and panics when a promise is broken.

use std::fmt;

use bytes::Bytes;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{CONTROL_BYTES, ControlCall, Tuning, VersionObject};
use casemate_protocol::object::{self, Header, Kind};
use casemate_protocol::record::{Assembler, Bounds};
use casemate_protocol::trust::TrustConfiguration;
use casemate_protocol::{codec, limits};
use zeroize::Zeroizing;

use crate::ipc::{FROM_MANAGER_BYTES, FromManager, TO_MANAGER_BYTES, ToManager};
use crate::keys::SHARD_BLOB_BYTES;
use crate::keys::arn::KeyArn;
use crate::keys::cms::{Envelope, MAX_CONTENT, MAX_ENVELOPE};
use crate::keys::shards::ShardKey;
use crate::keys::stored::{SealedShardKey, Slot};
use crate::keys::wrap::{WrapError, WrappedVaultKey};
use crate::socket::{self, DATAGRAM_BYTES};
use crate::supervisor::configure;
use crate::supervisor::router::Limits;
use crate::vault::body::{Delta, Snapshot};
use crate::vault::chain::{self, ChainError};
use crate::vault::cipher::RootKey;
use crate::vault::state::{Inconsistent, State};

/// Cuts `length: u16 BE ‖ bytes` off.
fn cut<'a>(bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first_chunk()?;
    let (taken, rest) = rest.split_at_checked(u16::from_be_bytes(*length).into())?;
    *bytes = rest;
    Some(taken)
}

/// The key service's envelope.
///
/// # Panics
/// When a promise is broken.
pub fn cms(bytes: &[u8]) -> bool {
    let Ok(envelope) = Envelope::parse(bytes) else { return false };
    assert!(bytes.len() <= MAX_ENVELOPE, "the length is checked first");
    let blocks = envelope.content.len();
    assert!(blocks > 0 && blocks <= MAX_CONTENT && blocks.is_multiple_of(16), "whole blocks within their bound");
    assert!(Envelope::parse(&bytes[..bytes.len() - 1]).is_err(), "nothing may be missing");
    assert!(Envelope::parse(&[bytes, &[0]].concat()).is_err(), "nothing may follow");
    true
}

/// What the store keeps of keys: a wrapped vault key, and the key service's ciphertext of a shard key.
///
/// # Panics
/// When a promise is broken, or a wrapped key opens under a key that it was not wrapped under.
pub fn stored_keys(bytes: &[u8]) -> bool {
    let slot = |vault: VaultId, generation| Slot { shard: vault.shard(), generation };
    let sealed = SealedShardKey::new(slot(VaultId::from_bytes([0; 20]), 1), bytes);
    assert_eq!(sealed.is_ok(), (1..=SHARD_BLOB_BYTES).contains(&bytes.len()));
    let Ok(wrapped) = WrappedVaultKey::from_bytes(bytes) else { return false };
    assert!(bytes.len() <= limits::WRAPPED_KEY_BYTES);
    assert_eq!(wrapped.to_bytes(), bytes, "there is one encoding");
    let (vault, generation) = (wrapped.vault(), wrapped.generation());
    let sealed = SealedShardKey::new(slot(vault, generation), wrapped.shard_blob()).expect("its length was checked");
    let guessed = ShardKey::new(Zeroizing::new([0x5a; 32]), sealed);
    assert_eq!(wrapped.open(&guessed, vault, generation), Err(WrapError::Forged));
    let other = VaultId::from_bytes(vault.as_bytes().map(|byte| !byte));
    assert_eq!(wrapped.open(&guessed, other, generation), Err(WrapError::OtherVault));
    true
}

/// Bodies of sealed objects: `u16 BE length ‖ snapshot`, none if the length is zero, then a delta. Taken: when all of it fits.
///
/// # Panics
/// When a promise is broken.
pub fn bodies(mut bytes: &[u8]) -> bool {
    let Some(snapshot) = cut(&mut bytes) else { return false };
    let mut state = State::new(0);
    if !snapshot.is_empty() {
        let Ok(restored) = restore(snapshot) else { return false };
        state = restored;
    }
    if !bytes.is_empty() && extend(&mut state, bytes).is_err() {
        return false;
    }
    let snapshot = state.snapshot();
    assert!(codec::encoded_len(&snapshot) <= state.used_bytes(), "the quota bounds the object");
    assert!(state.devices.len() <= limits::DEVICES && state.audit.entries().count() <= limits::AUDIT_ENTRIES);
    assert_eq!(State::restore(snapshot).as_ref(), Ok(&state), "what was evicted is what is opened");
    true
}

fn restore(body: &[u8]) -> Result<State, Inconsistent> {
    let snapshot: Snapshot = codec::decode(body, limits::OBJECT_BYTES).map_err(|_| Inconsistent)?;
    State::restore(snapshot)
}

fn extend(state: &mut State, body: &[u8]) -> Result<(), Inconsistent> {
    let delta: Delta = codec::decode(body, limits::OBJECT_BYTES).map_err(|_| Inconsistent)?;
    delta.changes.into_iter().try_for_each(|change| state.apply(change))
}

/// A chain of sealed objects, each `u8 lie ‖ u16 BE length ‖ body`, sealed under the right key and told with that lie (0 is
/// none). The same bytes as one object, which nobody sealed, go first. Taken: when the chain opens.
///
/// # Panics
/// When a chain opens that holds a lie or a body that does not fit, or when an honest one does not open.
pub fn chains(bytes: &[u8]) -> bool {
    let vault = VaultId::from_bytes([1; 20]);
    let root = RootKey::derive(vault, &[2; 32], &[3; 32]);
    let unsealed = [VersionObject { version: 1, bytes: bytes.to_vec() }];
    assert!(chain::open(vault, &root, &unsealed).is_err(), "nobody guesses a key");

    let first = u64::from(bytes.first().copied().unwrap_or(0)) + 1;
    let mut rest = bytes.get(1..).unwrap_or_default();
    let mut versions: Vec<VersionObject> = Vec::new();
    let mut model = Err(Inconsistent);
    let mut previous = [0; 32];
    while let Some((lie, mut after)) = rest.split_first() {
        let Some(body) = cut(&mut after) else { return false };
        rest = after;
        let kind = if versions.is_empty() { Kind::Snapshot } else { Kind::Delta };
        let version = first + versions.len() as u64;
        if first > 1 && versions.is_empty() {
            // What stood before is not shown; a snapshot's own link to it is for nobody to check.
            previous = [4; 32];
        }
        let (object, told) =
            sealed(&root, Header { version, previous, kind, ..honest(vault, &root, first) }, *lie, body);
        model = match (model, kind) {
            _ if told => Err(Inconsistent),
            (_, Kind::Snapshot) => restore(body),
            (Ok(mut state), _) if versions.len() <= limits::DELTAS_PER_SNAPSHOT => {
                state.push_version_hash(&previous);
                extend(&mut state, body).map(|()| state)
            }
            _ => Err(Inconsistent),
        };
        previous = object::hash(&object);
        versions.push(VersionObject { version, bytes: object });
    }
    match (chain::open(vault, &root, &versions), model) {
        (Ok(chain), Ok(state)) => {
            assert_eq!((chain.state, chain.hash), (state, previous));
            true
        }
        (Err(ChainError::Corrupt | ChainError::OtherLockKey(_) | ChainError::Deleted), Err(Inconsistent)) => false,
        (opened, model) => panic!("{:?}, but {:?}", opened.map(|chain| chain.header), model.is_ok()),
    }
}

fn honest(vault: VaultId, root: &RootKey, base: u64) -> Header {
    Header {
        format: 1,
        vault,
        version: base,
        previous: [0; 32],
        salt: [5; 16],
        root_commitment: root.commitment(),
        key_generation: 1,
        lock_number: 1,
        copies: Vec::new(),
        kind: Kind::Snapshot,
        base,
    }
}

/// Seals an object with a lie in it; returns whether one was told.
fn sealed(root: &RootKey, mut header: Header, lie: u8, body: &[u8]) -> (Vec<u8>, bool) {
    let before = header.clone();
    let is_delta = header.kind == Kind::Delta;
    match lie % 11 {
        1 => header.previous[0] ^= 1,
        2 => header.version += 1,
        3 => header.base = header.base.saturating_sub(1),
        // A snapshot says these for itself.
        4 if is_delta => header.lock_number += 1,
        5 if is_delta => header.key_generation += 1,
        6 => header.root_commitment[0] ^= 1,
        7 => header.vault = VaultId::from_bytes([9; 20]),
        8 => header.kind = if is_delta { Kind::Snapshot } else { Kind::Delta },
        9 => header.kind = Kind::Tombstone,
        _ => {}
    }
    let mut object = root.seal(&header, body);
    let is_flipped = lie % 11 == 10;
    if is_flipped {
        let at = object.len() - 1 - usize::from(lie) % 64;
        object[at] ^= 1;
    }
    // What stood before the first version that is shown is for nobody to check.
    let is_hidden = lie % 11 == 1 && !is_delta && header.version > 1;
    (object, is_flipped || (header != before && !is_hidden))
}

/// The socket between supervisor and vault-manager, either way: datagrams, each `u16 BE length ‖ bytes`, put together and decoded;
/// and the bytes as one message. Taken: as a message, or as datagrams to the last byte with a message among them.
///
/// # Panics
/// When a promise is broken.
pub fn sockets(bytes: &[u8]) -> bool {
    let message = messages(bytes);
    let mut rest = bytes;
    let mut assembler = Assembler::new(Bounds { message_bytes: 1 << 12, messages: 4, bytes: 1 << 13 });
    let mut complete = false;
    while let Some(datagram) = cut(&mut rest) {
        let Ok((header, payload)) = socket::parse(datagram, datagram.len()) else { return message };
        assert!(datagram.len() <= DATAGRAM_BYTES && payload.len() == header.payload_len);
        // The kernel says how long a datagram was, and cuts what does not fit.
        assert!(socket::parse(datagram, datagram.len() + 1).is_err());
        let Ok(taken) = assembler.take(header, &Bytes::copy_from_slice(payload)) else { return message };
        complete |= taken.is_some_and(|(_, body)| messages(&body));
    }
    message || (complete && rest.is_empty())
}

fn messages(bytes: &[u8]) -> bool {
    again::<ToManager>(bytes, TO_MANAGER_BYTES) | again::<FromManager>(bytes, FROM_MANAGER_BYTES)
}

fn again<T>(bytes: &[u8], limit: usize) -> bool
where
    T: for<'b> minicbor::Decode<'b, ()> + minicbor::Encode<()> + PartialEq + fmt::Debug,
{
    let Ok(value) = codec::decode::<T>(bytes, limit) else { return false };
    assert_eq!(codec::decode::<T>(&codec::encode(&value), limit).as_ref(), Ok(&value));
    true
}

/// What the host configures: a control call with a trust configuration and tuning, or the ARN of a key alone. Taken: when the
/// enclave would take it.
///
/// # Panics
/// When what is taken could lead elsewhere than to the key service, or exceeds a bound.
pub fn configurations(bytes: &[u8]) -> bool {
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(key) = text.parse::<KeyArn>()
    {
        assert_eq!(key.as_str(), text);
        return key_is_safe(&key);
    }
    let Ok(ControlCall::Configure { trust_configuration, tuning }) = codec::decode(bytes, CONTROL_BYTES) else {
        return false;
    };
    tuning_is_bounded(&tuning);
    let Ok(configuration) = TrustConfiguration::decode(&trust_configuration) else { return false };
    let Ok(key) = configuration.kms_key_arn.parse::<KeyArn>() else { return false };
    key_is_safe(&key) && key.region() == configuration.region
}

fn key_is_safe(key: &KeyArn) -> bool {
    let host = key.endpoint_host();
    let labels: Vec<&str> = host.split('.').collect();
    assert_eq!(labels, ["kms", key.region(), "amazonaws", "com"], "the region is one label");
    assert!(host.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b".-".contains(&byte)));
    true
}

fn tuning_is_bounded(tuning: &Tuning) {
    let bounded = Limits::new(tuning, 5000);
    assert!((1..=5000).contains(&bounded.vaults) && bounded.half_open >= 1);
    assert!((1..=limits::WINDOW_REQUESTS).contains(&bounded.queue));
    assert!(bounded.memory_low <= bounded.memory_high && bounded.memory_high < 100);
    let policy = configure::policy(tuning);
    assert!(!policy.ttl.is_zero() && policy.ttl <= policy.hard_limit && policy.hard_limit.as_secs() <= 24 * 3600);
}
