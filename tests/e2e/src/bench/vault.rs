//! Vaults, used over the device library as a phone would.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use casemate_attestation::TrustAnchor;
use casemate_client::home::read_trust_file;
use casemate_client::record::Forgetful;
use casemate_client::transport::Transport;
use casemate_client::vault::VaultParts;
use casemate_client::{Device, NatsTransport, Roots, TransportError, Trust, Vault, VaultOptions, VaultRecord};
use casemate_protocol::id::{Shard, VaultId};
use casemate_protocol::secret::Secret;

use super::Result;
use crate::Node;

const NAME: &str = "benchmark";

/// Makes vaults of one node, all over one connection.
#[derive(Debug)]
pub(super) struct Maker {
    client: async_nats::Client,
    roots: Arc<Roots>,
    trust: Trust,
}

impl Maker {
    pub(super) async fn new(node: &Node) -> Result<Self> {
        let anchor = TrustAnchor::from_der(std::fs::read(node.path("authority/root.der"))?)?;
        let roots = Roots::of(anchor);
        let mut trust = Trust::default();
        trust.add(&read_trust_file(&node.path("authority/trust.toml"))?, &roots)?;
        Ok(Self { client: async_nats::connect(node.nats_url()).await?, roots: Arc::new(roots), trust })
    }

    /// The connection.
    pub(super) fn client(&self) -> async_nats::Client {
        self.client.clone()
    }

    /// A new vault.
    pub(super) async fn create(&self) -> Result<Bench> {
        let device = Device::generate()?;
        let record = self.record(&device)?;
        self.make(device, record).await
    }

    /// A new vault of a shard.
    pub(super) async fn create_in(&self, shard: Shard) -> Result<Bench> {
        let device = Device::generate()?;
        loop {
            let record = self.record(&device)?;
            if record.vault().shard() == shard {
                return self.make(device, record).await;
            }
        }
    }

    fn record(&self, device: &Device) -> Result<VaultRecord> {
        let cluster = self.trust.cluster().ok_or("the trust file pins a cluster")?;
        Ok(VaultRecord::begin(device, NAME, cluster)?)
    }

    async fn make(&self, device: Device, record: VaultRecord) -> Result<Bench> {
        let sent = Arc::new(AtomicUsize::new(0));
        let parts = VaultParts {
            transport: Measured { nats: NatsTransport::from_client(self.client()), sent: Arc::clone(&sent) },
            keeper: Forgetful,
            device,
            roots: Arc::clone(&self.roots),
            trust: self.trust.clone(),
            options: VaultOptions::default(),
        };
        let vault = Vault::new(parts, record);
        vault.create().await?;
        Ok(Bench { vault, sent })
    }
}

/// NATS, and how large the last request was.
#[derive(Debug)]
struct Measured {
    nats: NatsTransport,
    sent: Arc<AtomicUsize>,
}

impl Transport for Measured {
    async fn request(
        &self,
        subject: String,
        payload: Bytes,
        within: Duration,
    ) -> std::result::Result<Bytes, TransportError> {
        self.sent.store(payload.len(), Ordering::Relaxed);
        self.nats.request(subject, payload, within).await
    }
}

/// A vault that was created for the benchmark.
#[derive(Debug)]
pub(super) struct Bench {
    vault: Vault<Measured, Forgetful>,
    sent: Arc<AtomicUsize>,
}

impl Bench {
    pub(super) const fn id(&self) -> VaultId {
        self.vault.id()
    }

    /// What a warm read has on the wire, bytes.
    pub(super) async fn request_bytes(&self) -> Result<usize> {
        self.get().await?;
        self.get().await?;
        Ok(self.sent.load(Ordering::Relaxed))
    }

    pub(super) async fn get(&self) -> Result<Duration> {
        let start = Instant::now();
        self.vault.secret_get(NAME, None).await?;
        Ok(start.elapsed())
    }

    pub(super) async fn put(&self, value: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.vault.secret_put(NAME, Secret::from(value), None).await?;
        Ok(start.elapsed())
    }

    /// Closes the vault; its next request is a cold start, handshake included.
    pub(super) fn evict(&self, node: &Node) -> Result<()> {
        let mut socket = UnixStream::connect(node.path("admin.sock"))?;
        writeln!(socket, "{{\"op\":\"evict\",\"vault\":\"{}\"}}", self.id())?;
        let mut answer = String::new();
        BufReader::new(socket).read_line(&mut answer)?;
        if answer.contains("error") { Err(answer.into()) } else { Ok(()) }
    }

    pub(super) fn newest_object(&self, node: &Node) -> Result<Vec<u8>> {
        let folder = node.path("store").join(casemate_protocol::path::vault_folder(self.id()));
        let newest = std::fs::read_dir(folder)?.flatten().map(|entry| entry.path()).max().ok_or("no version")?;
        Ok(std::fs::read(newest)?)
    }
}
