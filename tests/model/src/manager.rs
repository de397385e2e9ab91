//! A vault-manager: what `casemate_enclave::vault::manager` does, without keys, sessions and bytes.

use std::mem;

use casemate_enclave::ipc::CommitResult;
use casemate_protocol::error::ErrorCode;

use crate::device::{Operation, Outcome, Reply, Request};
use crate::mutation::Mutation;
use crate::slot::Parked;
use crate::store::{Chain, Object, Writes};

/// Supervisor to vault-manager.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ToManager {
    /// A device's request, and the number that the reply repeats.
    Request(u8, Request),
    /// Answers [`FromManager::Open`].
    Opened(Chain),
    /// Answers [`FromManager::Open`] when it did not work.
    OpenRefused,
    /// Answers [`FromManager::Commit`].
    CommitResult(CommitResult),
    /// Answer what is in flight and exit; and leave the vault to the next process, or do not.
    Stop(bool),
}

/// Vault-manager to supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FromManager {
    /// The answer to a request.
    Reply(u8, Reply),
    /// The vault is to be opened, or read anew.
    Open,
    /// This version is to be stored.
    Commit(u64, Object),
    /// The vault, for the process that comes next; and whether this one may have lost it.
    Parked(Chain, bool),
    /// It goes on with what it was handed.
    Resume,
}

/// A request out of a session, on its way to an answer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pending {
    id: u8,
    /// The request.
    pub request: Request,
    /// Whether the vault was read anew for this request's head already.
    reloaded: bool,
}

/// A request in the version that is on its way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Caller {
    id: u8,
    request: Request,
    outcome: Outcome,
}

/// Where a vault-manager stands.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Phase {
    /// No device has shown a key yet.
    HalfOpen,
    /// The objects were asked for. With `open`, an open vault is being read anew.
    Loading {
        /// Who waits to be let in.
        waiting: Vec<Pending>,
        /// The open vault.
        open: Option<Chain>,
    },
    /// Open, and nothing on its way to the store.
    Idle(Chain),
    /// Open, and the next version on its way to the store.
    Committing {
        /// What is committed.
        vault: Chain,
        /// What is on its way.
        next: Object,
        /// Who is told when it is committed.
        callers: Vec<Caller>,
    },
    /// Nothing more will be done; the process ends.
    Ended,
}

/// A vault-manager.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Manager {
    /// Where it stands.
    pub phase: Phase,
    /// Messages that it has not taken yet.
    pub inbox: Vec<ToManager>,
    queue: Vec<Pending>,
    stopping: bool,
    parks: bool,
    /// What the process before it left.
    held: Option<Parked>,
    /// Whether it was told that its state may not be the vault's any more.
    pub lost: bool,
}

/// What surrounds one message: randomness, and what is wrong on purpose.
#[derive(Debug, Clone, Copy)]
pub struct Context {
    /// A salt that no object has.
    pub salt: u8,
    /// What is wrong.
    pub mutation: Option<Mutation>,
}

impl Context {
    fn has(self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }
}

type Out = Vec<FromManager>;

impl Default for Manager {
    /// A process that knows nothing.
    fn default() -> Self {
        Self {
            phase: Phase::HalfOpen,
            inbox: Vec::new(),
            queue: Vec::new(),
            stopping: false,
            parks: false,
            held: None,
            lost: false,
        }
    }
}

impl Manager {
    /// A process that was handed what the one before it left.
    pub fn handed(held: Option<Parked>) -> Self {
        Self { held, ..Self::default() }
    }

    /// A vault-manager whose vault is open.
    pub fn open(vault: Chain) -> Self {
        Self { phase: Phase::Idle(vault), ..Self::default() }
    }

    /// What it holds as committed.
    pub fn vault(&self) -> Option<&Chain> {
        match &self.phase {
            Phase::Idle(vault) | Phase::Committing { vault, .. } | Phase::Loading { open: Some(vault), .. } => {
                Some(vault)
            }
            Phase::HalfOpen | Phase::Loading { open: None, .. } | Phase::Ended => None,
        }
    }

