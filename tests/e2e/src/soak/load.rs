//! The load of a long run: vaults of which not all are resident at a time, read and written, with sessions that come and go.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_protocol::secret::Secret;
use futures_util::future::join_all;
use hdrhistogram::Histogram;

use crate::Node;
use crate::chaos::dice::Dice;
use crate::owner::{OwnedVault, Owner};

/// Vaults, and those of them that may be resident.
const VAULTS: u64 = 96;
pub(super) const RESIDENT: u64 = 88;
/// Requests in flight at most.
const LANES: u32 = 32;
/// One request in so many is a write; before one in so many the session is dropped.
const WRITES: u64 = 16;
const DISCONNECTS: u64 = 512;
/// Secrets of a vault, and their sizes.
const NAMES: u64 = 8;
const BYTES: (u64, u64) = (16, 2048);
/// How long one request may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// All choices follow from it.
const SEED: u64 = 1;

/// The vaults, and what was seen since it was last asked.
#[derive(Debug)]
pub(super) struct Load {
    vaults: Vec<OwnedVault>,
    latencies: RefCell<Histogram<u64>>,
    failures: Cell<u64>,
    first_failure: RefCell<Option<String>>,
}

/// What was seen in a while.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub(super) requests: u64,
    pub(super) median: Duration,
    pub(super) p99: Duration,
}

impl Load {
    /// Makes the vaults.
    pub(super) async fn create(node: &Node) -> Self {
        let client = async_nats::connect(node.nats_url()).await.expect("NATS can be reached");
        let mut vaults = Vec::new();
        for _ in 0..VAULTS {
            let owner = Owner::new(node);
            let vault = owner.open_over(NatsTransport::from_client(client.clone()), owner.begin(), DEADLINE);
            vault.create().await.expect("a vault can be made");
            for name in 0..NAMES {
                vault.secret_put(&name_of(name), Secret::new(vec![7; 64]), None).await.expect("an honest write");
            }
            vaults.push(vault);
        }
        let latencies = Histogram::new_with_bounds(1, 60_000_000, 3).expect("valid bounds");
        Self {
            vaults,
            latencies: RefCell::new(latencies),
            failures: Cell::default(),
            first_failure: RefCell::default(),
        }
    }

    /// Goes on until then, at most so many requests a second; without a number, as many as can be had. Gives how many a second there were.
    pub(super) async fn go_on(&self, until: Instant, rate: Option<f64>) -> f64 {
        let (begun, before) = (Instant::now(), self.latencies.borrow().len());
        let pace = rate.map(|rate| Duration::from_secs_f64(f64::from(LANES) / rate));
        join_all((0..LANES).map(|lane| self.lane(lane, until, pace))).await;
        let requests = self.latencies.borrow().len() - before;
        f64::from(u32::try_from(requests).unwrap_or(u32::MAX)) / begun.elapsed().as_secs_f64()
    }

    async fn lane(&self, lane: u32, until: Instant, pace: Option<Duration>) {
        let mut dice = Dice::new(SEED, &[lane.into()]);
        // The lanes do not walk in step.
        let mut due = Instant::now() + pace.unwrap_or_default().mul_f64(f64::from(lane) / f64::from(LANES));
        while Instant::now() < until {
            if let Some(pace) = pace {
                tokio::time::sleep_until(due.into()).await;
                due += pace;
            }
            let vault = &self.vaults[usize::try_from(dice.below(VAULTS)).expect("few")];
            if dice.below(DISCONNECTS) == 0 {
                vault.disconnect();
            }
            let name = name_of(dice.below(NAMES));
            let start = Instant::now();
            let done = if dice.below(WRITES) == 0 {
                let bytes = usize::try_from(dice.between(BYTES.0, BYTES.1)).expect("few");
                vault.secret_put(&name, Secret::new(vec![8; bytes]), None).await.map(drop)
            } else {
                vault.secret_get(&name, None).await.map(drop)
            };
            match done {
                Ok(()) => {
                    let micros = u64::try_from(start.elapsed().as_micros()).unwrap_or(u64::MAX);
                    self.latencies.borrow_mut().saturating_record(micros.max(1));
                }
                Err(error) => {
                    self.failures.set(self.failures.get() + 1);
                    self.first_failure
                        .borrow_mut()
                        .get_or_insert_with(|| format!("{error}, after {:.1?}", start.elapsed()));
                }
            }
        }
    }

    /// Requests that failed, so far.
    pub(super) const fn failures(&self) -> u64 {
        self.failures.get()
    }

    /// What the first of them was told.
    pub(super) fn first_failure(&self) -> Option<String> {
        self.first_failure.borrow().clone()
    }

    /// What was seen since it was last asked.
    pub(super) fn take(&self) -> Seen {
        let mut latencies = self.latencies.borrow_mut();
        let at = |share| Duration::from_micros(latencies.value_at_quantile(share));
        let seen = Seen { requests: latencies.len(), median: at(0.5), p99: at(0.99) };
        latencies.clear();
        seen
    }
}

fn name_of(name: u64) -> String {
    format!("secret-{name}")
}
