//! The supervisor's router, as far as one vault needs it: requests, opening, and the life of a slot. Each function has the name of the
//! one in `casemate_enclave::supervisor::router` whose decisions it repeats.

use casemate_enclave::supervisor::router::StoreFailed;

use crate::device::{Frame, Reply};
use crate::manager::{Context, FromManager, Manager, ToManager};
use crate::mutation::Mutation;
use crate::promise::Promise;
use crate::slot::{Closing, OpeningStep, Parked, Pending, Slot, Stage, State};
use crate::store::Chain;
use crate::world::World;

impl World {
    fn slot(&mut self, node: usize) -> Option<&mut Slot> {
        self.nodes[node].slot.as_mut()
    }

    /// Sends a message to a vault-manager. What is sent to one that is gone is lost.
    pub(crate) fn send(&mut self, node: usize, message: ToManager) {
        if let Some(manager) = self.slot(node).and_then(|slot| slot.manager.as_mut()) {
            manager.inbox.push(message);
        }
    }

    /// A vault-manager takes its next message, and its supervisor does what it says.
    pub(crate) fn handles(&mut self, node: usize) {
        let context = Context { salt: self.fresh_salt(), mutation: self.mutation };
        let Some(manager) = self.slot(node).and_then(|slot| slot.manager.as_mut()) else { return };
        let message = manager.inbox.remove(0);
        for said in manager.handle(message, context) {
            self.manager_said(node, said);
        }
    }

    fn manager_said(&mut self, node: usize, message: FromManager) {
        match message {
            FromManager::Reply(id, reply) => self.replied(node, id, reply),
            FromManager::Open => self.open(node),
            FromManager::Commit(version, object) => self.commit(node, version, object),
            FromManager::Parked(vault, lost) => self.park(node, vault, lost),
            FromManager::Resume => self.resume(node),
        }
    }

    /// Ends a process that broke the rules.
    pub(crate) fn violation(&mut self, node: usize) {
        self.broke(Promise::Obedient);
        self.kill(node);
    }

    // ---- requests -----------------------------------------------------------------------------------------------------------

    pub(crate) fn request(&mut self, node: usize, frame: Frame) {
        let slot = self.nodes[node].open_half();
        let id = slot.fresh_id();
        slot.requests.push(Pending { id, frame, stage: Stage::Waiting });
        if slot.is_serving() {
            self.deliver(node, id);
        }
    }

    /// Sends a waiting request to its process.
    fn deliver(&mut self, node: usize, id: u8) {
        let Some(slot) = self.slot(node) else { return };
        let Some(pending) = slot.requests.iter_mut().find(|pending| pending.id == id) else { return };
        pending.stage = Stage::Sent;
        let message = ToManager::Request(id, pending.frame.request);
        self.send(node, message);
    }

    /// The vault-manager answered a request.
    fn replied(&mut self, node: usize, id: u8, reply: Reply) {
        self.judge_reply(&reply);
        let Some(slot) = self.slot(node) else { return };
        let Some(at) = slot.requests.iter().position(|pending| pending.id == id) else {
            // A number that it was never given.
            return self.violation(node);
        };
        let pending = slot.requests.remove(at);
        slot.resumed = false;
        match pending.stage {
            Stage::Sent if !pending.frame.given_up => self.send_reply(reply),
            // Its caller was told already, or has asked again.
            Stage::Sent => {}
            Stage::Waiting => self.violation(node),
        }
    }

    // ---- opening ------------------------------------------------------------------------------------------------------------

    fn open(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        let reload = match slot.state {
            State::HalfOpen => false,
            State::Open if slot.commit.is_none() => true,
            // It was told to stop meanwhile.
            State::Closing(_) => return,
            State::Opening { .. } | State::Open => return self.violation(node),
        };
        slot.state = State::Opening { reload, step: OpeningStep::Loading };
        slot.handed = None;
        self.nodes[node].parked = None;
    }

    /// A process goes on with all of its vault.
    fn resume(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        match (&slot.state, slot.handed) {
            (State::HalfOpen, Some(version)) => {
                slot.committed = version;
                slot.state = State::Open;
                (slot.handed, slot.resumed) = (None, true);
                self.nodes[node].parked = None;
            }
            // It was told to stop meanwhile.
            (State::Closing(_), _) => {}
            _ => self.violation(node),
        }
    }

    /// The store has read what there is, or failed.
    pub(crate) fn loaded(&mut self, node: usize, result: Result<(), StoreFailed>) {
        let chain = self.store.load();
        let Some(slot) = self.slot(node) else { return };
        let State::Opening { step, .. } = &mut slot.state else { return };
        match result {
            Ok(()) => *step = OpeningStep::Unwrapping(chain),
            Err(StoreFailed) => self.opening_failed(node),
        }
    }

