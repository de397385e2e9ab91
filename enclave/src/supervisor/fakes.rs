//! Simulated outsides for the tests of this folder.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::outside::{BlobStore, BoxFuture, Clock, PutOutcome, StoreError};

/// A clock that stands still until it is told to go on, and whose wall clock can be set, by seconds.
#[derive(Debug, Default)]
pub(crate) struct ManualClock(Mutex<Duration>, pub(crate) AtomicI64);

impl ManualClock {
    pub(crate) fn advance(&self, by: Duration) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) += by;
    }
}

impl Clock for ManualClock {
    fn monotonic(&self) -> Duration {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unix_seconds(&self) -> u64 {
        (1_700_000_000 + self.monotonic().as_secs()).saturating_add_signed(self.1.load(Ordering::SeqCst))
    }
}

/// A store in memory.
#[derive(Debug, Default)]
pub(crate) struct MemoryStore(pub(crate) Mutex<HashMap<String, Vec<u8>>>);

impl BlobStore for MemoryStore {
    fn get<'a>(&'a self, path: &'a str, _: usize) -> BoxFuture<'a, Result<Option<Vec<u8>>, StoreError>> {
        Box::pin(async move { Ok(self.0.lock().unwrap().get(path).cloned()) })
    }

    fn create<'a>(&'a self, path: &'a str, bytes: Vec<u8>) -> BoxFuture<'a, Result<PutOutcome, StoreError>> {
        Box::pin(async move {
            let mut objects = self.0.lock().unwrap();
            if objects.contains_key(path) {
                return Ok(PutOutcome::Exists);
            }
            objects.insert(path.to_owned(), bytes);
            Ok(PutOutcome::Created)
        })
    }
}
