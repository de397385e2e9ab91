//! A lost answer is asked for again under the same number, and nothing is ever done twice.

use std::pin::Pin;
use std::sync::Arc;
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
