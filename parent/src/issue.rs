//! `casemate-parent nats`: makes the keys of a NATS operator with one account for Casemate, and issues credentials for nodes and devices.
//!
//! A device's credentials reach its own vault's subject, requests for evidence, and an inbox below its own name; what it publishes
//! elsewhere the server refuses. They keep strangers out of the broker, and open no vault: that takes keys that no broker has.
//!
//! NATS's JSON Web Tokens, version 2: a header, claims and an Ed25519 signature, the keys written as NKEYs.

use std::fs::{self, DirBuilder, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use casemate_protocol::id::VaultId;
use casemate_protocol::subject::Subjects;
use data_encoding::BASE64URL_NOPAD;
use nkeys::{KeyPair, KeyPairType};
use serde_json::{Value, json};

/// A node answers each request once, at the latest when its longest deadline has passed.
const ANSWER_WITHIN: Duration = Duration::from_secs(70);
const HEADER: &str = r#"{"typ":"JWT","alg":"ed25519-nkey"}"#;

/// Why nothing was issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// A file.
    #[error("{path}: {reason}")]
    File {
        /// Its path.
        path: String,
        /// Why.
        reason: String,
    },
    /// Keys are there already.
    #[error(
        "{0} has keys already; new ones would lock out everybody who has credentials. Use them, or name another directory"
    )]
    Exists(String),
    /// Not what was made here.
    #[error("{0} is not a file that `casemate-parent nats init` wrote")]
    Foreign(String),
    /// Not a user.
    #[error(
        "{0:?} is no user: it is what `casemate-parent nats device` or `node` printed, 56 characters that begin with U"
    )]
    User(String),
    /// A key could not be made or used.
    #[error("an NKEY could not be made or used: {0}")]
    Key(String),
}

/// For whom credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bearer {
    /// A node by its `node.name`.
    Node(String),
    /// A device that may ask any vault: one that has none yet, or several.
    Device(String),
    /// A device of one vault.
    DeviceOf(String, VaultId),
}

/// A directory with an operator's keys.
#[derive(Debug, Clone)]
pub struct Authority {
    directory: PathBuf,
    subjects: Subjects,
    prefix: String,
}

impl Authority {
    /// The authority in this directory, for this prefix of subjects.
    ///
    /// # Errors
    /// When the prefix is none.
    pub fn at(directory: &Path, prefix: &str) -> Result<Self, IssueError> {
        let subjects = Subjects::new(prefix)
            .map_err(|error| IssueError::File { path: prefix.to_owned(), reason: error.to_string() })?;
        Ok(Self { directory: directory.to_owned(), subjects, prefix: prefix.to_owned() })
    }

