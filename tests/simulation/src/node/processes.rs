//! Vault-managers' processes: each a real machine, with messages that take time and an end that may come at any point.

use std::collections::BTreeSet;
use std::time::Duration;

use casemate_enclave::ipc::{CommitResult, FromManager, Notice, ToManager};
use casemate_enclave::supervisor::router::{self, ManagerExit, SlotId};
use casemate_enclave::vault::manager::Manager;
use casemate_protocol::id::VaultId;

use super::{MayStop, Node, Process};
use crate::event::{Event, Place};

impl<'a> Node<'a> {
    pub(super) fn spawn(&mut self, slot: SlotId) {
        let place = self.place;
        let takes = self.dice.millis(0, 3);
        let shared = self.shared;
        self.next_process += 1;
        let Some(enclave) = &mut self.enclave else { return };
        if enclave.processes.contains_key(&slot) {
            return shared.findings.violation(format_args!("slot {} has two processes", slot.0));
        }
        let number = self.next_process;
        let now = shared.time.now();
        let process = Process {
            number,
            // It is told who it is with its first message.
            vault: VaultId::from_bytes([0; VaultId::BYTES]),
            manager: Manager::new(&shared.time, &*shared.randomness, enclave.parking_secret.inherited()),
            hears_at: now + takes,
            speaks_at: now + takes,
            hangs: false,
            dead: false,
            holds: BTreeSet::new(),
            commits: false,
            gave_up: false,
        };
        enclave.processes.insert(slot, process);
        shared.time.after(takes, Event::Router(place, router::Event::Spawned { slot, pid: 1 }));
        self.speak(slot);
    }

    pub(super) fn send(&mut self, slot: SlotId, message: ToManager, may_stop: MayStop) {
        let takes = self.dice.between(Duration::from_micros(5), Duration::from_micros(200));
        let (place, findings, time) = (self.place, &self.shared.findings, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        match &message {
            ToManager::Start { vault, .. } => process.vault = *vault,
            ToManager::Request { id, .. } => {
                process.holds.insert(*id);
            }
            ToManager::CommitResult(result) => {
                process.commits = false;
                process.gave_up = matches!(result, CommitResult::OtherWriter | CommitResult::Unknown);
            }
            ToManager::Stop { .. } if !process.gave_up && !may_stop.although_it_works(slot) => {
                if !process.holds.is_empty() || process.commits {
                    findings.violation(format_args!("vault {} is evicted with work in flight", process.vault));
                }
            }
            ToManager::Stop { .. } | ToManager::Opened { .. } | ToManager::OpenRefused(_) => {}
        }
        process.hears_at = process.hears_at.max(time.now() + takes);
        let after = process.hears_at.saturating_sub(time.now());
        time.after(after, Event::Hear { place, slot, process: process.number, message });
    }

    pub(super) fn process(&mut self, place: Place, slot: SlotId, number: u64) -> Option<&mut Process<'a>> {
        let current = self.is_current(place);
        let process = self.enclave.as_mut()?.processes.get_mut(&slot)?;
        (current && process.number == number).then_some(process)
    }

    /// A message reaches a vault-manager.
    pub fn hear(&mut self, place: Place, slot: SlotId, number: u64, message: ToManager) {
        let Some(process) = self.process(place, slot, number) else { return };
        if process.hangs || process.dead || process.manager.has_ended() {
            return;
        }
        process.manager.handle(message);
        self.speak(slot);
    }

    /// What a vault-manager has to say is on its way, and its end behind it.
    pub(super) fn speak(&mut self, slot: SlotId) {
        let takes = self.dice.between(Duration::from_micros(20), Duration::from_micros(500));
        let (place, time) = (self.place, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        process.speaks_at = process.speaks_at.max(time.now() + takes);
        let after = process.speaks_at.saturating_sub(time.now());
        for message in process.manager.take_output() {
            time.after(after, Event::Said { place, slot, process: process.number, message });
        }
        if process.manager.has_ended() && !process.dead {
            process.dead = true;
            time.after(after, Event::Gone { place, slot, process: process.number, exit: ManagerExit::Status(0) });
        }
    }

    /// A message of a vault-manager reaches the router.
    pub fn said(&mut self, place: Place, slot: SlotId, number: u64, message: FromManager) {
        let one_node = self.shared.weather.nodes == 1;
        let findings = self.shared.findings.clone();
        let Some(process) = self.process(place, slot, number) else { return };
        match &message {
            FromManager::Reply { id, .. } => {
                process.holds.remove(id);
            }
            FromManager::Commit { version, .. } => {
                process.commits = true;
                findings.trace(format_args!("node {}: {} commits {version}", place.node, slot.0));
            }
            // Nobody lies in this world; with two nodes one may find the other's versions.
            FromManager::Noticed(notice @ (Notice::Rollback | Notice::StateCorrupt)) => {
                findings.violation(format_args!("vault {} calls an honest store {notice:?}", process.vault));
            }
            FromManager::Noticed(notice @ Notice::Fork) if one_node => {
                findings.violation(format_args!("vault {} calls an honest store {notice:?}", process.vault));
            }
            _ => {}
        }
        self.event(router::Event::FromManager { slot, message });
    }

    /// Ends a process; what it said before still arrives.
    pub(super) fn end(&mut self, slot: SlotId, exit: ManagerExit) {
        let takes = self.dice.between(Duration::from_micros(50), Duration::from_millis(5));
        let (place, time) = (self.place, &self.shared.time);
        let Some(process) = self.enclave.as_mut().and_then(|enclave| enclave.processes.get_mut(&slot)) else { return };
        if process.dead {
            return;
        }
        process.dead = true;
        let at = process.speaks_at.max(time.now() + takes);
        let after = at.saturating_sub(time.now());
        time.after(after, Event::Gone { place, slot, process: process.number, exit });
    }

    /// A process is reaped.
    pub fn gone(&mut self, place: Place, slot: SlotId, number: u64, exit: ManagerExit) {
        if self.process(place, slot, number).is_none() {
            return;
        }
        if let Some(enclave) = &mut self.enclave {
            enclave.processes.remove(&slot);
        }
        self.shared.findings.trace(format_args!("node {}: {} is gone: {exit:?}", place.node, slot.0));
        self.event(router::Event::Exited { slot, exit });
    }

    fn slot_of(&self, vault: VaultId) -> Option<SlotId> {
        let processes = &self.enclave.as_ref()?.processes;
        processes.iter().find(|(_, process)| process.vault == vault && !process.dead).map(|(slot, _)| *slot)
    }

    /// kill -9 of a vault's process.
    pub fn kill_manager(&mut self, vault: VaultId) {
        if let Some(slot) = self.slot_of(vault) {
            self.end(slot, ManagerExit::Signal(9));
        }
    }

    /// A vault's process stops doing anything.
    pub fn hang_manager(&mut self, vault: VaultId) {
        let slot = self.slot_of(vault);
        if let Some(process) = slot.and_then(|slot| self.enclave.as_mut()?.processes.get_mut(&slot)) {
            process.hangs = true;
        }
    }
}
