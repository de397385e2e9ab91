//! Where the time of a vault's requests is noted.

use std::time::Duration;

use casemate_protocol::stage::Stage as Timed;

use super::Router;
use super::event::{RequestId, SlotId};
use super::slot::Stage;

impl Router {
    /// Where a request stood that its vault-manager has answered; none when it was given no such request. Late answers count too:
    /// without them the histogram would be silent about the longest times.
    pub(super) fn timed(&mut self, slot_id: SlotId, id: RequestId, now: Duration) -> Option<Stage> {
        let slot = self.slots.get_mut(slot_id)?;
        let pending = slot.requests.get(&id)?;
        if let Stage::Sent(sent) | Stage::Overdue(sent) = pending.stage {
            self.stages.note(Timed::Vault, now.saturating_sub(sent));
            slot.usage.note(now.saturating_sub(pending.arrived), now);
        }
        Some(pending.stage)
    }
}