    /// Makes operator, accounts and the server's `resolver.conf`.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn init(&self) -> Result<(), IssueError> {
        let seeds = ["operator.seed", "account.seed", "system.seed"];
        if let Some(held) = seeds.iter().map(|name| self.directory.join(name)).find(|path| path.exists()) {
            return Err(IssueError::Exists(held.display().to_string()));
        }
        let made = DirBuilder::new().recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| file(&self.directory, &error))?;
        let [operator, account, system] =
            [KeyPairType::Operator, KeyPairType::Account, KeyPairType::Account].map(KeyPair::new);
        for (name, pair) in seeds.iter().zip([&operator, &account, &system]) {
            self.write(name, &(pair.seed().map_err(key)? + "\n"))?;
        }
        let claims = |name: &str, kind: Value| json!({ "name": name, "nats": kind });
        let own =
            claims("casemate", json!({ "type": "operator", "version": 2, "system_account": system.public_key() }));
        self.write("operator.jwt", &sign(&operator, &operator.public_key(), own)?)?;
        let limits = json!({ "subs": -1, "conn": -1, "leaf": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true });
        for (name, pair) in [("casemate", &account), ("system", &system)] {
            let kind = json!({ "type": "account", "version": 2, "limits": limits });
            self.write(&format!("{name}.jwt"), &sign(&operator, &pair.public_key(), claims(name, kind))?)?;
        }
        self.write_resolver()
    }

    /// Issues credentials; returns the user and the file's text.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn issue(&self, bearer: &Bearer, valid: Option<Duration>) -> Result<(String, String), IssueError> {
        let (account, user) = (self.pair("account.seed")?, KeyPair::new_user());
        let name = user.public_key();
        let permissions = self.permissions(bearer, &name);
        let title = match bearer {
            Bearer::Node(title) | Bearer::Device(title) | Bearer::DeviceOf(title, _) => title,
        };
        let mut claims = json!({ "name": title, "nats": permissions });
        if let Some(valid) = valid {
            claims["exp"] = json!(unix_now().saturating_add(valid.as_secs()));
        }
        let token = sign(&account, &name, claims)?;
        let seed = user.seed().map_err(key)?;
        let text = format!(
            "-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
        );
        Ok((name, text))
    }

    /// Takes a user's credentials back: the server refuses them once it has read the new `resolver.conf`.
    ///
    /// # Errors
    /// See [`IssueError`].
    pub fn revoke(&self, user: &str) -> Result<(), IssueError> {
        if !user.starts_with('U') || nkeys::from_public_key(user).is_err() {
            return Err(IssueError::User(user.chars().take(80).collect()));
        }
        let (operator, account) = (self.pair("operator.seed")?, self.pair("account.seed")?);
        let token = self.read("casemate.jwt")?;
        let claims = token.split('.').nth(1).and_then(|part| BASE64URL_NOPAD.decode(part.as_bytes()).ok());
        let claims = claims.and_then(|claims| serde_json::from_slice::<Value>(&claims).ok());
        let Some(mut claims) = claims.filter(|claims| claims["nats"].is_object()) else {
            return Err(IssueError::Foreign(self.directory.join("casemate.jwt").display().to_string()));
        };
        claims["nats"]["revocations"][user] = json!(unix_now());
        self.write("casemate.jwt", &sign(&operator, &account.public_key(), claims)?)?;
        self.write_resolver()
    }

    fn permissions(&self, bearer: &Bearer, user: &str) -> Value {
        let (prefix, inbox) = (&self.prefix, format!("_INBOX.{user}.>"));
        let (publish, subscribe, answers) = match bearer {
            Bearer::Node(node) => (
                vec![format!("{prefix}.v1.event.>"), format!("{prefix}.v1.node.>")],
                vec![format!("{prefix}.v1.vault.>"), self.subjects.attest(), format!("{prefix}.v1.node.{node}.>")],
                json!({ "max": 1, "ttl": u64::try_from(ANSWER_WITHIN.as_nanos()).unwrap_or(u64::MAX) }),
            ),
            Bearer::Device(_) => (
                vec![format!("{prefix}.v1.vault.*.*"), self.subjects.attest()],
                vec![inbox, format!("{prefix}.v1.event.*.*")],
                Value::Null,
            ),
            Bearer::DeviceOf(_, vault) => (
                vec![self.subjects.vault(*vault), self.subjects.attest()],
                vec![inbox, format!("{prefix}.v1.event.{}.{vault}", vault.shard())],
                Value::Null,
            ),
        };
        let mut permissions = json!({
            "type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1,
            "pub": { "allow": publish }, "sub": { "allow": subscribe },
        });
        if !answers.is_null() {
            permissions["resp"] = answers;
        }
        permissions
    }

    fn write_resolver(&self) -> Result<(), IssueError> {
        let (account, system) = (self.pair("account.seed")?.public_key(), self.pair("system.seed")?.public_key());
        let [operator, own, other] = [self.read("operator.jwt")?, self.read("casemate.jwt")?, self.read("system.jwt")?];
        let text = format!(
            "# Made by casemate-parent nats; no secret is in it. nats-server.conf includes it.\noperator: {operator}\nsystem_account: {system}\nresolver: MEMORY\nresolver_preload: {{\n  {account}: {own}\n  {system}: {other}\n}}\n"
        );
        self.write("resolver.conf", &text)
    }

    fn pair(&self, name: &str) -> Result<KeyPair, IssueError> {
        KeyPair::from_seed(&self.read(name)?)
            .map_err(|_| IssueError::Foreign(self.directory.join(name).display().to_string()))
    }

    fn read(&self, name: &str) -> Result<String, IssueError> {
        let path = self.directory.join(name);
        let text = fs::read_to_string(&path).map_err(|error| file(&path, &error))?;
        Ok(text.trim().to_owned())
    }

    fn write(&self, name: &str, text: &str) -> Result<(), IssueError> {
        write_private(&self.directory.join(name), text)
    }
}

