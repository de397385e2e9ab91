//! The control socket: each fault is what it says, ends when told, and is counted.

use std::time::{Duration, Instant};

use aws_sdk_kms::error::SdkError;
use aws_sdk_kms::operation::generate_data_key::{GenerateDataKeyError, GenerateDataKeyOutput};
use aws_sdk_kms::types::DataKeySpec;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use casemate_standin_kms::cms::Shape;
use casemate_standin_kms::control::{Command, send};
use casemate_standin_kms::fault::{Mode, Status};

use crate::world::{Enclave, IMAGE, World, context, exception};

async fn tell(world: &World, command: Command) -> Status {
    send(world.kms.control_socket(), command).await.expect("the control socket answers")
}

async fn ask(
    world: &World,
    enclave: &Enclave,
) -> Result<GenerateDataKeyOutput, SdkError<GenerateDataKeyError, HttpResponse>> {
    let call = world.client().generate_data_key().key_id(world.kms.key_arn()).key_spec(DataKeySpec::Aes256);
    let call = call.set_encryption_context(Some(context("0a"))).recipient(enclave.recipient(&world.authority));
    call.send().await
}

#[tokio::test]
async fn refusals_last_as_long_as_told() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    tell(&world, Command::Throttle { times: Some(1) }).await;
    assert_eq!(exception(ask(&world, &enclave).await), "ThrottlingException");
    ask(&world, &enclave).await.unwrap();
    let status = tell(&world, Command::Fail { times: None }).await;
    assert_eq!(status.mode, Mode::Fail);
    for _ in 0..2 {
        let error = ask(&world, &enclave).await.unwrap_err();
        assert_eq!(error.raw_response().unwrap().status().as_u16(), 500);
        assert_eq!(exception::<(), _>(Err(error)), "KMSInternalException");
    }
    tell(&world, Command::Healthy).await;
    ask(&world, &enclave).await.unwrap();

    let counts = tell(&world, Command::Counts).await.counts;
    assert_eq!(counts["GenerateDataKey"]["ok"], 2);
    assert_eq!(counts["GenerateDataKey"]["ThrottlingException"], 1);
    assert_eq!(counts["GenerateDataKey"]["KMSInternalException"], 2);
}

#[tokio::test]
async fn lies_are_told_one_at_a_time() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    let envelope = |answer: &GenerateDataKeyOutput| answer.ciphertext_for_recipient().unwrap().as_ref().to_vec();

    tell(&world, Command::Plaintext { times: Some(1) }).await;
    let answer = ask(&world, &enclave).await.unwrap();
    let key = enclave.open(&envelope(&answer)).unwrap();
    assert_ne!(answer.plaintext().unwrap().as_ref(), key, "the real key is not given away");

    tell(&world, Command::WrongKeyId { times: Some(1) }).await;
    let answer = ask(&world, &enclave).await.unwrap();
    assert_ne!(answer.key_id(), Some(world.kms.key_arn()));
    assert!(enclave.open(&envelope(&answer)).is_some());

    tell(&world, Command::SwapRecipient { times: Some(1) }).await;
    let answer = ask(&world, &enclave).await.unwrap();
    assert_eq!(answer.key_id(), Some(world.kms.key_arn()));
    assert_eq!(enclave.open(&envelope(&answer)), None);

    tell(&world, Command::Garbage { times: Some(1) }).await;
    assert!(matches!(ask(&world, &enclave).await, Err(SdkError::ResponseError(_) | SdkError::ServiceError(_))));

    tell(&world, Command::Cms { shape: Shape::Der }).await;
    let der = envelope(&ask(&world, &enclave).await.unwrap());
    assert_eq!(der[..2], [0x30, 0x82]);
    tell(&world, Command::Cms { shape: Shape::Ber }).await;
    assert_eq!(envelope(&ask(&world, &enclave).await.unwrap())[..2], [0x30, 0x80]);
}

#[tokio::test]
async fn it_can_be_slow_and_go_away() {
    let world = World::new().await;
    let enclave = Enclave::running(IMAGE);
    tell(&world, Command::Delay { milliseconds: 300 }).await;
    let before = Instant::now();
    ask(&world, &enclave).await.unwrap();
    assert!(before.elapsed() >= Duration::from_millis(300));

    // A request under way is cut off too.
    tell(&world, Command::Delay { milliseconds: 60_000 }).await;
    let (cut, status) = tokio::join!(ask(&world, &enclave), async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        tell(&world, Command::Away).await
    });
    assert!(matches!(cut, Err(SdkError::DispatchFailure(_))), "{cut:?}");
    assert_eq!(status.mode, Mode::Away);
    assert!(matches!(ask(&world, &enclave).await, Err(SdkError::DispatchFailure(_))));

    tell(&world, Command::Healthy).await;
    ask(&world, &enclave).await.unwrap();
}
