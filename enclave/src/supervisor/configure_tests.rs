use std::sync::Mutex as StdMutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use casemate_protocol::codec;
use casemate_protocol::trust::node_user_data;

use super::*;
use crate::outside::{BoxFuture, EvidenceRequest, Measurements, Stream};
use crate::supervisor::fakes::ManualClock;
use crate::supervisor::identity::Identity;
use crate::system::OsRandomness;

/// Remembers what was done to it; its evidence is the request's text. Its clock may be behind, or ahead, by seconds.
#[derive(Debug, Default)]
struct Module(StdMutex<Vec<String>>, AtomicU64, AtomicU64);

impl SecurityModule for Module {
    fn measurements(&self) -> Result<Measurements, ModuleError> {
        Ok(Measurements { pcrs: [[1; 48]; 3] })
    }

    fn attest(&self, request: EvidenceRequest) -> Result<Vec<u8>, ModuleError> {
        let hex = |bytes: Option<Vec<u8>>| hex::encode(bytes.unwrap_or_default());
        Ok(format!("{} {} {}", hex(request.user_data), hex(request.public_key), hex(request.nonce)).into_bytes())
    }

    fn extend(&self, index: u16, data: &[u8]) -> Result<Vec<u8>, ModuleError> {
        self.0.lock().unwrap().push(format!("extend {index} {}", hex::encode(data)));
        Ok(Vec::new())
    }

    fn lock(&self, index: u16) -> Result<(), ModuleError> {
        self.0.lock().unwrap().push(format!("lock {index}"));
        Ok(())
    }

    fn unix_ms(&self) -> Result<Option<u64>, ModuleError> {
        let (behind, ahead) = (self.1.load(Ordering::SeqCst), self.2.load(Ordering::SeqCst));
        Ok(Some((ManualClock::default().unix_seconds() + ahead - behind) * 1000))
    }

    fn random(&self, _: &mut [u8]) -> Result<(), ModuleError> {
        Ok(())
    }
}

#[derive(Debug)]
struct NoRelay;

impl Relay for NoRelay {
    fn dial<'a>(&'a self, _: &'a str, _: u16) -> BoxFuture<'a, std::io::Result<Box<dyn Stream>>> {
        Box::pin(async { Err(std::io::Error::from(std::io::ErrorKind::ConnectionRefused)) })
    }
}

fn configuration(region: &str) -> Vec<u8> {
    let key = "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
    codec::encode(&TrustConfiguration {
        format: 1,
        kms_key_arn: key.to_owned(),
        region: region.to_owned(),
        release_keys: Vec::new(),
    })
}

fn configurator() -> (Configurator, Arc<Module>, mpsc::Receiver<Command>) {
    configurator_by(Arc::new(ManualClock::default()))
}

fn configurator_by(clock: Arc<ManualClock>) -> (Configurator, Arc<Module>, mpsc::Receiver<Command>) {
    let module = Arc::new(Module::default());
    let randomness = Arc::new(OsRandomness);
    let measurements = module.measurements().unwrap();
    let identity = Identity::generate(&*randomness);
    let node = Node::new(module.clone(), clock.clone(), identity, measurements);
    let (commands, receiver) = mpsc::channel(8);
    let parts = ConfiguratorParts {
        node: Arc::new(node),
        module: module.clone(),
        clock: clock.clone(),
        randomness,
        store: LinkStore::new().0,
        relay: Arc::new(NoRelay),
        endpoint: Arc::new(Endpoint::aws),
        credentials: CredentialCell::default(),
        keys: Arc::default(),
        commands,
        ready: Arc::default(),
        log: Log::new(clock),
    };
    (Configurator::new(parts), module, receiver)
}

#[tokio::test]
async fn the_first_configuration_is_locked_for_good() {
    let (configurator, module, mut commands) = configurator();
    let bytes = configuration("us-east-1");
    configurator.configure(bytes.clone(), Tuning::default()).await.unwrap();
    let id = ClusterId::of(&bytes);
    assert_eq!(*module.0.lock().unwrap(), [format!("extend 16 {id}"), "lock 16".to_owned()]);
    assert!(matches!(commands.recv().await, Some(Command::Tune(_))));
    assert_eq!(configurator.parts.node.cluster().unwrap().id, id);

    // The parent came back: the same again is fine, and changes the tuning only.
    configurator.configure(bytes.clone(), Tuning { vault_limit: 5, ..Tuning::default() }).await.unwrap();
    assert!(matches!(commands.recv().await, Some(Command::Tune(tuning)) if tuning.vault_limit == 5));
    let mut other: TrustConfiguration = TrustConfiguration::decode(&bytes).unwrap();
    other.release_keys.push(casemate_protocol::trust::ReleaseKey([1; 32]));
    let refused = configurator.configure(codec::encode(&other), Tuning::default()).await;
    assert!(matches!(refused, Err(ConfigureError::Other)));
    assert_eq!(module.0.lock().unwrap().len(), 2);
    assert_eq!(configurator.parts.node.cluster().unwrap().id, id);
}

#[tokio::test]
async fn what_makes_no_sense_locks_nothing() {
    let (configurator, module, _commands) = configurator();
    let malformed = configurator.configure(vec![1, 2, 3], Tuning::default()).await;
    assert!(matches!(malformed, Err(ConfigureError::Malformed(_))));
    let region = configurator.configure(configuration("eu-west-1"), Tuning::default()).await;
    assert!(matches!(region, Err(ConfigureError::Region)));
    assert!(module.0.lock().unwrap().is_empty());
    assert!(configurator.parts.node.cluster().is_none() && configurator.key_service().is_none());
}

