use casemate_link::{Incoming, Limits};
use casemate_protocol::link::{Class, KeyObject};

use super::*;

const VAULT: VaultId = VaultId::from_bytes([5; 20]);

/// Plays the parent: answers each call with what `answer` says; none leaves it unanswered and open.
fn connect(answer: impl Fn(BlobCall) -> Option<BlobReply> + Send + 'static) -> LinkStore {
    let (ours, theirs) = tokio::io::duplex(1 << 20);
    let (store, place) = LinkStore::new();
    let limits = Limits::of(Class::Blobs);
    let (enclave, mut parent) = (Connection::spawn(ours, limits), Connection::spawn(theirs, limits));
    tokio::spawn(async move { place.serve(enclave).await });
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Some(Incoming::Call { body, reply, .. }) = parent.incoming.recv().await {
            match answer(codec::decode(&body, BLOB_BYTES).unwrap()) {
                Some(answer) => reply.reply(codec::encode(&answer).into()),
                None => kept.push(reply),
            }
        }
    });
    store
}

#[tokio::test]
async fn answers_come_through_and_wrong_kinds_are_failures() {
    let store = connect(|call| {
        Some(match call {
            BlobCall::Newest(_) => BlobReply::Newest(Some(VersionObject { version: 7, bytes: vec![7] })),
            BlobCall::Load(_) => {
                BlobReply::Loaded { versions: Vec::new(), keys: vec![KeyObject { generation: 1, bytes: vec![1] }] }
            }
            BlobCall::Get { path, .. } if path == "v1/large" => BlobReply::Object(Some(vec![0; 100])),
            BlobCall::Get { path, .. } => BlobReply::Object((path == "v1/a").then(|| vec![1])),
            BlobCall::Create { path, .. } if path == "v1/a" => BlobReply::Exists,
            BlobCall::Create { path, .. } if path == "v1/b" => BlobReply::Failed("disk".to_owned()),
            BlobCall::Create { .. } | BlobCall::Versions(_) => BlobReply::Created,
            BlobCall::Delete { .. } => BlobReply::Deleted,
        })
    });
    assert_eq!(store.newest(VAULT).await.unwrap().unwrap().version, 7);
    assert_eq!(store.load(VAULT).await.unwrap().keys.len(), 1);
    assert_eq!(store.get("v1/a", 10).await, Ok(Some(vec![1])));
    assert_eq!(store.get("v1/c", 10).await, Ok(None));
    assert!(store.get("v1/large", 99).await.is_err(), "more than was asked for");
    assert_eq!(store.put("v1/c".to_owned(), Bytes::from_static(b"x")).await, Put::Created);
    assert_eq!(store.put("v1/a".to_owned(), Bytes::from_static(b"x")).await, Put::Exists);
    assert_eq!(store.put("v1/b".to_owned(), Bytes::from_static(b"x")).await, Put::Unclear);
    assert_eq!(store.create("v1/c", vec![1]).await, Ok(PutOutcome::Created));
    assert!(store.versions(VAULT).await.is_err());
    assert!(store.delete(vec!["v1/a".to_owned()]).await.is_ok());
    assert_eq!(store.failures(), 3);
}

#[tokio::test]
async fn every_wait_ends() {
    let timeout = Duration::from_millis(60);
    let (down, _place) = LinkStore::new();
    down.set_timeout(timeout);
    assert!(!down.is_connected());
    assert_eq!(down.put("v1/a".to_owned(), Bytes::from_static(b"x")).await, Put::NotSent);
    assert!(down.newest(VAULT).await.is_err());
    let silent = connect(|_| None);
    silent.set_timeout(timeout);
    let begun = std::time::Instant::now();
    assert!(silent.newest(VAULT).await.is_err());
    assert!(begun.elapsed() >= timeout && begun.elapsed() < PUT_END);
    assert_eq!(silent.failures(), 1);
}

#[tokio::test]
async fn a_cut_link_leaves_a_put_unclear() {
    let (ours, mut theirs) = tokio::io::duplex(1 << 20);
    let (store, place) = LinkStore::new();
    let enclave = Connection::spawn(ours, Limits::of(Class::Blobs));
    tokio::spawn(async move { place.serve(enclave).await });
    let put = tokio::spawn({
        let store = store.clone();
        async move { store.put("v1/a".to_owned(), Bytes::from_static(b"x")).await }
    });
    // Something of it has left the enclave.
    let mut byte = [0];
    tokio::io::AsyncReadExt::read_exact(&mut theirs, &mut byte).await.unwrap();
    drop(theirs);
    assert_eq!(put.await.unwrap(), Put::Unclear);
    assert!(!store.is_connected());
}
