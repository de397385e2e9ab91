//! A host that ends the session itself shows evidence which is not its own, is old, or is of another kind than a device believes.

use std::time::Duration;

use casemate_attestation::{DebugSign, Refusal, Register};
use casemate_client::judge::{Distrust, Grounds};
use casemate_client::outside::unix_now;
use casemate_client::session::Greeting;
use casemate_client::{Roots, Trust};
use casemate_e2e::Node;
use casemate_e2e::hostile::{Host, Owner, Puppet};
use casemate_enclave::supervisor::identity::Identity;
use casemate_enclave::system::OsRandomness;
use casemate_protocol::frame::{DeviceFrame, VaultFrame};
use casemate_protocol::session::{Responder, public_key};
use casemate_protocol::statement::Credentials;
use casemate_protocol::trust::{ClusterId, node_user_data};
use casemate_standins::{DevelopmentAuthority, SimulatedDocument};

const PATIENCE: Duration = Duration::from_secs(20);
/// The host's own session key.
const STATIC: [u8; 32] = [13; 32];

/// What the node shows to the vault's owner.
fn genuine(host: &Host, owner: &Owner) -> Credentials {
    let mut anybody = Puppet::new();
    anybody.vault = owner.id();
    anybody.greet(host).1
}

/// Plays the vault with these credentials, under the host's own session key.
fn distrust(owner: &Owner, credentials: &Credentials, now: u64) -> Distrust {
    let (greeting, hello) = Greeting::start(owner.device().static_secret(), owner.id());
    let DeviceFrame::Hello { noise } = hello else { panic!("a hello") };
    let (_, noise) = Responder::welcome(&STATIC, owner.id(), &noise, credentials).unwrap();
    let welcome = VaultFrame::Welcome { session: [1; 16], noise }.encode();
    owner.judge(greeting, &welcome, now).expect_err("not believed")
}

/// What the real node answers, judged at another time.
fn judged_at(host: &Host, owner: &Owner, now: u64) -> Result<(), Distrust> {
    let (greeting, hello) = Greeting::start(owner.device().static_secret(), owner.id());
    let welcome = host.carry(owner.id(), &hello.encode(casemate_protocol::limits::DEADLINE_DEFAULT)).encode();
    owner.judge(greeting, &welcome, now).map(drop)
}

/// An identity of the host's, and a statement of it that names the host's session key.
fn own_statement(owner: &Owner, credentials: Credentials) -> Credentials {
    let identity = Identity::generate(&OsRandomness);
    let statement = identity.state(owner.id(), public_key(&STATIC), unix_now());
    Credentials { identity: identity.public(), statement, ..credentials }
}

#[test]
fn evidence_of_another_node_speaks_for_nobody_else() {
    let mut host = Host::start();
    let (owner, neighbour) = (host.owner(), host.owner());
    let now = unix_now();
    let former = genuine(&host, &owner);
    assert_eq!(judged_at(&host, &owner, now), Ok(()));
    // Another boot is another node: of the same image and cluster, with an identity of its own.
    host.restart_enclave();
    let present = genuine(&host, &owner);
    assert_ne!(former.identity, present.identity);
    // Replayed in whole, by somebody without the session's key.
    assert_eq!(distrust(&owner, &former, now), Distrust::StatementKey);
    assert_eq!(distrust(&owner, &present, now), Distrust::StatementKey);
    // One node's evidence with another's identity, and with the host's own.
    let mixed = Credentials { evidence: former.evidence.clone(), ..present.clone() };
    for credentials in [mixed, own_statement(&owner, present.clone())] {
        let distrust = distrust(&owner, &credentials, now);
        assert!(
            matches!(distrust, Distrust::Evidence(Refusal::UserData { .. } | Refusal::PublicKey { .. })),
            "{distrust}"
        );
    }
    // The host's statement under the node's identity; the node's statement for another vault.
    let signed_by_the_host = Credentials { identity: present.identity, ..own_statement(&owner, present.clone()) };
    assert_eq!(distrust(&owner, &signed_by_the_host, now), Distrust::StatementSignature);
    let of_the_neighbour = genuine(&host, &neighbour);
    assert_eq!(distrust(&owner, &of_the_neighbour, now), Distrust::StatementVault(neighbour.id()));
    owner.is_served();
}

#[test]
fn evidence_has_its_time() {
    let host = Host::start();
    let owner = host.owner();
    let now = unix_now();
    let hours = |hours: u64| now + hours * 3600;
    assert_eq!(judged_at(&host, &owner, now), Ok(()));
    let old = judged_at(&host, &owner, hours(2) + 60).unwrap_err();
    assert!(matches!(old, Distrust::Evidence(Refusal::TooOld { .. })), "{old}");
    let expired = judged_at(&host, &owner, hours(4)).unwrap_err();
    assert!(matches!(expired, Distrust::Evidence(Refusal::Chain(_) | Refusal::TooOld { .. })), "{expired}");
    let early = judged_at(&host, &owner, now - 3600).unwrap_err();
    assert!(matches!(early, Distrust::Evidence(Refusal::Chain(_) | Refusal::FromTheFuture { .. })), "{early}");
    owner.is_served();
}

