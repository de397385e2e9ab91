//! `casemate vault`.

use std::io::{self, BufRead, IsTerminal, Write};

use casemate_protocol::head::Head;
use casemate_protocol::id::VaultId;
use clap::Subcommand;
use serde_json::{Value, json};

use super::context::{Context, OpenVault, trusted_lines, trusted_value};
use super::output::{CliError, table, time};
use crate::error::{Kind, VaultError};
use crate::judge::Distrust;
use crate::record::{Keep, Life, VaultRecord};

#[derive(Debug, Subcommand)]
pub(super) enum VaultCommand {
    /// Make a new vault, or finish making one
    ///
    /// The device's keys, the lock key and the vault's name are written to CASEMATE_HOME first. The node's evidence is judged
    /// before anything is sent to it, and what was trusted is printed.
    #[command(after_help = "Examples:\n  casemate vault create\n  casemate vault create --device-name laptop")]
    Create {
        /// This device's name in the vault
        #[arg(long, value_name = "NAME", default_value = "first-device")]
        device_name: String,
    },
    /// Show the vault in numbers, and what was trusted to read them
    Status,
    /// List the vaults of this home, without asking anybody
    List,
    /// Accept an older or other state of the vault, after an honest restore
    ///
    /// A node that shows an older state than this device has seen is refused. If you know from somebody you trust that the
    /// store was restored from a backup, this command shows both states, asks you, and signs your decision; it is written to
    /// the vault's audit chain.
    AcceptRollback {
        /// Do not ask: you have compared the states already
        #[arg(long)]
        yes: bool,
    },
    /// Destroy the vault and this device's lock key for good
    #[command(
        after_help = "Examples:\n  casemate vault delete                 asks for the vault's id\n  casemate vault delete --yes ID        for scripts"
    )]
    Delete {
        /// Do not ask; the id of the vault that is to be destroyed
        #[arg(long, value_name = "ID")]
        yes: Option<VaultId>,
    },
}

impl VaultCommand {
    pub(super) fn run(self, context: &Context) -> Result<(), CliError> {
        match self {
            Self::Create { device_name } => Context::block_on(create(context, &device_name)),
            Self::Status => Context::block_on(status(context)),
            Self::List => list(context),
            Self::AcceptRollback { yes } => Context::block_on(accept_rollback(context, yes)),
            Self::Delete { yes } => Context::block_on(delete(context, yes)),
        }
    }
}

async fn create(context: &Context, device_name: &str) -> Result<(), CliError> {
    let home = context.home()?;
    // Both asked before anything is begun, so that a home which trusts nothing yet is left without a half-made vault.
    let cluster = home.trust()?.cluster().ok_or(VaultError::Distrusted(Distrust::NoCluster))?;
    let transport = context.connect().await?;
    let begun = home.list()?.into_iter().find(|record| {
        record.life() == Life::Creating && context.globals_vault().is_none_or(|vault| vault == record.vault())
    });
    let resumed = begun.is_some();
    let (record, keeper) = if let Some(record) = begun {
        context.output.note("Finishing the creation that was begun before.");
        home.claim(record.vault())?
    } else {
        let record = VaultRecord::begin(&home.device()?, device_name, cluster).map_err(VaultError::from)?;
        let keeper = home.keeper(record.vault())?;
        // Before anything is sent: a vault whose lock key is lost is lost.
        keeper.keep_vault(&record)?;
        (record, keeper)
    };
    let vault = context.assemble(&home, transport, record, keeper)?;
    vault.create().await?;
    let record = vault.record();
    let trusted = vault.trusted();
    let value = json!({
        "vault": vault.id().to_string(),
        "resumed": resumed,
        "version": record.head().map(|head| head.version),
        "trusted": trusted.as_ref().map(trusted_value),
        "home": home.path().display().to_string(),
    });
    context.output.either(&value, || {
        let mut lines = vec![format!("Created vault {}", vault.id()), String::new()];
        lines.push("Trusted, after checking it and before sending anything:".to_owned());
        lines.extend(trusted.iter().flat_map(trusted_lines));
        lines.push(String::new());
        lines.push(format!(
            "The lock key is in {} and nowhere else: keep a backup of that directory.",
            home.path().display()
        ));
        lines
    })
}

