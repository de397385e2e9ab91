//! The list of vaults for operators: some of them, by an order, and of each no more than its host may know.
//!
//! All that is said of a vault here is coarse ([`VaultInfo`](casemate_protocol::resident::VaultInfo) says why), and the list is put in
//! order by nothing else: what is exact would show in the order of two vaults otherwise.

use std::cmp::Reverse;
use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::resident::VaultsBy;

use super::Router;
use super::event::SlotId;
use super::slot::Slot;

/// Processes whose memory is read at one housekeeping. Each read takes about ten microseconds of the thread that serves everybody.
const WEIGHED_AT_ONCE: usize = 16;

/// One vault as the router sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VaultView {
    /// The vault.
    pub vault: VaultId,
    /// `half_open`, `opening`, `open`, `closing`.
    pub state: &'static str,
    /// Requests in flight and waiting.
    pub in_flight: u32,
    /// Those of them that wait for the process.
    pub queued: u32,
    /// Time since a device last asked, in whole seconds.
    pub idle: Duration,
    /// The process, once there is one.
    pub pid: Option<u32>,
    /// Resident memory, rounded up to whole buckets; none before the first sample.
    pub memory: Option<u64>,
    /// Requests answered lately, rounded up to a power of two.
    pub lately: u64,
    /// Their mean time inside the enclave, microseconds, rounded up to a power of two.
    pub latency_us: Option<u64>,
}

impl VaultView {
    fn of(slot: &Slot, now: Duration) -> Self {
        let count = |len: usize| u32::try_from(len).unwrap_or(u32::MAX);
        let lately = slot.usage.lately(now);
        let mean = lately.mean.map(|mean| u64::try_from(mean.as_micros()).unwrap_or(u64::MAX));
        Self {
            vault: slot.vault,
            state: slot.state_name(),
            in_flight: count(slot.requests.len()),
            queued: count(slot.waiting.len()),
            idle: Duration::from_secs(now.saturating_sub(slot.last_use).as_secs()),
            pid: slot.pid,
            memory: slot.usage.memory,
            lately: if lately.requests == 0 { 0 } else { power_of_two(lately.requests) },
            latency_us: mean.map(power_of_two),
        }
    }

    fn key(&self, by: VaultsBy) -> u64 {
        match by {
            VaultsBy::Memory => self.memory.unwrap_or(0),
            VaultsBy::Rate => self.lately,
            VaultsBy::Latency => self.latency_us.unwrap_or(0),
            VaultsBy::Queue => self.in_flight.into(),
            VaultsBy::Idle => self.idle.as_secs(),
        }
    }
}

/// The next power of two.
fn power_of_two(number: u64) -> u64 {
    number.checked_next_power_of_two().unwrap_or(u64::MAX)
}

impl Router {
    /// The first `limit` of all vaults that have a slot, the largest first; equal ones by their names.
    pub fn vaults(&self, by: VaultsBy, limit: usize, now: Duration) -> Vec<VaultView> {
        let key = |slot: &Slot| (Reverse(VaultView::of(slot, now).key(by)), slot.vault);
        let mut order: Vec<_> = self.slots.iter().map(|(id, slot)| (key(slot), id)).collect();
        // Ten thousand are not sorted for the sake of a screenful.
        if let Some(last) = limit.checked_sub(1).filter(|last| *last < order.len()) {
            order.select_nth_unstable(last);
        }
        order.truncate(limit);
        order.sort_unstable();
        order.iter().filter_map(|(_, id)| self.slots.get(*id)).map(|slot| VaultView::of(slot, now)).collect()
    }

    /// The processes whose memory is to be read now: a few at a time, all of them in turn.
    pub fn to_weigh(&mut self) -> Vec<(SlotId, u32)> {
        let pid = |(id, slot): (SlotId, &Slot)| Some((id, slot.pid?));
        let next = self.weigh_next;
        let from_here = self.slots.iter().filter_map(pid).filter(|(id, _)| *id >= next);
        let some: Vec<_> = from_here.take(WEIGHED_AT_ONCE).collect();
        // Past the last one it begins anew, next time.
        let last = some.last().filter(|_| some.len() == WEIGHED_AT_ONCE);
        self.weigh_next = last.map_or(SlotId(0), |(id, _)| SlotId(id.0 + 1));
        some
    }

    /// What a process was found to hold, in bytes; nothing when it is gone.
    pub fn weighed(&mut self, slot_id: SlotId, bytes: u64) {
        if let Some(slot) = self.slots.get_mut(slot_id) {
            slot.usage.memory = Some(bytes).filter(|bytes| *bytes > 0);
        }
    }
}