    /// Whether its process ends.
    pub fn has_ended(&self) -> bool {
        self.phase == Phase::Ended
    }

    /// Whether it has, or is about to be given, anything to do.
    pub fn is_busy(&self) -> bool {
        let has_request = self.inbox.iter().any(|message| matches!(message, ToManager::Request(..)));
        let is_at_work = matches!(self.phase, Phase::Loading { .. } | Phase::Committing { .. });
        has_request || is_at_work || !self.queue.is_empty()
    }

    /// Takes one message.
    pub fn handle(&mut self, message: ToManager, context: Context) -> Out {
        let mut out = Out::new();
        match message {
            ToManager::Request(id, request) => {
                self.frame(Pending { id, request, reloaded: false }, context, &mut out);
            }
            ToManager::Opened(chain) => self.opened(chain, context, &mut out),
            ToManager::OpenRefused => self.open_refused(context, &mut out),
            ToManager::CommitResult(result) => self.commit_result(result, context, &mut out),
            ToManager::Stop(parks) => {
                self.stopping = true;
                self.parks = parks;
                if !matches!(self.phase, Phase::Committing { .. }) {
                    self.end(&mut out);
                }
            }
        }
        out
    }

    /// Ends, and leaves an open vault to the next process if that is wanted.
    fn end(&mut self, out: &mut Out) {
        if let Phase::Idle(vault) = mem::replace(&mut self.phase, Phase::Ended)
            && self.parks
        {
            out.push(FromManager::Parked(vault, self.lost));
        }
    }

    /// A handshake's last message while the vault is half-open or being opened, else a message of a session.
    fn frame(&mut self, pending: Pending, context: Context, out: &mut Out) {
        match &mut self.phase {
            Phase::HalfOpen => {
                if let Some(held) = self.held.take() {
                    self.lost = held.lost;
                    self.phase = Phase::Idle(held.vault);
                    out.push(FromManager::Resume);
                    return self.request(pending, context, out);
                }
                self.phase = Phase::Loading { waiting: vec![pending], open: None };
                out.push(FromManager::Open);
            }
            Phase::Loading { waiting, open: None } => waiting.push(pending),
            Phase::Loading { open: Some(_), .. } | Phase::Idle(_) | Phase::Committing { .. } | Phase::Ended => {
                self.request(pending, context, out);
            }
        }
    }

    fn answer(&self, pending: &Pending, outcome: Outcome, out: &mut Out) {
        let head = self.vault().map(Chain::head);
        out.push(FromManager::Reply(pending.id, Reply { request: pending.request, outcome, head }));
    }

    fn refused(&self, pending: &Pending, code: ErrorCode, out: &mut Out) {
        self.answer(pending, Outcome::Refused(code), out);
    }

    /// Judges a request and answers it, queues it, or makes it the first of a new version.
    fn request(&mut self, mut pending: Pending, context: Context, out: &mut Out) {
        let vault = match &self.phase {
            Phase::Idle(vault) | Phase::Committing { vault, .. } => vault,
            Phase::Loading { .. } => return self.queue.push(pending),
            Phase::HalfOpen | Phase::Ended => return self.refused(&pending, ErrorCode::SessionUnknown, out),
        };
        match judge(vault, &pending.request, context) {
            HeadStanding::Known => {}
            HeadStanding::Newer if pending.reloaded || context.has(Mutation::NeverReloads) => {
                return self.refused(&pending, ErrorCode::RollbackDetected, out);
            }
            HeadStanding::Newer => {
                pending.reloaded = true;
                return self.reload(pending, out);
            }
            HeadStanding::Forked => return self.refused(&pending, ErrorCode::ForkDetected, out),
        }
        match pending.request.operation {
            Operation::Put => {
                self.queue.push(pending);
                if matches!(self.phase, Phase::Idle(_)) {
                    self.start_version(context, out);
                }
            }
            Operation::Get => {
                let mut writes = vault.writes();
                if let Phase::Committing { next, .. } = &self.phase
                    && context.has(Mutation::ReadsOverlay)
                {
                    writes = writes.and(next.writes);
                }
                self.answer(&pending, Outcome::Value(writes), out);
            }
        }
    }

