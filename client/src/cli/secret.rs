//! `casemate secret`.

use std::path::PathBuf;

use casemate_protocol::limits;
use casemate_protocol::reply::SecretEntry;
use clap::Subcommand;
use data_encoding::BASE64;
use serde_json::{Value, json};

use super::context::Context;
use super::input;
use super::output::{self, CliError, table, time};
use crate::home;

#[derive(Debug, Subcommand)]
pub(super) enum SecretCommand {
    /// Write a secret from standard input or a file
    #[command(after_help = "\
Examples:
  casemate secret put db/password < password.txt
  casemate secret put tls/key --file server.key
  casemate secret put db/password --if-revision 3 < new.txt    only if nobody changed it since
  casemate secret put db/password --if-absent < first.txt      only if there is none")]
    Put {
        /// The secret's name, at most 256 bytes
        name: String,
        /// The file to read instead of standard input; it is stored byte for byte
        #[arg(long, short, visible_alias = "value-file", value_name = "FILE")]
        file: Option<PathBuf>,
        /// Only if this is the present revision
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
        if_revision: Option<u64>,
        /// Only if there is no such secret
        #[arg(long, conflicts_with = "if_revision")]
        if_absent: bool,
    },
    /// Read a secret: its bytes, and nothing else, to standard output
    #[command(after_help = "\
Examples:
  casemate secret get db/password
  casemate secret get tls/key --out server.key
  casemate secret get db/password --revision 2")]
    Get {
        /// The secret's name
        name: String,
        /// A former revision; `secret history` lists them
        #[arg(long, value_name = "N")]
        revision: Option<u64>,
        /// Write to this file, readable by you alone, instead of standard output
        #[arg(long, short, value_name = "FILE")]
        out: Option<PathBuf>,
    },
    /// List secrets by name
    List {
        /// Only names that begin so
        #[arg(value_name = "PREFIX", default_value = "")]
        beginning: String,
    },
    /// Delete a secret and its history
    Delete {
        /// The secret's name
        name: String,
        /// Only if this is the present revision
        #[arg(long, value_name = "N")]
        if_revision: Option<u64>,
    },
    /// List the revisions that are kept of a secret, newest first
    History {
        /// The secret's name
        name: String,
    },
}

impl SecretCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Put { name, file, if_revision, if_absent } => {
                // Read before the vault is claimed: whoever types it may take a while.
                let value = input::read(file.as_deref(), limits::SECRET_BYTES, "the secret")?;
                let bytes = value.len();
                let expected = if if_absent { Some(0) } else { if_revision };
                Context::block_on(async {
                    let revision = context.open().await?.secret_put(&name, value, expected).await?;
                    let result = json!({ "name": name, "revision": revision, "bytes": bytes });
                    context.output.either(&result, || vec![format!("Wrote {name}: revision {revision}, {bytes} bytes")])
                })
            }
            Self::Get { name, revision, out } => Context::block_on(get(context, &name, revision, out)),
            Self::List { beginning } => Context::block_on(async {
                let entries = context.open().await?.secret_list(&beginning).await?;
                show(context, "secrets", &entries)
            }),
            Self::Delete { name, if_revision } => Context::block_on(async {
                context.open().await?.secret_delete(&name, if_revision).await?;
                context.output.either(&json!({ "name": name, "deleted": true }), || vec![format!("Deleted {name}")])
            }),
            Self::History { name } => Context::block_on(async {
                let entries = context.open().await?.secret_history(&name).await?;
                show(context, "revisions", &entries)
            }),
        }
    }
}

async fn get(context: &Context, name: &str, revision: Option<u64>, out: Option<PathBuf>) -> Result<(), CliError> {
    let secret = context.open().await?.secret_get(name, revision).await?;
    let (revision, bytes) = (secret.revision, secret.value.len());
    if let Some(path) = out {
        home::write_private(&path, &secret.value)?;
        let shown = path.display().to_string();
        let result = json!({ "name": name, "revision": revision, "bytes": bytes, "out": shown });
        return context
            .output
            .either(&result, || vec![format!("Wrote {name}, revision {revision}, {bytes} bytes, to {shown}")]);
    }
    if context.output.json {
        let written = time(secret.written_at);
        let value = BASE64.encode(&secret.value);
        return output::print_value(
            &json!({ "name": name, "revision": revision, "written": written, "value_base64": value }),
        );
    }
    output::print_bytes(&secret.value)
}

fn show(context: &Context, name: &str, entries: &[SecretEntry]) -> Result<(), CliError> {
    let value = |entry: &SecretEntry| json!({ "name": entry.name, "revision": entry.revision, "bytes": entry.bytes, "written": time(entry.written_at) });
    let values: Vec<Value> = entries.iter().map(value).collect();
    context.output.either(&json!({ name: values }), || {
        let row = |entry: &SecretEntry| {
            vec![entry.name.clone(), entry.revision.to_string(), entry.bytes.to_string(), time(entry.written_at)]
        };
        table(&["NAME", "REVISION", "BYTES", "WRITTEN"], &entries.iter().map(row).collect::<Vec<_>>())
    })
}
