//! A lost answer is asked for again under the same number, and nothing is ever done twice.

use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use casemate_client::outside::unix_now;
use casemate_client::retry::FIRST;
use casemate_client::{Explain, Kind, Outside, VaultError, VaultOptions};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::limits;
use tokio::sync::Notify;

use crate::fake::{Fake, Host, last_kept};

#[tokio::test(flavor = "current_thread")]
async fn a_lost_answer_is_asked_for_again_and_done_once() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.then([Host::LosesReply, Host::LosesRequest, Host::LosesReply]);
    assert_eq!(vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), 1);
    let inner = fake.inner();
    assert_eq!(inner.executed.len(), 1);
    assert!(inner.sequences[1..].iter().all(|sequence| *sequence == inner.sequences[1]));
}

#[tokio::test(flavor = "current_thread")]
async fn a_time_out_is_unknown_and_the_same_command_asks_again() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let short = fake.vault_of(device_of(), vault.record(), Duration::from_millis(200));
    drop(vault);
    fake.then(vec![Host::Honest; 1]);
    fake.then(vec![Host::LosesReply; 100]);
    let put = || short.secret_put("a", b"1".as_slice().into(), None);
    let error = put().await.unwrap_err();
    assert!(matches!(error, VaultError::OutcomeUnknown), "{error}");
    assert_eq!(error.kind(), Kind::OutcomeUnknown);
    assert_eq!(last_kept(&fake).unresolved().len(), 1, "it is remembered beyond the process");

    fake.inner().script.clear();
    assert_eq!(put().await.unwrap(), 1, "the first outcome, not a second revision");
    assert_eq!(fake.inner().executed.len(), 1);
    assert!(last_kept(&fake).unresolved().is_empty());
    assert_eq!(put().await.unwrap(), 2, "a known outcome ends it: the same command is a new one again");
}

/// A clock on which pauses last until they are let go, and nothing else ever comes to its end.
#[derive(Debug, Default)]
struct Held {
    begun: Arc<Notify>,
    go_on: Arc<Notify>,
}

impl Outside for Held {
    fn unix_seconds(&self) -> u64 {
        unix_now()
    }

    fn monotonic(&self) -> Duration {
        Duration::ZERO
    }

    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        let (begun, go_on) = (Arc::clone(&self.begun), Arc::clone(&self.go_on));
        Box::pin(async move {
            if duration > FIRST {
                // A limit.
                std::future::pending::<()>().await;
            }
            begun.notify_one();
            go_on.notified().await;
        })
    }

    fn jitter(&self) -> u64 {
        0
    }
}

#[tokio::test(flavor = "current_thread")]
async fn who_was_overtaken_is_not_overtaken_while_he_pauses() {
    let fake = Fake::new();
    let record = fake.created().await.record();
    let clock = Arc::new(Held::default());
    let options = VaultOptions { outside: Arc::clone(&clock) as Arc<dyn Outside>, ..VaultOptions::default() };
    let vault = fake.vault_with(device_of(), record, options);
    assert_eq!(vault.secret_put("b", b"1".as_slice().into(), None).await.unwrap(), 1);

    fake.then([Host::VaultRefuses(ErrorCode::Superseded.into())]);
    let put = vault.secret_put("a", b"1".as_slice().into(), None);
    let meanwhile = async {
        clock.begun.notified().await;
        assert_eq!(vault.secret_put("b", b"2".as_slice().into(), None).await.unwrap(), 2);
        clock.go_on.notify_one();
    };
    // With a number from before the pause it would pause again, and be overtaken again, until its time is up.
    let both = Box::pin(async { tokio::join!(put, meanwhile) });
    let (put, ()) = tokio::time::timeout(Duration::from_secs(10), both).await.expect("a second attempt is enough");
    assert_eq!(put.unwrap(), 1);
    assert!(fake.inner().sequences.is_sorted());
}

