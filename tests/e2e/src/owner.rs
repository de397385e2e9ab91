//! The owner of vaults, who uses them through the device library in this process, as a program would.

use std::sync::Arc;
use std::time::Duration;

use casemate_attestation::TrustAnchor;
use casemate_client::home::read_trust_file;
use casemate_client::judge::Grounds;
use casemate_client::outside::unix_now;
use casemate_client::record::Forgetful;
use casemate_client::session::{Greeting, Session};
use casemate_client::transport::Transport;
use casemate_client::vault::VaultParts;
use casemate_client::{Device, NatsOptions, NatsTransport, Roots, Trust, Vault, VaultOptions, VaultRecord};

use casemate_protocol::error::{ErrorCode, Refusal};
use casemate_protocol::frame::{DeviceFrame, VaultFrame};
use casemate_protocol::subject::Subjects;

use crate::Node;

/// A vault over a real NATS connection, whose record lives in memory.
pub type OwnedVault = Vault<NatsTransport, Forgetful>;

/// How long a connection to NATS may take.
const CONNECT: Duration = Duration::from_secs(10);

/// A device that trusts a node's image and cluster.
#[derive(Debug, Clone)]
pub struct Owner {
    device: Device,
    roots: Arc<Roots>,
    trust: Trust,
}

impl Owner {
    /// A new device.
    ///
    /// # Panics
    /// When the node's files cannot be read.
    pub fn new(node: &Node) -> Self {
        let anchor = std::fs::read(node.path("authority/root.der")).expect("the authority has a root");
        let anchor = TrustAnchor::from_der(anchor).expect("it is a certificate");
        let roots = Roots::of(anchor);
        let mut trust = Trust::default();
        let file = read_trust_file(&node.path("authority/trust.toml")).expect("the authority wrote a trust file");
        trust.add(&file, &roots).expect("it is trusted");
        Self { device: Device::generate().expect("randomness"), roots: Arc::new(roots), trust }
    }

    /// The beginnings of a vault; nothing is sent.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn begin(&self) -> VaultRecord {
        let cluster = self.trust.cluster().expect("the trust file pins a cluster");
        VaultRecord::begin(&self.device, "owner", cluster).expect("randomness")
    }

    /// A vault over a connection of its own. Nothing is asked of it yet.
    ///
    /// # Panics
    /// When NATS cannot be reached.
    pub async fn open(&self, nats: &str, record: VaultRecord, deadline: Duration) -> OwnedVault {
        let options = NatsOptions { url: nats.to_owned(), credentials: None, nkey: None, ca: None, within: CONNECT };
        let transport = NatsTransport::connect(&options).await.expect("NATS can be reached");
        self.open_over(transport, record, deadline)
    }

    /// A session with a vault of this device, without the library's loop that asks again, except when the node is busy.
    ///
    /// # Panics
    /// When an honest node does not let it in.
    pub async fn enter(&self, transport: &NatsTransport, record: &VaultRecord) -> Session {
        let subject = Subjects::default().vault(record.vault());
        let (greeting, hello) = Greeting::start(self.device.static_secret(), record.vault());
        let welcome = ask(transport, &subject, &hello).await;
        let grounds = Grounds { roots: &self.roots, trust: &self.trust, now: unix_now() };
        let judging = greeting.welcome(&welcome).expect("an honest welcome");
        let believed = judging.believe(&grounds, record.cluster()).expect("an honest node");
        let lock_key = record.lock_key().expect("a living vault");
        let (finish, mut session, pending) = believed.finish(lock_key, record.head(), None).expect("it fits");
        let answer = ask(transport, &subject, &finish).await;
        session.open(&answer, &pending).expect("an honest answer");
        session
    }

    /// A vault over this connection. Nothing is asked of it yet.
    pub fn open_over(&self, transport: NatsTransport, record: VaultRecord, deadline: Duration) -> OwnedVault {
        let parts = VaultParts {
            transport,
            keeper: Forgetful,
            device: self.device.clone(),
            roots: Arc::clone(&self.roots),
            trust: self.trust.clone(),
            options: VaultOptions { deadline, ..VaultOptions::default() },
        };
        Vault::new(parts, record)
    }
}

/// Sends a frame, again when the node says that it is busy; an answer.
///
/// # Panics
/// When there is none, or the node stays busy.
pub async fn ask(transport: &impl Transport, subject: &str, frame: &DeviceFrame) -> Vec<u8> {
    let busy = async {
        loop {
            let answer = transport.request(subject.to_owned(), frame.encode(CONNECT).into(), CONNECT).await;
            let answer = answer.expect("an honest node answers");
            let Ok(VaultFrame::Refused(Refusal { code: ErrorCode::Busy, retry_after_ms: Some(wait), .. })) =
                VaultFrame::decode(&answer)
            else {
                return answer.into();
            };
            tokio::time::sleep(Duration::from_millis(wait.into())).await;
        }
    };
    tokio::time::timeout(CONNECT, busy).await.expect("a node is not busy for ever")
}
