//! What becomes of a version on its way to the store. The machine that decides is the code's own.

use std::time::Duration;

use casemate_enclave::ipc::CommitResult;
use casemate_enclave::supervisor::router::{Commit, Op, Put, Step, StoreFailed};

use crate::manager::ToManager;
use crate::mutation::Mutation;
use crate::promise::Promise;
use crate::slot::{Awaits, Closing, PutCall, STORE_TIMEOUT, Slot, State, Write};
use crate::store::Object;
use crate::world::World;

impl World {
    fn write(&mut self, node: usize) -> Option<&mut Write> {
        self.nodes[node].slot.as_mut()?.commit.as_mut()
    }

    /// A vault-manager wants a version stored.
    pub(crate) fn commit(&mut self, node: usize, version: u64, object: Object) {
        let op = self.nodes[node].fresh_op();
        let is_under_way = |put: &PutCall| put.version == version && put.object != object;
        let is_in_doubt = self.nodes[node].puts.iter().any(is_under_way);
        let Some(slot) = &mut self.nodes[node].slot else { return };
        let may_write = matches!(slot.state, State::Open | State::Closing(Closing::Stopping { .. }))
            && slot.commit.is_none()
            && slot.late_put.is_none();
        if !may_write || version <= slot.committed {
            return self.violation(node);
        }
        let is_second = slot.sent == version;
        slot.sent = version;
        let commit = Commit::begin(version, String::new(), object.bytes(), STORE_TIMEOUT, Duration::ZERO, op);
        slot.commit = Some(Write { commit, object, now: Duration::ZERO, awaits: Awaits::Put });
        if is_second || is_in_doubt {
            self.broke(Promise::OneBody);
        }
        self.put(node, op, version, object);
    }

    fn put(&mut self, node: usize, op: Op, version: u64, object: Object) {
        self.nodes[node].puts.push(PutCall { op, version, object, said: None });
    }

    /// A put arrives at the store.
    pub(crate) fn arrives(&mut self, node: usize, op: Op) {
        let Some(at) = self.nodes[node].puts.iter().position(|put| put.op == op) else { return };
        let (version, object) = (self.nodes[node].puts[at].version, self.nodes[node].puts[at].object);
        let said = if self.create(version, object) { Put::Created } else { Put::Exists };
        self.nodes[node].puts[at].said = Some(said);
    }

    /// An object is created, if the store does what it must.
    pub(crate) fn create(&mut self, version: u64, object: Object) -> bool {
        if self.has(Mutation::Overwrites) {
            if self.store.read(version).is_some_and(|stored| stored != object) {
                self.broke(Promise::Kept);
            }
            self.store.write(version, object);
            return true;
        }
        self.store.create(version, object)
    }

    /// A put call has ended. An object that had not arrived may do so yet, unless the call says that it was never sent.
    pub(crate) fn put_done(&mut self, node: usize, op: Op, put: Put) {
        let next = self.nodes[node].fresh_op();
        let Some(at) = self.nodes[node].puts.iter().position(|put| put.op == op) else { return };
        let call = self.nodes[node].puts.remove(at);
        if call.said.is_none() && put != Put::NotSent {
            self.adrift.push((call.version, call.object));
            self.adrift.sort_unstable();
        }
        let Some(slot) = &mut self.nodes[node].slot else { return };
        if slot.late_put == Some(op) && self.mutation != Some(Mutation::ForgetsLatePut) {
            slot.late_put = None;
            return self.release(node);
        }
        let heard = match (put, self.mutation) {
            (Put::Unclear, Some(Mutation::TakesUnclearForNotSent)) => Put::NotSent,
            (Put::Exists, Some(Mutation::TakesExistsForCreated)) => Put::Created,
            _ => put,
        };
        let Some(write) = self.write(node) else { return };
        let step = write.commit.put_done(op, heard, write.now, next);
        if step == Step::Wait && write.awaits == Awaits::Put {
            write.awaits = Awaits::Time;
        }
        if step == Step::Done(CommitResult::NotSent)
            && put == Put::NotSent
            && let Some(slot) = &mut self.nodes[node].slot
        {
            slot.sent = slot.committed;
        }
        self.take_step(node, step);
    }

    /// A read-back has ended.
    pub(crate) fn read_back(&mut self, node: usize, result: Result<(), StoreFailed>) {
        let store = self.store;
        let Some(write) = self.write(node) else { return };
        let Awaits::ReadBack(op) = write.awaits else { return };
        let found = result.map(|()| store.read(write.commit.version).map(|object| object.bytes().to_vec()));
        write.awaits = Awaits::Time;
        let step = write.commit.read_back(op, &found, write.now);
        self.take_step(node, step);
    }

    /// Time passes until the write wakes.
    pub(crate) fn tick(&mut self, node: usize) {
        let next = self.nodes[node].fresh_op();
        let Some(write) = self.write(node) else { return };
        write.now = write.commit.wake();
        write.awaits = Awaits::Time;
        let step = write.commit.tick(write.now, next);
        self.take_step(node, step);
    }

    fn take_step(&mut self, node: usize, step: Step) {
        let Some(write) = self.write(node) else { return };
        match step {
            Step::Wait => {}
            Step::Put(op) => {
                write.awaits = Awaits::Put;
                let (version, object) = (write.commit.version, write.object);
                self.put(node, op, version, object);
            }
            Step::ReadBack(op) => write.awaits = Awaits::ReadBack(op),
            Step::Done(result) => self.committed(node, result),
        }
    }

    /// A write is over.
    fn committed(&mut self, node: usize, result: CommitResult) {
        let Some(slot) = &mut self.nodes[node].slot else { return };
        let Some(write) = slot.commit.take() else { return };
        if result == CommitResult::Committed {
            slot.committed = write.commit.version;
        } else {
            slot.late_put = write.commit.outstanding_put();
        }
        self.send(node, ToManager::CommitResult(result));
        match result {
            CommitResult::Committed | CommitResult::NotSent => {}
            CommitResult::OtherWriter | CommitResult::Unknown => self.stop(node, false),
        }
    }

    /// Whether a write waits for nothing but time.
    pub(crate) fn waits_for_time(slot: &Slot) -> bool {
        slot.commit.as_ref().is_some_and(|write| write.awaits == Awaits::Time)
    }
}
