//! The host: a real enclave and a real stand-in KMS, and in their middle a parent that lies.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use casemate_client::Roots;
use casemate_client::home::read_trust_file;
use casemate_client::trust::TrustFile;
use casemate_link::{Address, CallError, Caller, Listener};
use casemate_protocol::codec;
use casemate_protocol::error::ErrorCode;
use casemate_protocol::frame::VaultFrame;
use casemate_protocol::health::{EnclaveHealth, RefusalNumbers};
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{
    BlobCall, BlobReply, Class, ControlCall, ControlReply, LogEvent, LogRecord, REQUEST_BYTES, RequestCall,
    RequestReply, Tuning,
};
use casemate_protocol::trust::{ReleaseKey, TrustConfiguration};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;

use super::door::{self, Misdeed, PATIENCE};
use super::{Objects, Owner};
use crate::Node;
use crate::node::{ACCESS_KEY, REGION, SECRET_KEY, SESSION_TOKEN};

type Lie = Box<dyn FnMut(&BlobCall, BlobReply) -> BlobReply + Send>;

/// What the host tells the enclave at its start.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Limits and time-outs.
    pub tuning: Tuning,
    /// Keys that sign releases: with any, the trust configuration is another one than the devices'.
    pub release_keys: Vec<[u8; 32]>,
}

/// A host and the enclave that it has in its hands. Everything ends with it.
pub struct Host {
    shared: Arc<Shared>,
    runtime: Runtime,
    /// The processes, without a parent and without NATS.
    pub node: Node,
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Host").field("node", &self.node).finish_non_exhaustive()
    }
}

pub(super) struct Shared {
    objects: Mutex<Objects>,
    lie: Mutex<Option<Lie>>,
    calls: Mutex<Vec<BlobCall>>,
    misdeeds: Mutex<HashMap<Class, Misdeed>>,
    cut: watch::Sender<Vec<bool>>,
    relay_to: Mutex<String>,
    callers: watch::Sender<HashMap<Class, Caller>>,
    logs: watch::Sender<Vec<LogRecord>>,
    first_calls: Mutex<Vec<ControlCall>>,
}

impl Shared {
    pub(super) fn next_misdeed(&self, class: Class) -> Option<Misdeed> {
        lock(&self.misdeeds).remove(&class)
    }

    pub(super) fn was_cut(&self, was_cut: bool) {
        self.cut.send_modify(|cuts| cuts.push(was_cut));
    }

    pub(super) fn connected(&self, class: Class, caller: Caller) {
        self.callers.send_modify(|callers| drop(callers.insert(class, caller)));
    }

    pub(super) fn log(&self, record: LogRecord) {
        self.logs.send_modify(|logs| logs.push(record));
    }

    pub(super) fn answer(&self, call: &BlobCall) -> BlobReply {
        let honest = lock(&self.objects).answer(call);
        lock(&self.calls).push(call.clone());
        match &mut *lock(&self.lie) {
            Some(lie) => lie(call, honest),
            None => honest,
        }
    }

    pub(super) fn first_calls(&self) -> Vec<ControlCall> {
        lock(&self.first_calls).clone()
    }

    pub(super) fn relay_target(&self) -> String {
        lock(&self.relay_to).clone()
    }

    fn caller(&self, class: Class) -> Option<Caller> {
        self.callers.borrow().get(&class).cloned()
    }

    /// Carries a frame to a vault; gives the answer as a device gets it.
    pub(super) async fn carry(&self, vault: VaultId, frame: Vec<u8>) -> Result<Vec<u8>, CallError> {
        let call = RequestCall::Vault { vault, deadline_ms: 60_000, frame };
        let caller = self.caller(Class::Requests).ok_or(CallError::Closed)?;
        let answer = caller.call(Bytes::from(codec::encode(&call)), PATIENCE).await?;
        Ok(match codec::decode(&answer, REQUEST_BYTES).expect("an answer to a request") {
            RequestReply::Frame(frame) => frame,
            RequestReply::Refused(refusal) => VaultFrame::Refused(refusal).encode().to_vec(),
            RequestReply::Evidence(_) => panic!("evidence that nobody asked for"),
        })
    }
}

impl Host {
    /// An honest host.
    pub fn start() -> Self {
        Self::start_with(&Plan::default())
    }