#[tokio::test]
async fn evidence_binds_identity_cluster_and_nonce() {
    let (configurator, _module, _commands) = configurator();
    let node = Arc::clone(&configurator.parts.node);
    assert!(node.renew_evidence().await.is_err(), "not before it has a cluster");
    let bytes = configuration("us-east-1");
    configurator.configure(bytes.clone(), Tuning::default()).await.unwrap();
    let reply = node.attest_for(vec![9; 16]).await.unwrap();
    let user_data = node_user_data(&reply.identity, ClusterId::of(&bytes));
    let expected = format!("{} {} {}", hex::encode(user_data), hex::encode(reply.identity), hex::encode([9; 16]));
    assert_eq!(String::from_utf8(reply.evidence).unwrap(), expected);
    node.renew_evidence().await.unwrap();
    let credentials = node.credentials(casemate_protocol::id::VaultId::from_bytes([5; 20]), [6; 32]).unwrap();
    assert_eq!((credentials.identity, credentials.trust_configuration), (reply.identity, bytes));
    assert_eq!(credentials.statement.static_key, [6; 32]);
}

#[tokio::test]
async fn evidence_is_not_made_by_a_clock_that_is_not_believed() {
    let (configurator, module, _commands) = configurator();
    let node = Arc::clone(&configurator.parts.node);
    configurator.configure(configuration("us-east-1"), Tuning::default()).await.unwrap();
    node.renew_evidence().await.unwrap();
    // The module's clock went on while this machine's stood, or the other way round.
    module.1.store(61, Ordering::SeqCst);
    let refused = node.renew_evidence().await.unwrap_err();
    assert!(matches!(refused, EvidenceError::Clock(ClockError::Apart { .. })), "{refused}");
    // What there is may be used until its life ends.
    assert!(node.credentials(casemate_protocol::id::VaultId::from_bytes([5; 20]), [6; 32]).is_some());
    module.1.store(60, Ordering::SeqCst);
    node.renew_evidence().await.unwrap();
}

#[tokio::test]
async fn a_clock_that_jumps_ends_the_evidence_until_it_is_back_or_the_module_agrees() {
    let clock = Arc::new(ManualClock::default());
    let (configurator, module, _commands) = configurator_by(Arc::clone(&clock));
    let node = Arc::clone(&configurator.parts.node);
    configurator.configure(configuration("us-east-1"), Tuning::default()).await.unwrap();
    node.renew_evidence().await.unwrap();
    clock.advance(Duration::from_mins(10));
    assert!(!node.clock_has_jumped() && node.evidence_age() == Some(Duration::from_mins(10)));
    for seconds in [3600, -3600, 61, -61] {
        clock.1.store(seconds, Ordering::SeqCst);
        assert!(node.clock_has_jumped() && node.evidence_age().is_none(), "{seconds}");
        assert!(node.credentials(casemate_protocol::id::VaultId::from_bytes([5; 20]), [6; 32]).is_none());
        assert!(matches!(node.attest_for(vec![9; 16]).await, Err(EvidenceError::Jumped)), "{seconds}");
    }
    for seconds in [60, -60, 0] {
        clock.1.store(seconds, Ordering::SeqCst);
        assert!(!node.clock_has_jumped() && node.evidence_age().is_some(), "{seconds}");
        assert!(node.attest_for(vec![9; 16]).await.is_ok(), "{seconds}");
    }
    // It was set right: the module says the same.
    clock.1.store(3600, Ordering::SeqCst);
    assert!(node.renew_evidence().await.is_err());
    module.2.store(3600 + 600, Ordering::SeqCst);
    node.renew_evidence().await.unwrap();
    assert!(!node.clock_has_jumped() && node.evidence_age().is_some());
}

#[tokio::test]
async fn evidence_is_renewed_by_the_clock_by_which_it_ages() {
    let clock = Arc::new(ManualClock::default());
    let (configurator, module, _commands) = configurator_by(Arc::clone(&clock));
    let node = Arc::clone(&configurator.parts.node);
    configurator.configure(configuration("us-east-1"), Tuning::default()).await.unwrap();
    let become_old = async |age: Duration| {
        let end = Instant::now() + Duration::from_secs(10);
        while node.evidence_age() != Some(age) {
            assert!(Instant::now() < end, "{:?} instead of {age:?}", node.evidence_age());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    become_old(Duration::ZERO).await;
    let last = Duration::from_secs(1);
    let almost = EVIDENCE_RENEWED_AFTER.saturating_sub(last);
    clock.advance(almost);
    tokio::time::sleep(CLOCK_LOOKED_AT + Duration::from_millis(200)).await;
    assert_eq!(node.evidence_age(), Some(almost));
    // Time has passed for the module, too.
    module.2.store(EVIDENCE_RENEWED_AFTER.as_secs(), Ordering::SeqCst);
    clock.advance(last);
    become_old(Duration::ZERO).await;
}

#[test]
fn strange_times_are_brought_into_bounds() {
    let tuning = Tuning { shard_key_ttl_ms: u64::MAX, shard_key_hard_ms: 0, ..Tuning::default() };
    let policy = policy(&tuning);
    assert!(policy.ttl <= policy.hard_limit && policy.hard_limit <= Duration::from_hours(24));
}
