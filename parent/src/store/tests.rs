use std::fs;

use casemate_protocol::object::{Header, Kind};
use tempfile::TempDir;

use super::*;

const VAULT: VaultId = VaultId::from_bytes([0xab; 20]);

fn open() -> (TempDir, ObjectStore) {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::Directory(folder.path().join("objects"));
    let store = ObjectStore::open(&store, &Aws::None, Duration::from_secs(5)).unwrap();
    (folder, store)
}

fn object(version: u64, base: u64, key_generation: u32, size: usize) -> Vec<u8> {
    let header = Header {
        format: 1,
        vault: VAULT,
        version,
        previous: [0; 32],
        salt: [0; 16],
        root_commitment: [0; 32],
        key_generation,
        lock_number: 1,
        copies: Vec::new(),
        kind: if version == base { Kind::Snapshot } else { Kind::Delta },
        base,
    };
    let mut bytes = header.encode_prefix();
    bytes.resize(bytes.len() + size, 7);
    bytes
}

async fn put(store: &ObjectStore, version: u64, base: u64, generation: u32) {
    let path = path::vault_version(VAULT, version);
    assert_eq!(store.create(&path, object(version, base, generation, 100)).await.unwrap(), Put::Created);
}

fn numbers(loaded: &Loaded) -> (Vec<u64>, Vec<u32>) {
    let versions = loaded.versions.iter().map(|version| version.version).collect();
    (versions, loaded.keys.iter().map(|key| key.generation).collect())
}

#[tokio::test]
async fn an_object_is_created_once() {
    let (_folder, store) = open();
    let path = path::shard_key(VAULT.shard(), 1);
    assert_eq!(store.get(&path, 100).await.unwrap(), None);
    assert_eq!(store.create(&path, b"first".to_vec()).await.unwrap(), Put::Created);
    assert_eq!(store.create(&path, b"second".to_vec()).await.unwrap(), Put::Exists);
    assert_eq!(store.get(&path, 100).await.unwrap().unwrap(), b"first");
    assert!(matches!(store.get(&path, 4).await, Err(StoreError::TooLarge { found: 5, limit: 4 })));
    store.delete(&[path.clone(), path.clone()]).await.unwrap();
    assert_eq!(store.get(&path, 100).await.unwrap(), None);
}

#[tokio::test]
async fn of_many_creators_one_wins() {
    let (_folder, store) = open();
    let store = Arc::new(store);
    let creators: Vec<_> = (0..16_u8)
        .map(|n| {
            let store = Arc::clone(&store);
            tokio::spawn(async move { (n, store.create("v1/shards/00/1", vec![n; 1000]).await.unwrap()) })
        })
        .collect();
    let mut winner = None;
    for creator in creators {
        if let (n, Put::Created) = creator.await.unwrap() {
            assert_eq!(winner.replace(n), None);
        }
    }
    let stored = store.get("v1/shards/00/1", 2000).await.unwrap().unwrap();
    assert_eq!(stored, vec![winner.unwrap(); 1000]);
}

#[tokio::test]
async fn loading_brings_the_chain_and_its_keys() {
    let (_folder, store) = open();
    assert_eq!(numbers(&store.load(VAULT).await.unwrap()), (vec![], vec![]));
    assert_eq!(store.newest(VAULT).await.unwrap(), None);
    store.create(&path::vault_key(VAULT, 1), b"k1".to_vec()).await.unwrap();
    // A create that stopped between key and version.
    assert_eq!(numbers(&store.load(VAULT).await.unwrap()), (vec![], vec![1]));
    for (version, base, generation) in [(1, 1, 1), (2, 1, 1), (3, 1, 1), (4, 4, 2), (5, 4, 2), (6, 4, 2)] {
        put(&store, version, base, generation).await;
        if version == 3 {
            assert_eq!(numbers(&store.load(VAULT).await.unwrap()), (vec![1, 2, 3], vec![1]));
        }
    }
    store.create(&path::vault_key(VAULT, 2), b"k2".to_vec()).await.unwrap();
    assert_eq!(numbers(&store.load(VAULT).await.unwrap()), (vec![4, 5, 6], vec![1, 2]));
    assert_eq!(store.newest(VAULT).await.unwrap().unwrap().version, 6);
    assert_eq!(store.versions(VAULT).await.unwrap(), [1, 2, 3, 4, 5, 6]);
    // Another vault of the same shard is another matter.
    let other = VaultId::from_bytes([[0xab].as_slice(), &[1; 19]].concat().try_into().unwrap());
    assert_eq!(numbers(&store.load(other).await.unwrap()), (vec![], vec![]));
}

