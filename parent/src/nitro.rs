//! `casemate-parent enclave`: starts the enclave with AWS's `nitro-cli`, watches it, and ends with a reason when it dies or falls silent, so
//! that systemd starts it anew (`systemd/nitro-enclave.service`).
//!
//! Whether an enclave lives, `nitro-cli describe-enclaves` says; whether it answers, the parent's admin socket does. A parent that is not
//! there says nothing about the enclave: then nothing is ended for it.

use std::fmt;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use casemate_link::{Address, connect};
use sd_notify::NotifyState;
use serde::Deserialize;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::config::{Config, Nitro};
use crate::health::ENCLAVE_LIMIT;

/// The name by which an enclave that was left behind is known as ours.
const NAME: &str = "casemate";
const INTERVAL: Duration = Duration::from_secs(1);
/// An image of a few MiB boots in seconds; memory by the hundred GiB takes longer to be given to it.
const RUN_DEADLINE: Duration = Duration::from_mins(3);
const CLI_DEADLINE: Duration = Duration::from_secs(20);
const ADMIN_DEADLINE: Duration = Duration::from_secs(3);
/// How long a new enclave may take until its first answer.
const BOOT_GRACE: Duration = Duration::from_mins(2);
/// Descriptions that may fail in a row.
const MISSED_LIMIT: u32 = 3;

/// Why the enclave does not run.
#[derive(Debug, thiserror::Error)]
pub enum NitroError {
    /// No image.
    #[error(
        "enclave.image: {path} cannot be read: {reason}; install the image there (deploy/README.md), or build one with ./dev image"
    )]
    Image {
        /// Where it should be.
        path: String,
        /// Why it cannot be read.
        reason: String,
    },
    /// AWS's program does not run.
    #[error("enclave.nitro_cli: {path} does not run: {reason}; install the package aws-nitro-enclaves-cli")]
    Cli {
        /// The program.
        path: String,
        /// Why.
        reason: String,
    },
    /// It refused.
    #[error("nitro-cli {command} failed: {said}; {remedy}")]
    Refused {
        /// What it was asked.
        command: &'static str,
        /// The end of what it said.
        said: String,
        /// What to do.
        remedy: &'static str,
    },
    /// It said something else.
    #[error(
        "nitro-cli {0} said what is not understood; its version is another than this was written for (1.2 and newer)"
    )]
    NotUnderstood(&'static str),
    /// The enclave is not there any more.
    #[error(
        "the enclave {id} has ended ({state}) after {ran_s} s; the parent's log has its last words, /var/log/nitro_enclaves those of nitro-cli"
    )]
    Ended {
        /// Its id.
        id: String,
        /// What nitro-cli says of it.
        state: String,
        /// How long it ran.
        ran_s: u64,
    },
    /// The enclave is there and does not answer.
    #[error(
        "the enclave {id} runs but has not answered its parent for {silent_s} s (enclave.silence_s); it is ended and started anew"
    )]
    Silent {
        /// Its id.
        id: String,
        /// For how long.
        silent_s: u64,
    },
    /// A signal, a thread.
    #[error("{0}")]
    Io(#[from] std::io::Error),
}

/// An enclave as nitro-cli describes it.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Described {
    #[serde(rename = "EnclaveID")]
    enclave_id: String,
    #[serde(default)]
    enclave_name: String,
    #[serde(default)]
    state: String,
}

/// What the parent knows of the enclave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Heard {
    /// There is no parent, or it does not answer.
    NoParent,
    /// The enclave answers, or is on purpose in a state in which it need not.
    Answers,
    /// It does not.
    Silent,
}

fn heard(page: &Value) -> Heard {
    let enclave = &page["enclave"];
    let age = enclave["last_answer_ms"].as_u64().map(Duration::from_millis);
    let answers = enclave["connected"].as_bool().unwrap_or(false) && age.is_some_and(|age| age <= ENCLAVE_LIMIT);
    if answers || page["draining"].as_bool().unwrap_or(false) { Heard::Answers } else { Heard::Silent }
}

/// How long the enclave has been silent, in a parent's hearing.
#[derive(Debug, Default)]
struct Silence {
    answered: bool,
    since: Option<Duration>,
}

impl Silence {
    /// Notes what was heard, so long after the start; returns for how long it has been silent when that is too long.
    fn note(&mut self, heard: Heard, now: Duration, patience: Duration) -> Option<Duration> {
        match heard {
            // A parent that comes back asks anew, and the enclave has to find it first.
            Heard::NoParent => self.since = None,
            Heard::Answers => (self.answered, self.since) = (true, None),
            Heard::Silent => {
                let silent = now.saturating_sub(*self.since.get_or_insert(now));
                let patience = if self.answered { patience } else { patience.max(BOOT_GRACE) };
                return (silent >= patience).then_some(silent);
            }
        }
        None
    }
}

