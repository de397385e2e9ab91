use std::sync::atomic::Ordering;

use super::super::fakes::{CountingRandomness, FakeService, FakeStore, ManualClock, PutFault};
use super::super::ledger::KmsState;
use super::*;

const SHARD: Shard = Shard(0xab);
const PATH: &str = "v1/shards/ab/1";
const DEADLINE: Duration = Duration::from_secs(10);

struct Rig {
    service: Arc<FakeService>,
    store: Arc<FakeStore>,
    clock: Arc<ManualClock>,
    keyring: ShardKeyring,
}

/// A keyring over a false outside, with back-offs short enough to wait for.
fn rig() -> Rig {
    let (service, store, clock) =
        (Arc::new(FakeService::default()), Arc::new(FakeStore::default()), Arc::new(ManualClock::default()));
    let keyring = ShardKeyring::new(ShardKeyringParts {
        service: service.clone(),
        store: store.clone(),
        clock: clock.clone(),
        randomness: Arc::new(CountingRandomness::default()),
        cluster: ClusterId([0xcc; 32]),
        policy: Policy { backoff_base: Duration::from_millis(4), ..Policy::default() },
    });
    Rig { service, store, clock, keyring }
}

impl Rig {
    fn calls(&self) -> (usize, usize) {
        (self.service.generated.load(Ordering::SeqCst), self.service.unsealed.load(Ordering::SeqCst))
    }

    async fn get(&self) -> Result<Arc<ShardKey>, ShardKeyError> {
        self.keyring.shard_key(SHARD, 1, DEADLINE).await
    }

    fn stored(&self) -> Option<Vec<u8>> {
        self.store.objects.lock().unwrap().get(PATH).cloned()
    }

    fn put_fault(&self, fault: PutFault) {
        self.store.put_faults.lock().unwrap().push_back(fault);
    }

