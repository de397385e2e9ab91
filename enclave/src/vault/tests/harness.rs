//! A supervisor, a store and devices around one machine, all in memory.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::Duration;

use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, SessionId, VaultFrame};
use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::VersionObject;
use casemate_protocol::object::{Kind, Object};
use casemate_protocol::reply::{Answer, Outcome, Reply};
use casemate_protocol::request::{Operation, Request, request_hash};
use casemate_protocol::secret::Secret;
use casemate_protocol::session::{Channel, Initiator, Opening, public_key};
use casemate_protocol::statement::{Credentials, Statement};

use crate::ipc::{CommitResult, FromManager, Newest, Notice, ToManager};
use crate::outside::{Clock, Randomness};
use crate::vault::manager::Manager;
use crate::vault::parking::ParkingSecret;

#[derive(Debug, Default)]
pub(crate) struct TestClock(Mutex<Duration>);

impl TestClock {
    pub(crate) fn advance(&self, time: Duration) {
        *self.0.lock().unwrap() += time;
    }
}

impl Clock for TestClock {
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap()
    }

    fn unix_seconds(&self) -> u64 {
        1_800_000_000 + self.monotonic().as_secs()
    }
}

/// Counts instead of drawing: every byte string differs, and runs repeat.
#[derive(Debug, Default)]
pub(crate) struct CountingRandomness(Mutex<u64>);

impl Randomness for CountingRandomness {
    fn fill(&self, out: &mut [u8]) {
        for chunk in out.chunks_mut(32) {
            let mut counter = self.0.lock().unwrap();
            *counter += 1;
            let block = casemate_protocol::label::hash("test", &[&counter.to_be_bytes()]);
            chunk.copy_from_slice(&block[..chunk.len()]);
        }
    }
}

/// What all machines of one zygote have in common.
#[derive(Debug)]
struct TheSame;

impl Randomness for TheSame {
    fn fill(&self, out: &mut [u8]) {
        out.fill(0x2b);
    }
}

pub(crate) const VAULT_KEY: [u8; 32] = [0x5a; 32];

/// What the simulated store holds of one vault. Shared by the managers that run over it.
#[derive(Debug, Default, Clone)]
pub(crate) struct Store {
    pub(crate) versions: BTreeMap<u64, Vec<u8>>,
    pub(crate) key_made: bool,
}

impl Store {
    fn newest(&self) -> Option<VersionObject> {
        self.versions.last_key_value().map(|(version, bytes)| VersionObject { version: *version, bytes: bytes.clone() })
    }

    pub(crate) fn load(&self) -> Vec<VersionObject> {
        let newest_snapshot = self
            .versions
            .iter()
            .rev()
            .find(|(_, bytes)| Object::parse(bytes).is_ok_and(|object| object.header.kind == Kind::Snapshot));
        let from = newest_snapshot.map_or(0, |(version, _)| *version);
        let range = self.versions.range(from..);
        range.map(|(version, bytes)| VersionObject { version: *version, bytes: bytes.clone() }).collect()
    }
}

/// One machine with its supervisor.
pub(crate) struct Node<'a> {
    pub(crate) manager: Manager<'a>,
    pub(crate) vault: VaultId,
    pub(crate) store: &'a RefCell<Store>,
    static_key: [u8; 32],
    pub(crate) replies: BTreeMap<u64, VaultFrame>,
    pub(crate) notices: Vec<Notice>,
    pub(crate) commits: Vec<(u64, Vec<u8>)>,
    pub(crate) collected: Option<u64>,
    /// Whether commits are stored and reported at once.
    pub(crate) auto_commit: bool,
    /// Whether what an opening reads is handed over at once.
    pub(crate) auto_open: bool,
    opening: Option<Vec<VersionObject>>,
    pub(crate) parked: Option<Vec<u8>>,
    pub(crate) parked_whole: bool,
    pub(crate) opens: u32,
    pub(crate) resumes: u32,
    pub(crate) refuses_to_open: Option<ErrorCode>,
    next_id: u64,
}

