//! Everything at one moment: the store, two nodes, the devices, and what is on its way between them.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use casemate_protocol::error::ErrorCode;

use crate::device::{Device, Frame, Operation, Outcome, Reply, Request};
use crate::manager::Phase;
use crate::mutation::Mutation;
use crate::promise::Promise;
use crate::slot::{Node, Slot};
use crate::store::{Chain, Object, Store, Writes};

/// Both nodes' numbers. Nothing tells them apart.
pub const NODES: [usize; 2] = [0, 1];

/// How much is tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Bounds {
    /// What each device does.
    pub scripts: &'static [&'static [Operation]],
    /// How often something goes wrong.
    pub trouble: u8,
}

/// An object on its way to the store, and nobody waits for it any more: its call was cut off, or its supervisor is gone. It may arrive at
/// any time, or never.
pub type Adrift = (u64, Object);

/// Everything at one moment.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// The store.
    pub store: Store,
    /// Puts that nobody waits for.
    pub adrift: Vec<Adrift>,
    /// The nodes. Both may serve the vault, and neither knows of the other.
    pub nodes: [Node; 2],
    /// The devices.
    pub devices: Vec<Device>,
    /// Requests on their way to any node, in no order.
    pub requests: Vec<Frame>,
    /// Replies on their way to their devices, in no order.
    pub replies: Vec<Reply>,
    /// How often something may still go wrong.
    pub trouble: u8,
    /// What is wrong on purpose.
    pub mutation: Option<Mutation>,
    /// The promise that was broken.
    pub broken: Option<Promise>,
}

impl World {
    /// A vault that was created and is open nowhere; or is resident on both nodes, from the time before either wrote to it.
    pub fn new(bounds: Bounds, mutation: Option<Mutation>, resident: bool) -> Self {
        let store = Store::default();
        let vault = Chain::default();
        let node = || Node { slot: resident.then(|| Slot::open(vault)), puts: Vec::new(), parked: None };
        let device = |script: &&'static [Operation]| Device { script, answered: 0, head: vault.head() };
        Self {
            store,
            adrift: Vec::new(),
            nodes: [node(), node()],
            devices: bounds.scripts.iter().map(device).collect(),
            requests: Vec::new(),
            replies: Vec::new(),
            trouble: bounds.trouble,
            mutation,
            broken: None,
        }
    }

    /// Whether every device was answered everything.
    pub fn is_done(&self) -> bool {
        self.devices.iter().all(|device| device.wants().is_none())
    }

    pub(crate) fn has(&self, mutation: Mutation) -> bool {
        self.mutation == Some(mutation)
    }

    /// A promise was broken; the first one counts.
    pub(crate) fn broke(&mut self, promise: Promise) {
        self.broken.get_or_insert(promise);
    }

    /// A salt that no object has.
    pub(crate) fn fresh_salt(&self) -> u8 {
        let adrift = self.adrift.iter().map(|(_, object)| *object);
        let put = self.nodes.iter().flat_map(|node| node.puts.iter().map(|put| put.object));
        let managers = self.nodes.iter().filter_map(|node| node.slot.as_ref()?.manager.as_ref());
        let sealed = managers.filter_map(|manager| match manager.phase {
            Phase::Committing { next, .. } => Some(next),
            Phase::HalfOpen | Phase::Loading { .. } | Phase::Idle(_) | Phase::Ended => None,
        });
        let taken: Vec<u8> =
            self.store.objects().chain(adrift).chain(put).chain(sealed).map(|object| object.salt).collect();
        (0..=u8::MAX).find(|salt| !taken.contains(salt)).expect("few objects")
    }

    /// Puts the nodes in an order that follows from what they are. Nothing tells them apart, so of two worlds that differ in their order
    /// alone it is enough to try one.
    pub(crate) fn order_nodes(&mut self) {
        let hash = |node: &Node| BuildHasherDefault::<DefaultHasher>::default().hash_one(node);
        if hash(&self.nodes[0]) > hash(&self.nodes[1]) {
            self.nodes.swap(0, 1);
        }
    }

    // ---- devices ------------------------------------------------------------------------------------------------------------

    /// Whether anything is left of a device's last attempt.
    pub(crate) fn is_awaited(&self, device: usize) -> bool {
        let is_its = |frame: &Frame| frame.request.device == device && !frame.given_up;
        let held = self.nodes.iter().filter_map(|node| node.slot.as_ref()).flat_map(|slot| &slot.requests);
        self.requests.iter().any(is_its)
            || held.map(|pending| &pending.frame).any(is_its)
            || self.replies.iter().any(|reply| reply.request.device == device)
    }

