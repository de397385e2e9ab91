//! Plain functions over bytes for the vault-manager's parsers.

use casemate_protocol::codec;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::object::Object;

use super::body::{Delta, Snapshot};
use super::chain;
use super::cipher::RootKey;
use super::state::State;

/// Feeds `bytes` as an object, as a snapshot's body and as a delta's body.
pub fn sealed_objects(bytes: &[u8]) {
    let vault = VaultId::from_bytes([1; 20]);
    let root = RootKey::derive(vault, &[2; 32], &[3; 32]);
    if let Ok(object) = Object::parse(bytes) {
        assert!(root.open(&object).is_err(), "nobody guesses a key");
    }
    let versions = [VersionObject { version: 1, bytes: bytes.to_vec() }];
    assert!(chain::open(vault, &root, &versions).is_err());
    let mut state = State::new(0);
    if let Ok(snapshot) = codec::decode::<Snapshot>(bytes, limits::OBJECT_BYTES)
        && let Ok(restored) = State::restore(snapshot)
    {
        state = restored;
    }
    if let Ok(delta) = codec::decode::<Delta>(bytes, limits::OBJECT_BYTES) {
        let _ = delta.changes.into_iter().try_for_each(|change| state.apply(change));
    }
}
