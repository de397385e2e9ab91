//! What systemd is told: ready, stopping, and the watchdog, which is fed only while the enclave answers.

use std::sync::Arc;
use std::time::Duration;

use sd_notify::NotifyState;

use crate::health::{ENCLAVE_LIMIT, Observed};
use crate::state::NodeState;

/// How long the watchdog is fed without an enclave after the start: its image boots meanwhile.
const BOOT_GRACE: Duration = Duration::from_mins(5);

/// The parent takes connections.
pub fn ready() {
    tell(&[NotifyState::Ready]);
}

/// The parent drains; it may take so long.
pub fn stopping(within: Duration) {
    let micros = u32::try_from(within.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::ExtendTimeoutUsec(micros)]);
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Whether the watchdog is to be fed. A silent enclave starves it, so that systemd restarts parent and enclave; a node that
/// drains is not restarted for it.
pub fn feeds(observed: &Observed) -> bool {
    let answers = observed.enclave.last_answer.is_some_and(|age| age <= ENCLAVE_LIMIT);
    let still_boots = observed.enclave.last_answer.is_none() && observed.uptime <= BOOT_GRACE;
    answers || still_boots || observed.draining
}

/// Feeds the watchdog, where there is one, until the task is dropped.
pub async fn feed(state: Arc<NodeState>) {
    let Some(limit) = sd_notify::watchdog_enabled() else { return };
    // Twice in a limit, as systemd asks for.
    let mut tick = tokio::time::interval((limit / 2).max(Duration::from_millis(100)));
    loop {
        tick.tick().await;
        if feeds(&state.observe()) {
            tell(&[NotifyState::Watchdog]);
        } else {
            tracing::error!("the watchdog is not fed, because the enclave does not answer");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::ObservedEnclave;

    fn observed(uptime: Duration, last_answer: Option<Duration>, draining: bool) -> Observed {
        let enclave = ObservedEnclave { last_answer, ..ObservedEnclave::default() };
        Observed { uptime, draining, enclave, ..Observed::default() }
    }

    #[test]
    fn only_an_answering_enclave_feeds_it() {
        let second = Duration::from_secs(1);
        assert!(feeds(&observed(second, None, false)), "it may still boot");
        assert!(!feeds(&observed(BOOT_GRACE + second, None, false)));
        assert!(feeds(&observed(BOOT_GRACE * 2, Some(second), false)));
        assert!(!feeds(&observed(second, Some(ENCLAVE_LIMIT + second), false)));
        assert!(feeds(&observed(BOOT_GRACE * 2, Some(ENCLAVE_LIMIT + second), true)));
    }
}
