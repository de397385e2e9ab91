//! What a router wants of the store and of the keyring: calls that end late, wrongly or not at all.

use std::time::Duration;

use casemate_enclave::keys::wrap::WrappedVaultKey;
use casemate_enclave::supervisor::router::{self, Op, Put, SlotId, StoreFailed};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::KeyObject;
use casemate_protocol::path;

use super::{Node, Shared};
use crate::event::{Event, Place, Read, Tell};
use crate::store::{self, PutFate};

impl Node<'_> {
    pub(super) fn read(&mut self, slot: SlotId, op: Op, read: Read) {
        let (there, back, fails) = store::read_fate(&mut self.dice, &self.shared.weather);
        if let Some(enclave) = &mut self.enclave {
            enclave.reads.insert(op, (slot, read.clone()));
        }
        // The store is looked at in between, so that what is on its way at the same time may or may not be seen.
        let place = self.place;
        self.shared.time.after(there + back / 2, Event::Reads { place, slot, op, read, fails });
    }

    /// A read has reached the store, and its answer the router.
    pub fn reads(&mut self, place: Place, slot: SlotId, op: Op, read: &Read, fails: bool) {
        let waited_for =
            self.is_current(place) && self.enclave.as_mut().is_some_and(|enclave| enclave.reads.remove(&op).is_some());
        if !waited_for {
            return;
        }
        let store = &self.shared.store;
        self.event(match read {
            _ if fails => failed(slot, op, read),
            Read::Newest(vault) => router::Event::Newest { slot, op, result: Ok(store.newest(*vault)) },
            Read::Load(vault) => router::Event::Loaded { slot, op, result: Ok(store.load(*vault)) },
            Read::Object(path) => router::Event::ReadBack { slot, op, result: Ok(store.get(path)) },
        });
    }

    pub(super) fn put(&mut self, slot: SlotId, op: Op, path: String, bytes: Vec<u8>) {
        let fate = store::put_fate(&mut self.dice, &self.shared.weather);
        let (place, time) = (self.place, &self.shared.time);
        if let Some(enclave) = &mut self.enclave {
            enclave.puts.insert(op, slot);
        }
        let tell = |after, answered| Some(Tell { place, slot, op, after, answered });
        let ends = |after, put| time.after(after, Event::PutEnds { place, slot, op, put });
        match fate {
            PutFate::Answered(there, after) => {
                time.after(there, Event::Arrives { path, bytes, tell: tell(after, true) });
            }
            PutFate::AnswerLost(there, after) => {
                time.after(there, Event::Arrives { path, bytes, tell: tell(after, false) });
            }
            PutFate::ArrivesLate(end, late) => {
                ends(end, Put::Unclear);
                time.after(end + late, Event::Arrives { path, bytes, tell: None });
            }
            PutFate::Lost(after) => ends(after, Put::Unclear),
            PutFate::FalseExists(after) => ends(after, Put::Exists),
            PutFate::NotSent => ends(Duration::from_micros(10), Put::NotSent),
        }
    }

    /// A put ends for the router.
    pub fn put_ends(&mut self, place: Place, slot: SlotId, op: Op, put: Put) {
        if !self.is_current(place) {
            return;
        }
        if let Some(enclave) = &mut self.enclave {
            enclave.puts.remove(&op);
        }
        self.shared.findings.trace(format_args!("node {}: put {} ends: {put:?}", place.node, op.0));
        self.event(router::Event::PutDone { slot, op, put });
    }

    pub(super) fn vault_key(&mut self, slot: SlotId, op: Op, vault: VaultId, wrapped: Vec<KeyObject>) {
        let Some(enclave) = &self.enclave else { return };
        self.fresh = true;
        let (keys, shared, place) = (enclave.keys.clone(), self.shared.clone(), self.place);
        enclave.runtime.spawn(async move {
            let asked = shared.time.now();
            let result = keys.vault_key(vault, &wrapped).await;
            if result.is_ok() {
                check_key_age(&shared, place, vault, asked);
            }
            shared.time.after(Duration::ZERO, Event::Router(place, router::Event::VaultKey { slot, op, result }));
        });
    }
}
/// No vault is opened with a shard key that the key service has not confirmed within the hard limit.
fn check_key_age(shared: &Shared, place: Place, vault: VaultId, asked: Duration) {
    let object = shared.store.get(&path::vault_key(vault, 1));
    let Some(wrapped) = object.and_then(|bytes| WrappedVaultKey::from_bytes(&bytes).ok()) else {
        return shared.findings.violation(format_args!("the key of {vault} is used and stands nowhere"));
    };
    let confirmed = shared.kms.confirmed(place, wrapped.shard_blob());
    if confirmed.is_none_or(|confirmed| confirmed + shared.weather.policy.hard_limit < asked) {
        shared.findings.violation(format_args!("{vault} is opened with a key past its hard limit"));
    }
}

pub(super) fn failed(slot: SlotId, op: Op, read: &Read) -> router::Event {
    match read {
        Read::Newest(_) => router::Event::Newest { slot, op, result: Err(StoreFailed) },
        Read::Load(_) => router::Event::Loaded { slot, op, result: Err(StoreFailed) },
        Read::Object(_) => router::Event::ReadBack { slot, op, result: Err(StoreFailed) },
    }
}
