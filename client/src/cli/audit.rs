//! `casemate audit`.

use casemate_protocol::reply::AuditEntry;
use clap::Args;
use serde_json::{Value, json};

use super::context::Context;
use super::output::{CliError, table, time};
use crate::error::Kind;
use crate::vault::AuditPage;

/// Read the vault's audit chain and verify it.
///
/// The vault keeps the last 1,024 entries and the hash of what came before. Each entry's hash covers the one before it; this
/// command recomputes them all. Exit code 10 if the chain does not hold.
#[derive(Debug, Args)]
pub(super) struct AuditCommand {
    /// Show only the newest N entries; the whole chain is verified nevertheless
    #[arg(long, value_name = "N")]
    last: Option<usize>,
}

/// A chain that was read page by page, verified as it grows.
#[derive(Debug, Default)]
struct Chain {
    entries: Vec<AuditEntry>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Broken {
    number: u64,
}

impl Chain {
    /// Adds a page; it must go on where the last one ended.
    fn add(&mut self, page: AuditPage) -> Result<(), Broken> {
        for entry in page.entries {
            let (number, before) = match self.entries.last() {
                Some(last) => (last.number + 1, last.hash),
                None => (entry.number, page.before),
            };
            // A chain that begins at 1 begins with zeros: nothing can have come before.
            let rooted = entry.number != 1 || before == [0; 32];
            if entry.number != number || entry.hash != entry.chain(&before) || !rooted {
                return Err(Broken { number: entry.number });
            }
            self.entries.push(entry);
        }
        Ok(())
    }
}

impl AuditCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        Context::block_on(async {
            let vault = context.open().await?;
            let mut chain = Chain::default();
            loop {
                let after = chain.entries.last().map(|entry| entry.number);
                let page = vault.audit_page(after).await?;
                let more = page.more && !page.entries.is_empty();
                chain.add(page).map_err(|Broken { number }| {
                    CliError::new(
                        Kind::NotVerified,
                        "audit_broken",
                        format!("the audit chain does not hold at entry {number}"),
                        "Do not rely on this vault's history; tell the operator's security contact.",
                    )
                })?;
                if !more {
                    break;
                }
            }
            show(context, &chain.entries, self.last)
        })
    }
}

fn show(context: &Context, entries: &[AuditEntry], last: Option<usize>) -> Result<(), CliError> {
    let shown = &entries[entries.len().saturating_sub(last.unwrap_or(usize::MAX))..];
    let value = |entry: &AuditEntry| {
        json!({
            "number": entry.number,
            "at": time(entry.at),
            "version": entry.version,
            "device": hex::encode(entry.device),
            "event": entry.event.as_str(),
            "subject": entry.subject,
            "hash": hex::encode(entry.hash),
        })
    };
    let dropped = entries.first().map_or(0, |first| first.number - 1);
    let values: Vec<Value> = shown.iter().map(value).collect();
    let summary = json!({ "verified": true, "entries": values, "verified_entries": entries.len(), "dropped": dropped });
    context.output.either(&summary, || {
        let row = |entry: &AuditEntry| {
            vec![
                entry.number.to_string(),
                time(entry.at),
                entry.version.to_string(),
                hex::encode(&entry.device[..4]),
                entry.event.as_str().to_owned(),
                entry.subject.clone().unwrap_or_default(),
            ]
        };
        let mut lines =
            table(&["NO", "AT", "VERSION", "DEVICE", "EVENT", "SUBJECT"], &shown.iter().map(row).collect::<Vec<_>>());
        let before = if dropped == 0 { String::new() } else { format!("; {dropped} older ones are no longer kept") };
        lines.push(format!("The chain holds: {} entries verified{before}.", entries.len()));
        lines
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use casemate_protocol::reply::AuditEvent;

    fn entries(first: u64, count: u64, mut before: [u8; 32]) -> Vec<AuditEntry> {
        (first..first + count)
            .map(|number| {
                let mut entry = AuditEntry {
                    number,
                    at: 1000 + number,
                    version: number,
                    device: [1; 16],
                    event: AuditEvent::SecretWritten,
                    subject: Some("a".to_owned()),
                    hash: [0; 32],
                };
                entry.hash = entry.chain(&before);
                before = entry.hash;
                entry
            })
            .collect()
    }

    fn verify(entries: &[AuditEntry], before: [u8; 32]) -> Result<usize, Broken> {
        let mut chain = Chain::default();
        for page in entries.chunks(3) {
            chain.add(AuditPage { entries: page.to_vec(), more: true, before })?;
        }
        Ok(chain.entries.len())
    }

    #[test]
    fn a_chain_holds_from_its_root_or_from_what_it_dropped() {
        assert_eq!(verify(&entries(1, 8, [0; 32]), [0; 32]), Ok(8));
        assert_eq!(verify(&entries(5, 8, [7; 32]), [7; 32]), Ok(8));
        assert_eq!(verify(&entries(1, 8, [7; 32]), [7; 32]), Err(Broken { number: 1 }));
        assert_eq!(verify(&entries(5, 8, [7; 32]), [8; 32]), Err(Broken { number: 5 }));
    }

    #[test]
    fn every_change_breaks_it() {
        type Change = fn(&mut Vec<AuditEntry>);
        let changes: [(Change, u64); 6] = [
            (|entries| entries[4].at += 1, 5),
            (|entries| entries[4].subject = None, 5),
            (|entries| entries[4].event = AuditEvent::SecretDeleted, 5),
            (|entries| entries[4].hash[0] ^= 1, 5),
            (|entries| drop(entries.remove(4)), 6),
            (|entries| entries.swap(3, 4), 5),
        ];
        for (change, number) in changes {
            let mut changed = entries(1, 8, [0; 32]);
            change(&mut changed);
            assert_eq!(verify(&changed, [0; 32]), Err(Broken { number }));
        }
    }
}
