//! The image that the key policy names gets keys, enveloped to its own key; nobody else does.

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_kms::operation::generate_data_key::{GenerateDataKeyError, GenerateDataKeyOutput};
use aws_sdk_kms::primitives::Blob;
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use casemate_standins::{DevelopmentAuthority, Forgery};

use crate::world::{Enclave, IMAGE, World, context, exception, now, recipient};

#[tokio::test]
async fn the_named_image_makes_and_unseals_a_key() {
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
    assert_eq!(made.key_id(), Some(world.kms.key_arn()));
    assert_eq!(made.plaintext(), None);
    let key = enclave.open(made.ciphertext_for_recipient().unwrap().as_ref()).unwrap();
    assert_eq!(key.len(), 32);

    // Another enclave of the same image, with a recipient key of its own, unseals the same key.
    let other = Enclave::running(IMAGE);
    let unsealed = world
        .client()
        .decrypt()
        .key_id(world.kms.key_arn())
        .ciphertext_blob(made.ciphertext_blob().unwrap().clone())
        .set_encryption_context(Some(context("0a")))
        .recipient(other.recipient(&world.authority))
        .send()
        .await
        .unwrap();
    assert_eq!(unsealed.key_id(), Some(world.kms.key_arn()));
    assert_eq!(unsealed.plaintext(), None);
    let envelope = unsealed.ciphertext_for_recipient().unwrap().as_ref();
    assert_eq!(other.open(envelope), Some(key));
    assert_eq!(enclave.open(envelope), None);
}

/// What GenerateDataKey answers to this evidence.
async fn asked_with(world: &World, evidence: Option<Vec<u8>>) -> String {
    exception(ask_with(world, evidence).await)
}

/// Why GenerateDataKey refuses this evidence.
async fn told_with(world: &World, evidence: Vec<u8>) -> String {
    let refused = ask_with(world, Some(evidence)).await.expect_err("refused");
    refused.message().unwrap_or_default().to_owned()
}

async fn ask_with(
    world: &World,
    evidence: Option<Vec<u8>>,
) -> Result<GenerateDataKeyOutput, SdkError<GenerateDataKeyError, HttpResponse>> {
    world
        .client()
        .generate_data_key()
        .key_id(world.kms.key_arn())
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context("0a")))
        .set_recipient(evidence.map(recipient))
        .send()
        .await
}

#[tokio::test]
async fn a_refusal_names_the_measurement_that_differs() {
    let world = World::new().await;
    let told =
        async |image: [[u8; 48]; 3]| told_with(&world, world.authority.sign(Enclave::running(image).document)).await;
    let of = |index: usize, found: &str| {
        let wanted = hex::encode(IMAGE[index]);
        format!("; stand-in: PCR{index} is {}, wanted {wanted}", found.repeat(48))
    };
    // Another application: kernel and init are ours.
    let foreign = told([[0xff; 48], IMAGE[1], [0xee; 48]]).await;
    assert!(foreign.ends_with(&format!("{}{}", of(0, "ff"), of(2, "ee"))), "{foreign}");
    let debug = told([[0; 48]; 3]).await;
    assert!(debug.ends_with(&format!("{}{}{}", of(0, "00"), of(1, "00"), of(2, "00"))), "{debug}");
}

#[tokio::test]
async fn no_or_other_evidence_is_denied_by_the_policy() {
    let world = World::new().await;
    assert_eq!(asked_with(&world, None).await, "AccessDeniedException");
    for index in 0..3 {
        let mut image = IMAGE;
        image[index] = [0xff; 48];
        let evidence = world.authority.sign(Enclave::running(image).document);
        assert_eq!(asked_with(&world, Some(evidence)).await, "AccessDeniedException", "PCR{index}");
    }
    let debug = world.authority.sign(Enclave::running([[0; 48]; 3]).document);
    assert_eq!(asked_with(&world, Some(debug)).await, "AccessDeniedException");
}

#[tokio::test]
async fn false_evidence_is_no_evidence() {
    let world = World::new().await;
    let honest = Enclave::running(IMAGE).document;
    let authority = &*world.authority;
    let stranger = DevelopmentAuthority::new();
    let aged = |seconds: u64| {
        let mut document = honest.clone();
        document.timestamp_unix_ms = (now() - seconds) * 1000;
        document
    };
    let mut keyless = honest.clone();
    keyless.public_key = None;
    let mut odd_key = honest.clone();
    odd_key.public_key = Some(vec![7; 294]);
    let changed = Forgery::of(authority, honest.clone()).editing_signed_payload(|payload| payload[40] ^= 1).build();
    let cases = [
        ("another root", stranger.sign(honest.clone())),
        ("changed after signing", changed),
        ("too old", authority.sign(aged(310))),
        ("no key", authority.sign(keyless)),
        ("a key that is none", authority.sign(odd_key)),
        ("nothing", Vec::new()),
        ("noise", vec![0xa5; 4_096]),
    ];
    for (what, evidence) in cases {
        assert_eq!(asked_with(&world, Some(evidence)).await, "ValidationException", "{what}");
    }
    let counts = world.kms.faults().status().counts;
    assert_eq!(counts["GenerateDataKey"]["ValidationException"], 7);
    assert_eq!(asked_with(&world, Some(authority.sign(aged(290)))).await, "none: it was answered");
}

#[tokio::test]
async fn a_ciphertext_opens_only_as_it_was_made() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    let blob = world
        .client()
        .generate_data_key()
        .key_id(world.kms.key_arn())
        .key_spec(DataKeySpec::Aes256)
        .set_encryption_context(Some(context("0a")))
        .recipient(enclave.recipient(&world.authority))
        .send()
        .await
        .unwrap()
        .ciphertext_blob
        .unwrap()
        .into_inner();
    let (kept, last) = world.kms.key_arn().split_at(world.kms.key_arn().len() - 1);
    let other_key = format!("{kept}{}", if last == "0" { "1" } else { "0" });
    let mut changed = blob.clone();
    *changed.last_mut().unwrap() ^= 1;
    let mut foreign = blob.clone();
    foreign[1] ^= 1;
    let cases = [
        ("another shard", blob.clone(), context("0b"), None, "InvalidCiphertextException"),
        ("no context", blob.clone(), std::collections::HashMap::new(), None, "AccessDeniedException"),
        ("changed", changed, context("0a"), None, "InvalidCiphertextException"),
        ("of another key", foreign, context("0a"), None, "AccessDeniedException"),
        ("named as another key's", blob.clone(), context("0a"), Some(other_key), "IncorrectKeyException"),
        ("named by an alias", blob, context("0a"), Some("alias/casemate".to_owned()), "NotFoundException"),
    ];
    for (what, blob, context, key_id, wanted) in cases {
        let answer = world
            .client()
            .decrypt()
            .set_key_id(key_id)
            .ciphertext_blob(Blob::new(blob))
            .set_encryption_context(Some(context))
            .recipient(enclave.recipient(&world.authority))
            .send()
            .await;
        assert_eq!(exception(answer), wanted, "{what}");
    }
}
