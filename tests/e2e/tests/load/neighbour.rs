//! Somebody whose reads are timed while others misbehave.

use std::time::{Duration, Instant};

use casemate_client::NatsTransport;
use casemate_client::session::{Fault, Session};
use casemate_e2e::Node;
use casemate_e2e::owner::{OwnedVault, Owner, ask};
use casemate_protocol::request::Operation;
use casemate_protocol::secret::Secret;
use casemate_protocol::subject::Subjects;
use tokio::runtime::Runtime;

const DEADLINE: Duration = Duration::from_secs(10);

/// A device with a vault that has one secret, over a connection of its own.
pub(crate) struct Neighbour {
    owner: Owner,
    transport: NatsTransport,
    pub(crate) vault: OwnedVault,
}

impl Neighbour {
    pub(crate) async fn move_in(node: &Node) -> Self {
        let owner = Owner::new(node);
        let transport = NatsTransport::from_client(async_nats::connect(node.nats_url()).await.unwrap());
        let vault = owner.open_over(transport.clone(), owner.begin(), DEADLINE);
        vault.create().await.unwrap();
        vault.secret_put("a", Secret::from(&b"1"[..]), None).await.unwrap();
        Self { owner, transport, vault }
    }

    /// Another session with the vault.
    pub(crate) async fn enter(&self) -> Session {
        self.owner.enter(&self.transport, &self.vault.record()).await
    }

    /// Reads in a session without the library's loop that makes another: what it was refused with.
    pub(crate) async fn read_in(&self, session: &mut Session) -> Result<(), Fault> {
        let read = Operation::SecretGet { name: "a".to_owned(), revision: None };
        let (frame, pending) = session.seal(None, None, &read).expect("a young session");
        let answer = ask(&self.transport, &Subjects::default().vault(self.vault.id()), &frame).await;
        session.open(&answer, &pending).map(drop)
    }

    /// Each read's time, shortest first. All are answered.
    pub(crate) async fn read(&self, times: usize) -> Vec<Duration> {
        let mut took = Vec::new();
        for _ in 0..times {
            let start = Instant::now();
            self.vault.secret_get("a", None).await.expect("a neighbour is served");
            took.push(start.elapsed());
        }
        took.sort_unstable();
        took
    }
}

pub(crate) fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

pub(crate) fn runtime() -> Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

/// What a neighbour may notice here, where other things run on the machine. `./dev bench` measures it.
#[track_caller]
pub(crate) fn assert_hardly_slower(calm: &[Duration], now: &[Duration], while_: &str) {
    println!(
        "{while_}: p50 {:?} → {:?}, p99 {:?} → {:?}",
        calm[calm.len() / 2],
        now[now.len() / 2],
        p99(calm),
        p99(now)
    );
    assert!(p99(now) < p99(calm) * 8 + Duration::from_millis(20), "{while_}: p99 {:?} → {:?}", p99(calm), p99(now));
}
