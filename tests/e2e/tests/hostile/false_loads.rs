//! The store answers a load with what no honest store would: foreign, exchanged, missing, doubled, unordered, changed, oversize.

use casemate_e2e::hostile::{Host, Puppet, get};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::limits::{LOAD_BYTES, OBJECT_BYTES};
use casemate_protocol::link::{BlobCall, BlobReply, VersionObject};

type Versions = Vec<VersionObject>;
/// What the store makes of a chain.
type Change = Box<dyn Fn(&mut Versions) + Send>;
/// What the store answers in place of the truth.
type Lie = Box<dyn Fn(&BlobCall) -> Option<BlobReply> + Send>;

#[test]
fn a_chain_opens_whole_and_in_order_or_not_at_all() {
    let host = Host::start();
    let bystander = host.owner();
    let (mut device, mut other) = (Puppet::with_vault(&host), Puppet::with_vault(&host));
    // A snapshot that outweighs the deltas above it.
    let weight = "w".repeat(30_000);
    for value in [weight.as_str(), "0", "1", "2", "3"] {
        device.put(&host, "a", value).unwrap();
        other.put(&host, "a", value).unwrap();
    }
    let foreign = host.objects().versions(other.vault)[1..].to_vec();
    let renamed: Versions = foreign.clone();
    let lies: Vec<(&str, Change)> = vec![
        ("another vault's chain", Box::new(move |versions| *versions = renamed.clone())),
        ("another vault's version in the middle", {
            let foreign = foreign.clone();
            Box::new(move |versions| versions[2] = foreign[2].clone())
        }),
        ("another vault's version at the end", Box::new(move |versions| versions[4] = foreign[4].clone())),
        ("no snapshot", Box::new(|versions| drop(versions.remove(0)))),
        ("a gap", Box::new(|versions| drop(versions.remove(2)))),
        ("a version twice", Box::new(|versions| versions.insert(2, versions[2].clone()))),
        ("two versions exchanged", Box::new(|versions| versions.swap(2, 3))),
        ("two versions under each other's names", {
            Box::new(|versions| {
                let bytes = versions[2].bytes.clone();
                versions[2].bytes = std::mem::replace(&mut versions[3].bytes, bytes);
            })
        }),
        ("the newest first", Box::new(|versions| versions.reverse())),
        ("a higher number", Box::new(|versions| versions[4].version = u64::MAX)),
        ("number zero", Box::new(|versions| versions[0].version = 0)),
        ("a flipped bit in a body", Box::new(|versions| *versions[1].bytes.last_mut().unwrap() ^= 1)),
        ("a flipped bit in a header", Box::new(|versions| versions[1].bytes[40] ^= 1)),
        ("a version cut short", Box::new(|versions| versions[3].bytes.truncate(100))),
        ("an empty version", Box::new(|versions| versions[4].bytes.clear())),
        ("bytes made up", Box::new(|versions| versions[0].bytes = vec![7; 4096])),
        ("the newest repeated as the next", {
            Box::new(|versions| {
                let VersionObject { version, bytes } = versions[4].clone();
                versions.push(VersionObject { version: version + 1, bytes });
            })
        }),
    ];
    for (number, (what, lie)) in (1..).zip(lies) {
        host.evict(device.vault);
        let vault = device.vault;
        host.lie(move |call, honest| match (call, honest) {
            (BlobCall::Load(asked), BlobReply::Loaded { mut versions, keys }) if *asked == vault => {
                assert_eq!(versions.len(), 5, "a snapshot and four deltas");
                lie(&mut versions);
                BlobReply::Loaded { versions, keys }
            }
            (_, honest) => honest,
        });
        assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::StateCorrupt), "{what}");
        assert_eq!(host.refusals().state_corrupt, number, "{what}");
    }
    host.tell_the_truth();
    host.evict(device.vault);
    device.enter(&host, None, &get("a")).expect("the true chain opens");
    assert_eq!((host.refusals().state_corrupt, host.health().vaults.crashed), (17, 0));
    bystander.is_served();
}

#[test]
fn a_newest_version_that_is_not_this_vaults_is_corrupt() {
    let host = Host::start();
    let bystander = host.owner();
    let (mut device, other) = (Puppet::with_vault(&host), Puppet::with_vault(&host));
    let theirs = host.objects().versions(other.vault).pop();
    let own = host.objects().versions(device.vault).pop().unwrap();
    let misnamed = Some(VersionObject { version: 2, bytes: own.bytes });
    let made_up = Some(VersionObject { version: 1, bytes: vec![1, 2, 3] });
    for (number, newest) in (1..).zip([theirs, misnamed, made_up]) {
        host.evict(device.vault);
        let vault = device.vault;
        host.lie(move |call, honest| match call {
            BlobCall::Newest(asked) if *asked == vault => BlobReply::Newest(newest.clone()),
            _ => honest,
        });
        assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::StateCorrupt));
        assert_eq!(host.refusals().state_corrupt, number);
    }
    host.tell_the_truth();
    host.evict(device.vault);
    assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::NotFound), "open, and there is no such secret");
    bystander.is_served();
}

#[test]
fn more_than_a_vault_may_have_is_a_failure_of_the_store_and_nobody_elses() {
    let host = Host::start();
    let bystander = host.owner();
    let mut device = Puppet::with_vault(&host);
    let version = |version, length| VersionObject { version, bytes: vec![0; length] };
    let lies: Vec<Lie> = vec![
        Box::new(move |call| {
            matches!(call, BlobCall::Newest(_)).then(|| BlobReply::Newest(Some(version(1, LOAD_BYTES + 60_000))))
        }),
        Box::new(move |call| {
            matches!(call, BlobCall::Newest(_)).then(|| BlobReply::Newest(Some(version(1, OBJECT_BYTES + 1))))
        }),
        Box::new(move |call| {
            let versions = vec![version(1, OBJECT_BYTES + 1)];
            matches!(call, BlobCall::Load(_)).then(|| BlobReply::Loaded { versions, keys: Vec::new() })
        }),
        Box::new(move |call| {
            let versions = (1..=4).map(|number| version(number, OBJECT_BYTES - 20_000)).take(3).collect();
            let keys = vec![casemate_protocol::link::KeyObject { generation: 1, bytes: vec![0; 100_000] }];
            matches!(call, BlobCall::Load(_)).then(|| BlobReply::Loaded { versions, keys })
        }),
        // Answers of another kind than the question.
        Box::new(|call| matches!(call, BlobCall::Load(_)).then_some(BlobReply::Created)),
        Box::new(|call| matches!(call, BlobCall::Newest(_)).then_some(BlobReply::Object(None))),
    ];
    for (number, lie) in (1..).zip(lies) {
        host.evict(device.vault);
        let vault = device.vault;
        host.lie(move |call, honest| match call {
            BlobCall::Newest(asked) | BlobCall::Load(asked) if *asked == vault => lie(call).unwrap_or(honest),
            _ => honest,
        });
        assert_eq!(device.enter(&host, None, &get("a")), Err(ErrorCode::Unavailable), "lie {number}");
        assert_eq!(host.health().store_failures, number);
    }
    host.tell_the_truth();
    host.evict(device.vault);
    let health = host.health();
    assert_eq!((health.vaults.crashed, health.refusals.link_broken), (0, 0), "no vault-manager is blamed for it");
    device.enter(&host, None, &get("a")).expect_err("open, and there is no such secret");
    bystander.is_served();
}
