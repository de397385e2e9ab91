//! Golden objects: the bytes of a snapshot, a delta and a tombstone under fixed keys and salts. Two developers who read the
//! format must write these.

use casemate_protocol::object;
use casemate_protocol::request::Operation;

use super::harness::{World, put};

#[test]
fn objects_are_golden() {
    let world = World::new();
    let (mut node, mut device) = world.created();
    device.ask(&mut node, put("name", b"value")).unwrap();
    device.ask(&mut node, Operation::DeleteVault).unwrap();
    let found: Vec<_> = node
        .commits
        .iter()
        .map(|(version, bytes)| {
            format!("{version} {} {} {}", bytes.len(), hex::encode(object::hash(bytes)), hex::encode(bytes))
        })
        .collect();
    let golden: Vec<_> = include_str!("golden.txt").lines().collect();
    for (found, wanted) in found.iter().zip(&golden) {
        assert_eq!(found, wanted);
    }
    assert_eq!(found.len(), golden.len(), "every object has its line:\n{}", found.join("\n"));
}
