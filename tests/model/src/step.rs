//! Which steps a state allows, and what follows from each.

use casemate_enclave::supervisor::router::{ManagerExit, Put, StoreFailed};

use crate::event::{Event, Step};
use crate::slot::{Awaits, Closing, Node, OpeningStep, Slot, State};
use crate::world::{NODES, World};

/// How a process ends that has nothing more to do.
const BY_ITSELF: ManagerExit = ManagerExit::Status(0);
/// How it ends otherwise: SIGKILL.
const KILLED: ManagerExit = ManagerExit::Signal(9);

impl World {
    /// Every step that this state allows. A state that broke a promise allows none: it is looked at, and nothing behind it.
    pub fn steps(&self, steps: &mut Vec<Step>) {
        if self.broken.is_some() {
            return;
        }
        self.concerns_one_device(&mut |step| steps.push(step));
        if !steps.is_empty() {
            return;
        }
        self.goes_on(&mut |event| steps.push(Step::GoesOn(event)));
        self.may_happen(&mut |event| steps.push(Step::MayHappen(event)));
        if self.trouble > 0 {
            self.goes_wrong(&mut |event| steps.push(Step::GoesWrong(event)));
        }
    }

    /// A reply that comes to its device, and a device that asks because nothing is left of its last attempt: nothing else that can happen
    /// changes what these do, nor do they change anything else. So they are tried first, and all else after them, not in every order.
    fn concerns_one_device(&self, happens: &mut dyn FnMut(Step)) {
        if let Some(reply) = self.replies.first() {
            happens(Step::GoesOn(Event::Reply(*reply)));
            if self.trouble > 0 {
                happens(Step::GoesWrong(Event::Deadline(reply.request.device)));
            }
        } else if let Some(device) = (0..self.devices.len()).find(|device| self.asks(*device)) {
            happens(Step::GoesOn(Event::Ask(device)));
        }
    }

    fn asks(&self, device: usize) -> bool {
        self.devices[device].wants().is_some() && !self.is_awaited(device)
    }

    /// What follows from a step. The nodes may have changed places in it.
    #[must_use]
    pub fn after(&self, step: Step) -> Self {
        let mut world = self.clone();
        let event = match step {
            Step::GoesOn(event) | Step::MayHappen(event) => event,
            Step::GoesWrong(event) => {
                world.trouble -= 1;
                event
            }
        };
        world.happens(event);
        world.judge();
        world.order_nodes();
        world
    }

    /// The one step that is taken when nothing goes wrong any more and nobody hurries: the most urgent one. None at the end, which comes
    /// when everybody is answered, unless something is stuck.
    pub fn calm(&self) -> Option<Step> {
        let mut first = None;
        if self.broken.is_none() {
            self.concerns_one_device(&mut |step| {
                first.get_or_insert(step);
            });
        }
        if self.broken.is_none() && first.is_none() {
            self.goes_on(&mut |event| {
                first.get_or_insert(Step::GoesOn(event));
            });
        }
        first
    }

    /// What happens by itself, the most urgent first.
    fn goes_on(&self, happens: &mut dyn FnMut(Event)) {
        for node in NODES {
            for put in &self.nodes[node].puts {
                happens(match put.said {
                    None => Event::Arrival(node, put.op),
                    Some(said) => Event::PutDone(node, put.op, said),
                });
            }
            if let Some(slot) = &self.nodes[node].slot {
                slot_goes_on(node, slot, happens);
            }
        }
        for frame in distinct(&self.requests) {
            for node in NODES {
                happens(Event::Request(node, *frame));
            }
        }
        for node in NODES {
            if self.nodes[node].slot.as_ref().is_some_and(Self::waits_for_time) {
                happens(Event::Tick(node));
            }
        }
    }

    fn may_happen(&self, happens: &mut dyn FnMut(Event)) {
        for node in NODES {
            if self.may_leave(node) {
                happens(Event::MakeRoom(node));
            }
            let is_closing = |slot: &Slot| matches!(slot.state, State::Closing(_));
            // One that is idle leaves for others at any time; an operator adds nothing to that but that nothing is parked, which comes to the same
            // as a vault that has left while it was busy.
            if self.nodes[node].slot.as_ref().is_some_and(|slot| !is_closing(slot) && !slot.is_idle()) {
                happens(Event::Evict(node));
            }
        }
        for adrift in distinct(&self.adrift) {
            happens(Event::LateArrival(*adrift));
        }
    }

