//! Callers whom the service does not know, callers who may not use the key, and ways around the evidence.

use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::{DataKeySpec, GrantOperation};

use crate::world::{ACCESS_KEY, ADMIN_ACCESS_KEY, Enclave, IMAGE, SECRET_KEY, TOKEN, World, context, exception};

#[tokio::test]
async fn only_known_signatures_are_heard() {
    let world = World::new().await;
    let cases = [
        (ACCESS_KEY, SECRET_KEY, Some(TOKEN), "none: it was answered"),
        (ACCESS_KEY, "another secret", Some(TOKEN), "InvalidSignatureException"),
        (ACCESS_KEY, SECRET_KEY, None, "UnrecognizedClientException"),
        (ACCESS_KEY, SECRET_KEY, Some("another token"), "UnrecognizedClientException"),
        ("AKIDNOBODY", SECRET_KEY, Some(TOKEN), "UnrecognizedClientException"),
    ];
    for (access_key, secret_key, token, wanted) in cases {
        let client = world.client_as(access_key, secret_key, token);
        assert_eq!(exception(client.describe_key().key_id(world.kms.key_arn()).send().await), wanted, "{token:?}");
    }
}

#[tokio::test]
async fn the_administrator_describes_the_key_and_cannot_use_it() {
    let world = World::new().await;
    let admin = world.client_as(ADMIN_ACCESS_KEY, SECRET_KEY, None);
    let described = admin.describe_key().key_id(world.kms.key_arn()).send().await.unwrap();
    let metadata = described.key_metadata().unwrap();
    assert_eq!(metadata.arn(), Some(world.kms.key_arn()));
    assert!(metadata.enabled());
    // Not even with an enclave's own evidence.
    let answer = admin
        .generate_data_key()
        .key_id(world.kms.key_arn())
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context("0a")))
        .recipient(Enclave::running(IMAGE).recipient(&world.authority))
        .send()
        .await;
    assert_eq!(exception(answer), "AccessDeniedException");
}

#[tokio::test]
async fn the_ways_around_the_evidence_are_denied() {
    let world = World::new().await;
    let key = world.kms.key_arn();
    for client in [world.client(), world.client_as(ADMIN_ACCESS_KEY, SECRET_KEY, None)] {
        let encrypt = client.encrypt().key_id(key).plaintext(Blob::new("x"));
        let encrypt = encrypt.set_encryption_context(Some(context("0a"))).send().await;
        assert_eq!(exception(encrypt), "AccessDeniedException");
        let re_encrypt = client.re_encrypt().ciphertext_blob(Blob::new("x")).destination_key_id(key).send().await;
        assert_eq!(exception(re_encrypt), "AccessDeniedException");
        let grant = client.create_grant().key_id(key).grantee_principal("arn:aws:iam::111122223333:role/other");
        let grant = grant.operations(GrantOperation::Decrypt).send().await;
        assert_eq!(exception(grant), "AccessDeniedException");
        let without = client.generate_data_key_without_plaintext().key_id(key).key_spec(DataKeySpec::Aes256);
        assert_eq!(exception(without.send().await), "AccessDeniedException");
    }
    let answer = world.client().list_keys().send().await;
    assert_eq!(exception(answer), "UnknownOperationException");
}

#[tokio::test]
async fn a_request_is_checked_before_it_is_done() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    let ask = || {
        let call = world.client().generate_data_key().key_id(world.kms.key_arn());
        call.set_encryption_context(Some(context("0a"))).recipient(enclave.recipient(&world.authority))
    };
    assert_eq!(exception(ask().send().await), "ValidationException");
    assert_eq!(exception(ask().number_of_bytes(1_025).send().await), "ValidationException");
    let both = ask().number_of_bytes(32).key_spec(DataKeySpec::Aes256);
    assert_eq!(exception(both.send().await), "ValidationException");
    assert_eq!(exception(ask().number_of_bytes(32).grant_tokens("t").send().await), "InvalidGrantTokenException");
    assert_eq!(exception(ask().number_of_bytes(32).dry_run(true).send().await), "DryRunOperationException");
    assert_eq!(exception(ask().number_of_bytes(32).key_id("alias/other").send().await), "NotFoundException");
    let large = ask().number_of_bytes(32).encryption_context("k", "v".repeat(70_000));
    assert_eq!(exception(large.send().await), "RequestEntityTooLargeException");
    assert_eq!(exception(ask().number_of_bytes(32).send().await), "none: it was answered");
}
