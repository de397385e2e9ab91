//! A vault in memory, with a host in between that does what a test tells it.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use casemate_client::outside::unix_now;
use casemate_client::record::Life;
use casemate_client::trust::{ClusterText, Measurements, SelfBuilt, TrustFile};
use casemate_client::vault::VaultParts;
use casemate_client::{Device, Keep, Roots, Transport, TransportError, Trust, Vault, VaultOptions, VaultRecord};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, VaultFrame};
use casemate_protocol::head::{Head, HeadKey};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::reply::{Answer, Outcome, Reply, VaultStatus};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::session::{Channel, Responder, public_key};
use casemate_protocol::statement::{Credentials, Statement};
use casemate_protocol::trust::{ClusterId, TrustConfiguration, node_user_data};
use casemate_standins::{DevelopmentAuthority, SimulatedDocument};
use ed25519_dalek::{Signer, SigningKey};

const STATIC: [u8; 32] = [12; 32];
pub(crate) const PCRS: [[u8; 48]; 3] = [[1; 48], [2; 48], [3; 48]];

/// What the host does with one frame from the device.
#[derive(Debug, Clone)]
pub(crate) enum Host {
    /// Carries it over and the answer back.
    Honest,
    /// Loses it.
    LosesRequest,
    /// Carries it over and loses the answer.
    LosesReply,
    /// Carries it over at once, and the answer back when it is told to.
    HoldsReply(Arc<tokio::sync::Notify>),
    /// Answers by itself; the frame never arrives.
    Answers(Refusal),
    /// Carries it over, and answers something else.
    Replaces(Refusal),
    /// The vault itself refuses, inside the session.
    VaultRefuses(Refusal),
}

/// How the node misrepresents itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lie {
    None,
    OtherMeasurements,
    DebugEnclave,
    StaleEvidence,
    OtherRoot,
    OtherCluster,
    EvidenceOfAnotherNode,
    StatementOfAnotherVault,
    StatementOfAnotherKey,
    StatementBySomebodyElse,
    StatementEnded,
}

pub(crate) enum Half {
    Begun(Box<Responder>),
    Open(Box<Channel>),
}

pub(crate) struct Inner {
    pub(crate) script: VecDeque<Host>,
    pub(crate) lie: Lie,
    pub(crate) lock_key: Vec<u8>,
    pub(crate) lock_copy: Option<Refusal>,
    pub(crate) exists: bool,
    pub(crate) version: u64,
    pub(crate) branch: u8,
    pub(crate) secrets: HashMap<String, (Vec<u8>, u64)>,
    pub(crate) outcomes: HashMap<u64, ([u8; 32], Outcome)>,
    pub(crate) highest: u64,
    /// Below all numbers that it remembers the outcomes of.
    pub(crate) forgotten_below: u64,
    pub(crate) executed: Vec<Operation>,
    pub(crate) sequences: Vec<u64>,
    pub(crate) shown_heads: Vec<Option<Head>>,
    pub(crate) hellos: usize,
    pub(crate) finishes: usize,
    pub(crate) events: Vec<String>,
    sessions: HashMap<[u8; 16], Half>,
}

/// The vault, its node and its host.
#[derive(Clone)]
pub(crate) struct Fake {
    inner: Arc<Mutex<Inner>>,
    authority: Arc<DevelopmentAuthority>,
    impostor: Arc<DevelopmentAuthority>,
    identity: SigningKey,
}

fn configuration(region: &str) -> Vec<u8> {
    codec::encode(&TrustConfiguration {
        format: 1,
        kms_key_arn: format!("arn:aws:kms:{region}:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab"),
        region: region.to_owned(),
        release_keys: Vec::new(),
    })
}

pub(crate) fn cluster() -> ClusterId {
    ClusterId::of(&configuration("us-east-1"))
}

