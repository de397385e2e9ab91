//! Runs the devices' futures: whoever was woken is polled, in the order of waking, until nobody is.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Wake, Waker};

type Ready = Arc<Mutex<VecDeque<u64>>>;
type Task = Pin<Box<dyn Future<Output = ()>>>;

struct Bell {
    task: u64,
    ready: Ready,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ready.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.task);
    }
}

/// Futures under way.
#[derive(Default)]
pub struct Tasks {
    next: u64,
    running: BTreeMap<u64, (Task, Waker)>,
    ready: Ready,
}

impl fmt::Debug for Tasks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tasks").field("running", &self.running.len()).finish_non_exhaustive()
    }
}

impl Tasks {
    /// Begins a future; gives its number.
    pub fn spawn(&mut self, future: impl Future<Output = ()> + 'static) -> u64 {
        self.next += 1;
        let bell = Arc::new(Bell { task: self.next, ready: Arc::clone(&self.ready) });
        self.running.insert(self.next, (Box::pin(future), Waker::from(Arc::clone(&bell))));
        bell.wake();
        self.next
    }

    /// Ends a future wherever it stands, as the end of its process would.
    pub fn kill(&mut self, task: u64) {
        self.running.remove(&task);
    }

    /// Whether a future has not ended.
    pub fn is_running(&self, task: u64) -> bool {
        self.running.contains_key(&task)
    }

    /// Polls until nobody is ready.
    pub fn run(&mut self) {
        loop {
            let next = self.ready.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
            let Some(task) = next else { return };
            let Some((future, waker)) = self.running.get_mut(&task) else { continue };
            if future.as_mut().poll(&mut Context::from_waker(waker)).is_ready() {
                self.running.remove(&task);
            }
        }
    }
}
