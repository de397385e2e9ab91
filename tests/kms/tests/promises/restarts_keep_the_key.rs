//! After a restart everything still unseals: same key, same authority, new server certificate.

use aws_sdk_kms::types::DataKeySpec;

use crate::world::{Enclave, IMAGE, World, context};

#[tokio::test]
async fn what_was_sealed_before_a_restart_unseals_after_it() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    let made = world
        .client()
        .generate_data_key()
        .key_id(world.kms.key_arn())
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context("0a")))
        .recipient(enclave.recipient(&world.authority))
        .send()
        .await
        .unwrap();
    let key = enclave.open(made.ciphertext_for_recipient().unwrap().as_ref()).unwrap();
    let (arn, ca) = (world.kms.key_arn().to_owned(), world.kms.ca_der().to_vec());

    let world = world.restarted().await;
    assert_eq!(world.kms.key_arn(), arn);
    assert_eq!(world.kms.ca_der(), ca);
    assert_eq!(std::fs::read(world.kms.ca_path()).unwrap(), ca);
    let unsealed = world
        .client()
        .decrypt()
        .key_id(&arn)
        .ciphertext_blob(made.ciphertext_blob().unwrap().clone())
        .set_encryption_context(Some(context("0a")))
        .recipient(enclave.recipient(&world.authority))
        .send()
        .await
        .unwrap();
    assert_eq!(enclave.open(unsealed.ciphertext_for_recipient().unwrap().as_ref()), Some(key));
}