impl Fake {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            script: VecDeque::new(),
            lie: Lie::None,
            lock_key: Vec::new(),
            lock_copy: None,
            exists: false,
            version: 0,
            branch: 0,
            secrets: HashMap::new(),
            outcomes: HashMap::new(),
            highest: 0,
            forgotten_below: 0,
            executed: Vec::new(),
            sequences: Vec::new(),
            shown_heads: Vec::new(),
            hellos: 0,
            finishes: 0,
            events: Vec::new(),
            sessions: HashMap::new(),
        };
        Self {
            inner: Arc::new(Mutex::new(inner)),
            authority: Arc::new(DevelopmentAuthority::new()),
            impostor: Arc::new(DevelopmentAuthority::new()),
            identity: SigningKey::from_bytes(&[33; 32]),
        }
    }

    pub(crate) fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap()
    }

    pub(crate) fn then(&self, hosts: impl IntoIterator<Item = Host>) {
        self.inner().script.extend(hosts);
    }

    pub(crate) fn roots(&self) -> Roots {
        Roots::of(self.authority.anchor())
    }

    pub(crate) fn head(&self) -> Head {
        self.inner().head()
    }

    /// A device that trusts this node, and a vault that it begins.
    pub(crate) fn vault(&self, deadline: Duration) -> Vault<Fake, Fake> {
        let device = Device::generate().unwrap();
        let record = VaultRecord::begin(&device, "test", cluster()).unwrap();
        self.vault_of(device, record, deadline)
    }

    pub(crate) fn vault_of(&self, device: Device, record: VaultRecord, deadline: Duration) -> Vault<Fake, Fake> {
        self.vault_with(device, record, VaultOptions { deadline, ..VaultOptions::default() })
    }

    pub(crate) fn vault_with(&self, device: Device, record: VaultRecord, options: VaultOptions) -> Vault<Fake, Fake> {
        let mut trust = Trust::default();
        let [pcr0, pcr1, pcr2] = PCRS;
        let image = SelfBuilt { name: "test".to_owned(), measurements: Measurements { pcr0, pcr1, pcr2 } };
        let file = TrustFile { cluster: ClusterText(cluster().0), images: vec![image], releases: Vec::new() };
        trust.add(&file, &self.roots()).unwrap();
        let parts = VaultParts {
            transport: self.clone(),
            keeper: self.clone(),
            device,
            roots: Arc::new(self.roots()),
            trust,
            options,
        };
        Vault::new(parts, record)
    }

    /// A vault that was created already.
    pub(crate) async fn created(&self) -> Vault<Fake, Fake> {
        let vault = self.vault(Duration::from_secs(5));
        vault.create().await.unwrap();
        assert_eq!(vault.record().life(), Life::Live);
        self.inner().executed.clear();
        vault
    }

    fn credentials(&self, vault: VaultId, lie: Lie) -> Credentials {
        let now = unix_now();
        let region = if lie == Lie::OtherCluster { "eu-west-1" } else { "us-east-1" };
        let trust_configuration = configuration(region);
        let identity = self.identity.verifying_key().to_bytes();
        let bound = if lie == Lie::EvidenceOfAnotherNode { [1; 32] } else { identity };
        let mut pcrs = PCRS;
        match lie {
            Lie::OtherMeasurements => pcrs[2] = [9; 48],
            Lie::DebugEnclave => pcrs = [[0; 48]; 3],
            _ => {}
        }
        let made = if lie == Lie::StaleEvidence { now - 2 * 3600 - 60 } else { now };
        let mut document = SimulatedDocument::measuring(pcrs, made * 1000);
        document.user_data = Some(node_user_data(&bound, ClusterId::of(&trust_configuration)).to_vec());
        document.public_key = Some(bound.to_vec());
        let authority = if lie == Lie::OtherRoot { &self.impostor } else { &self.authority };

        let vault = if lie == Lie::StatementOfAnotherVault { VaultId::from_bytes([1; 20]) } else { vault };
        let static_key = public_key(if lie == Lie::StatementOfAnotherKey { &[13; 32] } else { &STATIC });
        let not_after = if lie == Lie::StatementEnded { now - 1 } else { now + 600 };
        let signer =
            if lie == Lie::StatementBySomebodyElse { SigningKey::from_bytes(&[1; 32]) } else { self.identity.clone() };
        let signature = signer.sign(&Statement::signed_bytes(vault, &static_key, not_after)).to_bytes();
        let statement = Statement { vault, static_key, not_after, signature };
        Credentials { platform: 0, evidence: authority.sign(document), trust_configuration, identity, statement }
    }

    fn answer(&self, subject: &str, payload: &[u8], refuses: Option<Refusal>) -> VaultFrame {
        let vault = casemate_protocol::subject::Subjects::default().parse_vault(subject).unwrap();
        let mut inner = self.inner();
        match DeviceFrame::decode(payload).unwrap() {
            DeviceFrame::Hello { noise } => {
                inner.hellos += 1;
                let credentials = self.credentials(vault, inner.lie);
                let (responder, noise) = Responder::welcome(&STATIC, vault, &noise, &credentials).unwrap();
                let session = [u8::try_from(inner.hellos).unwrap(); 16];
                inner.sessions.insert(session, Half::Begun(Box::new(responder)));
                VaultFrame::Welcome { session, noise }
            }
            DeviceFrame::Finish { session, noise } => {
                inner.finishes += 1;
                let Some(Half::Begun(responder)) = inner.sessions.remove(&session) else {
                    return VaultFrame::Refused(ErrorCode::SessionUnknown.into());
                };
                let (_, opening, channel) = responder.finish(&noise).unwrap();
                let mut channel = Box::new(channel);
                let request = opening.first_request.as_ref();
                let request = request.map(|bytes| codec::decode::<Request>(bytes, limits::FRAME_BYTES).unwrap());
                if !inner.exists {
                    inner.lock_key = opening.lock_key.to_vec();
                }
                let reply = if *opening.lock_key == *inner.lock_key {
                    inner.reply(request, refuses)
                } else {
                    let turned = inner.lock_copy.clone().unwrap_or(ErrorCode::LockTurned.into());
                    Reply { request_hash: [0; 32], head: None, outcome: Outcome::Refused(turned) }
                };
                let run = channel.seal(&codec::encode_secret(&reply)).unwrap();
                inner.sessions.insert(session, Half::Open(channel));
                VaultFrame::Sealed { run }
            }
            DeviceFrame::Sealed { session, run } => {
                let Some(Half::Open(mut channel)) = inner.sessions.remove(&session) else {
                    return VaultFrame::Refused(ErrorCode::SessionUnknown.into());
                };
                let request: Request = codec::decode(&channel.open(&run).unwrap(), limits::FRAME_BYTES).unwrap();
                let reply = inner.reply(Some(request), refuses);
                let run = channel.seal(&codec::encode_secret(&reply)).unwrap();
                inner.sessions.insert(session, Half::Open(channel));
                VaultFrame::Sealed { run }
            }
        }
    }
}

