//! One row: its samples, its figures, its place in the table.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

/// Durations of one row over all rounds.
#[derive(Debug)]
pub(super) struct Samples(Histogram<u64>);

impl Default for Samples {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, 120_000_000_000, 3).expect("valid bounds"))
    }
}

impl Samples {
    pub(super) fn add(&mut self, duration: Duration) {
        self.0.saturating_record(super::nanoseconds(duration).max(1));
    }

    #[expect(clippy::cast_precision_loss, reason = "durations below 2^53 ns")]
    fn microseconds(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What is printed and written.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    unit: &'static str,
    /// The median.
    value: f64,
    p99: f64,
    p999: f64,
    /// The bare limit's median in the same run.
    baseline: Option<f64>,
    ratio: Option<f64>,
}

impl Row {
    pub(super) fn new(name: &'static str, samples: &Samples, baseline: Option<&Samples>) -> Self {
        let value = samples.microseconds(0.5);
        let baseline = baseline.map(|samples| samples.microseconds(0.5));
        Self {
            name,
            unit: "us",
            value,
            p99: samples.microseconds(0.99),
            p999: samples.microseconds(0.999),
            baseline,
            ratio: baseline.map(|baseline| value / baseline),
        }
    }
}

#[expect(clippy::print_stdout, reason = "the benchmark's result")]
pub(super) fn print(rows: &[Row]) {
    println!(
        "{:<16} {:>6} {:>10} {:>10} {:>10} {:>10} {:>7}",
        "row", "unit", "p50", "p99", "p99.9", "bare p50", "ratio"
    );
    for row in rows {
        let optional =
            |value: Option<f64>, digits| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
        println!(
            "{:<16} {:>6} {:>10.1} {:>10.1} {:>10.1} {:>10} {:>7}",
            row.name,
            row.unit,
            row.value,
            row.p99,
            row.p999,
            optional(row.baseline, 1),
            optional(row.ratio, 2)
        );
    }
}

pub(super) fn write(rows: &[Row], out: &Path) -> super::Result<()> {
    if let Some(folder) = out.parent() {
        std::fs::create_dir_all(folder)?;
    }
    std::fs::write(out, serde_json::to_vec_pretty(rows)?)?;
    Ok(())
}
