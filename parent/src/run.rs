//! The running parent: its parts, on two threads, from start to drain.
//!
//! The hot path (NATS, the bridge, the requests connection) has a `current_thread` runtime on the calling thread. Everything
//! else (the door, control, blobs, relays, HTTP, the admin socket) has one of its own, so that no object and no page ever makes
//! a device's request wait.

use std::future::Future;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use async_nats::Client;
use casemate_link::Listener;
use casemate_protocol::link::ControlCall;
use casemate_protocol::trust::ClusterId;
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use crate::admin::{self, Admin, DRAIN_DEADLINE};
use crate::bridge::{self, Bridge};
use crate::config::{Config, ConfigError};
use crate::control::Control;
use crate::diagnosis::Diagnosis;
use crate::enclave::{Door, Enclave, OrderError};
use crate::http::{self, Pages};
use crate::issue::IssueError;
use crate::log::LogError;
use crate::nats::{self, First, NatsError, Probe};
use crate::nitro::NitroError;
use crate::relay::Relay;
use crate::sdk::{Http, NewestCredentials};
use crate::state::NodeState;
use crate::store::{ObjectStore, OpenError};
use crate::{autoscaling, aws, cloudwatch, metric, notify};

/// Requests connections on their way between the threads; there is one at a time.
const REQUESTS_CONNECTIONS: usize = 4;
/// Longest wait for the answers to requests that were taken before a drain: a request's longest deadline.
const ANSWERS_DEADLINE: Duration = Duration::from_secs(62);
const FLUSH_DEADLINE: Duration = Duration::from_secs(5);
const STORE_INTERVAL: Duration = Duration::from_secs(2);
const KMS_INTERVAL: Duration = Duration::from_secs(2);
/// With the interval before it, an unreachable key service is told within five seconds.
const KMS_WAIT: Duration = Duration::from_millis(2500);
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// Why the parent did not start, or stopped.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Logging.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The store.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// NATS.
    #[error(transparent)]
    Nats(#[from] NatsError),
    /// A socket, a thread or a signal; the text names it.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// NATS credentials.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// The enclave's watch.
    #[error(transparent)]
    Nitro(#[from] NitroError),
    /// Metrics.
    #[error("metrics cannot be collected: {0}")]
    Metrics(String),
}

/// Runs the parent until SIGTERM or SIGINT has drained it.
///
/// # Errors
/// See [`RunError`].
pub fn run(config: &Config) -> Result<(), RunError> {
    // Before any other thread is there.
    if let Err(error) = casemate_link::let_run() {
        tracing::warn!(%error, "the kernel's order of turns stays as it is; only speed depends on it");
    }
    casemate_memory::keep_blocks();
    let main = Builder::new_current_thread().enable_all().build()?;
    let aside = Aside::start()?;
    let result = main.block_on(serve(config, &aside.handle));
    // What still runs there (a relay, a page) has no business any more.
    aside.stop();
    result
}

/// The second thread.
struct Aside {
    handle: Handle,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<()>,
}

impl Aside {
    fn start() -> io::Result<Self> {
        let runtime: Runtime = Builder::new_current_thread().enable_all().thread_name("aside").build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        let thread = std::thread::Builder::new().name("aside".to_owned()).spawn(move || {
            runtime.block_on(async {
                // Either a word or the other thread's end.
                stopped.await.ok();
            });
            runtime.shutdown_timeout(Duration::from_secs(2));
        })?;
        Ok(Self { handle, stop, thread })
    }

    fn stop(self) {
        self.stop.send(()).ok();
        self.thread.join().ok();
    }
}

/// Runs a future on the other thread and waits for it.
async fn on<T: Send + 'static>(aside: &Handle, work: impl Future<Output = T> + Send + 'static) -> io::Result<T> {
    aside.spawn(work).await.map_err(io::Error::other)
}

