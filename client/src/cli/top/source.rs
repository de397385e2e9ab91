//! Where the view has its numbers from: two questions at the parent's admin socket.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use casemate_protocol::resident::VaultsBy;
use serde_json::json;

use super::super::node::ask;
use super::super::output::CliError;
use super::sample::Sample;
use crate::error::Kind;

/// A node that is asked again and again.
#[derive(Debug)]
pub(super) struct Source {
    socket: PathBuf,
    timeout: Duration,
    started: Instant,
}

impl Source {
    /// The node behind this socket.
    pub(super) fn new(socket: PathBuf, timeout: Duration) -> Self {
        Self { socket, timeout, started: Instant::now() }
    }

    /// Asks how the node is, and for the first `limit` of its vaults.
    ///
    /// # Errors
    /// When there is no answer. A parent without an enclave has one, and no list.
    pub(super) fn ask(&self, by: VaultsBy, limit: usize) -> Result<Sample, CliError> {
        let page = ask(&self.socket, &json!({ "op": "status" }), self.timeout)?;
        let asked = self.started.elapsed();
        let question = json!({ "op": "vaults", "by": by.as_str(), "limit": limit });
        let list = ask(&self.socket, &question, self.timeout).map_err(|error| error.message);
        Sample::read(page, list, asked).map_err(|error| {
            CliError::new(
                Kind::Other,
                "not_understood",
                format!("the node's answer is not understood: {error}"),
                "Use the `casemate` of the parent's version.",
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader, Write};
    use std::os::unix::net::UnixListener;

    #[test]
    fn a_parent_without_an_enclave_is_shown_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("admin.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let answers = [
            r#"{"status":"unhealthy","node":"n"}"#,
            r#"{"error":{"code":"unavailable","message":"no enclave","remedy":"Start it."}}"#,
        ];
        let thread = std::thread::spawn(move || {
            answers.map(|answer| {
                let (stream, _) = listener.accept().unwrap();
                let mut line = String::new();
                BufReader::new(&stream).read_line(&mut line).unwrap();
                (&stream).write_all(format!("{answer}\n").as_bytes()).unwrap();
                line
            })
        });
        let sample = Source::new(path, Duration::from_secs(5)).ask(VaultsBy::Rate, 7).unwrap();
        assert_eq!((sample.health.status.as_str(), sample.unlisted.as_deref()), ("unhealthy", Some("no enclave")));
        let [status, vaults] = thread.join().unwrap();
        assert_eq!(status, "{\"op\":\"status\"}\n");
        // One line; the order of its members says nothing.
        assert_eq!(vaults.matches('\n').count(), 1);
        let vaults: serde_json::Value = serde_json::from_str(&vaults).unwrap();
        assert_eq!(vaults, serde_json::json!({ "op": "vaults", "by": "rate", "limit": 7 }));
    }
}
