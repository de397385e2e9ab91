//! The blobs connection: the enclave's calls, carried out at the object store.

use std::sync::Arc;
use std::time::Instant;

use casemate_link::{Caller, Connection, Incoming, Limits};
use casemate_protocol::codec;
use casemate_protocol::limits;
use casemate_protocol::link::{BLOB_BYTES, BlobCall, BlobReply, Class};
use tokio::sync::Semaphore;

use crate::metric;
use crate::store::{ObjectStore, Put};

/// Operations at the store at the same time.
const PARALLEL: usize = 64;
/// Operations whose answers may be large: what waits to be written is bounded by these and one window.
const PARALLEL_LOADS: usize = 16;
/// Characters of a failure that are told.
const FAILED_CHARS: usize = 200;

/// Serves a connection until it ends. A call under way is carried out to its end even then: a put's outcome is found by the next
/// reader, not by this connection.
pub async fn serve(connection: Connection, store: Arc<ObjectStore>) {
    let Connection { caller, mut incoming, .. } = connection;
    let places = Arc::new((Semaphore::new(PARALLEL), Semaphore::new(PARALLEL_LOADS)));
    while let Some(message) = incoming.recv().await {
        let Incoming::Call { body, reply, .. } = message else { continue };
        let (caller, store, places) = (caller.clone(), Arc::clone(&store), Arc::clone(&places));
        // At most one task for each call of the window.
        tokio::spawn(async move {
            let answer = match codec::decode::<BlobCall>(&body, BLOB_BYTES) {
                Ok(call) => {
                    drop(body);
                    answer(call, &caller, &store, &places).await
                }
                Err(error) => BlobReply::Failed(error.to_string()),
            };
            reply.reply(codec::encode(&answer).into());
        });
    }
}

async fn answer(call: BlobCall, caller: &Caller, store: &ObjectStore, places: &(Semaphore, Semaphore)) -> BlobReply {
    let (all, loads) = places;
    let is_large = matches!(call, BlobCall::Load(_) | BlobCall::Newest(_) | BlobCall::Get { .. });
    let _load = if is_large { loads.acquire().await.ok() } else { None };
    if is_large {
        // A peer that asks faster than it reads waits for itself.
        caller.written_down_to(Limits::of(Class::Blobs).window_bytes).await;
    }
    let _place = all.acquire().await;
    let begun = Instant::now();
    let (operation, answer) = match call {
        BlobCall::Load(vault) => (
            "load",
            store.load(vault).await.map(|loaded| BlobReply::Loaded { versions: loaded.versions, keys: loaded.keys }),
        ),
        BlobCall::Newest(vault) => ("newest", store.newest(vault).await.map(BlobReply::Newest)),
        BlobCall::Get { path, limit } => {
            let limit = usize::try_from(limit).unwrap_or(usize::MAX).min(limits::OBJECT_BYTES);
            ("get", store.get(&path, limit).await.map(BlobReply::Object))
        }
        BlobCall::Create { path, bytes } => (
            "create",
            store.create(&path, bytes).await.map(|put| match put {
                Put::Created => BlobReply::Created,
                Put::Exists => BlobReply::Exists,
            }),
        ),
        BlobCall::Delete { paths } => ("delete", store.delete(&paths).await.map(|()| BlobReply::Deleted)),
        BlobCall::Versions(vault) => ("versions", store.versions(vault).await.map(BlobReply::Versions)),
    };
    metric::store(operation, begun.elapsed(), answer.is_err());
    answer.unwrap_or_else(|error| {
        tracing::warn!(operation, %error, "an operation of the object store failed");
        BlobReply::Failed(error.to_string().chars().take(FAILED_CHARS).collect())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Aws, Store};
    use casemate_protocol::id::VaultId;
    use casemate_protocol::path;
    use std::time::Duration;

    async fn call(caller: &Caller, call: BlobCall) -> BlobReply {
        let reply = caller.call(codec::encode(&call).into(), Duration::from_secs(5)).await.unwrap();
        codec::decode(&reply, BLOB_BYTES).unwrap()
    }

    #[tokio::test]
    async fn every_call_has_its_answer() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::Directory(folder.path().to_owned());
        let store = ObjectStore::open(&store, &Aws::None, Duration::from_secs(5)).unwrap();
        let (here, there) = tokio::io::duplex(64 * 1024);
        let enclave = Connection::spawn(here, Limits::of(Class::Blobs));
        tokio::spawn(serve(Connection::spawn(there, Limits::of(Class::Blobs)), Arc::new(store)));
        let caller = &enclave.caller;
        let vault = VaultId::from_bytes([1; 20]);
        let path = path::vault_version(vault, 1);
        let bytes = vec![9; 3 << 20];

        let create = BlobCall::Create { path: path.clone(), bytes: bytes.clone() };
        assert_eq!(call(caller, create.clone()).await, BlobReply::Created);
        assert_eq!(call(caller, create).await, BlobReply::Exists);
        let BlobReply::Loaded { versions, keys } = call(caller, BlobCall::Load(vault)).await else { panic!("loaded") };
        assert_eq!((versions[0].version, &versions[0].bytes, keys.len()), (1, &bytes, 0));
        let get = |path: &str, limit| BlobCall::Get { path: path.to_owned(), limit };
        assert_eq!(call(caller, get(&path, u32::MAX)).await, BlobReply::Object(Some(bytes)));
        assert!(matches!(call(caller, get(&path, 10)).await, BlobReply::Failed(_)));
        assert!(matches!(call(caller, get("../etc/passwd", 10)).await, BlobReply::Failed(_)));
        assert_eq!(call(caller, BlobCall::Versions(vault)).await, BlobReply::Versions(vec![1]));
        assert_eq!(call(caller, BlobCall::Delete { paths: vec![path] }).await, BlobReply::Deleted);
        assert_eq!(call(caller, BlobCall::Newest(vault)).await, BlobReply::Newest(None));
        let many = BlobCall::Delete { paths: vec!["v1/x".to_owned(); 65] };
        assert!(matches!(call(caller, many).await, BlobReply::Failed(_)));
        let nonsense = caller.call(vec![0xff].into(), Duration::from_secs(5)).await.unwrap();
        assert!(matches!(codec::decode(&nonsense, BLOB_BYTES), Ok(BlobReply::Failed(_))));
    }
}
