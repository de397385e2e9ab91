//! One vault, used over the device library as a phone would.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use casemate_attestation::TrustAnchor;
use casemate_client::home::read_trust_file;
use casemate_client::record::Forgetful;
use casemate_client::vault::VaultParts;
use casemate_client::{Device, NatsTransport, Roots, Trust, Vault, VaultOptions, VaultRecord};
use casemate_protocol::id::VaultId;
use casemate_protocol::secret::Secret;

use super::Result;
use crate::Node;

const NAME: &str = "benchmark";

/// A vault that was created for the benchmark.
#[derive(Debug)]
pub(super) struct Bench(Vault<NatsTransport, Forgetful>);

impl Bench {
    pub(super) async fn create(node: &Node, client: async_nats::Client) -> Result<Self> {
        let anchor = TrustAnchor::from_der(std::fs::read(node.path("authority/root.der"))?)?;
        let roots = Roots { anchors: vec![anchor], release_keys: Vec::new(), releases: Vec::new() };
        let mut trust = Trust::default();
        trust.add(&read_trust_file(&node.path("authority/trust.toml"))?, &roots)?;
        let cluster = trust.cluster().ok_or("the trust file pins a cluster")?;
        let device = Device::generate()?;
        let record = VaultRecord::begin(&device, NAME, cluster)?;
        let parts = VaultParts {
            transport: NatsTransport::from_client(client),
            keeper: Forgetful,
            device,
            roots: Arc::new(roots),
            trust,
            options: VaultOptions::default(),
        };
        let vault = Vault::new(parts, record);
        vault.create().await?;
        Ok(Self(vault))
    }

    pub(super) const fn id(&self) -> VaultId {
        self.0.id()
    }

    pub(super) async fn get(&self) -> Result<Duration> {
        let start = Instant::now();
        self.0.secret_get(NAME, None).await?;
        Ok(start.elapsed())
    }

    pub(super) async fn put(&self, value: &[u8]) -> Result<Duration> {
        let start = Instant::now();
        self.0.secret_put(NAME, Secret::from(value), None).await?;
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