/// Starts the enclave and watches it until SIGTERM or SIGINT has ended it.
///
/// # Errors
/// See [`NitroError`]; the enclave has ended then, too.
pub fn watch(config: &Config) -> Result<(), NitroError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let nitro = &config.nitro;
    runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let watched = tokio::select! {
            watched = run(nitro, config.enclave_cid, &config.admin) => watched,
            _ = terminate.recv() => Ok(()),
            _ = interrupt.recv() => Ok(()),
        };
        tell(&[NotifyState::Stopping, NotifyState::Status(&ending(&watched))]);
        // Whatever was the reason: one that is silent holds the memory of the next.
        let left = end_ours(nitro).await;
        watched.and(left)
    })
}

fn ending(watched: &Result<(), NitroError>) -> String {
    watched.as_ref().map_or_else(ToString::to_string, |()| "told to stop".to_owned())
}

async fn run(nitro: &Nitro, cid: Option<u32>, admin: &Path) -> Result<(), NitroError> {
    std::fs::File::open(&nitro.image)
        .map_err(|error| NitroError::Image { path: nitro.image.display().to_string(), reason: error.to_string() })?;
    // A watch that was killed could not end its enclave.
    end_ours(nitro).await?;
    let mut arguments = vec![
        "--eif-path".to_owned(),
        nitro.image.display().to_string(),
        "--enclave-name".to_owned(),
        NAME.to_owned(),
        "--cpu-count".to_owned(),
        nitro.cpus.to_string(),
        "--memory".to_owned(),
        nitro.memory_mib.to_string(),
    ];
    // Never --debug-mode: its measurements are zero, and no key is released to them.
    if let Some(cid) = cid {
        arguments.extend(["--enclave-cid".to_owned(), cid.to_string()]);
    }
    let output = ask(nitro, "run-enclave", &arguments, RUN_DEADLINE).await?;
    let started: Described =
        serde_json::from_slice(&output.stdout).map_err(|_| NitroError::NotUnderstood("run-enclave"))?;
    let (id, begun) = (started.enclave_id, Instant::now());
    tracing::info!(id, "the enclave is started");
    tell(&[NotifyState::Ready, NotifyState::Status(&format!("{id} is started"))]);
    let (mut silence, mut missed, mut told) = (Silence::default(), 0, Heard::NoParent);
    loop {
        tokio::time::sleep(INTERVAL).await;
        match describe(nitro).await {
            Ok(described) => {
                missed = 0;
                let state = described.iter().find(|enclave| enclave.enclave_id == id).map(|found| found.state.as_str());
                if state != Some("RUNNING") {
                    let state = state.unwrap_or("it is not listed any more").to_owned();
                    return Err(NitroError::Ended { id, state, ran_s: begun.elapsed().as_secs() });
                }
            }
            Err(error) => {
                missed += 1;
                tracing::warn!(%error, missed, "nitro-cli did not say how the enclave is");
                if missed >= MISSED_LIMIT {
                    return Err(error);
                }
            }
        }
        let heard = ask_parent(admin).await.map_or(Heard::NoParent, |page| heard(&page));
        if heard != told {
            let words = match heard {
                Heard::NoParent => "runs; the parent does not say whether it answers",
                Heard::Answers => "runs and answers",
                Heard::Silent => "runs and does not answer",
            };
            tracing::info!(id, "the enclave {words}");
            tell(&[NotifyState::Status(&format!("{id} {words}"))]);
            told = heard;
        }
        if let Some(silent) = silence.note(heard, begun.elapsed(), nitro.silence) {
            return Err(NitroError::Silent { id, silent_s: silent.as_secs() });
        }
        tell(&[NotifyState::Watchdog]);
    }
}

