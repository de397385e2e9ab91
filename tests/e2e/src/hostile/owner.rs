//! The owner of a vault: the device library, over a wire that the host has in its hands.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use casemate_client::judge::{Distrust, Grounds};
use casemate_client::outside::unix_now;
use casemate_client::record::Forgetful;
use casemate_client::session::{Believed, Greeting, Session};
use casemate_client::vault::VaultParts;
use casemate_client::{Device, Roots, Trust, Vault, VaultError, VaultOptions, VaultRecord};
use casemate_protocol::secret::Secret;
use tokio::runtime::Handle;

use super::{Host, Wire};

/// How long an honest answer may take.
const DEADLINE: Duration = Duration::from_secs(15);

/// A device and its vault.
#[derive(Debug)]
pub struct Owner {
    vault: Vault<Wire, Forgetful>,
    device: Device,
    roots: Roots,
    trust: Trust,
    runtime: Handle,
    /// The way to the enclave.
    pub wire: Wire,
}

impl Deref for Owner {
    type Target = Vault<Wire, Forgetful>;

    fn deref(&self) -> &Self::Target {
        &self.vault
    }
}

impl Owner {
    /// A device that trusts the host's image and cluster, and has a vault to create.
    ///
    /// # Panics
    /// When the system has no randomness.
    pub fn new(host: &Host) -> Self {
        let roots = host.roots();
        let mut trust = Trust::default();
        trust.add(&host.trust_file(), &roots).expect("a trust file of this run");
        let device = Device::generate().expect("randomness");
        let record = VaultRecord::begin(&device, "owner", trust.cluster().expect("pinned")).expect("randomness");
        Self::of(host, device, roots, trust, record)
    }

    fn of(host: &Host, device: Device, roots: Roots, trust: Trust, record: VaultRecord) -> Self {
        let wire = Wire::new(host.shared());
        let vault = Self::vault(&wire, &device, &roots, &trust, record, DEADLINE);
        let runtime = host.wait(async { Handle::current() });
        Self { vault, device, roots, trust, runtime, wire }
    }

    fn vault(
        wire: &Wire,
        device: &Device,
        roots: &Roots,
        trust: &Trust,
        record: VaultRecord,
        deadline: Duration,
    ) -> Vault<Wire, Forgetful> {
        let parts = VaultParts {
            transport: wire.clone(),
            keeper: Forgetful,
            device: device.clone(),
            roots: Arc::new(roots.clone()),
            trust: trust.clone(),
            options: VaultOptions { deadline, ..VaultOptions::default() },
        };
        Vault::new(parts, record)
    }

    /// The same device in a second home: it holds what this one holds now, and learns nothing of what this one does from here on.
    #[must_use]
    pub fn copy(&self, host: &Host) -> Self {
        let (device, roots) = (self.device.clone(), self.roots.clone());
        Self::of(host, device, roots, self.trust.clone(), self.vault.record())
    }

    /// The same device, which waits no longer than this from now on.
    #[must_use]
    pub fn hurried(mut self, deadline: Duration) -> Self {
        self.vault = Self::vault(&self.wire, &self.device, &self.roots, &self.trust, self.vault.record(), deadline);
        self
    }

    /// The same device, fooled into believing in this cluster.
    ///
    /// # Panics
    /// When records are not written as JSON any more.
    #[must_use]
    pub fn fooled(mut self, cluster: [u8; 32]) -> Self {
        let mut record = serde_json::to_value(self.vault.record()).expect("a record is JSON");
        record["cluster"] = hex::encode(cluster).into();
        let record = serde_json::from_value(record).expect("a record");
        self.vault = Self::vault(&self.wire, &self.device, &self.roots, &self.trust, record, DEADLINE);
        self
    }

    /// The device.
    pub const fn device(&self) -> &Device {
        &self.device
    }

    /// Judges what answers a hello of this device, as the library does before it sends anything else.
    ///
    /// # Errors
    /// Why the node is not believed.
    ///
    /// # Panics
    /// When the answer is not a genuine welcome.
    pub fn judge(&self, greeting: Greeting, welcome: &[u8], now: u64) -> Result<Believed, Distrust> {
        let judging = greeting.welcome(welcome).expect("a welcome of whoever holds its key");
        let grounds = Grounds { roots: &self.roots, trust: &self.trust, now };
        judging.believe(&grounds, self.trust.cluster().expect("pinned"))
    }

    /// A session of the library's own machine, without the loop that asks again.
    ///
    /// # Panics
    /// When an honest node does not let it in.
    pub fn session(&self, host: &Host) -> Session {
        let (greeting, hello) = Greeting::start(self.device.static_secret(), self.vault.id());
        let welcome = host.carry(self.vault.id(), &hello.encode(DEADLINE)).encode();
        let believed = self.judge(greeting, &welcome, unix_now()).expect("an honest node");
        let record = self.vault.record();
        let lock_key = record.lock_key().expect("a living vault");
        let (finish, mut session, pending) = believed.finish(lock_key, record.head(), None).expect("it fits");
        let answer = host.carry(self.vault.id(), &finish.encode(DEADLINE)).encode();
        session.open(&answer, &pending).expect("an honest answer");
        session
    }

    /// Creates the vault.
    ///
    /// # Panics
    /// When it is not created.
    pub fn create(&self) {
        self.runtime.block_on(self.vault.create()).expect("an honest creation works");
    }

    /// Writes a secret; gives the revision.
    ///
    /// # Errors
    /// As the library.
    pub fn put(&self, name: &str, value: &str) -> Result<u64, VaultError> {
        self.runtime.block_on(self.vault.secret_put(name, Secret::from(value.as_bytes()), None))
    }

    /// Reads a secret.
    ///
    /// # Errors
    /// As the library.
    pub fn get(&self, name: &str) -> Result<String, VaultError> {
        let secret = self.runtime.block_on(self.vault.secret_get(name, None))?;
        Ok(String::from_utf8(secret.value.to_vec()).expect("text"))
    }

    /// Whoever is attacked, this vault goes on: it takes a write and gives it back.
    ///
    /// # Panics
    /// When it does not.
    #[track_caller]
    pub fn is_served(&self) {
        let before = self.put("served", "yes").expect("an honest device's write is taken");
        assert!(before > 0);
        assert_eq!(self.get("served").expect("an honest device's read is answered"), "yes");
    }
}
