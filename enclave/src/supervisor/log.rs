//! What the enclave says: events of a fixed vocabulary, which the parent takes when it can.
//!
//! Nobody waits for a log record. They stand in a bounded queue until the control connection takes them; what finds no room is counted,
//! and the count travels with the next record. The host may read all of it, so no event has free text.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use casemate_protocol::link::{LogEvent, LogLevel, LogRecord};
use tokio::sync::Notify;

use crate::outside::Clock;

/// Records that wait for the parent.
const QUEUE: usize = 256;
/// The first of a burst of equal events is told, then none for this long.
const PAUSE: Duration = Duration::from_secs(1);

/// Where events are told. Clones share one queue.
#[derive(Debug, Clone)]
pub struct Log(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    clock: Arc<dyn Clock>,
    queue: Mutex<Queue>,
    wake: Notify,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<LogRecord>,
    told: HashMap<LogEvent, Duration>,
    dropped: u64,
}

impl Log {
    /// An empty queue.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self(Arc::new(Shared { clock, queue: Mutex::default(), wake: Notify::new() }))
    }

    /// Tells an event. Never waits.
    pub fn tell(&self, level: LogLevel, event: LogEvent, value: Option<u64>) {
        let now = self.0.clock.monotonic();
        {
            let mut queue = self.queue();
            let in_burst = queue.told.get(&event).is_some_and(|at| now.saturating_sub(*at) < PAUSE);
            if in_burst || queue.records.len() >= QUEUE {
                queue.dropped += 1;
                return;
            }
            queue.told.insert(event, now);
            let dropped = std::mem::take(&mut queue.dropped);
            queue.records.push_back(LogRecord { level, event, value, dropped });
        }
        // Release binaries have no subscriber: a Nitro enclave's console is shut.
        match level {
            LogLevel::Error => tracing::error!(value, "{}", event.as_str()),
            LogLevel::Warn => tracing::warn!(value, "{}", event.as_str()),
            LogLevel::Info => tracing::info!(value, "{}", event.as_str()),
        }
        self.0.wake.notify_one();
    }

    /// The oldest record that nobody took yet.
    pub fn take(&self) -> Option<LogRecord> {
        self.queue().records.pop_front()
    }

    /// Puts a record back that could not be sent.
    pub fn put_back(&self, record: LogRecord) {
        self.queue().records.push_front(record);
    }

    /// Waits until there may be something to take.
    pub async fn wait(&self) {
        self.0.wake.notified().await;
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.0.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::supervisor::fakes::ManualClock;

    #[test]
    fn bursts_and_overflow_are_counted() {
        let clock = Arc::new(ManualClock::default());
        let log = Log::new(clock.clone());
        for _ in 0..5 {
            log.tell(LogLevel::Warn, LogEvent::StoreFailed, None);
        }
        clock.advance(PAUSE);
        log.tell(LogLevel::Info, LogEvent::Booted, Some(1));
        assert_eq!(log.take().map(|record| (record.event, record.dropped)), Some((LogEvent::StoreFailed, 0)));
        assert_eq!(log.take().map(|record| (record.event, record.dropped)), Some((LogEvent::Booted, 4)));
        assert_eq!(log.take(), None);
        for _ in 0..QUEUE + 10 {
            clock.advance(PAUSE);
            log.tell(LogLevel::Info, LogEvent::VaultEvicted, None);
        }
        assert_eq!(std::iter::from_fn(|| log.take()).count(), QUEUE);
    }
}
