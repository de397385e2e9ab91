//! A device that has seen a newer state is not shown an older one.

use casemate_client::{Explain, Kind, VaultError};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::request::{Operation, accept_rollback_bytes};

use crate::fake::{Fake, Host, last_kept};

#[tokio::test(flavor = "current_thread")]
async fn every_request_shows_the_newest_head_and_every_answer_moves_it() {
    let fake = Fake::new();
    let vault = fake.created().await;
    for _ in 0..3 {
        let held = vault.record().head();
        vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
        assert_eq!(fake.inner().shown_heads.last(), Some(&held));
        assert_eq!((vault.record().head(), last_kept(&fake).head()), (Some(fake.head()), Some(fake.head())));
    }
}

#[tokio::test(flavor = "current_thread")]
async fn an_honest_vault_over_old_objects_says_so() {
    let fake = Fake::new();
    let vault = fake.created().await;
    vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
    fake.inner().version -= 1;
    let error = vault.secret_get("a", None).await.unwrap_err();
    assert!(matches!(&error, VaultError::Rollback(heads) if heads.found == Some(fake.head())), "{error}");
    assert_eq!(error.kind(), Kind::Rollback);
}

#[tokio::test(flavor = "current_thread")]
async fn a_compromised_vault_that_stays_silent_is_caught_by_the_device() {
    let fake = Fake::new();
    let vault = fake.created().await;
    vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
    let held = vault.record().head();
    fake.inner().version -= 1;
    // Any outcome but a truthful one: the reply's head gives it away.
    fake.then([Host::VaultRefuses(ErrorCode::Conflict.into())]);
    assert!(matches!(vault.secret_get("a", None).await.unwrap_err(), VaultError::Rollback(_)));
    fake.inner().version += 1;
    fake.inner().branch = 1;
    fake.then([Host::VaultRefuses(ErrorCode::Conflict.into())]);
    assert!(matches!(vault.secret_get("a", None).await.unwrap_err(), VaultError::Fork(_)));
    assert_eq!(vault.record().head(), held, "nothing of it is believed");
}

#[tokio::test(flavor = "current_thread")]
async fn a_vault_that_was_seen_does_not_vanish() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.then([Host::Answers(ErrorCode::NotFound.into())]);
    let error = vault.status().await.unwrap_err();
    assert!(matches!(&error, VaultError::Rollback(heads) if heads.found.is_none()), "said outside: {error}");
    fake.inner().exists = false;
    let error = vault.status().await.unwrap_err();
    assert!(matches!(&error, VaultError::Rollback(heads) if heads.found.is_none()), "said inside: {error}");
}

#[tokio::test(flavor = "current_thread")]
async fn a_name_that_is_not_there_is_no_rollback() {
    let fake = Fake::new();
    let vault = fake.created().await;
    assert_eq!(vault.secret_get("none", None).await.unwrap_err().kind(), Kind::NotFound);
}

#[tokio::test(flavor = "current_thread")]
async fn a_person_may_accept_an_honest_restore() {
    let fake = Fake::new();
    let vault = fake.created().await;
    assert_eq!(vault.find_contradiction().await.unwrap(), None);
    for _ in 0..3 {
        vault.secret_put("a", b"1".as_slice().into(), None).await.unwrap();
    }
    fake.inner().version = 2;
    let (held, found) = vault.find_contradiction().await.unwrap().unwrap();
    assert_eq!((held.version, found), (4, fake.head()));
    vault.accept_rollback(held, found).await.unwrap();
    let executed = fake.inner().executed.last().cloned().unwrap();
    let Operation::AcceptRollback { held: signed_held, found: signed_found, signature } = executed else { panic!() };
    assert_eq!((signed_held, signed_found), (held, found));
    assert!(!accept_rollback_bytes(vault.id(), &held, &found).is_empty() && signature != [0; 64]);
    assert_eq!(vault.record().head(), Some(fake.head()));
    assert_eq!(vault.record().head().unwrap().version, 3);
    vault.secret_put("b", b"1".as_slice().into(), None).await.unwrap();
}
