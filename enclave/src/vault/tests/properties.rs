//! Invariants over random histories.

use std::collections::BTreeMap;

use casemate_protocol::codec;
use casemate_protocol::reply::Answer;
use casemate_protocol::request::Operation;
use proptest::prelude::*;

use super::harness::{World, get, put, value};
use crate::vault::state::State;

#[derive(Debug, Clone)]
enum Step {
    Put(u8, u16),
    Delete(u8),
    Evict,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (0_u8..6, 0_u16..3000).prop_map(|(name, len)| Step::Put(name, len)),
        2 => (0_u8..6).prop_map(Step::Delete),
        1 => Just(Step::Evict),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Against the obvious model, with evictions anywhere; and the state that was opened anew is the state that was evicted.
    #[test]
    fn a_vault_is_a_map_that_survives_eviction(steps in prop::collection::vec(step(), 1..60)) {
        let world = World::new();
        let (mut node, mut device) = world.created();
        let mut model = BTreeMap::new();
        for (number, step) in steps.into_iter().enumerate() {
            match step {
                Step::Put(name, len) => {
                    let bytes = vec![u8::try_from(number % 251).unwrap(); len.into()];
                    let written = device.ask(&mut node, put(&name.to_string(), &bytes));
                    let is_written = matches!(written, Ok(Answer::Written { .. }));
                    prop_assert!(is_written);
                    model.insert(name, bytes);
                }
                Step::Delete(name) => {
                    let delete = Operation::SecretDelete { name: name.to_string(), expected_revision: None };
                    prop_assert_eq!(device.ask(&mut node, delete).is_ok(), model.remove(&name).is_some());
                }
                Step::Evict => {
                    node = world.node(device.vault);
                    let request = device.request(Operation::Status);
                    prop_assert!(device.connect(&mut node, Some(&request)).is_ok());
                }
            }
        }
        for (name, bytes) in &model {
            prop_assert_eq!(&value(device.ask(&mut node, get(&name.to_string()))), bytes);
        }
    }

    /// The accounting never understates what a snapshot takes, so the quota bounds the object.
    #[test]
    fn used_bytes_bound_the_snapshot(ops in prop::collection::vec((0_u8..5, 0_usize..2000), 1..80)) {
        use crate::vault::body::{Change, Revision};
        use casemate_protocol::secret::Secret;
        let mut state = State::new(1);
        for (number, (name, len)) in (1..).zip(ops) {
            let revision = Revision { number, written_at: u64::MAX, value: Secret::new(vec![1; len]) };
            state.apply(Change::SecretWritten { name: "n".repeat(usize::from(name) * 50 + 1), revision }).unwrap();
            state.push_version_hash(&[1; 32]);
            let snapshot = state.snapshot();
            prop_assert!(codec::encoded_len(&snapshot) <= state.used_bytes());
            let restored = State::restore(snapshot).unwrap();
            prop_assert_eq!(&restored, &state);
        }
    }

    #[test]
    fn parsers_take_arbitrary_bytes(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        crate::fuzz::bodies(&bytes);
        crate::fuzz::chains(&bytes);
        crate::fuzz::bodies(&[&[0, 0], bytes.as_slice()].concat());
    }
}
