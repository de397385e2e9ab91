//! Boot: what the supervisor does, in which order, before it takes its first request.
//!
//! The order is part of the security: the zygote is made first, so that no vault-manager can inherit a secret, a thread or a descriptor;
//! then this process is hardened; only then does it open the security module and make its identity.

use std::fmt;
use std::fs::OpenOptions;
use std::io::Write;
use std::num::NonZeroUsize;
use std::process::ExitCode;
use std::sync::{Arc, OnceLock};
use std::thread;

use casemate_link::{Address, Answers, Limits};
use casemate_memory::keep_blocks;
use casemate_protocol::link::{Class, LogEvent, LogLevel, Tuning};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use tokio::runtime::{Builder, Runtime};
use tokio::sync::{Notify, mpsc, oneshot};
use zeroize::Zeroizing;

use crate::keys::credentials::CredentialCell;
use crate::outside::{Clock, ModuleError, Randomness, SecurityModule};
use crate::sandbox::SandboxOptions;
use crate::supervisor::configure::{Configurator, ConfiguratorParts, EndpointOf};
use crate::supervisor::control::Control;
use crate::supervisor::deletion;
use crate::supervisor::dial::Dialler;
use crate::supervisor::identity::Identity;
use crate::supervisor::jobs::{Job, Workshop};
use crate::supervisor::log::Log;
use crate::supervisor::machine::{self, MachineError};
use crate::supervisor::node::Node;
use crate::supervisor::relay::LinkRelay;
use crate::supervisor::router::Router;
use crate::supervisor::shell::{self, Command, Requests, ShellError, ShellParts};
use crate::supervisor::store::{LinkStore, StoreConnection};
use crate::supervisor::wall_clock::{self, ClockError};
use crate::zygote::{Zygote, ZygoteError};

/// Results and orders that wait for the hot loop; who has more waits.
const COMMANDS: usize = 1024;
/// Jobs that wait for the other thread. Each slot has a few at most, and they are only waiting until a task is made of them.
const JOBS: usize = 16 * 1024;
/// Hardware randomness mixed into the kernel's pool at boot.
const SEED_BYTES: usize = 256;

/// The parts that differ between a Nitro enclave and a development machine.
pub struct Parts {
    /// Opens the security module, once the zygote is there.
    pub module: Box<dyn FnOnce() -> Result<Arc<dyn SecurityModule>, ModuleError>>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub randomness: Arc<dyn Randomness>,
    /// The parent.
    pub link: Address,
    /// Where a key's service is, and who vouches for it.
    pub endpoint: EndpointOf,
    /// The walls around vault-managers.
    pub sandbox: SandboxOptions,
    /// The build, for people.
    pub build: String,
}

impl fmt::Debug for Parts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parts").field("link", &self.link).field("build", &self.build).finish_non_exhaustive()
    }
}

