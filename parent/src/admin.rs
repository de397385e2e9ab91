//! The admin socket: operators' orders from this machine, one JSON object a line, one JSON object back.
//!
//! | request | answer |
//! |---|---|
//! | `{"op":"status"}` | the page of `/health` |
//! | `{"op":"diagnose"}` | everything reached anew: `{"health","findings":[{"part","ok","what","next"}],"latest_errors","versions"}` |
//! | `{"op":"vaults"}`, with `"by"`: `memory` (default), `rate`, `latency`, `queue` or `idle`, and `"limit"` | the first of them, the largest first: `{"vaults":[{"vault","state","in_flight","queued","idle_ms","pid","memory_bytes","requests_per_second","latency_us"}]}` |
//! | `{"op":"evict","vault":ID}` | `{"ok":true}` |
//! | `{"op":"drain"}` | `{"ok":true}`, when everything is closed |
//! | anything else, or a failure | `{"error":{"code","message","remedy"}}` |
//!
//! The socket's mode lets in its own user alone (and root). Nothing here can open a vault.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use casemate_link::{Address, Listener};
use casemate_protocol::error::ErrorCode;
use casemate_protocol::id::VaultId;
use casemate_protocol::link::{ControlCall, ControlReply};
use casemate_protocol::resident::{LATELY_S, NoSuchOrder, VaultsBy};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};
use tokio::sync::Semaphore;

use crate::diagnosis::Diagnosis;
use crate::enclave::{Enclave, OrderError};
use crate::state::NodeState;

/// Connections at the same time.
const CONNECTIONS: usize = 16;
/// Bytes of a request.
const LINE_BYTES: u64 = 4 * 1024;
/// Longest silence of a connection.
const IDLE_TIMEOUT: Duration = Duration::from_mins(1);
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
const ORDER_DEADLINE: Duration = Duration::from_secs(10);
/// The enclave finishes what is in flight, at most a request's longest deadline.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(65);

#[derive(Debug, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub(crate) enum Order {
    Status {},
    Diagnose {},
    Vaults { by: Option<String>, limit: Option<u32> },
    Evict { vault: String },
    Drain {},
}

/// Carries out orders.
#[derive(Debug)]
pub struct Admin {
    /// What is known.
    pub state: Arc<NodeState>,
    /// Who is ordered.
    pub enclave: Arc<Enclave>,
    /// Who reaches everything anew.
    pub diagnosis: Diagnosis,
}

/// Binds the socket.
///
/// # Errors
/// With the key and the path in the text.
pub fn bind(path: &Path) -> std::io::Result<Listener> {
    Listener::bind(&Address::Unix(path.to_owned())).map_err(|error| {
        std::io::Error::new(error.kind(), format!("admin.socket: {} cannot be made: {error}", path.display()))
    })
}