impl<'a> Node<'a> {
    fn unstarted(
        vault: VaultId,
        store: &'a RefCell<Store>,
        clock: &'a TestClock,
        randomness: &'a CountingRandomness,
    ) -> Self {
        Self {
            manager: Manager::new(clock, randomness, ParkingSecret::random(&TheSame)),
            vault,
            store,
            static_key: [0; 32],
            replies: BTreeMap::new(),
            notices: Vec::new(),
            commits: Vec::new(),
            collected: None,
            auto_commit: true,
            auto_open: true,
            opening: None,
            parked: None,
            parked_whole: false,
            opens: 0,
            resumes: 0,
            refuses_to_open: None,
            next_id: 0,
        }
    }

    pub(crate) fn start(
        vault: VaultId,
        store: &'a RefCell<Store>,
        clock: &'a TestClock,
        randomness: &'a CountingRandomness,
    ) -> Self {
        let mut node = Self::unstarted(vault, store, clock, randomness);
        let newest = store.borrow().newest().map_or(Newest::None, Newest::Shown);
        node.tell(ToManager::Start { vault, newest, versions_kept: 2, generation: 1, parked: None });
        node
    }

    /// A machine that goes on with what another one of the same zygote has parked.
    pub(crate) fn resume(
        vault: VaultId,
        store: &'a RefCell<Store>,
        clock: &'a TestClock,
        randomness: &'a CountingRandomness,
        parked: Vec<u8>,
        newest: Newest,
    ) -> Self {
        let mut node = Self::unstarted(vault, store, clock, randomness);
        node.tell(ToManager::Start { vault, newest, versions_kept: 2, generation: 1, parked: Some(parked) });
        node
    }

    pub(crate) fn tell(&mut self, message: ToManager) {
        self.manager.handle(message);
        self.drain();
    }

    fn drain(&mut self) {
        loop {
            let out = self.manager.take_output();
            if out.is_empty() {
                return;
            }
            for message in out {
                self.serve(message);
            }
        }
    }

    fn serve(&mut self, message: FromManager) {
        match message {
            FromManager::Ready { static_key } => self.static_key = static_key,
            FromManager::Reply { id, frame } => {
                let frame = VaultFrame::decode(&frame).unwrap();
                assert!(self.replies.insert(id, frame).is_none(), "exactly one reply for {id}");
            }
            FromManager::Open { create } => {
                self.opens += 1;
                if let Some(code) = self.refuses_to_open {
                    self.manager.handle(ToManager::OpenRefused(code.into()));
                    return;
                }
                let versions = self.store.borrow().load();
                let made = self.store.borrow().key_made;
                if !made && !create {
                    self.manager.handle(ToManager::OpenRefused(ErrorCode::NotFound.into()));
                    return;
                }
                self.store.borrow_mut().key_made = true;
                self.opening = Some(versions);
                if self.auto_open {
                    self.finish_open();
                }
            }
            FromManager::Commit { version, object } => {
                self.commits.push((version, object));
                if self.auto_commit {
                    self.finish_commit();
                }
            }
            FromManager::Collect { below } => {
                self.collected = Some(below);
                self.store.borrow_mut().versions.retain(|version, _| *version >= below);
            }
            FromManager::Purge { tombstone } => {
                self.store.borrow_mut().versions.retain(|version, _| *version >= tombstone);
            }
            FromManager::Noticed(notice) => self.notices.push(notice),
            FromManager::Parked { sealed, is_whole } => {
                self.parked = Some(sealed);
                self.parked_whole = is_whole;
            }
            FromManager::Resume => self.resumes += 1,
        }
    }

    /// Whether the process ever asked for its vault to be opened.
    pub(crate) const fn has_asked_to_open(&self) -> bool {
        self.opens + self.resumes > 0
    }

