//! Where log lines go: the journal under systemd, standard error otherwise. The latest warnings and errors are also kept in memory, for
//! `casemate node diagnose`.

use std::collections::VecDeque;
use std::fmt::Write;
use std::io::IsTerminal;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use log::Log;
use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing::field::{Field, Visit};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

use crate::config::LogTarget;

/// Lines that are kept.
const KEPT: usize = 32;
/// Characters of a line that are kept.
const KEPT_CHARACTERS: usize = 300;

/// The SDK complains there of each answer that is an error, because the HTTP client is not its own; what failed is told by whoever called.
const MUTED: &str = "aws_smithy_runtime";

static LATEST: Mutex<VecDeque<Kept>> = Mutex::new(VecDeque::new());

/// A warning or an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// Unix seconds by this host's clock, of the latest of them.
    pub at: u64,
    /// `warn` or `error`.
    pub level: &'static str,
    /// What it said.
    pub text: String,
    /// How often it said so in a row.
    pub times: u64,
}

/// The latest warnings and errors of this process, the newest last.
pub fn latest() -> Vec<Kept> {
    LATEST.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
}

fn keep(level: &'static str, text: &str) {
    let text: String = text.chars().filter(|c| !c.is_control()).take(KEPT_CHARACTERS).collect();
    let at = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let mut latest = LATEST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(last) = latest.back_mut().filter(|last| last.text == text) {
        (last.at, last.times) = (at, last.times + 1);
        return;
    }
    if latest.len() == KEPT {
        latest.pop_front();
    }
    latest.push_back(Kept { at, level, text, times: 1 });
}

/// Why logging could not begin.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// No journal.
    #[error("log.target: the journal cannot be reached: {0}; set it to \"terminal\" where there is none")]
    Journal(std::io::Error),
    /// Something logs already.
    #[error("logging was begun twice in one process")]
    Twice,
}

/// Begins logging, once for a process.
///
/// # Errors
/// See [`LogError`].
pub fn begin(target: LogTarget, level: tracing::Level) -> Result<(), LogError> {
    let to_journal = match target {
        LogTarget::Journal => true,
        LogTarget::Terminal => false,
        LogTarget::Auto => connected_to_journal(),
    };
    if to_journal {
        // Without a subscriber, tracing hands its events to `log`, whose fields the journal understands.
        let journal = JournalLog::new().map_err(LogError::Journal)?;
        log::set_boxed_logger(Box::new(Keeping(journal))).map_err(|_| LogError::Twice)?;
        log::set_max_level(match level {
            tracing::Level::ERROR => log::LevelFilter::Error,
            tracing::Level::WARN => log::LevelFilter::Warn,
            tracing::Level::INFO => log::LevelFilter::Info,
            tracing::Level::DEBUG => log::LevelFilter::Debug,
            tracing::Level::TRACE => log::LevelFilter::Trace,
        });
        return Ok(());
    }
    // Libraries speak up from warnings on; their lower levels say nothing that helps an operator of this node.
    let filter = format!("warn,{MUTED}=off,casemate_parent={level},casemate_link={level},enclave={level}");
    let filter = EnvFilter::new(filter);
    let terminal = tracing_subscriber::fmt::layer()
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost. To complain about it, tracing would use `eprintln!`, whose failure is a panic: a log on
        // a full disk must not end the bridge.
        .log_internal_errors(false);
    tracing_subscriber::registry().with(filter).with(terminal).with(Latest).try_init().map_err(|_| LogError::Twice)
}

/// Hands records on to the journal and keeps the grave ones.
struct Keeping(JournalLog);

impl Log for Keeping {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        !metadata.target().starts_with(MUTED) && self.0.enabled(metadata)
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.target().starts_with(MUTED) {
            return;
        }
        match record.level() {
            log::Level::Error => keep("error", &record.args().to_string()),
            log::Level::Warn => keep("warn", &record.args().to_string()),
            _ => {}
        }
        self.0.log(record);
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// Keeps the grave events.
struct Latest;

impl<S: tracing::Subscriber> Layer<S> for Latest {
    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let level = match *event.metadata().level() {
            tracing::Level::ERROR => "error",
            tracing::Level::WARN => "warn",
            _ => return,
        };
        let mut line = Line::default();
        event.record(&mut line);
        keep(level, &(line.message + &line.fields));
    }
}

/// An event in one line: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn std::fmt::Debug) {
        // Writing into memory does not fail.
        let _ = match field.name() {
            "message" => write!(self.message, "{value:?}"),
            name => write!(self.fields, " {name}={value:?}"),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_are_kept_and_the_same_once() {
        let subscriber = tracing_subscriber::registry().with(Latest);
        tracing::subscriber::with_default(subscriber, || {
            for number in 0..KEPT + 10 {
                tracing::warn!(number, "first\n");
            }
            tracing::info!("no concern of an operator at night");
            for _ in 0..3 {
                tracing::error!(why = "full", "second");
            }
        });
        let latest = latest();
        assert_eq!(latest.len(), KEPT);
        let last = latest.last().unwrap();
        assert_eq!((last.level, last.text.as_str(), last.times), ("error", "second why=\"full\"", 3));
        assert!(latest[KEPT - 2].text.starts_with("first number="), "{latest:?}");
    }
}