impl Admin {
    /// Serves until the task is dropped.
    pub async fn serve(self: Arc<Self>, listener: Listener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let place = Arc::clone(&places).acquire_owned().await;
            match listener.accept().await {
                Ok((stream, _)) => {
                    let admin = Arc::clone(&self);
                    tokio::spawn(async move {
                        if let Err(error) = admin.converse(stream).await {
                            tracing::debug!(%error, "a connection of the admin socket ended");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection of the admin socket could not be taken");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                }
            }
        }
    }

    async fn converse(&self, stream: impl AsyncRead + AsyncWrite) -> std::io::Result<()> {
        let (read, mut write) = tokio::io::split(stream);
        let mut read = BufReader::new(read);
        loop {
            let mut line = Vec::new();
            // Bounded before it is read: a line without an end must not fill memory.
            let mut bounded = (&mut read).take(LINE_BYTES);
            let len = tokio::time::timeout(IDLE_TIMEOUT, bounded.read_until(b'\n', &mut line)).await??;
            if len == 0 {
                return Ok(());
            }
            let is_whole = line.ends_with(b"\n") || len < usize::try_from(LINE_BYTES).unwrap_or(usize::MAX);
            let answer = if is_whole { self.obey(&line).await } else { malformed() };
            let mut answer = answer.to_string();
            answer.push('\n');
            tokio::time::timeout(WRITE_TIMEOUT, async {
                write.write_all(answer.as_bytes()).await?;
                write.flush().await
            })
            .await??;
            if !is_whole {
                return Ok(());
            }
        }
    }

    async fn obey(&self, line: &[u8]) -> Value {
        let Ok(order) = serde_json::from_slice::<Order>(line) else { return malformed() };
        let done = match order {
            Order::Status {} => Ok(self.state.page()),
            Order::Diagnose {} => Ok(self.diagnosis.make().await),
            Order::Vaults { by, limit } => match by.map(|by| by.parse()).transpose() {
                Ok(by) => self.vaults(by, limit).await,
                Err(error) => return no_order(error),
            },
            Order::Evict { vault } => match vault.parse::<VaultId>() {
                Ok(vault) => {
                    tracing::info!(%vault, "an operator evicts a vault");
                    self.order(&ControlCall::Evict(vault), ORDER_DEADLINE).await
                }
                Err(invalid) => {
                    return failure(ErrorCode::InvalidArgument.as_str(), "this is no vault id", &invalid.to_string());
                }
            },
            Order::Drain {} => {
                // The enclave says that it drains until it is started again; so does the health page then.
                tracing::warn!("an operator drains this node");
                self.order(&ControlCall::Drain, DRAIN_DEADLINE).await
            }
        };
        done.unwrap_or_else(|error| {
            let (code, remedy) = match &error {
                OrderError::Refused(code, _) => (code.as_str(), code.remedy()),
                OrderError::NotConnected | OrderError::Call(_) => {
                    (ErrorCode::Unavailable.as_str(), "Start the enclave, and look at `casemate node status`.")
                }
                OrderError::NotUnderstood => {
                    (ErrorCode::UnsupportedVersion.as_str(), ErrorCode::UnsupportedVersion.remedy())
                }
            };
            failure(code, &error.to_string(), remedy)
        })
    }

    async fn order(&self, call: &ControlCall, deadline: Duration) -> Result<Value, OrderError> {
        match self.enclave.order(call, deadline).await? {
            ControlReply::Done => Ok(json!({ "ok": true })),
            _ => Err(OrderError::NotUnderstood),
        }
    }

    async fn vaults(&self, by: Option<VaultsBy>, limit: Option<u32>) -> Result<Value, OrderError> {
        let call = ControlCall::Vaults { by, limit };
        let ControlReply::Vaults(mut vaults) = self.enclave.order(&call, ORDER_DEADLINE).await? else {
            return Err(OrderError::NotUnderstood);
        };
        // An older enclave tells all of them.
        vaults.truncate(limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX));
        let vaults: Vec<Value> = vaults
            .iter()
            .map(|info| {
                json!({
                    "vault": info.vault.to_string(),
                    "state": info.state,
                    "in_flight": info.in_flight,
                    "queued": info.queued,
                    "idle_ms": info.idle_ms,
                    "pid": info.pid,
                    "memory_bytes": known(info.memory_bytes),
                    "requests_per_second": info.lately.map(per_second),
                    "latency_us": info.latency_us,
                })
            })
            .collect();
        Ok(json!({ "vaults": vaults }))
    }
}

/// Zero is what nobody has looked at yet.
fn known(bytes: u64) -> Option<u64> {
    Some(bytes).filter(|bytes| *bytes > 0)
}

#[expect(clippy::cast_precision_loss, reason = "a power of two, and far below 2^53 besides")]
fn per_second(lately: u64) -> f64 {
    lately as f64 / LATELY_S as f64
}

fn no_order(error: NoSuchOrder) -> Value {
    failure(ErrorCode::InvalidArgument.as_str(), "this is no order of vaults", &error.to_string())
}

fn malformed() -> Value {
    failure(
        ErrorCode::Malformed.as_str(),
        "this is no order",
        "Send one line of JSON: {\"op\":\"status\"}, {\"op\":\"diagnose\"}, {\"op\":\"vaults\"}, {\"op\":\"evict\",\"vault\":ID} or {\"op\":\"drain\"}.",
    )
}

fn failure(code: &str, message: &str, remedy: &str) -> Value {
    json!({ "error": { "code": code, "message": message, "remedy": remedy } })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{HostPort, Kms};
    use crate::relay::Relay;
    use crate::store::ObjectStore;
    use bytes::Bytes;
    use casemate_link::{Connection, Incoming, Limits, connect};
    use casemate_protocol::codec;
    use casemate_protocol::link::{CONTROL_BYTES, Class};
    use casemate_protocol::resident::VaultInfo;
    use casemate_protocol::trust::ClusterId;
    use tokio::io::AsyncBufReadExt;

    fn admin() -> (tempfile::TempDir, Arc<Admin>) {
        let folder = tempfile::tempdir().unwrap();
        let (state, enclave) = (Arc::new(NodeState::new("node-1", ClusterId([0; 32]))), Arc::default());
        let directory = crate::config::Store::Directory(folder.path().join("store"));
        let store = ObjectStore::open(&directory, &crate::config::Aws::None, Duration::from_secs(5)).unwrap();
        let nobody = HostPort::new("localhost", 1).unwrap();
        let diagnosis = Diagnosis {
            state: Arc::clone(&state),
            enclave: Arc::clone(&enclave),
            store: Arc::new(store),
            relay: Arc::new(Relay::new(Kms { allow: vec![nobody], dial: Vec::new() })),
            nats: Arc::default(),
            prefix: "casemate".to_owned(),
            turn: tokio::sync::Mutex::default(),
        };
        (folder, Arc::new(Admin { state, enclave, diagnosis }))
    }

    fn enclave(admin: &Admin) {
        let (here, there) = tokio::io::duplex(64 * 1024);
        let parent = Connection::spawn(here, Limits::of(Class::Control));
        admin.enclave.admit_control([1; 16], parent.caller.clone());
        let mut enclave = Connection::spawn(there, Limits::of(Class::Control));
        tokio::spawn(async move {
            let _parent = parent;
            while let Some(Incoming::Call { body, reply, .. }) = enclave.incoming.recv().await {
                let answer = match codec::decode(&body, CONTROL_BYTES).unwrap() {
                    ControlCall::Vaults { by, limit } => {
                        let info = VaultInfo {
                            vault: VaultId::from_bytes([7; 20]),
                            state: "open".to_owned(),
                            in_flight: 1,
                            idle_ms: 2000,
                            pid: 3,
                            memory_bytes: 65536,
                            queued: Some(0),
                            lately: Some(4),
                            latency_us: Some(512),
                        };
                        // As an older enclave does: it reads no limit.
                        let unread = VaultInfo { memory_bytes: 0, queued: None, lately: None, ..info.clone() };
                        assert_eq!(by, limit.map(|_| VaultsBy::Queue));
                        ControlReply::Vaults(vec![info, unread])
                    }
                    ControlCall::Evict(_) => ControlReply::Refused(ErrorCode::Busy, "it has work".to_owned()),
                    _ => ControlReply::Done,
                };
                reply.reply(Bytes::from(codec::encode(&answer)));
            }
        });
    }

    #[tokio::test]
    async fn orders_and_answers() {
        let (folder, admin) = admin();
        let path = folder.path().join("admin.sock");
        enclave(&admin);
        tokio::spawn(Arc::clone(&admin).serve(bind(&path).unwrap()));
        let (read, mut write) = tokio::io::split(connect(&Address::Unix(path)).await.unwrap());
        let mut read = BufReader::new(read);
        let vault = VaultId::from_bytes([7; 20]);
        let orders = [
            (r#"{"op":"status"}"#.to_owned(), "/status", json!("unhealthy")),
            (r#"{"op":"diagnose"}"#.to_owned(), "/findings/0/ok", json!(false)),
            (r#"{"op":"diagnose"}"#.to_owned(), "/findings/1/what", json!("no connection was ever made")),
            (r#"{"op":"diagnose"}"#.to_owned(), "/findings/2/ok", json!(true)),
            (r#"{"op":"diagnose"}"#.to_owned(), "/health/node", json!("node-1")),
            (r#"{"op":"vaults"}"#.to_owned(), "/vaults/0/vault", json!(vault.to_string())),
            (r#"{"op":"vaults"}"#.to_owned(), "/vaults/0/requests_per_second", json!(0.5)),
            (r#"{"op":"vaults"}"#.to_owned(), "/vaults/1/memory_bytes", Value::Null),
            (r#"{"op":"vaults","by":"queue","limit":1}"#.to_owned(), "/vaults/0/latency_us", json!(512)),
            (r#"{"op":"vaults","by":"queue","limit":1}"#.to_owned(), "/vaults/1", Value::Null),
            (r#"{"op":"vaults","by":"size"}"#.to_owned(), "/error/code", json!("invalid_argument")),
            (format!(r#"{{"op":"evict","vault":"{vault}"}}"#), "/error/code", json!("busy")),
            (r#"{"op":"evict","vault":"x"}"#.to_owned(), "/error/code", json!("invalid_argument")),
            (r#"{"op":"status","also":1}"#.to_owned(), "/error/code", json!("malformed")),
            (r#"{"op":"reboot"}"#.to_owned(), "/error/code", json!("malformed")),
            ("hello".to_owned(), "/error/code", json!("malformed")),
            (r#"{"op":"drain"}"#.to_owned(), "/ok", json!(true)),
        ];
        for (order, pointer, expected) in orders {
            write.write_all(format!("{order}\n").as_bytes()).await.unwrap();
            let mut line = String::new();
            read.read_line(&mut line).await.unwrap();
            let answer: Value = serde_json::from_str(&line).unwrap();
            assert_eq!(answer.pointer(pointer).unwrap_or(&Value::Null), &expected, "{order}: {answer}");
        }
        // A line without an end is not taken into memory.
        write.write_all(&vec![b'x'; 5000]).await.unwrap();
        let mut rest = String::new();
        read.read_to_string(&mut rest).await.unwrap();
        assert!(rest.contains("malformed"));
    }

    #[tokio::test]
    async fn without_an_enclave_the_operator_hears_so() {
        let answer = admin().1.obey(br#"{"op":"vaults"}"#).await;
        assert_eq!(answer["error"]["code"], "unavailable");
        assert!(answer["error"]["remedy"].as_str().unwrap().contains("enclave"));
    }
}
