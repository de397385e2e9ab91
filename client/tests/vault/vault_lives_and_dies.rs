//! From its creation, which can be interrupted anywhere, to its deletion, which takes the lock key along.

use std::time::Duration;

use casemate_client::record::Life;
use casemate_client::{Device, Explain, Kind, VaultError, VaultRecord};
use casemate_protocol::error::ErrorCode;

use crate::fake::{Fake, Host, cluster, kept, last_kept};

#[tokio::test(flavor = "current_thread")]
async fn a_creation_that_was_cut_off_is_finished_later() {
    let fake = Fake::new();
    let device = Device::generate().unwrap();
    let record = VaultRecord::begin(&device, "test", cluster()).unwrap();
    let vault = fake.vault_of(device.clone(), record, Duration::from_millis(150));
    fake.then([Host::Honest]);
    fake.then(vec![Host::LosesReply; 100]);
    assert!(matches!(vault.create().await.unwrap_err(), VaultError::OutcomeUnknown));
    assert!(matches!(vault.status().await.unwrap_err(), VaultError::NotCreated));

    // Another process, from what was written down.
    fake.inner().script.clear();
    let again = fake.vault_of(device, last_kept(&fake), Duration::from_secs(5));
    again.create().await.unwrap();
    assert_eq!((again.id(), again.record().life()), (vault.id(), Life::Live));
    assert_eq!(fake.inner().executed.len(), 1);
}

/// As if the power were cut after each time that something was written down.
#[tokio::test(flavor = "current_thread")]
async fn a_creation_can_be_gone_on_with_from_wherever_it_was_cut_off() {
    let fake = Fake::new();
    let device = Device::generate().unwrap();
    let record = VaultRecord::begin(&device, "test", cluster()).unwrap();
    fake.vault_of(device.clone(), record.clone(), Duration::from_secs(5)).create().await.unwrap();
    let kept = kept(&fake);
    assert!(kept.len() >= 2, "the number, the head");
    for record in kept {
        let vault = fake.vault_of(device.clone(), record, Duration::from_secs(5));
        if vault.record().life() == Life::Creating {
            vault.create().await.unwrap();
        }
        vault.status().await.unwrap();
    }
}

#[tokio::test(flavor = "current_thread")]
async fn a_creation_waits_for_a_node_that_remembers_that_there_was_nothing() {
    let fake = Fake::new();
    fake.then([Host::Answers(ErrorCode::NotFound.into())]);
    fake.vault(Duration::from_secs(5)).create().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn deletion_keeps_the_head_and_destroys_the_lock_key() {
    let fake = Fake::new();
    let vault = fake.created().await;
    vault.delete().await.unwrap();
    let kept = last_kept(&fake);
    assert!(kept.lock_key().is_none() && kept.life() == Life::Deleted && kept.head() == Some(fake.head()));
    let error = vault.status().await.unwrap_err();
    assert!(matches!(error, VaultError::Gone) && error.kind() == Kind::NotFound);
}

#[tokio::test(flavor = "current_thread")]
async fn a_host_cannot_make_a_device_destroy_its_lock_key() {
    let fake = Fake::new();
    let vault = fake.created().await;
    let short = fake.vault_of(Device::generate().unwrap(), vault.record(), Duration::from_millis(150));
    fake.then([Host::Honest]);
    fake.then(vec![Host::Answers(ErrorCode::Deleted.into()); 100]);
    assert!(short.delete().await.is_err());
    assert!(last_kept(&fake).lock_key().is_some());
}
