//! A shard's sealed key is exchanged, or a false one is planted, before anything is wrapped under it.

use casemate_e2e::hostile::{Host, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::path;

#[test]
fn nothing_is_wrapped_under_a_key_that_is_not_this_shards() {
    let host = Host::start();
    let (bystander, mut device) = (host.owner(), Puppet::with_vault(&host));
    let blob = host.objects().0[&path::shard_key(device.vault.shard(), 1)].clone();
    let mut fresh = Puppet::in_shard(device.vault.shard(), false);
    let place = path::shard_key(fresh.vault.shard(), 1);
    let lies = [("another shard's", blob.clone()), ("made up", vec![7; blob.len()]), ("one byte", vec![0])];
    for (number, (what, planted)) in (1..).zip(lies) {
        host.objects().0.insert(place.clone(), planted);
        assert_eq!(fresh.create(&host), Err(ErrorCode::StateCorrupt), "{what}");
        assert_eq!(host.refusals().state_corrupt, number, "{what}");
        host.evict(fresh.vault);
    }
    let made = |host: &Host| host.objects().0.contains_key(&path::vault_key(fresh.vault, 1));
    assert!(!made(&host), "no vault key was wrapped");
    assert!(host.objects().versions(fresh.vault).is_empty());
    // A vault that exists has a copy of its shard's ciphertext of its own, and opens past a planted one.
    host.objects().0.insert(path::shard_key(device.vault.shard(), 1), vec![7; 200]);
    host.evict(device.vault);
    assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::NotFound), "open, and there is no such secret");
    host.objects().0.remove(&place);
    fresh.create(&host).expect("made, once the truth is shown");
    bystander.is_served();
}

#[test]
fn an_attackers_own_ciphertext_is_refused_by_the_key_service() {
    // Another account's key, with everything that is needed to use it.
    let theirs = Host::start();
    let attacker = Puppet::with_vault(&theirs);
    let blob = theirs.objects().0[&path::shard_key(attacker.vault.shard(), 1)].clone();
    let host = Host::start();
    let bystander = host.owner();
    let mut device = Puppet::in_shard(attacker.vault.shard(), true);
    host.objects().0.insert(path::shard_key(device.vault.shard(), 1), blob);
    let failures = host.health().kms.failures;
    assert_eq!(device.create(&host), Err(ErrorCode::AccessRefused));
    assert_eq!(host.health().kms.failures, failures + 1);
    assert!(host.objects().versions(device.vault).is_empty());
    bystander.is_served();
}
