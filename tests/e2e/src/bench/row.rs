//! One row: its samples, its figures, its place in the table.

use std::path::Path;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::wide::median;

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

    /// Microseconds; none without samples.
    fn median(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.microseconds(0.5))
    }

    /// Microseconds; none without samples.
    pub(super) fn p99(&self) -> Option<f64> {
        (!self.0.is_empty()).then(|| self.microseconds(0.99))
    }

    #[expect(clippy::cast_precision_loss, reason = "durations below 2^53 ns")]
    fn microseconds(&self, quantile: f64) -> f64 {
        self.0.value_at_quantile(quantile) as f64 / 1000.0
    }
}

/// What a figure counts.
#[derive(Debug, Clone, Copy, Serialize)]
pub(super) enum Unit {
    #[serde(rename = "us")]
    Microseconds,
    #[serde(rename = "1/s")]
    PerSecond,
    #[serde(rename = "calls")]
    Calls,
    #[serde(rename = "%")]
    Percent,
    #[serde(rename = "KiB")]
    Kibibytes,
    #[serde(rename = "vaults")]
    Vaults,
}

impl Unit {
    const fn text(self) -> &'static str {
        match self {
            Self::Microseconds => "us",
            Self::PerSecond => "1/s",
            Self::Calls => "calls",
            Self::Percent => "%",
            Self::Kibibytes => "KiB",
            Self::Vaults => "vaults",
        }
    }
}

/// What is printed and written.
#[derive(Debug, Serialize)]
pub(super) struct Row {
    name: &'static str,
    unit: Unit,
    /// The median.
    value: f64,
    /// None where a figure is a rate or a count.
    p99: Option<f64>,
    p999: Option<f64>,
    /// The bare limit's median in the same run.
    baseline: Option<f64>,
    ratio: Option<f64>,
}

impl Row {
    /// A time, in microseconds.
    pub(super) fn time(name: &'static str, samples: &Samples, baseline: Option<&Samples>) -> Option<Self> {
        let baseline = baseline.map(|samples| samples.microseconds(0.5));
        Some(Self {
            p99: Some(samples.microseconds(0.99)),
            p999: Some(samples.microseconds(0.999)),
            ..Self::figure(name, Unit::Microseconds, samples.median()?, baseline)?
        })
    }

    /// One figure; none when it was not measured.
    pub(super) fn figure(
        name: &'static str,
        unit: Unit,
        value: impl Into<Option<f64>>,
        baseline: Option<f64>,
    ) -> Option<Self> {
        let value = value.into()?;
        let ratio = baseline.map(|baseline| value / baseline);
        Some(Self { name, unit, value, p99: None, p999: None, baseline, ratio })
    }

    /// Figures that were each taken beside one of the bare limit: the medians of both, and the median pair's ratio, which need not be the
    /// medians'. None without pairs.
    pub(super) fn pairs(name: &'static str, unit: Unit, pairs: &[(f64, f64)]) -> Option<Self> {
        let middle = |of: fn(&(f64, f64)) -> f64| median(&pairs.iter().map(of).collect::<Vec<_>>());
        Some(Self {
            ratio: middle(|(value, bare)| value / bare),
            ..Self::figure(name, unit, middle(|(value, _)| *value), middle(|(_, bare)| *bare))?
        })
    }

    /// How often something happened.
    #[expect(clippy::cast_precision_loss, reason = "small counts")]
    pub(super) fn count(name: &'static str, value: Option<u64>) -> Option<Self> {
        Self::figure(name, Unit::Calls, value? as f64, None)
    }
}

#[expect(clippy::print_stdout, reason = "the benchmark's result")]
pub(super) fn print(rows: &[Row]) {
    println!("{:<31} {:>6} {:>9} {:>9} {:>9} {:>9} {:>6}", "row", "unit", "p50", "p99", "p99.9", "bare p50", "ratio");
    let optional =
        |value: Option<f64>, digits| value.map_or_else(|| "-".to_owned(), |value| format!("{value:.digits$}"));
    for row in rows {
        println!(
            "{:<31} {:>6} {:>9.1} {:>9} {:>9} {:>9} {:>6}",
            row.name,
            row.unit.text(),
            row.value,
            optional(row.p99, 1),
            optional(row.p999, 1),
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
