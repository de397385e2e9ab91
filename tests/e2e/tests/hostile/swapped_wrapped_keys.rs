//! A vault's wrapped key is exchanged, or a false one is planted.

use casemate_e2e::hostile::{Host, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::link::{BlobCall, BlobReply, KeyObject, LogEvent};
use casemate_protocol::path;

/// Puts `theirs` in the place of `ours` wherever it stands.
fn replaced(object: &[u8], ours: &[u8], theirs: &[u8]) -> Vec<u8> {
    let at = object.windows(ours.len()).position(|window| window == ours).expect("it is in there");
    [&object[..at], theirs, &object[at + ours.len()..]].concat()
}

#[test]
fn a_vault_opens_with_its_own_key_object_only() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    device.put(&host, "a", "1").unwrap();
    let mut neighbour = Puppet::in_shard(device.vault.shard(), true);
    let mut stranger = Puppet::in_shard(device.vault.shard(), false);
    neighbour.create(&host).unwrap();
    stranger.create(&host).unwrap();
    let object = |vault| host.objects().0[&path::vault_key(vault, 1)].clone();
    let blob = |puppet: &Puppet| host.objects().0[&path::shard_key(puppet.vault.shard(), 1)].clone();
    let (own, neighbours, strangers) = (object(device.vault), object(neighbour.vault), object(stranger.vault));
    let (own_blob, other_blob) = (blob(&device), blob(&stranger));
    assert_eq!(own_blob.len(), other_blob.len());

    let key = |bytes: Vec<u8>| vec![KeyObject { generation: 1, bytes }];
    let mut changed = own.clone();
    *changed.last_mut().unwrap() ^= 1;
    let of_another_name = replaced(&neighbours, neighbour.vault.as_bytes(), device.vault.as_bytes());
    let lies = vec![
        ("of a vault of the same shard", key(neighbours)),
        ("of a vault of another shard", key(strangers)),
        ("of a neighbour, renamed to this vault", key(of_another_name)),
        ("under another shard's ciphertext", key(replaced(&own, &own_blob, &other_blob))),
        ("changed in one bit", key(changed)),
        ("under a key service ciphertext made up", key(replaced(&own, &own_blob, &vec![7; own_blob.len()]))),
        ("made up", key(vec![0xa6; 300])),
        ("empty", key(Vec::new())),
        ("under another generation's name", vec![KeyObject { generation: 2, bytes: own.clone() }]),
        ("hidden behind a planted newer one", {
            vec![
                KeyObject { generation: 1, bytes: own.clone() },
                KeyObject { generation: u32::MAX, bytes: vec![0xa6; 300] },
            ]
        }),
        ("none at all", Vec::new()),
    ];
    let count = lies.len();
    for (number, (what, keys)) in (1..).zip(lies) {
        host.evict(device.vault);
        let vault = device.vault;
        host.lie(move |call, honest| match (call, honest) {
            (BlobCall::Load(asked), BlobReply::Loaded { versions, .. }) if *asked == vault => {
                BlobReply::Loaded { versions, keys: keys.clone() }
            }
            (_, honest) => honest,
        });
        assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::StateCorrupt), "{what}");
        assert_eq!(host.refusals().state_corrupt, number, "{what}");
    }
    host.await_log(LogEvent::StateCorrupt);
    host.tell_the_truth();
    host.evict(device.vault);
    device.enter(&host, None, &get("a")).expect("its own key opens it");
    assert_eq!(host.refusals().state_corrupt, count as u64);
    assert_eq!(host.health().kms.state, "ok", "nothing of it speaks of the key service");
    bystander.is_served();
}

#[test]
fn a_key_planted_before_a_creation_makes_no_vault() {
    let host = Host::start();
    let bystander = host.owner();
    let planted = Puppet::with_vault(&host);
    let mut device = Puppet::in_shard(planted.vault.shard(), true);
    let (theirs, path) = (path::vault_key(planted.vault, 1), path::vault_key(device.vault, 1));
    let object = host.objects().0[&theirs].clone();
    host.objects().0.insert(path.clone(), object);
    assert_eq!(device.create(&host), Err(ErrorCode::StateCorrupt));
    assert_eq!(host.refusals().state_corrupt, 1);
    assert!(host.objects().versions(device.vault).is_empty());
    host.objects().0.remove(&path);
    host.evict(device.vault);
    device.create(&host).expect("made, with a key of its own");
    bystander.is_served();
}
