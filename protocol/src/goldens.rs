//! One sample of every message and its bytes, so that two builds that disagree about a byte are found here and not in the field.
//!
//! `golden.txt` holds a line `name hex` for each. A change of a line is a change of the protocol: it needs a new version or a new
//! optional field.

use std::time::Duration;

use crate::codec::encode;
use crate::error::{ErrorCode, Refusal};
use crate::frame::{DeviceFrame, SealedRun, VaultFrame};
use crate::head::Head;
use crate::health::EnclaveHealth;
use crate::id::VaultId;
use crate::link::{
    AttestReply, AttestRequest, BlobCall, BlobReply, Class, ControlCall, ControlReply, Hello, HelloReply, KeyObject,
    LogEvent, LogLevel, LogRecord, RelayTarget, RequestCall, RequestReply, Tuning, VersionObject,
};
use crate::lock::LockCopy;
use crate::object::{Header, Kind};
use crate::reply::{Answer, AuditEntry, AuditEvent, KeyEntry, Outcome, Reply, SecretEntry, VaultStatus};
use crate::request::{KeyAlgorithm, KeyPolicy, Operation, Request};
use crate::resident::{VaultInfo, VaultsBy};
use crate::secret::Secret;
use crate::session::Opening;
use crate::stage::StageTimes;
use crate::statement::{Credentials, Statement};
use crate::trust::{ReleaseKey, TrustConfiguration};

fn vault() -> VaultId {
    VaultId::from_bytes([1; 20])
}

fn head() -> Head {
    Head { version: 7, hash: [8; 32], tag: [9; 32] }
}

fn copy() -> LockCopy {
    LockCopy { lock_number: 1, recipient: [5; 16], encapsulated: [6; 32], ciphertext: [7; 48] }
}

fn name() -> String {
    "name".to_owned()
}

fn secret() -> Secret {
    Secret::new(vec![1, 2, 3])
}

fn key_entry() -> KeyEntry {
    let policy = KeyPolicy { exportable: true, audit_use: false };
    KeyEntry { name: name(), algorithm: KeyAlgorithm::P256, policy, created_at: 10, public: Some(vec![4; 65]) }
}

fn secret_entry() -> SecretEntry {
    SecretEntry { name: name(), revision: 2, bytes: 3, written_at: 10 }
}

fn operations() -> Vec<(&'static str, Operation)> {
    let policy = KeyPolicy::default();
    vec![
        ("status", Operation::Status),
        ("create_vault", Operation::CreateVault { salt: [1; 16], device_name: name(), device_signing_key: [2; 32] }),
        ("delete_vault", Operation::DeleteVault),
        ("accept_rollback", Operation::AcceptRollback { held: head(), found: head(), signature: [3; 64] }),
        ("secret_put", Operation::SecretPut { name: name(), value: secret(), expected_revision: Some(1) }),
        ("secret_get", Operation::SecretGet { name: name(), revision: None }),
        ("secret_list", Operation::SecretList { prefix: name(), after: Some(name()) }),
        ("secret_delete", Operation::SecretDelete { name: name(), expected_revision: None }),
        ("secret_history", Operation::SecretHistory { name: name() }),
        ("key_generate", Operation::KeyGenerate { name: name(), algorithm: KeyAlgorithm::Ed25519, policy }),
        (
            "key_import",
            Operation::KeyImport { name: name(), algorithm: KeyAlgorithm::X25519, policy, material: secret() },
        ),
        ("key_list", Operation::KeyList { after: None }),
        ("key_public", Operation::KeyPublic { name: name() }),
        ("key_sign", Operation::KeySign { name: name(), message: secret() }),
        ("key_verify", Operation::KeyVerify { name: name(), message: secret(), signature: vec![4; 64] }),
        ("key_agree", Operation::KeyAgree { name: name(), peer: vec![5; 32] }),
        ("key_encrypt", Operation::KeyEncrypt { name: name(), plaintext: secret(), associated: vec![6] }),
        ("key_decrypt", Operation::KeyDecrypt { name: name(), ciphertext: vec![7; 30], associated: vec![] }),
        ("key_mac", Operation::KeyMac { name: name(), message: secret() }),
        ("key_delete", Operation::KeyDelete { name: name() }),
        ("key_export", Operation::KeyExport { name: name() }),
        ("audit", Operation::Audit { after: Some(5) }),
    ]
}