    /// Lets spawned loads run to their end.
    async fn settle(&self) {
        for _ in 0..50 {
            tokio::task::yield_now().await;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// A ciphertext that the false service would make as its `number`-th.
fn blob(number: u8, shard: &str, generation: u32) -> Vec<u8> {
    format!("{number}|{}|{shard}|{generation}", "cc".repeat(32)).into_bytes()
}

#[tokio::test]
async fn a_thousand_cold_starts_of_one_shard_make_one_call() {
    let rig = rig();
    rig.store.objects.lock().unwrap().insert(PATH.to_owned(), blob(5, "ab", 1));
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..1_000 {
        let keyring = rig.keyring.clone();
        tasks.spawn(async move {
            // Half of them know the object from a wrapped vault key, half look it up.
            if number % 2 == 0 {
                keyring.shard_key(SHARD, 1, DEADLINE).await
            } else {
                keyring.shard_key_from_blob(SHARD, 1, &blob(5, "ab", 1), DEADLINE).await
            }
        });
    }
    while let Some(key) = tasks.join_next().await {
        assert_eq!(*key.unwrap().unwrap().key(), FakeService::key(5));
    }
    assert_eq!(rig.calls(), (0, 1));
    assert_eq!(rig.store.gets.load(Ordering::SeqCst), 1);
    let status = rig.keyring.status();
    assert_eq!((status.state, status.cached, status.calls), (KmsState::Ok, 1, 1));
}

#[tokio::test]
async fn a_shard_key_is_made_once_and_used_as_stored() {
    let rig = rig();
    let key = rig.get().await.unwrap();
    assert_eq!(rig.stored().as_deref(), Some(key.sealed().blob()));
    assert_eq!(rig.calls(), (1, 1), "made once, and unsealed from what the store gave back");
    assert_eq!(*key.key(), FakeService::key(0));
    rig.get().await.unwrap();
    assert_eq!(rig.calls(), (1, 1));
    // Another generation and another shard are other keys.
    rig.keyring.shard_key(SHARD, 2, DEADLINE).await.unwrap();
    rig.keyring.shard_key(Shard(0), 1, DEADLINE).await.unwrap();
    let paths: Vec<String> = rig.store.objects.lock().unwrap().keys().cloned().collect();
    assert_eq!(paths, ["v1/shards/00/1", "v1/shards/ab/1", "v1/shards/ab/2"]);
}

#[tokio::test]
async fn the_loser_of_a_race_uses_the_winners_key() {
    let rig = rig();
    rig.put_fault(PutFault::Raced(blob(9, "ab", 1)));
    let key = rig.get().await.unwrap();
    assert_eq!(*key.key(), FakeService::key(9));
    assert_eq!(key.sealed().blob(), blob(9, "ab", 1));
    assert_eq!(rig.stored(), Some(blob(9, "ab", 1)));
    assert_eq!(rig.calls(), (1, 1));
}

#[tokio::test]
async fn two_nodes_that_race_end_with_one_key() {
    let first = rig();
    let second = ShardKeyring::new(ShardKeyringParts {
        service: first.service.clone(),
        store: first.store.clone(),
        clock: first.clock.clone(),
        randomness: Arc::new(CountingRandomness::default()),
        cluster: ClusterId([0xcc; 32]),
        policy: Policy::default(),
    });
    *first.service.delay.lock().unwrap() = Duration::from_millis(10);
    let (one, two) = tokio::join!(first.get(), second.shard_key(SHARD, 1, DEADLINE));
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!(first.calls().0, 2, "both made one");
    assert_eq!(one.key(), two.key());
    assert_eq!(one.sealed(), two.sealed());
}

#[tokio::test]
async fn unclear_puts_are_settled_by_reading_back() {
    // Written, but the answer was lost: identical bytes are there.
    let rig = rig();
    rig.put_fault(PutFault::Unanswered);
    assert_eq!(*rig.get().await.unwrap().key(), FakeService::key(0));
    assert_eq!(rig.store.puts.lock().unwrap().len(), 1);
    // Not written, whatever the answer said: the same bytes are put again.
    let rig = self::rig();
    rig.put_fault(PutFault::Lost);
    rig.put_fault(PutFault::FalseExists);
    assert_eq!(*rig.get().await.unwrap().key(), FakeService::key(0));
    let puts = rig.store.puts.lock().unwrap().clone();
    assert_eq!(puts, vec![blob(0, "ab", 1); 3], "the same bytes each time");
    assert_eq!(rig.calls(), (1, 1));
}

#[tokio::test]
async fn a_load_outlives_the_caller_who_began_it() {
    let rig = rig();
    *rig.service.delay.lock().unwrap() = Duration::from_millis(40);
    let impatient = rig.keyring.shard_key(SHARD, 1, Duration::from_millis(5)).await;
    assert_eq!(impatient.map(|_| ()), Err(ShardKeyError::DeadlineExceeded));
    rig.get().await.unwrap();
    assert_eq!(rig.calls(), (1, 1), "the second caller joined the first one's load");
}

#[tokio::test]
async fn failures_are_told_and_tried_again_after_their_back_off() {
    let rig = rig();
    rig.store.objects.lock().unwrap().insert(PATH.to_owned(), blob(5, "ab", 1));
    rig.service.fail(&KeyServiceError::Throttled, 1);
    let first = rig.get().await.unwrap_err();
    assert!(matches!(first, ShardKeyError::Unavailable { .. }), "{first}");
    let status = rig.keyring.status();
    assert_eq!((status.state, status.throttled, status.failures), (KmsState::Down, 1, 1));
    assert_eq!(status.last_error.as_deref(), Some("the key service throttles"));
    // The clock stands still: the back-off is not over, no call is made.
    assert!(rig.get().await.is_err());
    assert_eq!(rig.calls(), (0, 1));
    rig.clock.advance(Duration::from_millis(4));
    rig.get().await.unwrap();
    assert_eq!(rig.calls(), (0, 2));
    assert_eq!(rig.keyring.status().state, KmsState::Ok);
}

#[tokio::test]
async fn keys_serve_through_an_outage_and_refuse_at_the_hard_limit() {
    let rig = rig();
    let key = rig.get().await.unwrap();
    rig.service.fail(&KeyServiceError::Unavailable("down".to_owned()), usize::from(u16::MAX));
    rig.clock.advance(Duration::from_hours(1));
    assert_eq!(rig.get().await.unwrap().key(), key.key(), "asked, not answered, served");
    assert_eq!(rig.keyring.status().state, KmsState::Degraded);
    rig.clock.advance(Duration::from_hours(5));
    rig.keyring.tick();
    rig.settle().await;
    assert_eq!((rig.keyring.status().cached, rig.keyring.status().state), (0, KmsState::Down));
    let refusal = rig.get().await.unwrap_err();
    assert!(matches!(refusal, ShardKeyError::HardLimit { .. }), "{refusal}");
}

#[tokio::test]
async fn a_revoked_right_drops_the_key_at_its_refresh() {
    let rig = rig();
    rig.get().await.unwrap();
    rig.service.fail(&KeyServiceError::Refused("AccessDeniedException".to_owned()), 1);
    rig.clock.advance(Duration::from_mins(55));
    rig.keyring.tick();
    rig.settle().await;
    assert_eq!(rig.keyring.status().cached, 0);
    let refusal = rig.get().await.unwrap_err();
    assert!(matches!(&refusal, ShardKeyError::Refused { code, .. } if code == "AccessDeniedException"), "{refusal}");
}

#[tokio::test]
async fn a_false_object_is_read_anew_and_a_true_copy_opens_past_it() {
    let rig = rig();
    rig.store.objects.lock().unwrap().insert(PATH.to_owned(), blob(5, "ac", 1));
    let refusal = rig.get().await.unwrap_err();
    assert!(matches!(&refusal, ShardKeyError::Refused { .. }), "bound to another shard: {refusal}");
    let copy = rig.keyring.shard_key_from_blob(SHARD, 1, &blob(6, "ab", 1), DEADLINE).await.unwrap();
    assert_eq!(*copy.key(), FakeService::key(6));
    rig.store.objects.lock().unwrap().insert(PATH.to_owned(), blob(7, "ab", 1));
    assert_eq!(*rig.get().await.unwrap().key(), FakeService::key(7));
    for wrong in [vec![], vec![1; 1_025]] {
        let refusal = rig.keyring.shard_key_from_blob(SHARD, 1, &wrong, DEADLINE).await.unwrap_err();
        assert!(matches!(refusal, ShardKeyError::BlobLength(_)), "{refusal}");
    }
}

#[tokio::test]
async fn nothing_is_made_while_the_store_cannot_be_read() {
    let rig = rig();
    rig.store.get_faults.store(1, Ordering::SeqCst);
    let error = rig.get().await.unwrap_err();
    assert!(matches!(error, ShardKeyError::Unavailable { .. }), "{error}");
    assert_eq!(rig.calls(), (0, 0));
    assert_eq!(rig.keyring.status().state, KmsState::Ok, "the store's failure is not the key service's");
}

#[tokio::test]
async fn a_shard_that_moves_leaves_nothing() {
    let rig = rig();
    rig.get().await.unwrap();
    rig.keyring.shard_key(Shard(1), 1, DEADLINE).await.unwrap();
    rig.keyring.forget_shard(SHARD);
    assert_eq!(rig.keyring.status().cached, 1);
    rig.get().await.unwrap();
    assert_eq!(rig.calls(), (2, 3), "unsealed anew");
}

#[test]
fn debug_output_holds_no_key() {
    let sealed = SealedShardKey::new(Slot { shard: SHARD, generation: 1 }, b"blob").unwrap();
    let text = format!("{:?}", ShardKey::new(Zeroizing::new([0x5a; 32]), sealed));
    assert!(text.contains("redacted") && !text.contains("90"), "{text}");
}