/// As if the power were cut: what is written down by then is neither the old number, which will never be executed, nor a new one.
#[tokio::test(flavor = "current_thread")]
async fn who_is_cut_off_while_he_pauses_has_no_number() {
    let fake = Fake::new();
    let record = fake.created().await.record();
    let clock = Arc::new(Held::default());
    let options = VaultOptions { outside: Arc::clone(&clock) as Arc<dyn Outside>, ..VaultOptions::default() };
    let vault = fake.vault_with(device_of(), record, options);
    vault.status().await.unwrap();

    fake.then([Host::VaultRefuses(ErrorCode::Superseded.into())]);
    let executed = fake.inner().executed.len();
    tokio::select! {
        _ = vault.secret_put("a", b"1".as_slice().into(), None) => panic!("it goes on after its pause"),
        () = clock.begun.notified() => {}
    }
    let record = vault.record();
    assert!(record.unresolved().is_empty());
    let again = fake.vault_with(device_of(), record, VaultOptions::default());
    assert_eq!(again.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), 1);
    assert_eq!(fake.inner().executed.len(), executed + 1);
    assert!(fake.inner().sequences.is_sorted_by(|earlier, later| earlier < later));
}

/// The fake looks at no device key, so any device will do.
fn device_of() -> casemate_client::Device {
    casemate_client::Device::generate().unwrap()
}

#[tokio::test(flavor = "current_thread")]
async fn what_never_left_is_not_unknown() {
    let fake = Fake::new();
    let vault = fake.vault(Duration::from_millis(150));
    fake.then(vec![Host::LosesRequest; 100]);
    let error = vault.create().await.unwrap_err();
    assert!(matches!(error, VaultError::TimedOut { .. }), "only handshakes were sent: {error}");
    fake.inner().script.clear();
    vault.create().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn busy_is_waited_for_and_a_lost_session_is_made_again() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.then([
        Host::VaultRefuses(Refusal::retry(ErrorCode::Busy, 5)),
        Host::Answers(Refusal::retry(ErrorCode::Busy, 5)),
        Host::Honest,
        Host::VaultRefuses(ErrorCode::Moved.into()),
    ]);
    vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
    let hellos = fake.inner().hellos;
    fake.inner().evict();
    assert_eq!(*vault.secret_get("a", None).await.unwrap().value, *b"1");
    assert_eq!(fake.inner().hellos, hellos + 1);
}

#[tokio::test(flavor = "current_thread")]
async fn a_refusal_that_anybody_could_write_settles_nothing() {
    let fake = Fake::new();
    let vault = fake.created().await;
    // The host executes the request and says that the device was not authorised.
    fake.then([Host::Replaces(ErrorCode::NotAuthorised.into())]);
    assert_eq!(vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), 1);
    assert_eq!(fake.inner().executed.len(), 1);
}

#[tokio::test(flavor = "current_thread")]
async fn an_authentic_refusal_is_final() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.then([Host::VaultRefuses(ErrorCode::Conflict.into())]);
    let error = vault.secret_put("a", b"1".as_slice().into(), Some(7)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict);
    assert!(last_kept(&fake).unresolved().is_empty());
}

#[tokio::test(flavor = "current_thread")]
async fn a_number_that_was_passed_over_is_taken_anew() {
    let fake = Fake::new();
    let vault = fake.created().await;
    // Another process of the same device restored from a copy has used higher numbers.
    fake.inner().highest = 3;
    assert_eq!(vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), 1);
    assert_eq!(fake.inner().executed.len(), 1);
}

