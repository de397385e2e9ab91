//! `casemate node diagnose`: what an on-call engineer asks first, in one frame, each fault with what to do next.
//!
//! The parent reaches every part anew and says what it found; here it is only put in order. A parent that does not answer is itself the
//! finding, and the command's error says what to do about it.

use std::time::Duration;

use serde_json::{Value, json};

use super::context::Context;
use super::node::{Socket, ask, printable};
use super::output::{CliError, time};
use crate::error::Kind;

/// The parent waits up to five seconds for parts that are away.
const LEAST_PATIENCE: Duration = Duration::from_secs(15);

/// Asks, shows, and ends with 8 when something needs doing.
pub(super) fn run(context: &Context, socket: Socket) -> Result<(), CliError> {
    let patience = context.globals.timeout.max(LEAST_PATIENCE);
    let answer = ask(&socket.into_path(), &json!({ "op": "diagnose" }), patience)?;
    context.output.either(&answer, || lines(&answer))?;
    let faults = list(&answer, "findings").iter().filter(|finding| finding["ok"] == false).count();
    if faults == 0 {
        return Ok(());
    }
    Err(CliError::new(
        Kind::Unavailable,
        "faults_found",
        format!("{faults} of what this node needs is not as it must be"),
        "Do what stands beside each ✗ above, the first one first; then ask again.",
    ))
}

fn list<'a>(answer: &'a Value, key: &str) -> &'a [Value] {
    answer.get(key).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::String(text) => printable(text),
        other => other.to_string(),
    }
}

fn lines(answer: &Value) -> Vec<String> {
    let health = &answer["health"];
    let mut lines = vec![format!(
        "{} {}, up for {} s, cluster {}",
        text(&health["node"]),
        text(&health["status"]),
        text(&health["uptime_s"]),
        text(&health["cluster"])
    )];
    for finding in list(answer, "findings") {
        let mark = if finding["ok"] == true { "✓" } else { "✗" };
        lines.push(format!("{mark} {:<8} {}", text(&finding["part"]), text(&finding["what"])));
        if finding["ok"] == false {
            lines.push(format!("  {:<8} next: {}", "", text(&finding["next"])));
        }
    }
    let versions = &answer["versions"];
    let named = ["parent", "enclave", "nats_server", "kernel"];
    let named: Vec<_> =
        named.iter().map(|name| format!("{} {}", name.replace('_', "-"), text(&versions[*name]))).collect();
    lines.push(format!("versions   {}", named.join(", ")));
    let enclave = &health["enclave"];
    for register in ["pcr0", "pcr1", "pcr2"] {
        lines.push(format!("{:<10} {}", register.to_uppercase(), text(&enclave["measurements"][register])));
    }
    lines.push(format!(
        "evidence   {} s old; sandbox layers {}, missing {}",
        text(&enclave["evidence_age_s"]),
        list(enclave, "sandbox").len(),
        list(enclave, "sandbox_missing").len()
    ));
    let (vaults, memory) = (&health["vaults"], &health["memory"]);
    lines.push(format!(
        "vaults     {} of {} resident, {} parked, {} in flight; memory {} of {} bytes used",
        text(&vaults["resident"]),
        text(&vaults["limit"]),
        text(&vaults["parked"]),
        text(&vaults["in_flight"]),
        text(&memory["used"]),
        text(&memory["total"])
    ));
    let latest = list(answer, "latest_errors");
    if latest.is_empty() {
        lines.push("log        no warning and no error since the parent's start".to_owned());
    }
    for kept in latest.iter().rev().take(10) {
        let times =
            kept["times"].as_u64().filter(|times| *times > 1).map_or_else(String::new, |n| format!(" ({n} times)"));
        let at = time(kept["at"].as_u64().unwrap_or_default());
        lines.push(format!("{:<10} {at} {}{times}", text(&kept["level"]), text(&kept["text"])));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_stands_with_its_next_step_and_nothing_steers_the_terminal() {
        let answer = json!({
            "health": { "node": "n", "status": "unhealthy", "uptime_s": 5, "enclave": { "measurements": { "pcr0": "ab" } } },
            "findings": [
                { "part": "nats", "ok": true, "what": "5 messages there and back", "next": null },
                { "part": "store", "ok": false, "what": "full\u{1b}[2J", "next": "Make room." },
            ],
            "latest_errors": [{ "at": 0, "level": "warn", "text": "a", "times": 3 }],
            "versions": { "parent": "0.1.0" },
        });
        let lines = lines(&answer);
        let page = lines.join("\n");
        assert!(page.contains("✓ nats     5 messages") && page.contains("✗ store    full[2J"), "{page}");
        let fault = lines.iter().position(|line| line.starts_with('✗')).unwrap();
        assert!(lines[fault + 1].ends_with("next: Make room."), "{page}");
        assert!(page.contains("PCR0       ab") && page.contains("1970-01-01T00:00:00Z a (3 times)"), "{page}");
        assert!(!page.contains('\u{1b}'));
    }

    #[test]
    fn an_answer_of_another_version_is_shown_as_far_as_it_is_understood() {
        assert!(lines(&json!({})).join("\n").contains("no warning and no error"));
    }
}