fn tell(states: &[NotifyState<'_>]) {
    // Without systemd there is nobody to tell, which is no error.
    if let Err(error) = sd_notify::notify(states) {
        tracing::warn!(%error, "systemd could not be told");
    }
}

/// Ends what runs under our name.
async fn end_ours(nitro: &Nitro) -> Result<(), NitroError> {
    for enclave in describe(nitro).await?.iter().filter(|enclave| enclave.enclave_name == NAME) {
        tracing::info!(id = enclave.enclave_id, "ending the enclave");
        let arguments = ["--enclave-id".to_owned(), enclave.enclave_id.clone()];
        if let Err(error) = ask(nitro, "terminate-enclave", &arguments, CLI_DEADLINE).await {
            // It may have ended by itself between the question and this.
            if describe(nitro).await?.iter().any(|left| left.enclave_id == enclave.enclave_id) {
                return Err(error);
            }
        }
    }
    Ok(())
}

async fn describe(nitro: &Nitro) -> Result<Vec<Described>, NitroError> {
    let output = ask(nitro, "describe-enclaves", &[], CLI_DEADLINE).await?;
    serde_json::from_slice(&output.stdout).map_err(|_| NitroError::NotUnderstood("describe-enclaves"))
}

async fn ask(
    nitro: &Nitro,
    command: &'static str,
    arguments: &[String],
    within: Duration,
) -> Result<Output, NitroError> {
    let cli = |reason: &dyn fmt::Display| NitroError::Cli {
        path: nitro.nitro_cli.display().to_string(),
        reason: reason.to_string(),
    };
    let mut asked = Command::new(&nitro.nitro_cli);
    asked.arg(command).args(arguments).stdin(Stdio::null()).kill_on_drop(true);
    let output = tokio::time::timeout(within, asked.output())
        .await
        .map_err(|_| cli(&format!("no answer to {command} within {} s", within.as_secs())))?
        .map_err(|error| cli(&error))?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let lines: Vec<_> = said.lines().map(str::trim).filter(|line| !line.is_empty()).collect();
    let said = lines[lines.len().saturating_sub(4)..].join(" | ");
    let said: String = said.chars().filter(|c| !c.is_control()).take(500).collect();
    let remedy = remedy(&said);
    Err(NitroError::Refused { command, said, remedy })
}

/// What to do about nitro-cli's words.
fn remedy(said: &str) -> &'static str {
    let said = said.to_ascii_lowercase();
    let has = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if has(&["memory", "hugepage", "huge page"]) {
        "give the allocator at least enclave.memory_mib in /etc/nitro_enclaves/allocator.yaml, then: systemctl restart nitro-enclaves-allocator"
    } else if has(&["cpu"]) {
        "give the allocator at least enclave.cpus in /etc/nitro_enclaves/allocator.yaml, then: systemctl restart nitro-enclaves-allocator"
    } else if has(&["permission denied", "not permitted"]) {
        "this user must be in the group `ne`: see systemd/sysusers.d/casemate.conf"
    } else if has(&["/dev/nitro_enclaves", "no such file or directory", "no such device"]) {
        "launch the instance with EnclaveOptions enabled, and see that the module nitro_enclaves is loaded"
    } else if has(&["cid"]) {
        "another enclave has this context id: change link.enclave_cid, or end the other (nitro-cli describe-enclaves)"
    } else {
        "its own log is in /var/log/nitro_enclaves"
    }
}

/// The page of `/health`, from a running parent.
pub(crate) async fn ask_parent(admin: &Path) -> Option<Value> {
    let asking = async {
        let stream = connect(&Address::Unix(admin.to_owned())).await.ok()?;
        let (read, mut write) = tokio::io::split(stream);
        write.write_all(b"{\"op\":\"status\"}\n").await.ok()?;
        let mut line = String::new();
        BufReader::new(read).read_line(&mut line).await.ok()?;
        serde_json::from_str(&line).ok()
    };
    tokio::time::timeout(ADMIN_DEADLINE, asking).await.ok().flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn silence_counts_only_in_a_parents_hearing() {
        let (second, patience) = (Duration::from_secs(1), Duration::from_secs(30));
        let mut silence = Silence::default();
        assert_eq!(silence.note(Heard::Silent, second, patience), None);
        assert_eq!(silence.note(Heard::Silent, second * 100, patience), None, "it may still boot");
        assert_eq!(silence.note(Heard::Silent, second * 121, patience), Some(second * 120));
        assert_eq!(silence.note(Heard::Answers, second * 122, patience), None);
        assert_eq!(silence.note(Heard::Silent, second * 130, patience), None);
        assert_eq!(silence.note(Heard::NoParent, second * 150, patience), None, "nobody listens");
        assert_eq!(silence.note(Heard::Silent, second * 170, patience), None);
        assert_eq!(silence.note(Heard::Silent, second * 200, patience), Some(patience));
    }

    #[test]
    fn what_the_parent_says_of_it() {
        let page = |connected: bool, age: Option<u64>, draining: bool| {
            heard(&json!({ "draining": draining, "enclave": { "connected": connected, "last_answer_ms": age } }))
        };
        assert_eq!(page(true, Some(500), false), Heard::Answers);
        assert_eq!(page(true, Some(4001), false), Heard::Silent);
        assert_eq!(page(true, None, false), Heard::Silent);
        assert_eq!(page(false, Some(500), false), Heard::Silent);
        assert_eq!(
            page(false, None, true),
            Heard::Answers,
            "an operator drained it: it is not to be started anew for that"
        );
        assert_eq!(heard(&json!({})), Heard::Silent);
    }

    #[test]
    fn nitro_cli_is_understood() {
        let text = r#"[{"EnclaveName":"casemate","EnclaveID":"i-0-enc1","ProcessID":7,"EnclaveCID":16,"NumberOfCPUs":2,
            "CPUIDs":[1,3],"MemoryMiB":4096,"State":"RUNNING","Flags":"NONE","Measurements":{"PCR0":"ab"}}]"#;
        let described: Vec<Described> = serde_json::from_str(text).unwrap();
        let expected =
            Described { enclave_id: "i-0-enc1".into(), enclave_name: "casemate".into(), state: "RUNNING".into() };
        assert_eq!(described, [expected]);
        for (said, word) in [
            ("[ E27 ] Insufficient memory available.", "memory_mib"),
            ("[ E22 ] Insufficient CPUs available in the pool.", "enclave.cpus"),
            ("Failed to open device file /dev/nitro_enclaves: No such file or directory", "EnclaveOptions"),
            ("[ E39 ] whatever", "/var/log/nitro_enclaves"),
        ] {
            assert!(remedy(said).contains(word), "{said}: {}", remedy(said));
        }
    }
}
