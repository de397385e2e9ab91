//! The columns of the list of vaults, and which of them a width has room for.

use std::time::Duration;

use casemate_protocol::id::VaultId;
use casemate_protocol::resident::VaultsBy;

use super::super::node::printable;
use super::super::units;
use super::sample::Vault;

/// Between two columns.
const GAP: usize = 2;
/// Characters of an id that tell it from the others of a node.
const SHORTEST_ID: usize = 8;

/// One column beside the vault's id.
#[derive(Debug, Clone, Copy)]
struct Column {
    heading: &'static str,
    width: usize,
    /// The order that puts this column's largest value on top.
    by: Option<VaultsBy>,
    /// Columns of a lower rank go first when the width is short.
    rank: u8,
    cell: fn(&Vault) -> String,
}

const COLUMNS: [Column; 7] = [
    Column { heading: "STATE", width: 9, by: None, rank: 1, cell: |vault| printable(&vault.state) },
    Column { heading: "MEMORY", width: 9, by: Some(VaultsBy::Memory), rank: 6, cell: memory },
    Column { heading: "REQ/S", width: 7, by: Some(VaultsBy::Rate), rank: 5, cell: rate },
    Column { heading: "LATENCY", width: 8, by: Some(VaultsBy::Latency), rank: 4, cell: latency },
    Column { heading: "FLIGHT/Q", width: 9, by: Some(VaultsBy::Queue), rank: 3, cell: queue },
    Column { heading: "IDLE", width: 7, by: Some(VaultsBy::Idle), rank: 2, cell: idle },
    Column { heading: "PID", width: 7, by: None, rank: 0, cell: pid },
];

fn memory(vault: &Vault) -> String {
    vault.memory_bytes.filter(|bytes| *bytes > 0).map_or_else(unknown, units::bytes)
}

fn rate(vault: &Vault) -> String {
    vault.requests_per_second.map_or_else(unknown, units::rate)
}

fn latency(vault: &Vault) -> String {
    vault.latency_us.map_or_else(unknown, units::took)
}

fn queue(vault: &Vault) -> String {
    match vault.queued {
        Some(queued) => format!("{}/{queued}", vault.in_flight.saturating_sub(queued)),
        None => vault.in_flight.to_string(),
    }
}

fn idle(vault: &Vault) -> String {
    units::age(Duration::from_millis(vault.idle_ms))
}

fn pid(vault: &Vault) -> String {
    if vault.pid == 0 { unknown() } else { vault.pid.to_string() }
}

fn unknown() -> String {
    "-".to_owned()
}

/// The columns that fit, and the width of the vault's id beside them.
#[derive(Debug)]
pub(super) struct Columns {
    shown: Vec<Column>,
    id: usize,
}

impl Columns {
    /// As many as `width` has room for.
    pub(super) fn fitting(width: usize) -> Self {
        let mut shown = COLUMNS.to_vec();
        loop {
            let taken: usize = shown.iter().map(|column| column.width + GAP).sum();
            let left = width.saturating_sub(taken);
            let least = shown.iter().map(|column| column.rank).min();
            match least {
                Some(least) if left < SHORTEST_ID => shown.retain(|column| column.rank != least),
                _ => return Self { shown, id: left.min(VaultId::CHARS) },
            }
        }
    }

    /// The headings; the one of the order is marked.
    pub(super) fn heading(&self, by: VaultsBy) -> String {
        let name = |column: &Column| {
            let mark = if column.by == Some(by) { "▾" } else { "" };
            format!("{}{mark}", column.heading)
        };
        self.line(&units::shortened("VAULT", self.id), name)
    }

    /// One vault.
    pub(super) fn row(&self, vault: &Vault) -> String {
        self.line(&units::shortened(&printable(&vault.id), self.id), |column| (column.cell)(vault))
    }

    fn line(&self, id: &str, cell: impl Fn(&Column) -> String) -> String {
        let mut line = format!("{id:<width$}", width = self.id);
        for column in &self.shown {
            let (text, width) = (units::shortened(&cell(column), column.width), column.width);
            // Words stand on the left, figures on the right.
            let padded =
                if column.heading == "STATE" { format!("  {text:<width$}") } else { format!("  {text:>width$}") };
            line.push_str(&padded);
        }
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_line_is_wider_than_it_may_be_and_ids_are_whole_when_they_can() {
        let vault = Vault {
            id: "vov2xk5lvov2xk5lvov2xk5lvov2xk5l".to_owned(),
            state: "half_open".to_owned(),
            memory_bytes: Some(u64::MAX),
            requests_per_second: Some(1e12),
            latency_us: Some(u64::MAX),
            in_flight: u64::MAX,
            queued: Some(1),
            idle_ms: u64::MAX,
            pid: 4_194_304,
        };
        for width in 0..200 {
            let columns = Columns::fitting(width);
            for line in [columns.heading(VaultsBy::Queue), columns.row(&vault)] {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
        assert!(Columns::fitting(102).row(&vault).starts_with(&vault.id));
        assert!(Columns::fitting(78).heading(VaultsBy::Idle).contains("PID"));
        assert!(!Columns::fitting(77).heading(VaultsBy::Idle).contains("PID"));
        assert!(Columns::fitting(40).heading(VaultsBy::Memory).contains("MEMORY▾"));
    }

    #[test]
    fn what_is_not_known_is_a_dash() {
        let row = Columns::fitting(120).row(&Vault { id: "a\u{1b}b".to_owned(), ..Vault::default() });
        let cells: Vec<_> = row.split_whitespace().collect();
        assert_eq!(cells, ["ab", "-", "-", "-", "0", "0", "s", "-"]);
    }
}
