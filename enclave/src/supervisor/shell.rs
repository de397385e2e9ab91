//! The hot loop: one thread that owns router, sockets, zygote and the requests connection.
//!
//! At each wake-up it takes whatever is ready, feeds the router, does what the router wants, and writes the answers at once. Nothing in
//! it waits for anything but the next event: store, keys and evidence are jobs for the other thread. It is one future with one poll
//! function, because a hand-over between tasks costs more than most of what is handed over.

use std::collections::HashMap;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use casemate_link::{Answers, BusyPoll, CloseReason, Stream, Ticket};
use casemate_protocol::codec;
use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::DeviceFrame;
use casemate_protocol::health::{RefusalNumbers, VaultNumbers};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits::NONCE_BYTES;
use casemate_protocol::link::{LogEvent, LogLevel, REQUEST_BYTES, RequestCall, RequestReply, Tuning};
use casemate_protocol::resident::VaultsBy;
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, Sleep};

use super::deletion::Deletion;
use super::jobs::Job;
use super::log::Log;
use super::managers::{Heard, Managers};
use super::memory::{self, Memory};
use super::node::Node;
use super::router::{Action, Answer, Event, ManagerExit, Put, RequestId, Router, SlotId, StoreFailed, VaultView};
use super::stages::Stages;
use crate::ipc::ToManager;
use crate::outside::Clock;
use crate::watch;
use crate::zygote::{ExitKind, Zygote, ZygoteError, ZygoteEvent};

/// How often memory is looked at.
const MEMORY_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest nonce that evidence is made for.
const NONCE_MIN: usize = 8;

/// What the other thread asks of this one.
#[derive(Debug)]
pub enum Command {
    /// Something for the router.
    Event(Event),
    /// Other limits.
    Tune(Tuning),
    /// The numbers for health.
    Numbers(oneshot::Sender<Numbers>),
    /// The first of all vaults that have a slot, in this order.
    Vaults(VaultsBy, usize, oneshot::Sender<Vec<VaultView>>),
    /// Close a vault; says whether there was one, once it is closed.
    Evict(VaultId, oneshot::Sender<bool>),
    /// Drain; says when it is done.
    Drain(oneshot::Sender<()>),
    /// Evidence that a stranger asked for.
    Attested(Ticket, RequestReply),
}

/// A requests connection, and where its end is told.
#[derive(Debug)]
pub struct Requests {
    /// The connection.
    pub answers: Answers<Stream>,
    /// Told when it has ended.
    pub ended: oneshot::Sender<CloseReason>,
}

/// What this thread tells of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Numbers {
    /// Vaults.
    pub vaults: VaultNumbers,
    /// What was not believed.
    pub refusals: RefusalNumbers,
    /// How long the stages of requests took.
    pub stages: Stages,
    /// The machine's memory, as sampled last.
    pub memory: Memory,
    /// Whether memory is short.
    pub is_short_of_memory: bool,
    /// Whether the node drains.
    pub is_draining: bool,
}

