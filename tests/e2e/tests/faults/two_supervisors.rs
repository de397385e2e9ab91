//! Two supervisors over one store, each believing that the vault is its own: one of them loses the create of a version, drops its state
//! and tells its client to come again. Nothing is overwritten.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use casemate_client::VaultRecord;
use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner};
use casemate_protocol::id::VaultId;
use casemate_protocol::object::{self, Object};
use casemate_protocol::path;
use casemate_protocol::request::Operation;
use casemate_protocol::secret::Secret;

const DEADLINE: Duration = Duration::from_secs(10);
/// All versions stay, so that all can be looked at.
const CONFIGURATION: &str = "[limits]\nversions_kept = 1000\n";

/// The device as it was when it had written `record` down, with numbers above those it has used since: it comes back with an old head
/// and so warns no node that there is something newer.
async fn returning(owner: &Owner, node: &Node, record: &VaultRecord, used: u32) -> OwnedVault {
    let mut record = record.clone();
    for _ in 0..used {
        record.take_sequence(&Operation::Status, &[]);
    }
    owner.open(&node.nats_url(), record, DEADLINE).await
}

fn versions(node: &Node, vault: VaultId) -> BTreeMap<String, Vec<u8>> {
    let folder = path::vault_folder(vault);
    node.objects().into_iter().filter(|(name, _)| name.starts_with(&folder)).collect()
}

/// Nothing that was there has changed, and what is there is one chain from the first version.
fn grew(before: &BTreeMap<String, Vec<u8>>, after: &BTreeMap<String, Vec<u8>>) {
    for (name, bytes) in before {
        assert!(after.get(name) == Some(bytes), "{name} was overwritten or taken away");
    }
    let mut previous = [0; 32];
    for (bytes, version) in after.values().zip(1..) {
        let header = Object::parse(bytes).unwrap().header;
        assert_eq!((header.version, header.previous), (version, previous));
        previous = object::hash(bytes);
    }
}

/// Waits until a node has told that it opened vaults so often.
fn await_opened(node: &Node, times: u64) {
    let patience = Instant::now() + DEADLINE;
    while let Some((_, health)) = node.health()
        && health["vaults"]["opened"].as_u64().is_none_or(|opened| opened < times)
    {
        assert!(Instant::now() < patience, "{health}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// How often a node has said that another one wrote; several times in one second are said once.
fn lost_creates(node: &Node) -> usize {
    let log = std::fs::read_to_string(node.path("log/parent.log")).unwrap();
    log.matches("another writer owns a vault").count()
}

fn block_on(test: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

#[test]
fn the_loser_of_a_create_drops_its_state_and_its_client_reads_the_truth() {
    let first = Node::start_with(CONFIGURATION);
    let second = Node::beside(&first);
    block_on(async {
        let owner = Owner::new(&first);
        let vault = owner.open(&first.nats_url(), owner.begin(), DEADLINE).await;
        vault.create().await.unwrap();
        let record = vault.record();
        let mut before = versions(&first, vault.id());
        let mut newest = record.clone();
        // By turns: whoever is asked holds a state that the other has made old.
        for turn in 0..8_u8 {
            let node = if turn % 2 == 0 { &first } else { &second };
            let device = returning(&owner, node, &record, u32::from(turn)).await;
            let revision = device.secret_put("a", Secret::new(vec![turn]), None).await.unwrap();
            assert_eq!(revision, u64::from(turn) + 1, "each write was executed once, on the one before it");
            let after = versions(&first, vault.id());
            assert_eq!(after.len(), before.len() + 1);
            grew(&before, &after);
            before = after;
            newest = device.record();
        }
        for node in [&first, &second] {
            // Of the four turns of each, three met what the other had written: it dropped its state and opened the vault anew.
            assert!(lost_creates(node) > 0, "it said so");
            await_opened(node, 4);
        }
        for node in [&first, &second] {
            let device = owner.open(&node.nats_url(), newest.clone(), DEADLINE).await;
            let found = device.secret_get("a", None).await.unwrap();
            assert_eq!(
                (&found.value[..], found.revision),
                (&[7][..], 8),
                "who has seen the newest is shown it by both"
            );
        }
    });
}

#[test]
fn one_write_asked_of_both_at_once_is_done_once() {
    const ROUNDS: u8 = 20;
    let first = Node::start_with(CONFIGURATION);
    let second = Node::beside(&first);
    block_on(async {
        let owner = Owner::new(&first);
        let record = owner.begin();
        // The vault itself too is made by both.
        let (here, there) = (
            owner.open(&first.nats_url(), record.clone(), DEADLINE).await,
            owner.open(&second.nats_url(), record, DEADLINE).await,
        );
        let (created, also_created) = tokio::join!(here.create(), there.create());
        created.unwrap();
        also_created.unwrap();
        let record = here.record();
        let mut before = versions(&first, here.id());
        assert_eq!(before.len(), 1);
        for round in 0..ROUNDS {
            let here = returning(&owner, &first, &record, round.into()).await;
            let there = returning(&owner, &second, &record, round.into()).await;
            let value = || Secret::new(vec![round]);
            let (one, other) = tokio::join!(here.secret_put("a", value(), None), there.secret_put("a", value(), None));
            assert_eq!(
                (one.unwrap(), other.unwrap()),
                (u64::from(round) + 1, u64::from(round) + 1),
                "one write, one revision"
            );
            let after = versions(&first, here.id());
            assert_eq!(after.len(), before.len() + 1);
            grew(&before, &after);
            before = after;
        }
        assert!(lost_creates(&first) + lost_creates(&second) > 0, "at least one race was one");
    });
}