/// The answer of an earlier command that was lost says nothing of what the same words ask for later.
#[tokio::test(flavor = "current_thread")]
async fn an_old_outcome_is_no_answer_to_a_later_command() {
    let fake = Fake::new();
    let record = fake.created().await.record();
    let vault = fake.vault_of(device_of(), record, Duration::from_millis(200));
    vault.status().await.unwrap();
    let put = |name: &'static str, value: &'static [u8]| vault.secret_put(name, value.into(), None);
    for name in ["a", "b"] {
        fake.then(vec![Host::LosesReply; 100]);
        assert!(matches!(put(name, b"1").await, Err(VaultError::OutcomeUnknown)));
        fake.inner().script.clear();
    }
    assert_eq!(put("a", b"2").await.unwrap(), 2);
    assert_eq!(put("a", b"1").await.unwrap(), 3, "it is done, and not only said to be");
    assert_eq!(*vault.secret_get("a", None).await.unwrap().value, *b"1");
    assert_eq!(put("b", b"1").await.unwrap(), 1, "nothing else was asked of this one");
}

/// The vault remembers the last 64 numbers of a device.
#[tokio::test(flavor = "current_thread")]
async fn an_outcome_that_the_vault_has_forgotten_is_unknown_once() {
    let fake = Fake::new();
    let record = fake.created().await.record();
    let vault = fake.vault_of(device_of(), record, Duration::from_millis(200));
    vault.status().await.unwrap();
    let put = || vault.secret_put("a", b"1".as_slice().into(), None);
    fake.then(vec![Host::LosesReply; 100]);
    assert!(matches!(put().await, Err(VaultError::OutcomeUnknown)));
    {
        let mut inner = fake.inner();
        inner.script.clear();
        inner.outcomes.clear();
        (inner.highest, inner.forgotten_below) = (1000, 937);
        inner.sequences.clear();
    }
    assert!(matches!(put().await, Err(VaultError::OutcomeUnknown)));
    assert_eq!(fake.inner().sequences.len(), 1, "asked again, the vault would say the same");
    assert!(last_kept(&fake).unresolved().is_empty());
    assert_eq!(put().await.unwrap(), 2, "the next one is another change");
}

/// Its numbers are those that the home it is a copy of has used since.
#[tokio::test(flavor = "current_thread")]
async fn a_home_that_was_restored_from_a_copy_goes_on() {
    for since in [1, 5, 200] {
        let fake = Fake::new();
        let vault = fake.created().await;
        let copy = vault.record();
        for number in 0..since {
            vault.secret_put(&format!("n{number}"), b"1".as_slice().into(), None).await.unwrap();
        }
        {
            let mut inner = fake.inner();
            let forgotten_below = inner.highest.saturating_sub(63);
            inner.outcomes.retain(|sequence, _| *sequence >= forgotten_below);
            inner.forgotten_below = forgotten_below;
        }
        let restored = fake.vault_of(device_of(), copy, Duration::from_secs(5));
        for revision in 1..=3 {
            assert_eq!(restored.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), revision, "{since}");
        }
        assert_eq!(fake.inner().executed.len(), since + 3);
    }
}

/// The vault would have forgotten what became of the oldest by the time that its answer is asked for again.
#[tokio::test(flavor = "current_thread")]
async fn a_number_that_is_in_use_is_never_left_far_behind() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let release = Arc::new(Notify::new());
    fake.then([Host::HoldsReply(Arc::clone(&release))]);
    let put = |name: &'static str| vault.secret_put(name, b"1".as_slice().into(), None);
    let mut oldest = Box::pin(put("oldest"));
    assert!(is_pending(oldest.as_mut()).await);
    for revision in 1..limits::OUTCOMES_PER_DEVICE as u64 {
        assert_eq!(put("a").await.unwrap(), revision);
    }
    let mut next = Box::pin(put("a"));
    assert!(is_pending(next.as_mut()).await, "nothing else holds it up");
    release.notify_one();
    assert_eq!(oldest.await.unwrap(), 1);
    assert_eq!(next.await.unwrap(), limits::OUTCOMES_PER_DEVICE as u64);
}