    /// Hands over what the opening that is on its way has read.
    pub(crate) fn finish_open(&mut self) {
        let versions = self.opening.take().expect("an opening is on its way");
        let vault_key = Secret::new(VAULT_KEY.to_vec());
        self.tell(ToManager::Opened { vault_key, generation: 1, versions });
    }

    /// Stores the commit that is on its way, as the real supervisor would, and reports it.
    pub(crate) fn finish_commit(&mut self) {
        let (version, object) = self.commits.last().cloned().expect("a commit is on its way");
        let existing = self.store.borrow().versions.get(&version).cloned();
        let result = match existing {
            None => {
                self.store.borrow_mut().versions.insert(version, object);
                CommitResult::Committed
            }
            Some(bytes) if bytes == object => CommitResult::Committed,
            Some(_) => CommitResult::OtherWriter,
        };
        self.tell(ToManager::CommitResult(result));
    }

    /// Sends a frame; returns its number.
    pub(crate) fn send(&mut self, frame: &DeviceFrame) -> u64 {
        self.next_id += 1;
        let credentials = matches!(frame, DeviceFrame::Hello { .. }).then(|| {
            let statement =
                Statement { vault: self.vault, static_key: self.static_key, not_after: u64::MAX, signature: [0; 64] };
            Box::new(Credentials {
                platform: 0,
                evidence: vec![1; 4000],
                trust_configuration: vec![2; 100],
                identity: [3; 32],
                statement,
            })
        });
        let id = self.next_id;
        let frame = frame.encode(Duration::from_secs(10));
        self.tell(ToManager::Request { id, deadline_ms: 10_000, frame, credentials });
        id
    }
}

/// A device with its own view of the vault.
#[derive(Debug)]
pub(crate) struct Device {
    secret: [u8; 32],
    pub(crate) vault: VaultId,
    pub(crate) lock_key: [u8; 32],
    pub(crate) head: Option<Head>,
    pub(crate) sequence: u64,
    pub(crate) channel: Option<(SessionId, Channel)>,
    pub(crate) signing: ed25519_dalek::SigningKey,
}

pub(crate) const SALT: [u8; 16] = [7; 16];

impl Device {
    pub(crate) fn owner() -> Self {
        let secret = [21; 32];
        let vault = VaultId::derive(&public_key(&secret), &SALT);
        Self::with(secret, vault)
    }

    pub(crate) fn with(secret: [u8; 32], vault: VaultId) -> Self {
        let signing = ed25519_dalek::SigningKey::from_bytes(&[22; 32]);
        Self { secret, vault, lock_key: [23; 32], head: None, sequence: 0, channel: None, signing }
    }

    /// The same device, in a program of its own that has no session yet.
    pub(crate) fn clone_at(&self, node: &Node<'_>) -> Self {
        let mut twin = Self::with(self.secret, node.vault);
        twin.sequence = self.sequence + 100;
        twin.head = self.head;
        twin
    }

    pub(crate) fn request(&mut self, operation: Operation) -> Request {
        let sequence = (operation.is_mutation() || operation.uses_key()).then(|| {
            self.sequence += 1;
            self.sequence
        });
        Request { sequence, head: self.head, operation }
    }

    pub(crate) fn create_operation(&self) -> Operation {
        Operation::CreateVault {
            salt: SALT,
            device_name: "phone".to_owned(),
            device_signing_key: self.signing.verifying_key().to_bytes(),
        }
    }

    /// A new session whose first request is `request`.
    pub(crate) fn connect(&mut self, node: &mut Node<'_>, request: Option<&Request>) -> Result<Answer, Refusal> {
        let id = self.connect_unanswered(node, request);
        let hash = request.map_or([0; 32], |request| request_hash(request.sequence, &request.operation));
        self.receive(node, id, hash)
    }