fn answers() -> Vec<(&'static str, Answer)> {
    let status = VaultStatus {
        created_at: 1,
        secrets: 2,
        keys: 3,
        devices: 4,
        used_bytes: 5,
        limit_bytes: 6,
        lock_number: 7,
        key_generation: 8,
        audit_entries: 9,
    };
    let audit = AuditEntry {
        number: 1,
        at: 2,
        version: 3,
        device: [4; 16],
        event: AuditEvent::KeyUsed,
        subject: Some(name()),
        hash: [5; 32],
    };
    vec![
        ("nothing", Answer::Nothing),
        ("status", Answer::Status(status)),
        ("written", Answer::Written { revision: 2 }),
        ("secret", Answer::Secret { value: secret(), revision: 2, written_at: 10 }),
        ("secrets", Answer::Secrets { entries: vec![secret_entry()], more: true }),
        ("history", Answer::History { entries: vec![secret_entry()] }),
        ("key", Answer::Key(key_entry())),
        ("keys", Answer::Keys { entries: vec![key_entry()], more: false }),
        ("signature", Answer::Signature(vec![6; 64])),
        ("verified", Answer::Verified(true)),
        ("bytes", Answer::Bytes(secret())),
        ("ciphertext", Answer::Ciphertext(vec![7; 30])),
        ("audit", Answer::Audit { entries: vec![audit], more: false, before: [8; 32] }),
    ]
}

fn link() -> Vec<(&'static str, Vec<u8>)> {
    let hello = Hello {
        min: 1,
        max: 1,
        build: name(),
        boot_id: [1; 16],
        class: Class::Relay,
        relay: Some(RelayTarget { host: name(), port: 443 }),
    };
    // As an older enclave tells it, and as this one does.
    let info = VaultInfo {
        vault: vault(),
        state: name(),
        in_flight: 1,
        idle_ms: 2,
        pid: 3,
        memory_bytes: 65_536,
        queued: None,
        lately: None,
        latency_us: None,
    };
    let used = VaultInfo { queued: Some(4), lately: Some(8), latency_us: Some(512), ..info.clone() };
    let stages = vec![StageTimes { counts: vec![1, 0, 2], sum_us: 70 }];
    let timed = EnclaveHealth { stages, ..EnclaveHealth::default() };
    let version = VersionObject { version: 7, bytes: vec![1; 8] };
    let configure = ControlCall::Configure { trust_configuration: vec![1; 8], tuning: Tuning::default() };
    let session_token = Some(secret());
    let credentials = ControlCall::Credentials { access_key_id: name(), secret_access_key: secret(), session_token };
    let loaded = BlobReply::Loaded {
        versions: vec![version.clone()],
        keys: vec![KeyObject { generation: 1, bytes: vec![2; 8] }],
    };
    let log = LogRecord { level: LogLevel::Warn, event: LogEvent::ManagerCrashed, value: Some(9), dropped: 0 };
    vec![
        ("hello", encode(&hello)),
        ("hello_reply", encode(&HelloReply { version: Some(1), build: name(), refused: None })),
        ("request_vault", encode(&RequestCall::Vault { vault: vault(), deadline_ms: 10_000, frame: vec![1; 8] })),
        ("request_attest", encode(&RequestCall::Attest { nonce: vec![2; 16] })),
        ("reply_frame", encode(&RequestReply::Frame(vec![3; 8]))),
        ("reply_evidence", encode(&RequestReply::Evidence(vec![4; 8]))),
        ("reply_refused", encode(&RequestReply::Refused(Refusal::retry(ErrorCode::Busy, 50)))),
        ("attest_request", encode(&AttestRequest { nonce: vec![5; 16] })),
        (
            "attest_reply",
            encode(&AttestReply {
                platform: 0,
                evidence: vec![1; 8],
                trust_configuration: vec![2; 8],
                identity: [3; 32],
                refused: None,
            }),
        ),
        ("blob_load", encode(&BlobCall::Load(vault()))),
        ("blob_newest", encode(&BlobCall::Newest(vault()))),
        ("blob_get", encode(&BlobCall::Get { path: name(), limit: 1024 })),
        ("blob_create", encode(&BlobCall::Create { path: name(), bytes: vec![6; 8] })),
        ("blob_delete", encode(&BlobCall::Delete { paths: vec![name()] })),
        ("blob_versions", encode(&BlobCall::Versions(vault()))),
        ("blob_loaded", encode(&loaded)),
        ("blob_newest_reply", encode(&BlobReply::Newest(Some(version)))),
        ("blob_object", encode(&BlobReply::Object(None))),
        ("blob_created", encode(&BlobReply::Created)),
        ("blob_exists", encode(&BlobReply::Exists)),
        ("blob_deleted", encode(&BlobReply::Deleted)),
        ("blob_versions_reply", encode(&BlobReply::Versions(vec![1, 2]))),
        ("blob_failed", encode(&BlobReply::Failed(name()))),
        ("control_configure", encode(&configure)),
        ("control_credentials", encode(&credentials)),
        ("control_health", encode(&ControlCall::Health)),
        ("control_vaults", encode(&ControlCall::Vaults { by: None, limit: None })),
        ("control_vaults_by", encode(&ControlCall::Vaults { by: Some(VaultsBy::Latency), limit: Some(50) })),
        ("control_evict", encode(&ControlCall::Evict(vault()))),
        ("control_drain", encode(&ControlCall::Drain)),
        ("control_done", encode(&ControlReply::Done)),
        ("control_health_reply", encode(&ControlReply::Health(Box::default()))),
        ("control_health_stages", encode(&ControlReply::Health(Box::new(timed)))),
        ("control_vaults_reply", encode(&ControlReply::Vaults(vec![info]))),
        ("control_vaults_used", encode(&ControlReply::Vaults(vec![used]))),
        ("control_refused", encode(&ControlReply::Refused(ErrorCode::Busy, name()))),
        ("log", encode(&log)),
    ]
}