impl Inner {
    pub(crate) fn head(&self) -> Head {
        let mut hash = [self.branch; 32];
        hash[..8].copy_from_slice(&self.version.to_be_bytes());
        HeadKey::derive(&[1; 32]).tag(VaultId::from_bytes([0; 20]), self.version, hash)
    }

    /// Forgets every session, as an eviction does.
    pub(crate) fn evict(&mut self) {
        self.sessions.clear();
    }

    fn reply(&mut self, request: Option<Request>, refuses: Option<Refusal>) -> Reply {
        let Some(request) = request else {
            return Reply { request_hash: [0; 32], head: Some(self.head()), outcome: Outcome::Done(Answer::Nothing) };
        };
        let hash = request_hash(request.sequence, &request.operation);
        self.shown_heads.push(request.head);
        let outcome = match refuses {
            Some(refusal) => Outcome::Refused(refusal),
            None => self.execute(&request, hash),
        };
        Reply { request_hash: hash, head: self.exists.then(|| self.head()), outcome }
    }

    fn execute(&mut self, request: &Request, hash: [u8; 32]) -> Outcome {
        let refused = |code: ErrorCode| Outcome::Refused(code.into());
        if !self.exists && !matches!(request.operation, Operation::CreateVault { .. }) {
            return refused(ErrorCode::NotFound);
        }
        if let Some(shown) = request.head {
            match shown.version.cmp(&self.version) {
                std::cmp::Ordering::Greater => return refused(ErrorCode::RollbackDetected),
                std::cmp::Ordering::Equal if shown != self.head() => return refused(ErrorCode::ForkDetected),
                _ => {}
            }
        }
        if let Some(sequence) = request.sequence {
            self.sequences.push(sequence);
            match self.outcomes.get(&sequence) {
                Some((known, outcome)) if *known == hash => return outcome.clone(),
                Some(_) => return Outcome::Refused(Refusal::field(ErrorCode::InvalidArgument, "sequence")),
                None if sequence < self.forgotten_below => return refused(ErrorCode::OutcomeUnknown),
                None if sequence <= self.highest => return refused(ErrorCode::Superseded),
                None => self.highest = sequence,
            }
        }
        self.executed.push(request.operation.clone());
        let outcome = Outcome::Done(match &request.operation {
            Operation::CreateVault { .. } if self.exists => return refused(ErrorCode::AlreadyExists),
            Operation::CreateVault { .. } => {
                self.exists = true;
                self.version += 1;
                Answer::Nothing
            }
            Operation::SecretPut { name, value, .. } => {
                self.version += 1;
                let revision = self.secrets.get(name).map_or(0, |(_, revision)| *revision) + 1;
                self.secrets.insert(name.clone(), (value.to_vec(), revision));
                Answer::Written { revision }
            }
            Operation::SecretGet { name, .. } => match self.secrets.get(name) {
                Some((value, revision)) => {
                    Answer::Secret { value: value.as_slice().into(), revision: *revision, written_at: 1 }
                }
                None => return refused(ErrorCode::NotFound),
            },
            Operation::KeySign { message, .. } => Answer::Signature(message.to_vec()),
            Operation::Status => Answer::Status(VaultStatus {
                created_at: 1,
                secrets: self.secrets.len() as u64,
                keys: 0,
                devices: 1,
                used_bytes: 1,
                limit_bytes: 2,
                lock_number: 1,
                key_generation: 1,
                audit_entries: 1,
            }),
            Operation::AcceptRollback { .. } | Operation::DeleteVault => {
                self.version += 1;
                Answer::Nothing
            }
            other => panic!("not played here: {other:?}"),
        });
        if let Some(sequence) = request.sequence {
            self.outcomes.insert(sequence, (hash, outcome.clone()));
        }
        outcome
    }
}

