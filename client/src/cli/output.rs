//! What the command line says, to people and to programs.
//!
//! Results go to standard output, everything about them to standard error. With `--json` both are one JSON value a line.

use std::io::{self, IsTerminal, Write};

use anstyle::{AnsiColor, Style};
use serde_json::{Value, json};

use crate::error::{Explain, Kind};

/// An error as the command line shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CliError {
    pub(super) kind: Kind,
    pub(super) code: String,
    pub(super) message: String,
    pub(super) remedy: String,
}

impl CliError {
    pub(super) fn usage(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind: Kind::Usage, code: "usage".to_owned(), message: message.into(), remedy: remedy.into() }
    }

    pub(super) fn new(kind: Kind, code: &str, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, code: code.to_owned(), message: message.into(), remedy: remedy.into() }
    }

    /// Whether the reader of our output went away, as `head` does: nobody is left to be told.
    pub(super) fn is_broken_pipe(&self) -> bool {
        self.code == BROKEN_PIPE
    }
}

const BROKEN_PIPE: &str = "broken_pipe";

impl<E: Explain> From<E> for CliError {
    fn from(error: E) -> Self {
        Self { kind: error.kind(), code: error.code(), message: error.to_string(), remedy: error.remedy() }
    }
}

fn output_error(error: &io::Error) -> CliError {
    let code = if error.kind() == io::ErrorKind::BrokenPipe { BROKEN_PIPE } else { "output" };
    CliError::new(
        Kind::Other,
        code,
        format!("cannot write the result: {error}"),
        "Check the free space and where the output goes.",
    )
}

/// Writes one line of a result for people.
pub(super) fn print_line(text: impl AsRef<str>) -> Result<(), CliError> {
    writeln!(anstream::stdout(), "{}", text.as_ref()).map_err(|error| output_error(&error))
}

/// Writes a result for programs.
pub(super) fn print_value(value: &Value) -> Result<(), CliError> {
    writeln!(io::stdout(), "{value}").map_err(|error| output_error(&error))
}

/// Writes a result as it is.
pub(super) fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(|error| output_error(&error))
}

/// Where results and errors go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Writes a result for whoever reads it.
    pub(super) fn either(self, value: &Value, lines: impl FnOnce() -> Vec<String>) -> Result<(), CliError> {
        if self.json { print_value(value) } else { lines().into_iter().try_for_each(print_line) }
    }

    /// Says something beside the result; people only.
    pub(super) fn note(self, text: &str) {
        if !self.json {
            // Standard error is closed: then nobody wants to know.
            let _ = writeln!(anstream::stderr(), "{text}");
        }
    }

    /// Says loudly that evidence is worth nothing here.
    pub(super) fn warn_of_development(self) {
        let style = Style::new().bold().fg_color(Some(AnsiColor::Yellow.into()));
        self.note(&format!("{style}{DEVELOPMENT}{style:#}"));
    }

    /// Reports an error.
    pub(super) fn error(self, error: &CliError) {
        let mut stderr = anstream::stderr();
        let _ = if self.json {
            let CliError { code, message, remedy, .. } = error;
            writeln!(stderr, "{}", json!({ "error": { "code": code, "message": message, "remedy": remedy } }))
        } else {
            let red = Style::new().bold().fg_color(Some(AnsiColor::Red.into()));
            let cyan = Style::new().bold().fg_color(Some(AnsiColor::Cyan.into()));
            writeln!(stderr, "{red}error:{red:#} {}\n{cyan}what to do:{cyan:#} {}", error.message, error.remedy)
        };
    }
}

/// What a program with a development root says of itself.
pub(super) const DEVELOPMENT: &str = "DEVELOPMENT EVIDENCE: this program believes a development root; what it trusts proves nothing outside this machine.";

/// Whether raw bytes would end up on a person's screen.
pub(super) fn stdout_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// Rows under a heading, each column as wide as its widest cell.
pub(super) fn table(heading: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([heading[column].len()]).max().unwrap_or_default()
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<_> = cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        padded.join("  ").trim_end().to_owned()
    };
    let first = line(&mut heading.iter().copied());
    [first].into_iter().chain(rows.iter().map(|row| line(&mut row.iter().map(String::as_str)))).collect()
}

/// Unix seconds as RFC 3339 in UTC.
pub(super) fn time(unix: u64) -> String {
    let (days, seconds) = (unix / 86_400, unix % 86_400);
    // Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms": civil_from_days, for days since 1970.
    let z = days + 719_468;
    let (era, day_of_era) = (z / 146_097, z % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_right() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_164_800, "2024-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_102_444_800, "2100-01-01T00:00:00Z"),
        ];
        for (unix, text) in cases {
            assert_eq!(time(unix), text);
        }
    }

    #[test]
    fn columns_line_up() {
        let rows = [vec!["a".to_owned(), "1".to_owned()], vec!["long".to_owned(), "22".to_owned()]];
        assert_eq!(table(&["NAME", "N"], &rows), ["NAME  N", "a     1", "long  22"]);
    }
}