pub(crate) fn all() -> Vec<(&'static str, Vec<u8>)> {
    let run = || SealedRun { counter: 5, ciphertext: vec![1; 40] };
    let deadline = Duration::from_secs(10);
    let statement = Statement { vault: vault(), static_key: [4; 32], not_after: 5, signature: [6; 64] };
    let credentials = Credentials {
        platform: 0,
        evidence: vec![1; 8],
        trust_configuration: vec![2; 8],
        identity: [3; 32],
        statement,
    };
    let header = Header {
        format: 1,
        vault: vault(),
        version: 3,
        previous: [2; 32],
        salt: [3; 16],
        root_commitment: [4; 32],
        key_generation: 1,
        lock_number: 1,
        copies: vec![copy()],
        kind: Kind::Delta,
        base: 1,
    };
    let trust =
        TrustConfiguration { format: 1, kms_key_arn: name(), region: name(), release_keys: vec![ReleaseKey([7; 32])] };
    let turned = Refusal { lock_copy: Some(Box::new(copy())), ..Refusal::new(ErrorCode::LockTurned) };
    let opening = Opening { lock_key: secret(), head: Some(head()), first_request: Some(secret()) };
    let mut all = vec![
        ("frame_hello", DeviceFrame::Hello { noise: vec![1; 32] }.encode(deadline)),
        ("frame_finish", DeviceFrame::Finish { session: [2; 16], noise: vec![1; 40] }.encode(deadline)),
        ("frame_sealed", DeviceFrame::Sealed { session: [2; 16], run: run() }.encode(deadline)),
        ("frame_welcome", VaultFrame::Welcome { session: [2; 16], noise: vec![1; 40] }.encode().to_vec()),
        ("frame_reply", VaultFrame::Sealed { run: run() }.encode().to_vec()),
        ("frame_refused", VaultFrame::Refused(Refusal::retry(ErrorCode::Busy, 50)).encode().to_vec()),
        ("credentials", encode(&credentials)),
        ("opening", encode(&opening)),
        ("trust_configuration", encode(&trust)),
        ("object_header", header.encode_prefix()),
        (
            "reply_refused_sealed",
            encode(&Reply { request_hash: [1; 32], head: None, outcome: Outcome::Refused(turned) }),
        ),
    ];
    all.extend(
        operations()
            .into_iter()
            .map(|(name, operation)| (name, encode(&Request { sequence: Some(3), head: Some(head()), operation }))),
    );
    all.extend(answers().into_iter().map(|(name, answer)| {
        (name, encode(&Reply { request_hash: [1; 32], head: Some(head()), outcome: Outcome::Done(answer) }))
    }));
    all.extend(link());
    all
}

#[test]
fn bytes_are_golden() {
    let lines: Vec<_> = all().into_iter().map(|(name, bytes)| format!("{name} {}", hex::encode(bytes))).collect();
    let golden: Vec<_> = include_str!("golden.txt").lines().collect();
    for (found, wanted) in lines.iter().zip(&golden) {
        assert_eq!(found, wanted);
    }
    assert_eq!(lines.len(), golden.len(), "every message has its line:\n{}", lines.join("\n"));
}

#[test]
fn samples_decode_to_themselves() {
    for (name, bytes) in all() {
        let taken = crate::fuzz::parsers(&bytes);
        // A header alone is no object.
        assert!(taken || name == "object_header", "{name}");
    }
}