    /// A device has seen a newer version than this process.
    fn reload(&mut self, pending: Pending, out: &mut Out) {
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Idle(vault) => {
                self.phase = Phase::Loading { waiting: Vec::new(), open: Some(vault) };
                out.push(FromManager::Open);
                self.queue.insert(0, pending);
            }
            phase => {
                self.phase = phase;
                self.queue.push(pending);
            }
        }
    }

    /// Executes what is queued, in order, into the next version.
    fn start_version(&mut self, context: Context, out: &mut Out) {
        let Phase::Idle(vault) = mem::replace(&mut self.phase, Phase::Ended) else {
            unreachable!("only an idle vault starts a version");
        };
        let (mut callers, mut refused) = (Vec::new(), Vec::new());
        let mut changes = Writes::default();
        for pending in mem::take(&mut self.queue) {
            match judge(&vault, &pending.request, context) {
                HeadStanding::Known => {}
                HeadStanding::Newer => {
                    refused.push((pending, ErrorCode::Moved));
                    continue;
                }
                HeadStanding::Forked => {
                    refused.push((pending, ErrorCode::ForkDetected));
                    continue;
                }
            }
            let outcome = match pending.request.write() {
                Some(write) => {
                    let is_known = vault.writes().and(changes).contain(write);
                    if !is_known || context.has(Mutation::ForgetsOutcomes) {
                        changes = changes.and(write);
                    }
                    Outcome::Done
                }
                None => Outcome::Value(vault.writes().and(changes)),
            };
            callers.push(Caller { id: pending.id, request: pending.request, outcome });
        }
        if changes == Writes::default() {
            self.phase = Phase::Idle(vault);
            self.answer_callers(callers, out);
        } else {
            let next = vault.next(changes, context.salt);
            out.push(FromManager::Commit(vault.version() + 1, next));
            self.phase = Phase::Committing { vault, next, callers };
            if context.has(Mutation::AnswersBeforeCreated)
                && let Phase::Committing { callers, .. } = &mut self.phase
            {
                let callers = mem::take(callers);
                self.answer_callers(callers, out);
            }
        }
        for (pending, code) in refused {
            self.refused(&pending, code, out);
        }
    }

    fn answer_callers(&self, callers: Vec<Caller>, out: &mut Out) {
        let head = self.vault().map(Chain::head);
        let reply = |caller: Caller| {
            FromManager::Reply(caller.id, Reply { request: caller.request, outcome: caller.outcome, head })
        };
        out.extend(callers.into_iter().map(reply));
    }

    fn commit_result(&mut self, result: CommitResult, context: Context, out: &mut Out) {
        let (mut vault, next, callers) = match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Committing { vault, next, callers } => (vault, next, callers),
            phase => {
                self.phase = phase;
                return;
            }
        };
        match result {
            CommitResult::Committed => {
                vault.push(next);
                self.phase = Phase::Idle(vault);
                self.answer_callers(callers, out);
                if !self.queue.is_empty() {
                    if self.stopping {
                        self.fail_queue(ErrorCode::Draining, out);
                    } else {
                        self.start_version(context, out);
                    }
                }
            }
            CommitResult::NotSent => {
                self.phase = Phase::Idle(vault);
                self.fail_callers(callers, ErrorCode::Unavailable, out);
                self.fail_queue(ErrorCode::Unavailable, out);
            }
            CommitResult::OtherWriter => {
                self.lost = true;
                let parks = self.parks && context.has(Mutation::ParksWhatItLost);
                if parks || context.has(Mutation::OutlivesItsVault) {
                    self.phase = Phase::Idle(vault);
                }
                self.fail_callers(callers, ErrorCode::Moved, out);
                self.fail_queue(ErrorCode::Moved, out);
            }
            CommitResult::Unknown => {
                self.lost = true;
                self.fail_callers(callers, ErrorCode::OutcomeUnknown, out);
                self.fail_queue(ErrorCode::Unavailable, out);
            }
        }
        if self.stopping {
            self.end(out);
        }
    }

    fn fail_callers(&self, callers: Vec<Caller>, code: ErrorCode, out: &mut Out) {
        let refuse = |caller| Caller { outcome: Outcome::Refused(code), ..caller };
        self.answer_callers(callers.into_iter().map(refuse).collect(), out);
    }

    fn fail_queue(&mut self, code: ErrorCode, out: &mut Out) {
        for pending in mem::take(&mut self.queue) {
            self.refused(&pending, code, out);
        }
    }

    // ---- opening ------------------------------------------------------------------------------------------------------------

    fn take_loading(&mut self) -> Option<(Vec<Pending>, Option<Chain>)> {
        match mem::replace(&mut self.phase, Phase::Ended) {
            Phase::Loading { waiting, open } => Some((waiting, open)),
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    fn opened(&mut self, chain: Chain, context: Context, out: &mut Out) {
        let Some((waiting, open)) = self.take_loading() else { return };
        let Some(open) = open else {
            self.phase = Phase::Idle(chain);
            return self.enter_all(waiting, context, out);
        };
        self.phase = match chain.version() > open.version() {
            // Another writer took another way from an older state: ours is not the vault's any more.
            true if !open.is_begin_of(&chain) => {
                self.lost = true;
                self.turn_all_away(waiting, ErrorCode::Moved, out);
                return self.fail_queue(ErrorCode::Moved, out);
            }
            true => Phase::Idle(chain),
            false => Phase::Idle(open),
        };
        self.enter_all(waiting, context, out);
        self.release_queue(context, out);
    }

    /// Judges again what waited for a reload.
    fn release_queue(&mut self, context: Context, out: &mut Out) {
        for mut pending in mem::take(&mut self.queue) {
            pending.reloaded |= context.has(Mutation::ReloadsForLatecomers);
            self.request(pending, context, out);
        }
    }

    fn open_refused(&mut self, context: Context, out: &mut Out) {
        let Some((waiting, open)) = self.take_loading() else { return };
        if let Some(open) = open {
            self.phase = Phase::Idle(open);
            self.enter_all(waiting, context, out);
            self.fail_queue(ErrorCode::Unavailable, out);
        } else {
            self.turn_all_away(waiting, ErrorCode::Unavailable, out);
        }
    }

    fn enter_all(&mut self, entrants: Vec<Pending>, context: Context, out: &mut Out) {
        for pending in entrants {
            match &mut self.phase {
                Phase::Loading { waiting, .. } => waiting.push(pending),
                Phase::HalfOpen | Phase::Idle(_) | Phase::Committing { .. } | Phase::Ended => {
                    self.request(pending, context, out);
                }
            }
        }
    }

    fn turn_all_away(&self, waiting: Vec<Pending>, code: ErrorCode, out: &mut Out) {
        for pending in waiting {
            self.refused(&pending, code, out);
        }
    }
}

/// What a device's head means for a vault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeadStanding {
    Known,
    Newer,
    Forked,
}

fn judge(vault: &Chain, request: &Request, context: Context) -> HeadStanding {
    if context.has(Mutation::IgnoresHeads) {
        return HeadStanding::Known;
    }
    match vault.object(request.head.version) {
        None => HeadStanding::Newer,
        Some(object) if object.salt == request.head.salt => HeadStanding::Known,
        Some(_) => HeadStanding::Forked,
    }
}
