//! A turned lock key is taken over, and the old one is kept until something has opened under the new one.

use std::time::Duration;

use casemate_client::{Device, VaultError, VaultRecord};
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::lock::{LockCopy, copy_info, recipient_tag};
use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeS, Serializable};

use crate::fake::{Fake, cluster};

fn turned(device: &Device, record: &VaultRecord, key: [u8; 32]) -> Refusal {
    let vault = record.vault();
    let recipient = recipient_tag(vault, &device.public_key());
    let public = <X25519HkdfSha256 as Kem>::PublicKey::from_bytes(&device.public_key()).unwrap();
    let (encapsulated, ciphertext) = hpke::single_shot_seal_with_rng::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
        &OpModeS::Base,
        &public,
        &copy_info(vault, 2, &recipient),
        &key,
        &[],
        &mut UnwrapErr(SysRng),
    )
    .unwrap();
    let copy = LockCopy {
        lock_number: 2,
        recipient,
        encapsulated: encapsulated.to_bytes().as_slice().try_into().unwrap(),
        ciphertext: ciphertext.try_into().unwrap(),
    };
    Refusal { lock_copy: Some(Box::new(copy)), ..ErrorCode::LockTurned.into() }
}

fn device_and_record() -> (Device, VaultRecord) {
    let device = Device::generate().unwrap();
    let record = VaultRecord::begin(&device, "test", cluster()).unwrap();
    (device, record)
}

#[tokio::test(flavor = "current_thread")]
async fn the_new_key_is_taken_over() {
    let fake = Fake::new();
    let (device, record) = device_and_record();
    let copy = turned(&device, &record, [42; 32]);
    let vault = fake.vault_of(device, record, Duration::from_secs(5));
    vault.create().await.unwrap();
    {
        let mut inner = fake.inner();
        inner.lock_key = vec![42; 32];
        inner.lock_copy = Some(copy);
        inner.evict();
    }
    vault.status().await.unwrap();
    assert_eq!(*vault.record().lock_key().unwrap().to_secret(), [42; 32]);
    let hellos = fake.inner().hellos;
    vault.disconnect();
    vault.status().await.unwrap();
    assert_eq!(fake.inner().hellos, hellos + 1, "from now on the first try fits");
}

#[tokio::test(flavor = "current_thread")]
async fn a_false_copy_does_not_cost_the_true_key() {
    let fake = Fake::new();
    let (device, record) = device_and_record();
    let false_copy = turned(&device, &record, [66; 32]);
    let vault = fake.vault_of(device, record, Duration::from_secs(5));
    vault.create().await.unwrap();
    let genuine = vault.record().lock_key().cloned();
    let true_key = std::mem::replace(&mut fake.inner().lock_key, vec![1; 32]);
    fake.inner().lock_copy = Some(false_copy);
    fake.inner().evict();
    let error = vault.status().await.unwrap_err();
    assert!(matches!(error, VaultError::LockedOut), "{error}");
    assert_eq!(vault.record().lock_key().cloned(), genuine);

    // The host goes back to the genuine header.
    fake.inner().lock_key = true_key;
    fake.inner().lock_copy = None;
    vault.status().await.unwrap();
}

#[tokio::test(flavor = "current_thread")]
async fn a_revoked_device_is_told() {
    let fake = Fake::new();
    let vault = fake.created().await;
    fake.inner().lock_key = vec![1; 32];
    fake.inner().evict();
    assert!(matches!(vault.status().await.unwrap_err(), VaultError::LockedOut));
}