impl Transport for Fake {
    async fn request(&self, subject: String, payload: Bytes, within: Duration) -> Result<Bytes, TransportError> {
        let host = {
            let mut inner = self.inner();
            inner.events.push("sent".to_owned());
            inner.script.pop_front().unwrap_or(Host::Honest)
        };
        let late = within.min(Duration::from_millis(20));
        match host {
            Host::Honest => Ok(self.answer(&subject, &payload, None).encode()),
            Host::VaultRefuses(refusal) => Ok(self.answer(&subject, &payload, Some(refusal)).encode()),
            Host::Answers(refusal) => Ok(VaultFrame::Refused(refusal).encode()),
            Host::Replaces(refusal) => {
                self.answer(&subject, &payload, None);
                Ok(VaultFrame::Refused(refusal).encode())
            }
            Host::LosesRequest => {
                tokio::time::sleep(late).await;
                Err(TransportError::TimedOut)
            }
            Host::HoldsReply(release) => {
                let answer = self.answer(&subject, &payload, None).encode();
                release.notified().await;
                Ok(answer)
            }
            Host::LosesReply => {
                self.answer(&subject, &payload, None);
                tokio::time::sleep(late).await;
                Err(TransportError::TimedOut)
            }
        }
    }
}

impl Keep for Fake {
    fn keep_vault(&self, record: &VaultRecord) -> Result<(), casemate_client::home::HomeError> {
        let text = serde_json::to_string(record).unwrap();
        self.inner().events.push(format!("kept {text}"));
        Ok(())
    }

    fn keep_release(&self, number: u64) -> Result<(), casemate_client::home::HomeError> {
        self.inner().events.push(format!("kept release {number}"));
        Ok(())
    }
}

/// The record each time that it was written down.
pub(crate) fn kept(fake: &Fake) -> Vec<VaultRecord> {
    let texts = fake.inner().events.clone();
    let texts = texts.iter().filter_map(|event| event.strip_prefix("kept ").filter(|text| text.starts_with('{')));
    texts.map(|text| serde_json::from_str(text).unwrap()).collect()
}

/// The record as it was last written down.
pub(crate) fn last_kept(fake: &Fake) -> VaultRecord {
    kept(fake).pop().unwrap()
}