/// Writes a file that is there whole or not at all, for its owner alone.
///
/// # Errors
/// [`IssueError::File`].
pub fn write_private(path: &Path, text: &str) -> Result<(), IssueError> {
    let mut staged = path.as_os_str().to_owned();
    staged.push(".new");
    let staged = PathBuf::from(staged);
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&staged)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| fs::rename(&staged, path));
    written.map_err(|error| file(path, &error))
}

fn sign(issuer: &KeyPair, subject: &str, mut claims: Value) -> Result<String, IssueError> {
    claims["iss"] = json!(issuer.public_key());
    claims["sub"] = json!(subject);
    claims["iat"] = json!(unix_now());
    claims["jti"] = json!(KeyPair::new_user().public_key());
    let body = format!(
        "{}.{}",
        BASE64URL_NOPAD.encode(HEADER.as_bytes()),
        BASE64URL_NOPAD.encode(claims.to_string().as_bytes())
    );
    let signature = issuer.sign(body.as_bytes()).map_err(key)?;
    Ok(format!("{body}.{}", BASE64URL_NOPAD.encode(&signature)))
}

fn key(error: impl std::fmt::Display) -> IssueError {
    IssueError::Key(error.to_string())
}

fn file(path: &Path, error: &io::Error) -> IssueError {
    IssueError::File { path: path.display().to_string(), reason: error.to_string() }
}

fn unix_now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn claims(token: &str) -> Value {
        let parts: Vec<_> = token.split('.').collect();
        let claims: Value = serde_json::from_slice(&BASE64URL_NOPAD.decode(parts[1].as_bytes()).unwrap()).unwrap();
        let issuer = KeyPair::from_public_key(claims["iss"].as_str().unwrap()).unwrap();
        let signature = BASE64URL_NOPAD.decode(parts[2].as_bytes()).unwrap();
        issuer.verify(format!("{}.{}", parts[0], parts[1]).as_bytes(), &signature).unwrap();
        claims
    }

    #[test]
    fn each_bearer_reaches_its_own_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::at(&folder.path().join("nats"), "casemate").unwrap();
        authority.init().unwrap();
        assert!(matches!(authority.init(), Err(IssueError::Exists(_))), "keys are not overwritten");
        let mode = fs::metadata(folder.path().join("nats/operator.seed")).unwrap().permissions().mode();
        assert_eq!(mode & 0o077, 0);
        let vault = VaultId::from_bytes([7; 20]);
        let bearer = Bearer::DeviceOf("phone".to_owned(), vault);
        let (user, text) = authority.issue(&bearer, Some(Duration::from_mins(1))).unwrap();
        let claims_of_device = claims(text.lines().nth(1).unwrap());
        let nats = &claims_of_device["nats"];
        assert_eq!(nats["pub"]["allow"], json!([format!("casemate.v1.vault.07.{vault}"), "casemate.v1.attest"]));
        assert_eq!(nats["sub"]["allow"][0], format!("_INBOX.{user}.>"));
        assert!(claims_of_device["exp"].as_u64().unwrap() <= unix_now() + 60);
        let (_, node) = authority.issue(&Bearer::Node("a".to_owned()), None).unwrap();
        let node = claims(node.lines().nth(1).unwrap());
        assert!(node["exp"].is_null() && node["nats"]["resp"]["max"] == 1);
        assert!(!node["nats"]["pub"]["allow"].to_string().contains("vault"), "a node asks no vault");
        authority.revoke(&user).unwrap();
        let account = claims(&authority.read("casemate.jwt").unwrap());
        assert!(account["nats"]["revocations"][&user].as_u64().is_some());
        assert!(authority.read("resolver.conf").unwrap().contains(&authority.read("casemate.jwt").unwrap()));
        assert!(matches!(authority.revoke("U1"), Err(IssueError::User(_))));
    }
}
