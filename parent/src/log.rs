//! Where log lines go: the journal under systemd, standard error otherwise.

use std::io::IsTerminal;

use systemd_journal_logger::{JournalLog, connected_to_journal};
use tracing_subscriber::EnvFilter;

use crate::config::LogTarget;

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
        JournalLog::new().map_err(LogError::Journal)?.install().map_err(|_| LogError::Twice)?;
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
    let filter = EnvFilter::new(format!("warn,casemate_parent={level},casemate_link={level},enclave={level}"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr)
        // A line that cannot be written is lost. To complain about it, tracing would use `eprintln!`, whose failure is a panic: a log on
        // a full disk must not end the bridge.
        .log_internal_errors(false)
        .try_init()
        .map_err(|_| LogError::Twice)
}