/// Why the supervisor does not run, or no longer.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The machine is too small.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// No zygote, or a sandbox layer that is not in force.
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    /// This process could not be hardened.
    #[error("this process cannot be hardened: {0}")]
    Harden(#[from] nix::errno::Errno),
    /// The security module.
    #[error(transparent)]
    Module(#[from] ModuleError),
    /// The kernel's clock.
    #[error(transparent)]
    Clock(#[from] ClockError),
    /// A debug-mode enclave.
    #[error(
        "this enclave runs in debug mode (PCR0–2 are zero): the host can read its memory. Start it without `--debug-mode`"
    )]
    DebugMode,
    /// The runtime could not be made.
    #[error("a runtime cannot be made: {0}")]
    Runtime(#[from] std::io::Error),
    /// The hot loop ended.
    #[error(transparent)]
    Shell(#[from] ShellError),
}

/// Runs the supervisor until it must end. To be called by `main` right after [`crate::zygote::enter_if_zygote`], while the process has
/// one thread.
pub fn run(parts: Parts) -> ExitCode {
    abort_on_panic();
    // Before the zygote and any other thread are there.
    if let Err(error) = casemate_link::let_run() {
        tracing::warn!(%error, "the kernel's order of turns stays as it is; only speed depends on it");
    }
    if let Err(error) = crate::text::move_text() {
        tracing::warn!(%error, "the program stays in small pages; only speed depends on it");
    }
    match supervise(parts) {
        Ok(never) => match never {},
        Err(error) => {
            // Nothing secret is in these; a Nitro enclave's console is shut, the local run and the emulator show it.
            let _ = writeln!(std::io::stderr(), "the supervisor ends: {error}");
            ExitCode::FAILURE
        }
    }
}

fn supervise(parts: Parts) -> Result<std::convert::Infallible, BootError> {
    crate::text::protect_addresses()?;
    let capacity = machine::capacity()?;
    let zygote = Zygote::start(&parts.sandbox)?;
    setrlimit(Resource::RLIMIT_CORE, 0, 0)?;
    prctl::set_dumpable(false)?;

    let module = (parts.module)()?;
    let measurements = module.measurements()?;
    if measurements.is_debug() {
        return Err(BootError::DebugMode);
    }
    wall_clock::check(&*module, &*parts.clock)?;
    mix_in(&*module)?;
    let identity = Identity::generate(&*parts.randomness);
    let node = Arc::new(Node::new(Arc::clone(&module), Arc::clone(&parts.clock), identity, measurements));
    let log = Log::new(Arc::clone(&parts.clock));
    log.tell(LogLevel::Info, LogEvent::Booted, None);
    let tuning = Tuning::default();
    if tuning.vault_limit > capacity.vaults {
        tracing::warn!(limit = capacity.vaults, bound = %capacity.bound, "the limit of vaults is lowered");
        log.tell(LogLevel::Warn, LogEvent::LimitLowered, Some(capacity.vaults.into()));
    }
    for layer in &parts.sandbox.waived {
        log.tell(LogLevel::Warn, LogEvent::LayerWaived, Some(layer.number().into()));
    }
    for layer in zygote.layers_absent() {
        tracing::warn!(%layer, "a sandbox layer is absent for want of a controller");
        log.tell(LogLevel::Warn, LogEvent::LayerAbsent, Some(layer.number().into()));
    }
    let waived = parts.sandbox.waived.iter().map(|layer| format!("{layer}: waived"));
    let absent = zygote.layers_absent().iter().map(|layer| format!("{layer}: no controller"));

    let (commands, command_receiver) = mpsc::channel(COMMANDS);
    let (jobs, job_receiver) = mpsc::channel(JOBS);
    let (connections, connection_receiver) = mpsc::channel(1);
    let dialler = Arc::new(Dialler::new(parts.link, parts.build, &*parts.randomness));
    let (store, store_connection) = LinkStore::new();
    let keys = Arc::new(OnceLock::new());
    let credentials = CredentialCell::default();
    let ready = Arc::new(Notify::new());
    let configurator = Configurator::new(ConfiguratorParts {
        node: Arc::clone(&node),
        module,
        clock: Arc::clone(&parts.clock),
        randomness: Arc::clone(&parts.randomness),
        store: store.clone(),
        relay: Arc::new(LinkRelay::new(Arc::clone(&dialler))),
        endpoint: parts.endpoint,
        credentials: credentials.clone(),
        keys: Arc::clone(&keys),
        commands: commands.clone(),
        ready: Arc::clone(&ready),
        log: log.clone(),
    });
    let control = Control {
        node: Arc::clone(&node),
        configurator: Arc::new(configurator),
        commands: commands.clone(),
        credentials,
        store: store.clone(),
        dialler: Arc::clone(&dialler),
        log: log.clone(),
        clock: Arc::clone(&parts.clock),
        shared_bytes: zygote.shared_bytes(),
        sandbox: zygote.layers_in_force().iter().map(ToString::to_string).collect(),
        sandbox_missing: waived.chain(absent).collect(),
    };
    let other = OtherThread {
        dialler: Arc::clone(&dialler),
        control,
        store: store.clone(),
        store_connection,
        keys,
        node: Arc::clone(&node),
        commands,
        jobs: job_receiver,
        log: log.clone(),
    };
    let other_runtime = runtime()?;
    thread::Builder::new().name("outside".to_owned()).spawn(move || other_runtime.block_on(other.run()))?;

    keep_blocks();
    let processors = thread::available_parallelism().map_or(1, NonZeroUsize::get);
    let router = Router::new(&tuning, capacity.vaults, processors, parts.clock.monotonic());
    let shell = ShellParts {
        router,
        zygote,
        node,
        clock: parts.clock,
        log,
        jobs,
        commands: command_receiver,
        connections: connection_receiver,
    };
    runtime()?.block_on(async move {
        tokio::spawn(keep_requests(dialler, ready, connections));
        // As a task among tasks: what `block_on` itself runs is woken by way of the kernel.
        Ok(tokio::spawn(shell::run(shell)).await.map_err(std::io::Error::other)??)
    })
}

/// Everything that is not the hot path.
struct OtherThread {
    dialler: Arc<Dialler>,
    control: Control,
    store: LinkStore,
    store_connection: StoreConnection,
    keys: Arc<OnceLock<crate::supervisor::vault_keys::VaultKeys>>,
    node: Arc<Node>,
    commands: mpsc::Sender<Command>,
    jobs: mpsc::Receiver<Job>,
    log: Log,
}

impl OtherThread {
    async fn run(self) {
        let Self { dialler, control, store, store_connection, keys, node, commands, jobs, log } = self;
        let (deletions, deletion_receiver) = mpsc::channel(deletion::QUEUE);
        let workshop = Workshop { store: store.clone(), keys, node, results: commands, deletions, log: log.clone() };
        tokio::spawn(deletion::run(store, deletion_receiver, log));
        let control = Arc::new(control);
        tokio::spawn(Arc::clone(&dialler).keep(Class::Control, move |connection| {
            let control = Arc::clone(&control);
            async move { control.serve(connection).await }
        }));
        let store_connection = Arc::new(store_connection);
        tokio::spawn(dialler.keep(Class::Blobs, move |connection| {
            let store_connection = Arc::clone(&store_connection);
            async move { store_connection.serve(connection).await }
        }));
        // Until the hot loop is gone, and with it the process.
        workshop.run(jobs).await;
    }
}

/// Keeps a requests connection, on the hot loop's own runtime, from when on requests can be served.
async fn keep_requests(dialler: Arc<Dialler>, ready: Arc<Notify>, connections: mpsc::Sender<Requests>) {
    ready.notified().await;
    dialler
        .keep_stream(Class::Requests, move |stream| {
            let connections = connections.clone();
            async move {
                let (ended, end) = oneshot::channel();
                let answers = Answers::new(stream, Limits::of(Class::Requests));
                connections.send(Requests { answers, ended }).await.ok()?;
                end.await.ok()
            }
        })
        .await;
}

fn runtime() -> std::io::Result<Runtime> {
    Builder::new_current_thread().enable_io().enable_time().max_blocking_threads(8).build()
}

/// Mixes hardware randomness into the kernel's pool: more sources can only help, and a guest has few of its own at boot.
fn mix_in(module: &dyn SecurityModule) -> Result<(), BootError> {
    let mut seed = Zeroizing::new([0; SEED_BYTES]);
    module.random(seed.as_mut_slice())?;
    Ok(OpenOptions::new().write(true).open("/dev/urandom")?.write_all(seed.as_slice())?)
}

/// A panic is a fault in the one process that all vaults trust: it ends at once, with its memory, and is started anew. The message stays
/// unsaid: it might hold what the panicking code was working on.
fn abort_on_panic() {
    std::panic::set_hook(Box::new(|panic| {
        let at = panic.location().map(ToString::to_string).unwrap_or_default();
        tracing::error!(at, "panic");
        std::process::abort();
    }));
}
