//! Many requests in flight, over as many vaults: how many a second, and what processor time each costs, all processes counted.

use std::time::{Duration, Instant};

use futures_util::future::try_join_all;

use super::echo::Echo;
use super::row::Samples;
use super::vault::{Bench, Maker};
use super::{Result, VALUE_BYTES, cpu};

/// Vaults, and requests in flight.
const WIDTH: usize = 64;
/// Requests that each of them makes in one round.
const EACH: u32 = 300;

/// What was measured of one kind of request, over all rounds.
#[derive(Debug, Default)]
pub(super) struct Wide {
    pub(super) latency: Samples,
    /// Of each round.
    rates: Vec<f64>,
    cpu: Vec<f64>,
}

impl Wide {
    /// Requests a second: the median round's. None when nothing was measured.
    pub(super) fn rate(&self) -> Option<f64> {
        median(&self.rates)
    }

    /// Microseconds of processor time a request, all processes together: the median round's.
    pub(super) fn cpu(&self) -> Option<f64> {
        median(&self.cpu)
    }

    fn add(&mut self, latencies: &[Vec<Duration>], elapsed: Duration, cpu: Duration) {
        let requests = latencies.iter().map(Vec::len).sum::<usize>();
        for latency in latencies.iter().flatten() {
            self.latency.add(*latency);
        }
        let requests = f64::from(u32::try_from(requests).unwrap_or(u32::MAX));
        self.rates.push(requests / elapsed.as_secs_f64());
        self.cpu.push(cpu.as_secs_f64() * 1e6 / requests);
    }
}

/// The middle one; none when there is none.
pub(super) fn median(values: &[f64]) -> Option<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied()
}

/// The vaults.
#[derive(Debug)]
pub(super) struct Crowd(Vec<Bench>);

impl Crowd {
    pub(super) async fn create(maker: &Maker) -> Result<Self> {
        let mut vaults = Vec::new();
        for _ in 0..WIDTH {
            let vault = maker.create().await?;
            vault.put(&[7; VALUE_BYTES]).await?;
            vaults.push(vault);
        }
        Ok(Self(vaults))
    }

    /// One round of reads, each vault by itself, all at the same time.
    pub(super) async fn get(&self, wide: &mut Wide) -> Result<()> {
        let reads = self.0.iter().map(|vault| async move {
            let mut latencies = Vec::new();
            for _ in 0..EACH {
                latencies.push(vault.get().await?);
            }
            Ok::<_, Box<dyn std::error::Error>>(latencies)
        });
        let (start, before) = (Instant::now(), cpu::used()?);
        let latencies = try_join_all(reads).await?;
        wide.add(&latencies, start.elapsed(), cpu::used()?.saturating_sub(before));
        Ok(())
    }

    /// One round of echoes, as many in flight.
    pub(super) async fn echo(&self, echo: &Echo, wide: &mut Wide) -> Result<()> {
        let asks = self.0.iter().map(|_| async move {
            let mut latencies = Vec::new();
            for _ in 0..EACH {
                latencies.push(echo.ask().await?);
            }
            Ok::<_, Box<dyn std::error::Error>>(latencies)
        });
        let (start, before) = (Instant::now(), cpu::used()?);
        let latencies = try_join_all(asks).await?;
        wide.add(&latencies, start.elapsed(), cpu::used()?.saturating_sub(before));
        Ok(())
    }
}