    /// A host that tells the enclave this.
    ///
    /// # Panics
    /// When the enclave does not come up.
    pub fn start_with(plan: &Plan) -> Self {
        let mut node = Node::prepare("");
        node.start_kms();
        let credentials = ControlCall::Credentials {
            access_key_id: ACCESS_KEY.to_owned(),
            secret_access_key: SECRET_KEY.as_bytes().into(),
            session_token: Some(SESSION_TOKEN.as_bytes().into()),
        };
        let shared = Arc::new(Shared {
            objects: Mutex::default(),
            lie: Mutex::default(),
            calls: Mutex::default(),
            misdeeds: Mutex::default(),
            cut: watch::Sender::default(),
            relay_to: Mutex::new(node.kms_address().to_owned()),
            callers: watch::Sender::default(),
            logs: watch::Sender::default(),
            first_calls: Mutex::new(vec![configure(&node, plan), credentials]),
        });
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let link = Address::Unix(node.path("link.sock"));
        let listener = runtime.block_on(async { Listener::bind(&link) }).expect("the link's socket can be made");
        runtime.spawn(door::serve(listener, Arc::clone(&shared)));
        node.start_enclave();
        let host = Self { shared, runtime, node };
        host.await_link();
        host
    }

    /// What the enclave is told from its next start on.
    pub fn plan(&self, plan: &Plan) {
        lock(&self.shared.first_calls)[0] = configure(&self.node, plan);
    }

    /// Kills the enclave and starts another.
    pub fn restart_enclave(&mut self) {
        self.node.enclave = None;
        self.shared.callers.send_modify(HashMap::clear);
        self.node.start_enclave();
        self.await_link();
    }

    /// Runs a future of the devices' side.
    pub fn wait<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    fn await_link(&self) {
        for class in [Class::Control, Class::Blobs, Class::Requests] {
            self.await_caller(class, None);
        }
    }

    /// Waits until a connection of this class stands that is not `old`.
    fn await_caller(&self, class: Class, old: Option<&Caller>) {
        let mut callers = self.shared.callers.subscribe();
        let stands = |callers: &HashMap<Class, Caller>| {
            callers.get(&class).is_some_and(|caller| old.is_none_or(|old| !caller.same_connection(old)))
        };
        let came = self.wait(async { tokio::time::timeout(PATIENCE, callers.wait_for(stands)).await.is_ok() });
        assert!(came, "no {class:?} connection:\n{}", self.enclave_log());
    }

    fn enclave_log(&self) -> String {
        self.node.enclave.as_ref().map(crate::process::Process::log).unwrap_or_default()
    }

    // ---- the store ----------------------------------------------------------------------------------------------------------