/// Why the supervisor ends. There is no other reason.
#[derive(Debug, thiserror::Error)]
pub enum ShellError {
    /// Without the zygote no vault-manager can be started or reaped.
    #[error(transparent)]
    Zygote(#[from] ZygoteError),
    /// The sockets of zygote and vault-managers cannot be watched.
    #[error("the sockets of zygote and vault-managers cannot be watched: {0}")]
    Watch(#[from] std::io::Error),
    /// The other thread is gone.
    #[error("the supervisor's second thread has ended; the enclave must be started anew")]
    OtherThread,
}

/// What the loop is made of.
#[derive(Debug)]
pub struct ShellParts {
    /// The router.
    pub router: Router,
    /// The zygote.
    pub zygote: Zygote,
    /// This node.
    pub node: Arc<Node>,
    /// Monotonic time.
    pub clock: Arc<dyn Clock>,
    /// Where events are told.
    pub log: Log,
    /// Work for the other thread.
    pub jobs: mpsc::Sender<Job>,
    /// Orders and results of the other thread.
    pub commands: mpsc::Receiver<Command>,
    /// Requests connections, one after the other.
    pub connections: mpsc::Receiver<Requests>,
}

#[derive(Debug)]
struct Shell {
    router: Router,
    managers: Managers,
    zygote: AsyncFd<Zygote>,
    node: Arc<Node>,
    clock: Arc<dyn Clock>,
    log: Log,
    jobs: mpsc::Sender<Job>,
    commands: mpsc::Receiver<Command>,
    connections: mpsc::Receiver<Requests>,
    requests: Option<Requests>,
    /// For the next request, while none is in flight.
    next: BusyPoll,
    callers: HashMap<RequestId, Ticket>,
    /// Answers of this round.
    replies: Vec<(Ticket, RequestReply)>,
    next_request: RequestId,
    heard: Vec<Heard>,
    actions: Vec<Action>,
    drains: Vec<oneshot::Sender<()>>,
    /// Operators who wait until a vault is closed. As many as the link's window at most.
    evictions: Vec<(VaultId, oneshot::Sender<bool>)>,
    is_drained: bool,
    memory: Memory,
    memory_at: Instant,
    timer: Pin<Box<Sleep>>,
}

/// Runs the loop until the supervisor must end.
///
/// # Errors
/// Always: see [`ShellError`].
pub async fn run(parts: ShellParts) -> Result<std::convert::Infallible, ShellError> {
    let ShellParts { router, zygote, node, clock, log, jobs, commands, connections } = parts;
    let memory_at = Instant::now();
    let mut shell = Shell {
        router,
        managers: Managers::new()?,
        zygote: watch::zygote(zygote)?,
        node,
        clock,
        log,
        jobs,
        commands,
        connections,
        requests: None,
        next: BusyPoll::default(),
        callers: HashMap::new(),
        replies: Vec::new(),
        next_request: 0,
        heard: Vec::new(),
        actions: Vec::new(),
        drains: Vec::new(),
        evictions: Vec::new(),
        is_drained: false,
        memory: Memory::default(),
        memory_at,
        timer: Box::pin(tokio::time::sleep_until(memory_at)),
    };
    poll_fn(|cx| shell.poll(cx)).await
}

impl Shell {
    /// Takes everything that is ready, in rounds, until nothing is; afterwards a waker is registered with all that can happen next.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<std::convert::Infallible, ShellError>> {
        loop {
            let was_full = self.is_full();
            let any = self.poll_round(cx)?;
            if any {
                self.act()?;
            }
            // Also when nothing came: what the other side had no room for may go now, and then there may be room for more calls.
            self.flush(cx);
            if !any && was_full == self.is_full() {
                break;
            }
        }
        let now = std::time::Instant::now();
        match self.callers.len() {
            0 if self.requests.is_some() && self.next.waits(now) => self.next.look_again(now, cx),
            0 => {}
            1 => self.next.came(now),
            _ => self.next.crowded(now),
        }
        Poll::Pending
    }

    /// One round: a burst of each kind. Says whether there was anything.
    fn poll_round(&mut self, cx: &mut Context<'_>) -> Result<bool, ShellError> {
        let mut any = self.poll_requests(cx) | self.poll_time(cx);
        if let Poll::Ready(polled) = self.managers.poll_hear(cx, self.clock.monotonic(), &mut self.heard) {
            polled?;
            any = true;
            let mut heard = std::mem::take(&mut self.heard);
            heard.drain(..).for_each(|heard| self.heard(heard));
            self.heard = heard;
        }
        while let Poll::Ready(command) = self.commands.poll_recv(cx) {
            any = true;
            self.command(command.ok_or(ShellError::OtherThread)?);
        }
        while let Poll::Ready(ready) = self.zygote.poll_read_ready(cx) {
            any = true;
            ready?.clear_ready();
            while let Some(event) = self.zygote.get_ref().next_event()? {
                self.zygote(event);
            }
        }
        Ok(any)
    }

    fn poll_requests(&mut self, cx: &mut Context<'_>) -> bool {
        let mut any = false;
        while let Poll::Ready(Some(next)) = self.connections.poll_recv(cx) {
            any = true;
            self.requests = Some(next);
        }
        if self.is_full() {
            return any;
        }
        let Some(mut requests) = self.requests.take() else { return any };
        match requests.answers.poll_receive(cx, |ticket, body| self.incoming(ticket, body)) {
            Poll::Ready(Ok(())) => any = true,
            Poll::Pending => {}
            // Who waits on it can no longer be answered; what was begun runs to its end all the same.
            Poll::Ready(Err(reason)) => {
                let _ = requests.ended.send(reason);
                return true;
            }
        }
        self.requests = Some(requests);
        any
    }

    /// Whether the other side has to take answers before it may call again.
    fn is_full(&self) -> bool {
        self.requests.as_ref().is_some_and(|requests| requests.answers.is_full())
    }

    /// Deadlines come in nearly ascending order: a timer that is set early enough is left as it is, and asked again when it fires.
    fn poll_time(&mut self, cx: &mut Context<'_>) -> bool {
        let now = Instant::now();
        let router = now + self.router.next_wake().saturating_sub(self.clock.monotonic());
        let stalls = self.requests.as_ref().and_then(|requests| requests.answers.stalls_at());
        let first = stalls.into_iter().fold(router.min(self.memory_at), Instant::min);
        if first > now {
            if self.timer.deadline() > first || self.timer.deadline() <= now {
                self.timer.as_mut().reset(first);
            }
            if self.timer.as_mut().poll(cx).is_pending() {
                return false;
            }
        }
        if now >= self.memory_at {
            self.memory_at = now + MEMORY_INTERVAL;
            self.housekeeping();
        }
        self.event(Event::Tick);
        true
    }

    fn flush(&mut self, cx: &mut Context<'_>) {
        let Some(requests) = &mut self.requests else { return self.replies.clear() };
        for (ticket, reply) in self.replies.drain(..) {
            requests.answers.answer(&ticket, codec::encode(&reply).into());
        }
        if let Err(reason) = requests.answers.poll_flush(cx)
            && let Some(requests) = self.requests.take()
        {
            let _ = requests.ended.send(reason);
        }
    }

    fn event(&mut self, event: Event) {
        let now = self.clock.monotonic();
        self.router.handle(event, now, &mut self.actions);
    }

    fn incoming(&mut self, reply: Ticket, body: &[u8]) {
        match codec::decode(body, REQUEST_BYTES) {
            Ok(RequestCall::Vault { vault, deadline_ms, frame }) => self.request(vault, deadline_ms, frame, reply),
            Ok(RequestCall::Attest { nonce }) => self.attest(nonce, reply),
            Err(_) => {
                self.router.bad_frame();
                self.refuse(reply, Refusal::new(ErrorCode::Malformed));
            }
        }
    }

    fn request(&mut self, vault: VaultId, deadline_ms: u32, frame: Vec<u8>, reply: Ticket) {
        let peek = match DeviceFrame::peek(&frame) {
            Ok(peek) => peek,
            Err(code) => {
                self.router.bad_frame();
                return self.refuse(reply, Refusal::new(code));
            }
        };
        // What the device wants, or what is left of it by the parent's count.
        let remaining = peek.deadline.min(Duration::from_millis(deadline_ms.into()));
        self.next_request += 1;
        let id = self.next_request;
        self.callers.insert(id, reply);
        self.event(Event::Request { id, vault, remaining, kind: peek.kind, session: peek.session, frame });
    }

    fn attest(&mut self, nonce: Vec<u8>, reply: Ticket) {
        if !(NONCE_MIN..=NONCE_BYTES).contains(&nonce.len()) {
            return self.refuse(reply, Refusal::field(ErrorCode::InvalidArgument, "nonce"));
        }
        if let Err(refusal) = self.router.admit_attest(self.clock.monotonic()) {
            return self.refuse(reply, refusal);
        }
        if let Err(error) = self.jobs.try_send(Job::Attest(nonce, reply))
            && let Job::Attest(_, reply) = error.into_inner()
        {
            self.refuse(reply, Refusal::retry(ErrorCode::Busy, 100));
        }
    }

    fn heard(&mut self, heard: Heard) {
        self.event(match heard {
            Heard::Message(slot, message) => Event::FromManager { slot, message },
            Heard::Broken(slot) => Event::Broken { slot },
            Heard::Exited(slot, exit) => Event::Exited { slot, exit },
        });
    }

    fn zygote(&mut self, event: ZygoteEvent) {
        match event {
            ZygoteEvent::Spawned { slot, pid, .. } => {
                self.managers.spawned(SlotId(slot.0), pid);
                self.event(Event::Spawned { slot: SlotId(slot.0), pid: pid.unsigned_abs() });
            }
            ZygoteEvent::SpawnFailed { slot, .. } => self.event(Event::SpawnFailed { slot: SlotId(slot.0) }),
            ZygoteEvent::Exited { slot, status } => {
                let exit = match status {
                    ExitKind::Code(code) => ManagerExit::Status(code),
                    ExitKind::Signal(number) => ManagerExit::Signal(number),
                    ExitKind::SandboxKilled => ManagerExit::SandboxKilled,
                    ExitKind::LayerFailed(layer) => ManagerExit::LayerFailed(layer.number()),
                };
                if let Some(heard) = self.managers.exited(SlotId(slot.0), exit) {
                    self.heard(heard);
                }
            }
        }
    }

    fn command(&mut self, command: Command) {
        // Who asked may have given up meanwhile; then nobody needs the answer.
        match command {
            Command::Event(event) => self.event(event),
            Command::Attested(ticket, reply) => self.replies.push((ticket, reply)),
            Command::Tune(tuning) => self.event(Event::Tuning(tuning)),
            Command::Numbers(answer) => {
                let numbers = Numbers {
                    vaults: self.router.numbers(),
                    refusals: self.router.refusals(),
                    stages: self.router.stages().clone(),
                    memory: self.memory,
                    is_short_of_memory: self.router.is_short_of_memory(),
                    is_draining: self.router.is_draining(),
                };
                let _ = answer.send(numbers);
            }
            Command::Vaults(by, limit, answer) => {
                let _ = answer.send(self.router.vaults(by, limit, self.clock.monotonic()));
            }
            Command::Evict(vault, answer) => {
                if self.router.holds(vault) || self.router.has_parked(vault) {
                    self.evictions.push((vault, answer));
                } else {
                    let _ = answer.send(false);
                }
                self.event(Event::Evict(vault));
            }
            Command::Drain(answer) => {
                if self.is_drained {
                    let _ = answer.send(());
                } else {
                    self.drains.push(answer);
                }
                self.event(Event::Drain);
            }
        }
    }

    fn housekeeping(&mut self) {
        if let Ok(memory) = Memory::sample() {
            self.memory = memory;
            self.event(Event::Memory { total: memory.total, available: memory.available });
        }
        let shared = self.zygote.get_ref().shared_bytes();
        for (slot, pid) in self.router.to_weigh() {
            self.router.weighed(slot, memory::resident(pid, shared));
        }
        self.managers.look();
        for slot in self.managers.lingering(self.clock.monotonic()) {
            self.event(Event::Broken { slot });
        }
    }

    /// Does everything that the router wants done, and what it wants done because of that.
    fn act(&mut self) -> Result<(), ZygoteError> {
        while !self.actions.is_empty() {
            let mut actions = std::mem::take(&mut self.actions);
            actions.drain(..).try_for_each(|action| self.perform(action))?;
            // Its room is kept for the next round.
            actions.append(&mut self.actions);
            self.actions = actions;
        }
        self.managers.move_them(self.zygote.get_ref())?;
        let closed = |(vault, _): &mut (VaultId, _)| !self.router.is_closing(*vault);
        for (_, answer) in self.evictions.extract_if(.., closed) {
            let _ = answer.send(true);
        }
        Ok(())
    }

    fn perform(&mut self, action: Action) -> Result<(), ZygoteError> {
        match action {
            Action::Answer { id, answer } => self.answer(id, answer),
            Action::Spawn { slot, memory_bytes } => {
                match self.managers.spawn(slot, memory_bytes, self.zygote.get_ref()) {
                    Ok(()) => {}
                    Err(ZygoteError::Gone) => return Err(ZygoteError::Gone),
                    // No descriptor, no memory or too many spawns: this one fails, the node goes on.
                    Err(_) => self.event(Event::SpawnFailed { slot }),
                }
            }
            Action::Send { slot, message } => self.send(slot, &message),
            Action::SendHello { slot, vault, static_key, id, deadline_ms, frame } => {
                // Without credentials a vault-manager refuses the hello; there is evidence before the first request comes.
                let credentials = self.node.credentials(vault, static_key).map(Box::new);
                self.send(slot, &ToManager::Request { id, deadline_ms, frame, credentials });
            }
            Action::Kill { slot } => self.zygote.get_ref().kill(crate::zygote::Slot(slot.0))?,
            Action::Release { slot } => self.managers.release(slot),
            Action::LoadNewest { slot, op, vault } => self.job(Job::LoadNewest(slot, op, vault)),
            Action::Load { slot, op, vault } => self.job(Job::Load(slot, op, vault)),
            Action::WarmShardKey { shard, generation } => self.job(Job::WarmShardKey(shard, generation)),
            Action::VaultKey { slot, op, vault, wrapped } => self.job(Job::VaultKey(slot, op, vault, wrapped)),
            Action::Put { slot, op, path, bytes } => self.job(Job::Put(slot, op, path, bytes)),
            Action::ReadBack { slot, op, path } => self.job(Job::ReadBack(slot, op, path)),
            Action::Collect { vault, below } => self.job(Job::Delete(Deletion { vault, below, keys: false })),
            Action::Purge { vault, tombstone } => {
                self.job(Job::Delete(Deletion { vault, below: tombstone, keys: true }));
            }
            Action::Log { level, event, value } => self.log.tell(level, event, value),
            Action::Drained => {
                self.is_drained = true;
                for drain in self.drains.drain(..) {
                    let _ = drain.send(());
                }
            }
        }
        Ok(())
    }

    fn answer(&mut self, id: RequestId, answer: Answer) {
        let Some(reply) = self.callers.remove(&id) else {
            debug_assert!(false, "request {id} is answered twice");
            return;
        };
        match answer {
            Answer::Frame(frame) => self.replies.push((reply, RequestReply::Frame(frame))),
            Answer::Refused(refusal) => self.refuse(reply, refusal),
        }
    }

    fn send(&mut self, slot: SlotId, message: &ToManager) {
        if !self.managers.send(slot, message) {
            self.event(Event::Broken { slot });
        }
    }

    fn refuse(&mut self, reply: Ticket, refusal: Refusal) {
        self.replies.push((reply, RequestReply::Refused(refusal)));
    }

    /// Gives work to the other thread. A result comes in any case: from there, or, when it has no room, from here.
    fn job(&mut self, job: Job) {
        let Err(error) = self.jobs.try_send(job) else { return };
        self.log.tell(LogLevel::Warn, LogEvent::StoreFailed, None);
        let event = match error.into_inner() {
            Job::LoadNewest(slot, op, _) => Event::Newest { slot, op, result: Err(StoreFailed) },
            Job::Load(slot, op, _) => Event::Loaded { slot, op, result: Err(StoreFailed) },
            Job::VaultKey(slot, op, _, _) => {
                Event::VaultKey { slot, op, result: Err(Refusal::retry(ErrorCode::Busy, 100)) }
            }
            Job::Put(slot, op, _, _) => Event::PutDone { slot, op, put: Put::NotSent },
            Job::ReadBack(slot, op, _) => Event::ReadBack { slot, op, result: Err(StoreFailed) },
            Job::WarmShardKey(..) | Job::Delete(_) => return,
            Job::Attest(_, reply) => return self.refuse(reply, Refusal::retry(ErrorCode::Busy, 100)),
        };
        self.event(event);
    }
}