/// Its outcome is no change: that it is forgotten does no harm.
#[tokio::test(flavor = "current_thread")]
async fn a_use_of_a_key_that_lasts_holds_up_nobody() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let release = Arc::new(Notify::new());
    fake.then([Host::HoldsReply(Arc::clone(&release))]);
    let mut oldest = Box::pin(vault.key_sign("k", b"m".as_slice().into()));
    assert!(is_pending(oldest.as_mut()).await);
    for revision in 1..=2 * limits::OUTCOMES_PER_DEVICE as u64 {
        assert_eq!(vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap(), revision);
    }
    release.notify_one();
    oldest.await.unwrap();
}

async fn is_pending<T>(mut future: Pin<&mut impl Future<Output = T>>) -> bool {
    std::future::poll_fn(|context| Poll::Ready(future.as_mut().poll(context).is_pending())).await
}

#[tokio::test(flavor = "current_thread")]
async fn who_has_no_time_and_who_comes_late_cost_no_session() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let get = || vault.secret_put("a", b"1".as_slice().into(), None);
    get().await.unwrap();
    let hellos = fake.inner().hellos;
    fake.then([Host::Answers(Refusal::retry(ErrorCode::Busy, 1)), Host::Answers(ErrorCode::DeadlineExceeded.into())]);
    get().await.unwrap();
    assert_eq!(fake.inner().hellos, hellos);

    // The vault was evicted. One request learns it at once and makes a session; the other one when that stands.
    fake.inner().evict();
    let release = Arc::new(Notify::new());
    fake.then([Host::HoldsReply(Arc::clone(&release))]);
    let mut late = Box::pin(vault.secret_put("b", b"1".as_slice().into(), None));
    assert!(is_pending(late.as_mut()).await);
    get().await.unwrap();
    release.notify_one();
    late.await.unwrap();
    assert_eq!(fake.inner().hellos, hellos + 1);
}

#[tokio::test(flavor = "current_thread")]
async fn the_number_is_kept_before_it_is_sent() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.inner().events.clear();
    let next = fake.inner().highest + 1;
    vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
    let events = &fake.inner().events;
    let sent = events.iter().position(|event| event == "sent").unwrap();
    assert!(events[..sent].iter().any(|event| event.contains(&format!("\"sequence\":{next}"))), "{events:?}");
    assert!(!events[0].contains("\"value\""), "what is kept is the hash, not the secret");
}

#[tokio::test(flavor = "current_thread")]
async fn requests_in_flight_together_each_get_their_answer() {
    let fake = Fake::new();
    let vault = fake.created().await;
    vault.disconnect();
    let large = vec![7; limits::SECRET_BYTES];
    let puts = (0..40).map(|n| {
        let (vault, value) = (&vault, large.as_slice().into());
        async move { vault.secret_put(&format!("n{n}"), value, None).await }
    });
    for put in futures_util::future::join_all(puts).await {
        put.unwrap();
    }
    assert_eq!(fake.inner().executed.len(), 40);
    assert_eq!(fake.inner().hellos, 2, "one session for all of them");
    assert_eq!(vault.secret_get("n39", None).await.unwrap().value.len(), limits::SECRET_BYTES);
}

/// A host that runs two branches of a vault could have a change done on the one that the device has left behind.
#[tokio::test(flavor = "current_thread")]
async fn a_change_acknowledged_behind_the_newest_head_is_asked_for_again() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let release = Arc::new(Notify::new());
    fake.then([Host::HoldsReply(Arc::clone(&release))]);
    let before = fake.inner().sequences.len();
    let held = vault.secret_put("a", b"1".as_slice().into(), None);
    let newer = async {
        vault.secret_put("b", b"2".as_slice().into(), None).await.unwrap();
        release.notify_one();
    };
    let (held, ()) = tokio::join!(held, newer);
    assert_eq!(held.unwrap(), 1);
    let inner = fake.inner();
    assert_eq!(inner.executed.len(), 2, "each is done once");
    let (a, b) = (inner.sequences[before], inner.sequences[before + 1]);
    assert_eq!(inner.sequences[before..], [a, b, a], "and the one that came late is asked for under the newest head");
    assert_eq!(inner.shown_heads.last().unwrap().unwrap().version, inner.version);
}