    fn goes_wrong(&self, happens: &mut dyn FnMut(Event)) {
        for node in NODES {
            for put in &self.nodes[node].puts {
                happens(Event::PutDone(node, put.op, Put::Unclear));
                if put.said.is_none() {
                    happens(Event::PutDone(node, put.op, Put::NotSent));
                    happens(Event::PutDone(node, put.op, Put::Exists));
                }
            }
            if self.nodes[node] != Node::default() {
                happens(Event::Restart(node));
            }
            if let Some(slot) = &self.nodes[node].slot {
                slot_goes_wrong(node, slot, happens);
            }
        }
        for (number, device) in self.devices.iter().enumerate() {
            if device.wants().is_some() && self.is_awaited(number) {
                happens(Event::Deadline(number));
            }
        }
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Ask(device) | Event::Deadline(device) => self.ask(device),
            Event::Request(node, frame) => {
                remove(&mut self.requests, &frame);
                self.request(node, frame);
            }
            Event::Reply(reply) => {
                remove(&mut self.replies, &reply);
                self.take(reply);
            }
            Event::Loaded(node, result) => self.loaded(node, result),
            Event::VaultKey(node) => self.vault_key(node),
            Event::FromManager(node) => self.handles(node),
            Event::Arrival(node, op) => self.arrives(node, op),
            Event::LateArrival((version, object)) => {
                remove(&mut self.adrift, &(version, object));
                self.create(version, object);
            }
            Event::PutDone(node, op, put) => self.put_done(node, op, put),
            Event::ReadBack(node, result) => self.read_back(node, result),
            Event::Tick(node) => self.tick(node),
            Event::Kill(node) => self.kill(node),
            Event::Exited(node, _) => self.exited(node),
            Event::MakeRoom(node) => self.make_room(node),
            Event::NoPlace(node) => self.stop(node, true),
            Event::Evict(node) => {
                self.nodes[node].parked = None;
                self.stop(node, false);
            }
            Event::Restart(node) => self.restart(node),
        }
    }
}

fn slot_goes_on(node: usize, slot: &Slot, happens: &mut dyn FnMut(Event)) {
    if let Some(manager) = &slot.manager {
        if manager.has_ended() {
            happens(Event::Exited(node, BY_ITSELF));
        } else if !manager.inbox.is_empty() {
            happens(Event::FromManager(node));
        }
    }
    match slot.state {
        State::Opening { step: OpeningStep::Loading, .. } => happens(Event::Loaded(node, Ok(()))),
        State::Opening { step: OpeningStep::Unwrapping(_), .. } => happens(Event::VaultKey(node)),
        State::Closing(Closing::Killed) => happens(Event::Exited(node, KILLED)),
        State::HalfOpen | State::Open | State::Closing(Closing::Stopping { .. } | Closing::Exited) => {}
    }
    if let Some(write) = &slot.commit
        && matches!(write.awaits, Awaits::ReadBack(_))
    {
        happens(Event::ReadBack(node, Ok(())));
    }
}

fn slot_goes_wrong(node: usize, slot: &Slot, happens: &mut dyn FnMut(Event)) {
    if slot.manager.is_some() {
        happens(Event::Exited(node, KILLED));
    }
    if matches!(slot.state, State::Opening { step: OpeningStep::Loading, .. }) {
        happens(Event::Loaded(node, Err(StoreFailed)));
    }
    if let Some(write) = &slot.commit {
        if matches!(write.awaits, Awaits::ReadBack(_)) {
            happens(Event::ReadBack(node, Err(StoreFailed)));
        }
        if write.awaits != Awaits::Time {
            happens(Event::Tick(node));
        }
    }
    if slot.resumed && slot.state == State::Open {
        happens(Event::NoPlace(node));
    }
    if slot.may_be_stuck() || slot.is_past_kill_at() {
        happens(Event::Kill(node));
    }
}

/// What is in a sorted list, each once.
fn distinct<T: PartialEq>(sorted: &[T]) -> impl Iterator<Item = &T> {
    sorted.iter().enumerate().filter(|(at, item)| *at == 0 || sorted[at - 1] != **item).map(|(_, item)| item)
}

fn remove<T: PartialEq>(items: &mut Vec<T>, item: &T) {
    if let Some(at) = items.iter().position(|other| other == item) {
        items.remove(at);
    }
}