    pub(crate) fn vault_key(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        let State::Opening { reload, step: OpeningStep::Unwrapping(chain) } = slot.state else { return };
        if !reload {
            slot.committed = chain.version();
        }
        slot.state = State::Open;
        self.send(node, ToManager::Opened(chain));
    }

    fn opening_failed(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        let State::Opening { reload, .. } = slot.state else { return };
        slot.state = if reload { State::Open } else { State::HalfOpen };
        self.send(node, ToManager::OpenRefused);
    }

    // ---- leaving ------------------------------------------------------------------------------------------------------------

    /// Another vault needs the place or the memory, or nobody used this one for long.
    pub(crate) fn make_room(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        if slot.commit.is_some() || slot.manager.as_ref().is_some_and(Manager::is_busy) {
            self.broke(Promise::Idle);
        }
        self.stop(node, true);
    }

    /// A process that was told to leave its vault to the next one has done so.
    fn park(&mut self, node: usize, vault: Chain, lost: bool) {
        let Some(slot) = self.slot(node) else { return };
        match slot.state {
            State::Closing(Closing::Stopping { parks: true }) => {
                let committed = slot.committed;
                self.nodes[node].parked = Some(Parked { vault, committed, lost });
            }
            // It was told to stop for good meanwhile.
            State::Closing(_) => {}
            State::HalfOpen | State::Opening { .. } | State::Open => self.violation(node),
        }
    }

    /// Whether a vault may be made to leave for another.
    pub(crate) fn may_leave(&self, node: usize) -> bool {
        let is_open = |slot: &Slot| slot.state == State::Open;
        let slot = self.nodes[node].slot.as_ref();
        slot.is_some_and(|slot| slot.is_idle() || is_open(slot) && self.has(Mutation::EvictsBusy))
    }

    /// Lets a process end by itself: it answers what it holds first, and leaves its vault to the next one if it may.
    pub(crate) fn stop(&mut self, node: usize, parks: bool) {
        let keeps = self.has(Mutation::ParksWhatItLost);
        let Some(slot) = self.slot(node) else { return };
        match &mut slot.state {
            // It may have been leaving for want of a place, and is to be closed now.
            State::Closing(Closing::Stopping { parks: may_park }) => *may_park &= parks || keeps,
            State::Closing(_) => {}
            // Nothing is promised to anybody yet.
            State::HalfOpen | State::Opening { .. } => self.kill(node),
            State::Open => {
                slot.state = State::Closing(Closing::Stopping { parks });
                self.send(node, ToManager::Stop(parks));
            }
        }
    }

    /// Ends a process now.
    pub(crate) fn kill(&mut self, node: usize) {
        let Some(slot) = self.slot(node) else { return };
        if !matches!(slot.state, State::Closing(Closing::Killed | Closing::Exited)) {
            self.end(node, Closing::Killed);
        }
    }

    /// Everything that ends with a process. Its callers are told, except those that wait for the next one.
    fn end(&mut self, node: usize, closing: Closing) {
        let Some(slot) = self.slot(node) else { return };
        let keep_waiting = matches!(slot.state, State::Closing(_));
        slot.state = State::Closing(closing);
        slot.manager = None;
        slot.requests.retain(|pending| keep_waiting && pending.stage == Stage::Waiting);
        if let Some(write) = slot.commit.take() {
            slot.late_put = write.commit.outstanding_put();
        }
    }

    /// The process is gone and was reaped.
    pub(crate) fn exited(&mut self, node: usize) {
        self.end(node, Closing::Exited);
        self.release(node);
    }

    /// The supervisor ends, and with it all vault-managers. What it had sent to the store may arrive without it.
    pub(crate) fn restart(&mut self, node: usize) {
        let gone = std::mem::take(&mut self.nodes[node]);
        let under_way = gone.puts.into_iter().filter(|put| put.said.is_none());
        self.adrift.extend(under_way.map(|put| (put.version, put.object)));
        self.adrift.sort_unstable();
    }

    /// Gives a slot back once its process is reaped and no call to the store is under way; who waited gets a new one.
    pub(crate) fn release(&mut self, node: usize) {
        let may_overlap = self.has(Mutation::ReopensOverLatePut);
        let Some(slot) = &self.nodes[node].slot else { return };
        if slot.state != State::Closing(Closing::Exited) || slot.late_put.is_some() && !may_overlap {
            return;
        }
        let Some(slot) = self.nodes[node].slot.take() else { return };
        for pending in slot.requests {
            debug_assert_eq!(pending.stage, Stage::Waiting);
            self.request(node, pending.frame);
        }
    }
}