    /// The objects that the store really has.
    pub fn objects(&self) -> MutexGuard<'_, Objects> {
        lock(&self.shared.objects)
    }

    /// From now on the store answers what `lie` makes of the honest answer.
    pub fn lie(&self, lie: impl FnMut(&BlobCall, BlobReply) -> BlobReply + Send + 'static) {
        *lock(&self.shared.lie) = Some(Box::new(lie));
    }

    /// The store is honest again.
    pub fn tell_the_truth(&self) {
        *lock(&self.shared.lie) = None;
    }

    /// What the enclave has asked of the store since it was asked last.
    pub fn take_store_calls(&self) -> Vec<BlobCall> {
        std::mem::take(&mut *lock(&self.shared.calls))
    }

    // ---- the link -----------------------------------------------------------------------------------------------------------

    /// Ends the connection of this class, misbehaves once on the next, and waits until the enclave has ended that by itself and an
    /// honest one stands.
    ///
    /// # Panics
    /// When the enclave bears with it, or does not come back.
    pub fn misbehave(&self, class: Class, misdeed: Misdeed) {
        let old = self.shared.caller(class).expect("connected");
        let mut cut = self.shared.cut.subscribe();
        let before = cut.borrow().len();
        lock(&self.shared.misdeeds).insert(class, misdeed);
        old.close();
        let ended = self.wait(async {
            let cuts = tokio::time::timeout(PATIENCE, cut.wait_for(|cuts| cuts.len() > before)).await;
            cuts.is_ok_and(|cuts| cuts.is_ok_and(|cuts| cuts[before]))
        });
        assert!(ended, "the enclave ends a connection over which the parent breaks the rules");
        self.await_caller(class, Some(&old));
    }

    /// Relays the enclave's connections to this address instead of the key service.
    pub fn relay_to(&self, address: &str) {
        address.clone_into(&mut lock(&self.shared.relay_to));
    }

    /// A call of this host on its requests connection, whatever it says.
    ///
    /// # Panics
    /// When it gets no answer.
    pub fn call_requests(&self, body: Vec<u8>) -> RequestReply {
        let caller = self.shared.caller(Class::Requests).expect("connected");
        let answer = self.wait(caller.call(body.into(), PATIENCE)).expect("an answer");
        codec::decode(&answer, REQUEST_BYTES).expect("an answer to a request")
    }

    /// An order on the control connection.
    ///
    /// # Panics
    /// When it gets no answer.
    pub fn order(&self, call: &ControlCall) -> ControlReply {
        let caller = self.shared.caller(Class::Control).expect("connected");
        self.wait(door::order(&caller, call)).expect("an answer")
    }

    /// Offers the enclave another plan now.
    pub fn offer(&self, plan: &Plan) -> ControlReply {
        self.order(&configure(&self.node, plan))
    }

    /// How the enclave is.
    ///
    /// # Panics
    /// When it does not say so.
    pub fn health(&self) -> EnclaveHealth {
        match self.order(&ControlCall::Health) {
            ControlReply::Health(health) => *health,
            other => panic!("health, not {other:?}"),
        }
    }

    /// What the enclave did not believe since its boot.
    pub fn refusals(&self) -> RefusalNumbers {
        self.health().refusals
    }

    /// Waits until the enclave has told `event`. It tells the first of a burst.
    ///
    /// # Panics
    /// When it does not.
    pub fn await_log(&self, event: LogEvent) {
        let mut logs = self.shared.logs.subscribe();
        let told = |logs: &Vec<LogRecord>| logs.iter().any(|record| record.event == event);
        let came = self.wait(async { tokio::time::timeout(PATIENCE, logs.wait_for(told)).await.is_ok() });
        assert!(came, "{event:?} is told; told was {:?}", self.shared.logs.borrow());
    }

    /// Closes a vault; its next request opens it anew.
    ///
    /// # Panics
    /// When it is not closed.
    pub fn evict(&self, vault: VaultId) {
        let answer = self.order(&ControlCall::Evict(vault));
        let absent = matches!(answer, ControlReply::Refused(ErrorCode::NotFound, _));
        assert!(answer == ControlReply::Done || absent, "closed or not open: {answer:?}");
    }

    // ---- devices ------------------------------------------------------------------------------------------------------------

    /// Carries a frame to a vault, of whichever device and for whichever vault it was made.
    ///
    /// # Panics
    /// When the enclave gives no answer.
    pub fn carry(&self, vault: VaultId, frame: &[u8]) -> VaultFrame {
        let answer = self.wait(self.shared.carry(vault, frame.to_vec())).expect("each request has an answer");
        VaultFrame::decode(&answer).expect("a frame of the protocol")
    }

    /// Carries a frame that is refused outside any session; gives the code.
    ///
    /// # Panics
    /// When it is answered in any other way.
    #[track_caller]
    pub fn refuses(&self, vault: VaultId, frame: &[u8]) -> ErrorCode {
        match self.carry(vault, frame) {
            VaultFrame::Refused(refusal) => refusal.code,
            other => panic!("a refusal, not {other:?}"),
        }
    }

    pub(super) fn shared(&self) -> Arc<Shared> {
        Arc::clone(&self.shared)
    }

    /// What this host's devices believe.
    ///
    /// # Panics
    /// When the files of the development authority are not there.
    pub fn roots(&self) -> Roots {
        let root = std::fs::read(self.node.path("authority/root.der")).expect("made at the start");
        let anchor = casemate_attestation::TrustAnchor::from_der(root).expect("a root");
        Roots::of(anchor)
    }

    /// What this host's devices trust: the image and the cluster.
    ///
    /// # Panics
    /// When the trust file is not there.
    pub fn trust_file(&self) -> TrustFile {
        read_trust_file(&self.node.path("authority/trust.toml")).expect("made at the start")
    }

    /// A device with a new vault, over a wire of its own.
    pub fn owner(&self) -> Owner {
        let owner = Owner::new(self);
        owner.create();
        owner
    }
}

/// The call that hands a plan in.
fn configure(node: &Node, plan: &Plan) -> ControlCall {
    let configuration = TrustConfiguration {
        format: 1,
        kms_key_arn: node.kms_key().to_owned(),
        region: REGION.to_owned(),
        release_keys: plan.release_keys.iter().map(|key| ReleaseKey(*key)).collect(),
    };
    ControlCall::Configure { trust_configuration: codec::encode(&configuration), tuning: plan.tuning.clone() }
}

pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A lie that panics fails its test; whoever shares the host shows what stands.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
