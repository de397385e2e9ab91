//! The bare limit of a request: a NATS echo of the same size, client and connection, answered by another process.

use std::process::Command;
use std::time::{Duration, Instant};

use async_nats::Client;
use futures_util::StreamExt;

use super::Result;
use crate::Node;
use crate::process::Process;

const SUBJECT: &str = "echo";
/// What a sealed request or reply of a small secret has on the wire.
const BYTES: usize = 350;

/// The other end, in a process of its own.
#[derive(Debug)]
pub(super) struct Responder(#[expect(dead_code, reason = "ends with its owner")] Process);

impl Responder {
    pub(super) async fn start(node: &Node, client: &Client) -> Result<Self> {
        let program = std::env::current_exe()?;
        let process = Process::start("echo", &node.path("log"), Command::new(program).args(["echo", &node.nats_url()]));
        let start = Instant::now();
        while ask(client).await.is_err() {
            if start.elapsed() > Duration::from_secs(10) {
                return Err(format!("the echo does not answer: {}", process.log()).into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(Self(process))
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

pub(super) async fn ask(client: &Client) -> Result<Duration> {
    let start = Instant::now();
    client.request(SUBJECT, vec![0; BYTES].into()).await?;
    Ok(start.elapsed())
}