#[tokio::test]
async fn a_damaged_newest_version_is_handed_on_with_what_is_below() {
    let (_folder, store) = open();
    put(&store, 1, 1, 1).await;
    store.create(&path::vault_version(VAULT, 2), b"damaged".to_vec()).await.unwrap();
    assert_eq!(numbers(&store.load(VAULT).await.unwrap()).0, [1, 2]);
}

#[tokio::test]
async fn paths_outside_are_refused() {
    let (folder, store) = open();
    fs::write(folder.path().join("precious"), "x").unwrap();
    let wrong = [
        "",
        "v1",
        "v1/",
        "v2/a",
        "/v1/a",
        "v1/../../precious",
        "v1//a",
        "v1/a#1",
        "v1/.a",
        "v1/A",
        "health/n",
        "v1/a b",
    ];
    for path in wrong {
        assert!(matches!(store.get(path, 10).await, Err(StoreError::Path)), "{path}");
        assert!(matches!(store.create(path, vec![1]).await, Err(StoreError::Path)), "{path}");
        assert!(matches!(store.delete(&[path.to_owned()]).await, Err(StoreError::Path)), "{path}");
    }
}

#[tokio::test]
async fn a_read_waits_for_the_create_under_way() {
    let (_folder, store) = open();
    let path = path::vault_version(VAULT, 1);
    let creating = store.begin(&path);
    for waiting in [store.settled_below(&path), store.settled_below(&path::vault_folder(VAULT))] {
        assert!(tokio::time::timeout(Duration::from_millis(20), waiting).await.is_err());
    }
    // Others do not wait.
    assert_eq!(store.get("v1/shards/00/1", 10).await.unwrap(), None);
    drop(creating);
    assert_eq!(store.get(&path, 10).await.unwrap(), None);
}

#[tokio::test]
async fn what_may_not_last_is_never_read() {
    let folder = tempfile::tempdir().unwrap();
    let directory = Store::Directory(folder.path().to_owned());
    let store = ObjectStore::open(&directory, &Aws::None, Duration::from_millis(50)).unwrap();
    put(&store, 1, 1, 1).await;
    let path = path::vault_version(VAULT, 1);
    store.begin(&path).settle(Ok(())).unwrap();
    assert!(store.get(&path, limits::OBJECT_BYTES).await.unwrap().is_some());
    // Its file is there, and the disk did not say that its name is.
    let failed = store.begin(&path).settle(Err(io::ErrorKind::StorageFull.into()));
    assert!(matches!(failed, Err(StoreError::Disk(_))), "{failed:?}");
    assert!(matches!(store.get(&path, limits::OBJECT_BYTES).await, Err(StoreError::Deadline(_))));
    assert!(matches!(store.load(VAULT).await, Err(StoreError::Deadline(_))));
    assert!(matches!(store.newest(VAULT).await, Err(StoreError::Deadline(_))));
}

#[tokio::test]
async fn the_round_trip_fails_when_the_store_is_gone() {
    let (folder, store) = open();
    store.round_trip("node-1").await.unwrap();
    store.round_trip("node-1").await.unwrap();
    fs::remove_dir_all(folder.path().join("objects")).unwrap();
    fs::write(folder.path().join("objects"), "in the way").unwrap();
    assert!(store.round_trip("node-1").await.is_err());
}
