//! The bare limit of a request: a NATS echo of the same size, client and connection, answered by another process.

use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::Client;
use bytes::Bytes;
use futures_util::StreamExt;

use super::Result;
use crate::Node;
use crate::process::Process;

const SUBJECT: &str = "echo";

/// The other end, in a process of its own.
#[derive(Debug)]
pub(super) struct Echo {
    client: Client,
    payload: Bytes,
    responder: Process,
}

impl Echo {
    /// Starts it; its payload has `bytes` bytes.
    pub(super) async fn start(node: &Node, client: Client, bytes: usize) -> Result<Self> {
        let program = std::env::current_exe()?;
        let responder =
            Process::start("echo", &node.path("log"), Command::new(program).args(["echo", &node.nats_url()]));
        let echo = Self { client, payload: vec![0; bytes].into(), responder };
        let start = Instant::now();
        while let Err(error) = echo.ask().await {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!("the echo does not answer: {error}\n{}", echo.responder.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(echo)
    }

    pub(super) async fn ask(&self) -> Result<Duration> {
        let start = Instant::now();
        self.client.request(SUBJECT, self.payload.clone()).await?;
        Ok(start.elapsed())
    }
}

/// Answers every request with its own payload.
///
/// # Errors
/// When the server cannot be reached.
pub async fn respond(url: &str) -> Result<()> {
    let client = async_nats::connect(url).await?;
    let mut requests = client.subscribe(SUBJECT).await?;
    while let Some(request) = requests.next().await {
        if let Some(reply) = request.reply {
            client.publish(reply, request.payload).await?;
        }
    }
    Ok(())
}