async fn serve(config: &Config, aside: &Handle) -> Result<(), RunError> {
    let mut stop = Stop::new()?;
    let metrics = metric::install().map_err(RunError::Metrics)?;
    let cluster = ClusterId::of(&config.trust_configuration);
    let state = Arc::new(NodeState::new(&config.node, cluster));
    let enclave = Arc::new(Enclave::default());
    let timeout = Duration::from_millis(config.tuning.store_timeout_ms);
    let store = Arc::new(ObjectStore::open(&config.store, &config.aws, timeout)?);

    // Aside: everything but the hot path. Bound first: an address in use is told before anything else begins.
    let (requests, requests_taken) = mpsc::channel(REQUESTS_CONNECTIONS);
    let (newest, credentials) = aws::source(&config.aws);
    let told_credentials = NewestCredentials(credentials.clone());
    let relay = Arc::new(Relay::new(config.kms.clone()));
    let door = Arc::new(Door {
        enclave: Arc::clone(&enclave),
        enclave_cid: config.enclave_cid,
        control: Arc::new(Control {
            enclave: Arc::clone(&enclave),
            state: Arc::clone(&state),
            trust_configuration: config.trust_configuration.clone(),
            tuning: config.tuning.clone(),
            credentials,
            counts: Mutex::default(),
        }),
        store: Arc::clone(&store),
        relay: Arc::clone(&relay),
        requests,
    });
    let (listen, admin_path, http_address) = (config.listen.clone(), config.admin.clone(), config.http);
    let (link_listener, admin_listener, http_listener) = on(aside, async move {
        let link = Listener::bind(&listen).map_err(|error| {
            io::Error::new(error.kind(), format!("link.listen: {listen} cannot be listened at: {error}"))
        })?;
        Ok::<_, io::Error>((link, admin::bind(&admin_path)?, http::bind(http_address).await?))
    })
    .await??;
    let nats_client = Arc::new(OnceLock::new());
    let diagnosis = Diagnosis {
        state: Arc::clone(&state),
        enclave: Arc::clone(&enclave),
        store: Arc::clone(&store),
        relay: Arc::clone(&relay),
        nats: Arc::clone(&nats_client),
        prefix: config.prefix.clone(),
        turn: tokio::sync::Mutex::default(),
    };
    let admin = Arc::new(Admin { state: Arc::clone(&state), enclave: Arc::clone(&enclave), diagnosis });
    let pages = Pages { state: Arc::clone(&state), enclave: Arc::clone(&enclave), metrics: metrics.clone() };
    let node = config.node.clone();
    aside.spawn(door.serve(link_listener));
    aside.spawn(admin.serve(admin_listener));
    aside.spawn(http::serve(http_listener, pages));
    aside.spawn(aws::renew(config.aws.clone(), newest));
    aside.spawn(watch_store(store, node, Arc::clone(&state)));
    aside.spawn(watch_kms(relay, Arc::clone(&state)));
    tell_amazon(config, aside, &told_credentials, &state);
    aside.spawn(notify::feed(Arc::clone(&state)));
    aside.spawn(async move {
        let mut tick = tokio::time::interval(UPKEEP_INTERVAL);
        loop {
            tick.tick().await;
            // Histograms gather samples until somebody folds them in.
            metrics.run_upkeep();
        }
    });

    // Here: the hot path.
    let client = nats::connect(&config.nats, &config.node, &state, First::Retry).await?;
    nats_client.set(client.clone()).ok();
    let bridge = Arc::new(Bridge::new(client.clone(), config.subjects.clone(), Arc::clone(&enclave)));
    let (carrier, connected, told) = (Arc::clone(&bridge), Arc::clone(&enclave), Arc::clone(&state));
    tokio::spawn(bridge::take_connections(requests_taken, carrier, connected, told));
    tokio::spawn(Probe::new(client.clone(), &config.prefix, &config.node).await?.watch(Arc::clone(&state)));
    let subscriptions = subscribe(config, &client, &bridge).await?;

    notify::ready();
    tracing::info!(node = config.node, %cluster, link = %config.listen, http = %config.http, "the parent serves");
    stop.wait().await;
    drain(&state, &enclave, &client, &bridge, subscriptions, &mut stop).await;
    Ok(())
}

/// Subscribes to what this node owns; each subscription is drained by a task of its own.
async fn subscribe(config: &Config, client: &Client, bridge: &Arc<Bridge>) -> Result<Subscriptions, NatsError> {
    let subjects = match &config.shards {
        // One subscription to all shards: 256 would only cost memory.
        None => vec![format!("{}.v1.vault.>", config.prefix)],
        Some(shards) => shards.iter().map(|shard| config.subjects.shard(*shard)).collect(),
    };
    let (stop, stopped) = watch::channel(false);
    let mut tasks = JoinSet::new();
    for subject in subjects {
        let subscriber = nats::subscribe(client, &subject).await?;
        tasks.spawn(Arc::clone(bridge).serve_vaults(subscriber, stopped.clone()));
    }
    let (attest, queue) = (config.subjects.attest(), config.subjects.attest_queue());
    let subscriber = client
        .queue_subscribe(attest.clone(), queue)
        .await
        .map_err(|error| NatsError::Subscribe { subject: attest, reason: error.to_string() })?;
    tasks.spawn(Arc::clone(bridge).serve_attest(subscriber, stopped));
    Ok(Subscriptions { stop, tasks })
}