async fn status(context: &Context) -> Result<(), CliError> {
    let vault = context.open().await?;
    let status = vault.status().await?;
    let (record, trusted) = (vault.record(), vault.trusted());
    let value = json!({
        "vault": vault.id().to_string(),
        "head": head_value(record.head()),
        "created": time(status.created_at),
        "secrets": status.secrets,
        "keys": status.keys,
        "devices": status.devices,
        "used_bytes": status.used_bytes,
        "limit_bytes": status.limit_bytes,
        "lock_number": status.lock_number,
        "key_generation": status.key_generation,
        "audit_entries": status.audit_entries,
        "unresolved": record.unresolved().len(),
        "trusted": trusted.as_ref().map(trusted_value),
    });
    context.output.either(&value, || {
        let mut lines = vec![
            format!("vault       {}", vault.id()),
            format!("version     {}", head_text(record.head())),
            format!("created     {}", time(status.created_at)),
            format!("holds       {} secrets, {} keys, {} devices", status.secrets, status.keys, status.devices),
            format!("size        {} of {} bytes", status.used_bytes, status.limit_bytes),
            format!(
                "keys        lock key number {}, shard key generation {}",
                status.lock_number, status.key_generation
            ),
            format!("audit       {} entries", status.audit_entries),
        ];
        if !record.unresolved().is_empty() {
            lines.push(format!("unresolved  {} changes whose outcome is not known", record.unresolved().len()));
        }
        lines.push("trusted".to_owned());
        lines.extend(trusted.iter().flat_map(trusted_lines));
        lines
    })
}

fn list(context: &Context) -> Result<(), CliError> {
    let records = context.home()?.list()?;
    let life = |record: &VaultRecord| match record.life() {
        Life::Creating => "creating",
        Life::Live => "live",
        Life::Deleted => "deleted",
    };
    let value = records.iter().map(|record| {
        json!({
            "vault": record.vault().to_string(),
            "state": life(record),
            "head": head_value(record.head()),
            "cluster": record.cluster().to_string(),
        })
    });
    let value = json!({ "vaults": value.collect::<Vec<_>>() });
    context.output.either(&value, || {
        let version = |record: &VaultRecord| record.head().map_or("-".to_owned(), |head| head.version.to_string());
        let row = |record: &VaultRecord| vec![record.vault().to_string(), life(record).to_owned(), version(record)];
        table(&["VAULT", "STATE", "VERSION"], &records.iter().map(row).collect::<Vec<_>>())
    })
}

async fn accept_rollback(context: &Context, yes: bool) -> Result<(), CliError> {
    let vault = context.open().await?;
    let (held, found) = vault.find_contradiction().await?.ok_or(VaultError::NothingToAccept)?;
    if !yes {
        let question = format!(
            "This device has seen   {}\nThe node shows         {}\nWhat came in between is lost when you accept. Only accept after an honest restore.",
            head_text(Some(held)),
            head_text(Some(found)),
        );
        confirm(&question, "accept", "--yes")?;
    }
    vault.accept_rollback(held, found).await?;
    let head = vault.record().head();
    let value = json!({
        "vault": vault.id().to_string(),
        "held": head_value(Some(held)),
        "accepted": head_value(Some(found)),
        "head": head_value(head),
    });
    context.output.either(&value, || vec![format!("Accepted; the vault is now at {}", head_text(head))])
}

async fn delete(context: &Context, yes: Option<VaultId>) -> Result<(), CliError> {
    let home = context.home()?;
    let id = context.choose(&home)?;
    match yes {
        Some(named) if named != id => {
            return Err(CliError::usage(
                format!("--yes names vault {named}, and the chosen vault is {id}"),
                "Name the vault with --vault too, if this home has several.",
            ));
        }
        Some(_) => {}
        None => {
            let question = format!("This destroys vault {id} with all secrets and keys in it, for good.");
            confirm(&question, &id.to_string(), "--yes ID")?;
        }
    }
    let vault: OpenVault = context.open().await?;
    vault.delete().await?;
    let value = json!({ "vault": id.to_string(), "deleted": true });
    context.output.either(&value, || {
        vec![
            format!("Deleted vault {id}. This device's lock key is destroyed."),
            "Against a host that kept copies, that is as good as the destruction of every copy of the lock key: backups of this home hold one.".to_owned(),
        ]
    })
}

/// Asks a person to type `expected`.
fn confirm(question: &str, expected: &str, option: &str) -> Result<(), CliError> {
    let refuse = |message: &str| {
        CliError::new(
            Kind::Usage,
            "not_confirmed",
            message,
            format!("Type exactly what is asked for, or give {option}."),
        )
    };
    if !io::stdin().is_terminal() {
        return Err(refuse("this needs a person's confirmation, and standard input is no terminal"));
    }
    let mut answer = String::new();
    let _ = write!(io::stderr(), "{question}\nType {expected:?} to go on: ");
    io::stdin().lock().read_line(&mut answer).map_err(|_| refuse("no confirmation could be read"))?;
    if answer.trim() == expected { Ok(()) } else { Err(refuse("not confirmed; nothing was done")) }
}

fn head_text(head: Option<Head>) -> String {
    head.map_or("none yet".to_owned(), |head| format!("version {}, hash {}", head.version, hex::encode(head.hash)))
}

fn head_value(head: Option<Head>) -> Value {
    head.map_or(Value::Null, |head| json!({ "version": head.version, "hash": hex::encode(head.hash) }))
}