    pub(crate) fn connect_unanswered(&mut self, node: &mut Node<'_>, request: Option<&Request>) -> u64 {
        let (mut initiator, noise) = Initiator::start(&self.secret, self.vault);
        let id = node.send(&DeviceFrame::Hello { noise });
        let Some(VaultFrame::Welcome { session, noise }) = node.replies.remove(&id) else { panic!("no welcome") };
        let (credentials, key) = initiator.read_welcome(&noise).unwrap();
        assert_eq!(credentials.statement.static_key, key);
        let opening = Opening {
            lock_key: Secret::new(self.lock_key.to_vec()),
            head: self.head,
            first_request: request.map(|request| Secret::new(codec::encode(request))),
        };
        let (noise, channel) = initiator.finish(&opening).unwrap();
        self.channel = Some((session, channel));
        node.send(&DeviceFrame::Finish { session, noise })
    }

    pub(crate) fn seal(&mut self, request: &Request) -> DeviceFrame {
        let (session, channel) = self.channel.as_mut().expect("connected");
        DeviceFrame::Sealed { session: *session, run: channel.seal(&codec::encode(request)).unwrap() }
    }

    pub(crate) fn send_unanswered(&mut self, node: &mut Node<'_>, request: &Request) -> u64 {
        let frame = self.seal(request);
        node.send(&frame)
    }

    pub(crate) fn send(&mut self, node: &mut Node<'_>, request: &Request) -> Result<Answer, Refusal> {
        let id = self.send_unanswered(node, request);
        self.receive(node, id, request_hash(request.sequence, &request.operation))
    }

    pub(crate) fn receive(&mut self, node: &mut Node<'_>, id: u64, hash: [u8; 32]) -> Result<Answer, Refusal> {
        match node.replies.remove(&id).expect("answered") {
            VaultFrame::Sealed { run } => {
                let plaintext = self.channel.as_mut().unwrap().1.open(&run).unwrap();
                let reply: Reply = codec::decode(&plaintext, limits::FRAME_BYTES).unwrap();
                assert_eq!(reply.request_hash, hash);
                match reply.outcome {
                    Outcome::Done(answer) => {
                        self.head = reply.head.or(self.head);
                        Ok(answer)
                    }
                    Outcome::Refused(refusal) => Err(refusal),
                }
            }
            VaultFrame::Refused(refusal) => Err(refusal),
            VaultFrame::Welcome { .. } => panic!("no answer to a request"),
        }
    }

    /// Asks in the present session.
    pub(crate) fn ask(&mut self, node: &mut Node<'_>, operation: Operation) -> Result<Answer, Refusal> {
        let request = self.request(operation);
        self.send(node, &request)
    }

    pub(crate) fn create(&mut self, node: &mut Node<'_>) {
        let request = self.request(self.create_operation());
        assert_eq!(self.connect(node, Some(&request)), Ok(Answer::Nothing));
        assert_eq!(self.head.unwrap().version, 1);
    }
}

/// Everything that a test needs, created and connected.
pub(crate) struct World {
    pub(crate) store: RefCell<Store>,
    pub(crate) clock: TestClock,
    pub(crate) randomness: CountingRandomness,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { store: RefCell::default(), clock: TestClock::default(), randomness: CountingRandomness::default() }
    }

    pub(crate) fn node(&self, vault: VaultId) -> Node<'_> {
        Node::start(vault, &self.store, &self.clock, &self.randomness)
    }

    pub(crate) fn created(&self) -> (Node<'_>, Device) {
        let mut device = Device::owner();
        let mut node = self.node(device.vault);
        device.create(&mut node);
        (node, device)
    }
}

pub(crate) fn put(name: &str, value: &[u8]) -> Operation {
    Operation::SecretPut { name: name.to_owned(), value: value.into(), expected_revision: None }
}

pub(crate) fn get(name: &str) -> Operation {
    Operation::SecretGet { name: name.to_owned(), revision: None }
}

pub(crate) fn value(answer: Result<Answer, Refusal>) -> Vec<u8> {
    match answer {
        Ok(Answer::Secret { value, .. }) => value.to_vec(),
        other => panic!("{other:?}"),
    }
}

pub(crate) fn code(answer: Result<Answer, Refusal>) -> ErrorCode {
    answer.expect_err("refused").code
}