struct Subscriptions {
    stop: watch::Sender<bool>,
    tasks: JoinSet<()>,
}

/// Takes nothing new, answers what was taken, closes all vaults. A second signal cuts it short.
async fn drain(
    state: &NodeState,
    enclave: &Enclave,
    client: &Client,
    bridge: &Bridge,
    mut subscriptions: Subscriptions,
    stop: &mut Stop,
) {
    tracing::info!("draining");
    state.set_draining();
    notify::stopping(ANSWERS_DEADLINE + DRAIN_DEADLINE + FLUSH_DEADLINE * 2);
    let draining = async {
        subscriptions.stop.send_replace(true);
        // While NATS is away, nothing ends a subscription; nothing comes over it either.
        let ended = async { while subscriptions.tasks.join_next().await.is_some() {} };
        tokio::time::timeout(FLUSH_DEADLINE, ended).await.ok();
        if tokio::time::timeout(ANSWERS_DEADLINE, bridge.answered()).await.is_err() {
            tracing::warn!("some requests were not answered before the drain's deadline");
        }
        match enclave.order(&ControlCall::Drain, DRAIN_DEADLINE).await {
            Ok(_) | Err(OrderError::NotConnected) => {}
            Err(error) => tracing::warn!(%error, "the enclave did not drain"),
        }
        tokio::time::timeout(FLUSH_DEADLINE, client.flush()).await.ok();
    };
    tokio::select! {
        () = draining => tracing::info!("drained"),
        () = stop.wait() => tracing::warn!("told to stop twice; what is in flight is given up"),
    }
}

/// Writes and reads an object every so often.
async fn watch_store(store: Arc<ObjectStore>, node: String, state: Arc<NodeState>) {
    let mut tick = tokio::time::interval(STORE_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        match store.round_trip(&node).await {
            Ok(latency) => state.store_answered(latency),
            Err(error) => {
                tracing::warn!(%error, "the object store's round trip failed");
                state.store_failed(&error.to_string());
            }
        }
    }
}

/// Tries the way to the key service every so often: the enclave uses it only when it needs a key, which may be hours after it broke.
async fn watch_kms(relay: Arc<Relay>, state: Arc<NodeState>) {
    let mut tick = tokio::time::interval(KMS_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut was_away = false;
    loop {
        tick.tick().await;
        let tried = relay.reach(KMS_WAIT).await;
        if let (Err(error), false) = (&tried, was_away) {
            tracing::warn!(error, "the key service cannot be reached; open vaults and cached keys go on");
        }
        was_away = tried.is_err();
        state.kms_tried(tried);
    }
}

/// Starts what speaks to CloudWatch and to the Auto Scaling group, where they are enabled. A node that cannot tell them how it is serves
/// all the same.
fn tell_amazon(config: &Config, aside: &Handle, credentials: &NewestCredentials, state: &Arc<NodeState>) {
    if config.cloudwatch.is_none() && config.autoscaling.is_none() {
        return;
    }
    let http = match Http::new() {
        Ok(http) => http,
        Err(error) => {
            tracing::error!(%error, "neither CloudWatch nor the Auto Scaling group is told anything");
            return;
        }
    };
    let (region, state) = (config.region.clone(), Arc::clone(state));
    if let Some(watched) = config.cloudwatch.clone() {
        let (region, state) = (region.clone(), Arc::clone(&state));
        aside.spawn(cloudwatch::send(watched, region, http.clone(), credentials.clone(), state));
    }
    if let Some(watched) = config.autoscaling.clone() {
        aside.spawn(autoscaling::watch(watched, region, http, credentials.clone(), state));
    }
}

/// SIGTERM or SIGINT.
struct Stop {
    terminate: Signal,
    interrupt: Signal,
}

impl Stop {
    fn new() -> io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