    /// A device asks, for the first time or again. It waits for this attempt from here on.
    pub(crate) fn ask(&mut self, device: usize) {
        let Some(operation) = self.devices[device].wants() else { return };
        let (number, head) = (self.devices[device].answered, self.devices[device].head);
        self.replies.retain(|reply| reply.request.device != device);
        let held = self.nodes.iter_mut().filter_map(|node| node.slot.as_mut()).flat_map(|slot| &mut slot.requests);
        let held = held.map(|pending| &mut pending.frame);
        for frame in self.requests.iter_mut().chain(held).filter(|frame| frame.request.device == device) {
            frame.given_up = true;
        }
        let request = Request { device, number, operation, head };
        self.requests.push(Frame { request, given_up: false });
        self.requests.sort_unstable();
    }

    /// A reply reaches its device.
    pub(crate) fn take(&mut self, reply: Reply) {
        let device = &mut self.devices[reply.request.device];
        if let Some(head) = reply.head {
            let went_back = head.version < device.head.version && !matches!(reply.outcome, Outcome::Refused(_));
            device.head = device.head.max(head);
            if went_back {
                self.broke(Promise::Forward);
            }
        }
        if !matches!(reply.outcome, Outcome::Refused(_)) {
            self.devices[reply.request.device].answered += 1;
        }
    }

    // ---- what a vault-manager says to a device --------------------------------------------------------------------------------

    /// A vault-manager replies, whether anybody waits for it or not.
    pub(crate) fn judge_reply(&mut self, reply: &Reply) {
        if let Outcome::Refused(code) = reply.outcome {
            if matches!(code, ErrorCode::RollbackDetected | ErrorCode::ForkDetected) {
                self.broke(Promise::Believed);
            }
            return;
        }
        let stored = self.store.load();
        let Some(head) = reply.head else { return self.broke(Promise::Durable) };
        let (at_head, asked) = (stored.until(head.version), reply.request.head);
        match reply.outcome {
            Outcome::Done if !at_head.writes().contain(reply.request.write().unwrap_or_default()) => {
                self.broke(Promise::Answered);
            }
            Outcome::Value(writes) if !at_head.writes().contain(writes) => self.broke(Promise::Durable),
            // A read that waited for a version has its place in it: it may lack what came behind it, and nothing that was there before.
            Outcome::Value(writes) if !writes.contain(stored.until(asked.version).writes()) => {
                self.broke(Promise::Heads);
            }
            Outcome::Done | Outcome::Value(_) | Outcome::Refused(_) => {}
        }
        if at_head.head() != head {
            self.broke(Promise::Durable);
        }
        if head.version < asked.version {
            self.broke(Promise::Heads);
        }
    }

    /// Sends a reply to a device that waits for it. A refusal that tells it nothing new only makes it ask again: it is left out.
    pub(crate) fn send_reply(&mut self, reply: Reply) {
        let held = self.devices[reply.request.device].head;
        let is_news = reply.head.is_some_and(|head| head.version > held.version);
        if matches!(reply.outcome, Outcome::Refused(_)) && !is_news {
            return;
        }
        self.replies.push(reply);
        self.replies.sort_unstable();
    }

    // ---- judgement ------------------------------------------------------------------------------------------------------------

    /// Looks for promises that show in the state itself.
    pub(crate) fn judge(&mut self) {
        let chain = self.store.load();
        if chain.objects().len() != self.store.objects().count() {
            self.broke(Promise::Kept);
        }
        let mut executed = Writes::default();
        for object in chain.objects() {
            if executed.meet(object.writes) {
                self.broke(Promise::Once);
            }
            executed = executed.and(object.writes);
        }
        if (0..self.devices.len()).any(|device| !executed.contain(self.devices[device].told(device))) {
            self.broke(Promise::Answered);
        }
        for node in NODES {
            if let Some(parked) = self.nodes[node].parked {
                if parked.lost {
                    self.broke(Promise::Dropped);
                }
                if !parked.vault.is_begin_of(&chain) || parked.committed > parked.vault.version() {
                    self.broke(Promise::Durable);
                }
            }
            let Some(manager) = self.nodes[node].slot.as_ref().and_then(|slot| slot.manager.as_ref()) else { continue };
            let Some(vault) = manager.vault() else { continue };
            let (lost, is_stored) = (manager.lost, vault.is_begin_of(&chain));
            if lost {
                self.broke(Promise::Dropped);
            }
            if !is_stored {
                self.broke(Promise::Durable);
            }
        }
    }
}