#[test]
fn evidence_of_another_kind_is_no_evidence() {
    let host = Host::start();
    let owner = host.owner();
    let now = unix_now();
    let genuine = genuine(&host, &owner);
    let measured: Vec<[u8; 48]> = host.health().measurements.chunks(48).map(|pcr| pcr.try_into().unwrap()).collect();
    let measured: [[u8; 48]; 3] = measured.try_into().unwrap();
    let authority = DevelopmentAuthority::load(&host.node.path("authority")).unwrap();
    // The host's own node, of whatever measurements: it binds identity and cluster as a genuine one does.
    let own = own_statement(&owner, genuine);
    let cluster = ClusterId::of(&own.trust_configuration);
    let shows = |authority: &DevelopmentAuthority, measurements| {
        let mut document = SimulatedDocument::measuring(measurements, now * 1000);
        document.user_data = Some(node_user_data(&own.identity, cluster).to_vec());
        document.public_key = Some(own.identity.to_vec());
        Credentials { evidence: authority.sign(document), ..own.clone() }
    };
    let debug = distrust(&owner, &shows(&authority, [[0; 48]; 3]), now);
    assert!(matches!(debug, Distrust::Evidence(Refusal::Debug { sign: DebugSign::ZeroPcr(0) })), "{debug}");
    let [pcr0, pcr1, _] = measured;
    let half = distrust(&owner, &shows(&authority, [pcr0, pcr1, [0; 48]]), now);
    assert!(matches!(half, Distrust::Evidence(Refusal::Debug { sign: DebugSign::ZeroPcr(2) })), "{half}");
    let other = distrust(&owner, &shows(&authority, [pcr0, pcr1, [9; 48]]), now);
    assert!(matches!(other, Distrust::Evidence(Refusal::Measurement { register: Register::Pcr(2), .. })), "{other}");
    // Another run's development root, and no root at all.
    let root = distrust(&owner, &shows(&DevelopmentAuthority::new(), measured), now);
    assert!(matches!(root, Distrust::Evidence(Refusal::Chain(_))), "{root}");
    let unsigned = distrust(&owner, &Credentials { evidence: vec![0x84; 64], ..own.clone() }, now);
    assert!(matches!(unsigned, Distrust::Evidence(_)), "{unsigned}");
    let oversize = distrust(&owner, &Credentials { evidence: vec![0; 16 * 1024 + 1], ..own.clone() }, now);
    assert_eq!(oversize, Distrust::EvidenceTooLarge);
    let platform = distrust(&owner, &Credentials { platform: 1, ..own.clone() }, now);
    assert_eq!(platform, Distrust::Platform(1));
    owner.is_served();
}

#[test]
fn what_a_release_trusts_believes_no_development_evidence() {
    let host = Host::start();
    let owner = host.owner();
    let credentials = genuine(&host, &owner);
    let mut trust = Trust::default();
    let roots = Roots::released();
    trust.add(&host.trust_file(), &roots).unwrap();
    let grounds = Grounds { roots: &roots, trust: &trust, now: unix_now() };
    let statement = credentials.statement.clone();
    let judged = grounds.judge_vault(&credentials, &statement.static_key, owner.id(), trust.cluster().unwrap());
    let distrust = judged.unwrap_err();
    assert!(matches!(distrust, Distrust::Evidence(Refusal::Chain(_))), "{distrust}");
    // The same credentials under the root of this run: that alone makes the difference.
    let roots = host.roots();
    let grounds = Grounds { roots: &roots, trust: &trust, now: unix_now() };
    grounds.judge_vault(&credentials, &statement.static_key, owner.id(), trust.cluster().unwrap()).unwrap();
}

#[test]
fn an_enclave_in_debug_mode_does_not_run() {
    if casemate_e2e::guest::hides_processes() {
        return;
    }
    let mut node = Node::prepare("");
    // What a debug-mode enclave measures as.
    let zero = "0".repeat(96);
    let measurements = format!(r#"{{"pcr0":"{zero}","pcr1":"{zero}","pcr2":"{zero}"}}"#);
    std::fs::write(node.path("authority/measurements.json"), measurements).unwrap();
    node.start_nats();
    node.start_kms();
    node.start_parent();
    node.start_enclave();
    let enclave = node.enclave.as_mut().unwrap();
    enclave.await_ready(PATIENCE, "it refused", |enclave| enclave.log().contains("runs in debug mode").then_some(()));
    assert_eq!(node.health().unwrap().0, 503);
}
