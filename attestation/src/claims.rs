//! What authenticated evidence says, in words that every platform shares.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

/// A SHA-384 measurement: the value of one platform configuration register.
pub type Measurement = [u8; 48];

/// The kind of trusted execution environment that made the evidence.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Platform {
    /// An AWS Nitro enclave.
    Nitro,
    /// A guest of AMD SEV-SNP.
    SevSnp,
    /// An enclave of Intel SGX.
    Sgx,
    /// A trust domain of Intel TDX.
    Tdx,
}

impl Platform {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Nitro, Self::SevSnp, Self::Sgx, Self::Tdx];

    /// Its name in policies, bundles and JSON.
    pub const fn id(self) -> &'static str {
        match self {
            Self::Nitro => "nitro",
            Self::SevSnp => "sev-snp",
            Self::Sgx => "sgx",
            Self::Tdx => "tdx",
        }
    }

    /// The platform of this [`id`](Self::id).
    pub fn from_id(id: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|platform| platform.id() == id)
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nitro => "AWS Nitro",
            Self::SevSnp => "AMD SEV-SNP",
            Self::Sgx => "Intel SGX",
            Self::Tdx => "Intel TDX",
        })
    }
}

/// A product line of AMD: each has a root of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Product {
    /// EPYC 7003.
    Milan,
    /// EPYC 9004 and 8004 (Genoa, Bergamo, Siena).
    Genoa,
    /// EPYC 9005.
    Turin,
}

impl Product {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Milan, Self::Genoa, Self::Turin];

    /// The product of a processor, by the family and model that CPUID gives (AMD's "Versioned Chip Endorsement Key (VCEK)
    /// Certificate and KDS Interface Specification", section 3.1).
    pub const fn of_cpuid(family: u8, model: u8) -> Option<Self> {
        match (family, model) {
            (0x19, 0x00..=0x0f) => Some(Self::Milan),
            (0x19, 0x10..=0x1f | 0xa0..=0xaf) => Some(Self::Genoa),
            (0x1a, 0x00..=0x1f) => Some(Self::Turin),
            _ => None,
        }
    }

    /// The product of this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|product| product.to_string().eq_ignore_ascii_case(name))
    }
}

impl fmt::Display for Product {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Milan => "Milan",
            Self::Genoa => "Genoa",
            Self::Turin => "Turin",
        })
    }
}

/// Something that a platform measures, or that was given at the guest's start and measured with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Register {
    /// Nitro: platform configuration register 0–31, SHA-384.
    Pcr(u8),
    /// SEV-SNP: the guest's memory at its launch, SHA-384.
    Measurement,
    /// SEV-SNP: 32 bytes that the host gave at launch.
    HostData,
    /// SEV-SNP: SHA-384 of the key that signed the guest's identity block.
    IdKeyDigest,
    /// SEV-SNP: SHA-384 of the key that certified that key.
    AuthorKeyDigest,
    /// SEV-SNP: 16 bytes of the identity block.
    FamilyId,
    /// SEV-SNP: 16 bytes of the identity block.
    ImageId,
    /// SGX: the enclave, SHA-256.
    MrEnclave,
    /// SGX: the key that signed the enclave, SHA-256.
    MrSigner,
    /// TDX: the domain's memory at its start, SHA-384.
    MrTd,
    /// TDX: runtime measurement register 0–3, SHA-384.
    Rtmr(u8),
    /// TDX: the TDX module, SHA-384.
    MrSeam,
    /// TDX: the key that signed the TDX module, SHA-384; zero is Intel's.
    MrSignerSeam,
    /// TDX: 48 bytes of the domain's configuration.
    MrConfigId,
    /// TDX: 48 bytes of the domain's owner.
    MrOwner,
    /// TDX: 48 bytes of the owner's configuration.
    MrOwnerConfig,
    /// TDX 1.5: the service domains bound to this one, SHA-384; zero is none.
    MrServiceTd,
}

impl Register {
    /// How many bytes it has.
    pub const fn bytes(self) -> usize {
        match self {
            Self::FamilyId | Self::ImageId => 16,
            Self::HostData | Self::MrEnclave | Self::MrSigner => 32,
            _ => 48,
        }
    }

    /// The platform that has it.
    pub const fn platform(self) -> Platform {
        match self {
            Self::Pcr(_) => Platform::Nitro,
            Self::Measurement
            | Self::HostData
            | Self::IdKeyDigest
            | Self::AuthorKeyDigest
            | Self::FamilyId
            | Self::ImageId => Platform::SevSnp,
            Self::MrEnclave | Self::MrSigner => Platform::Sgx,
            _ => Platform::Tdx,
        }
    }

    const NAMED: [(Self, &'static str); 15] = [
        (Self::Measurement, "measurement"),
        (Self::HostData, "host_data"),
        (Self::IdKeyDigest, "id_key_digest"),
        (Self::AuthorKeyDigest, "author_key_digest"),
        (Self::FamilyId, "family_id"),
        (Self::ImageId, "image_id"),
        (Self::MrEnclave, "mrenclave"),
        (Self::MrSigner, "mrsigner"),
        (Self::MrTd, "mrtd"),
        (Self::MrSeam, "mrseam"),
        (Self::MrSignerSeam, "mrsignerseam"),
        (Self::MrConfigId, "mrconfigid"),
        (Self::MrOwner, "mrowner"),
        (Self::MrOwnerConfig, "mrownerconfig"),
        (Self::MrServiceTd, "mrservicetd"),
    ];
}

impl fmt::Display for Register {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pcr(index) => write!(f, "pcr{index}"),
            Self::Rtmr(index) => write!(f, "rtmr{index}"),
            named => {
                f.write_str(Self::NAMED.iter().find(|(register, _)| register == named).map_or("", |(_, name)| name))
            }
        }
    }
}

impl FromStr for Register {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let index = |prefix: &str, count: u8| {
            let digits = text.strip_prefix(prefix)?;
            let index: u8 = digits.parse().ok()?;
            // One name for one register: neither `pcr03` nor `pcr+3`.
            (index < count && index.to_string() == digits).then_some(index)
        };
        if let Some(index) = index("pcr", Pcrs::MAX_COUNT) {
            return Ok(Self::Pcr(index));
        }
        if let Some(index) = index("rtmr", 4) {
            return Ok(Self::Rtmr(index));
        }
        Self::NAMED.iter().find(|(_, name)| *name == text).map(|(register, _)| *register).ok_or(())
    }
}

/// The three measurements that name a Nitro image.
///
/// PCR0 covers the whole image, PCR1 kernel, command line and first ramdisk, PCR2 the further ramdisks
/// (<https://docs.aws.amazon.com/enclaves/latest/user/set-up-attestation.html>).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MeasurementSet {
    /// The whole image.
    pub pcr0: Measurement,
    /// Kernel, command line and first ramdisk.
    pub pcr1: Measurement,
    /// Further ramdisks: the application.
    pub pcr2: Measurement,
}

impl MeasurementSet {
    /// The measurements with their register's index.
    pub fn indexed(&self) -> [(u8, &Measurement); 3] {
        [(0, &self.pcr0), (1, &self.pcr1), (2, &self.pcr2)]
    }

    /// The first register that is all zero, if one is: the host started such an enclave in debug mode, where it can read the
    /// console, and the hypervisor measures nothing.
    pub fn debug_register(&self) -> Option<u8> {
        self.indexed().into_iter().find(|(_, pcr)| pcr.iter().all(|byte| *byte == 0)).map(|(index, _)| index)
    }
}

/// Platform configuration registers by index (0–31).
///
/// A Nitro document lists PCR0–15 and those of 16–31 that the enclave has locked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Pcrs(BTreeMap<u8, Measurement>);

impl Pcrs {
    /// How many registers there are at most.
    pub const MAX_COUNT: u8 = 32;

    /// No registers.
    pub fn new() -> Self {
        Self::default()
    }

    /// The value of register `index`, if the evidence has it.
    pub fn get(&self, index: u8) -> Option<&Measurement> {
        self.0.get(&index)
    }

    /// Sets register `index`; returns the value it had.
    pub fn insert(&mut self, index: u8, value: Measurement) -> Option<Measurement> {
        self.0.insert(index, value)
    }

    /// The registers in ascending order.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &Measurement)> {
        self.0.iter().map(|(index, value)| (*index, value))
    }

    /// How many registers there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<(u8, Measurement)> for Pcrs {
    fn from_iter<I: IntoIterator<Item = (u8, Measurement)>>(registers: I) -> Self {
        Self(registers.into_iter().collect())
    }
}

/// Everything that the evidence measures, by register.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Measurements(BTreeMap<Register, Vec<u8>>);

impl Measurements {
    /// The value of `register`, if the evidence has it.
    pub fn get(&self, register: Register) -> Option<&[u8]> {
        self.0.get(&register).map(Vec::as_slice)
    }

    /// The value of PCR `index`, if the evidence has it.
    pub fn pcr(&self, index: u8) -> Option<&Measurement> {
        self.get(Register::Pcr(index))?.try_into().ok()
    }

    /// The registers in their order.
    pub fn iter(&self) -> impl Iterator<Item = (Register, &[u8])> {
        self.0.iter().map(|(register, value)| (*register, value.as_slice()))
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// PCR0–2, which name an image on Nitro.
    pub fn image(&self) -> Option<MeasurementSet> {
        Some(MeasurementSet { pcr0: *self.pcr(0)?, pcr1: *self.pcr(1)?, pcr2: *self.pcr(2)? })
    }
}

impl<V: Into<Vec<u8>>> FromIterator<(Register, V)> for Measurements {
    fn from_iter<I: IntoIterator<Item = (Register, V)>>(registers: I) -> Self {
        Self(registers.into_iter().map(|(register, value)| (register, value.into())).collect())
    }
}

impl From<&Pcrs> for Measurements {
    fn from(pcrs: &Pcrs) -> Self {
        pcrs.iter().map(|(index, value)| (Register::Pcr(index), value.to_vec())).collect()
    }
}

/// What the guest had bound into its evidence.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Bound {
    /// Nitro: bytes of the enclave's choosing, ≤ 512.
    pub user_data: Option<Vec<u8>>,
    /// Nitro: the asker's nonce, ≤ 512 bytes.
    pub nonce: Option<Vec<u8>>,
    /// Nitro: the enclave's public key in a form of its choosing, ≤ 1,024 bytes.
    pub public_key: Option<Vec<u8>>,
    /// SEV-SNP, SGX and TDX: the one field of 64 bytes; [`report_data`](crate::report_data) says how Casemate fills it.
    pub report_data: Option<[u8; 64]>,
}

/// The security versions of AMD's firmware, each a number that only grows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SnpTcb {
    /// The firmware management controller; Turin only.
    pub fmc: u8,
    /// The boot loader.
    pub bootloader: u8,
    /// The operating system of the security processor.
    pub tee: u8,
    /// The SNP firmware.
    pub snp: u8,
    /// The microcode.
    pub microcode: u8,
}

impl SnpTcb {
    /// Its components by name.
    pub const fn components(&self) -> [(&'static str, u8); 5] {
        [
            ("fmc", self.fmc),
            ("bootloader", self.bootloader),
            ("tee", self.tee),
            ("snp", self.snp),
            ("microcode", self.microcode),
        ]
    }
}

impl fmt::Display for SnpTcb {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { fmc, bootloader, tee, snp, microcode } = self;
        write!(f, "fmc {fmc}, bootloader {bootloader}, tee {tee}, snp {snp}, microcode {microcode}")
    }
}

/// What Intel says of a platform's security version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TcbStatus {
    /// Nothing is known against it.
    UpToDate,
    /// The enclave itself must defend against something.
    SwHardeningNeeded,
    /// The platform must be configured otherwise.
    ConfigurationNeeded,
    /// Both of these.
    ConfigurationAndSwHardeningNeeded,
    /// A TDX module was updated under the running domain: it should be started anew.
    TdRelaunchAdvised,
    /// That, and the platform must be configured otherwise.
    TdRelaunchAdvisedConfigurationNeeded,
    /// An update closes known holes and is not installed.
    OutOfDate,
    /// That, and the platform must be configured otherwise.
    OutOfDateConfigurationNeeded,
}

impl TcbStatus {
    /// All of them, the best first.
    pub const ALL: [Self; 8] = [
        Self::UpToDate,
        Self::SwHardeningNeeded,
        Self::ConfigurationNeeded,
        Self::ConfigurationAndSwHardeningNeeded,
        Self::TdRelaunchAdvised,
        Self::TdRelaunchAdvisedConfigurationNeeded,
        Self::OutOfDate,
        Self::OutOfDateConfigurationNeeded,
    ];

    /// Intel's word.
    pub const fn name(self) -> &'static str {
        match self {
            Self::UpToDate => "UpToDate",
            Self::SwHardeningNeeded => "SWHardeningNeeded",
            Self::ConfigurationNeeded => "ConfigurationNeeded",
            Self::ConfigurationAndSwHardeningNeeded => "ConfigurationAndSWHardeningNeeded",
            Self::TdRelaunchAdvised => "TDRelaunchAdvised",
            Self::TdRelaunchAdvisedConfigurationNeeded => "TDRelaunchAdvisedConfigurationNeeded",
            Self::OutOfDate => "OutOfDate",
            Self::OutOfDateConfigurationNeeded => "OutOfDateConfigurationNeeded",
        }
    }

    /// The status of Intel's word.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.name() == name)
    }
}

impl fmt::Display for TcbStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How new the platform's own software is. Nitro says nothing of it: AWS keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tcb {
    /// AMD's firmware: four versions of one platform.
    Snp {
        /// What the host lets the report say; the certificate is for this one.
        reported: SnpTcb,
        /// What runs now.
        current: SnpTcb,
        /// Below what the platform can never go again.
        committed: SnpTcb,
        /// What ran when the guest started.
        launch: SnpTcb,
    },
    /// Intel's.
    Intel {
        /// Intel's verdict over platform, quoting enclave and TDX module together.
        status: TcbStatus,
        /// Intel's security advisories that hold for it.
        advisories: Vec<String>,
        /// The number of the evaluation that the verdict comes from; a higher one knows more.
        evaluation: u32,
        /// When the matching TCB level was defined, in seconds since the Unix epoch.
        level_date_unix: u64,
        /// The security versions of the processor.
        cpu_svn: [u8; 16],
        /// The security version of the provisioning enclave.
        pce_svn: u16,
        /// The security versions of the TDX module; TDX only.
        tee_tcb_svn: Option<[u8; 16]>,
    },
}

impl Tcb {
    /// The verdict in one word; AMD gives none.
    pub fn status(&self) -> Option<TcbStatus> {
        match self {
            Self::Snp { .. } => None,
            Self::Intel { status, .. } => Some(*status),
        }
    }

    /// The advisories that hold.
    pub fn advisories(&self) -> &[String] {
        match self {
            Self::Snp { .. } => &[],
            Self::Intel { advisories, .. } => advisories,
        }
    }

    /// The version, for people to read.
    pub fn version(&self) -> String {
        match self {
            Self::Snp { reported, .. } => reported.to_string(),
            Self::Intel { cpu_svn, pce_svn, tee_tcb_svn, .. } => {
                let mut text = format!("cpu {}, pce {pce_svn}", hex::encode(cpu_svn));
                if let Some(svn) = tee_tcb_svn {
                    text.push_str(", tee ");
                    text.push_str(&hex::encode(svn));
                }
                text
            }
        }
    }
}

/// Which of AMD's keys signed a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum SnpSigner {
    /// The chip's own key.
    Vcek,
    /// A key that AMD gave to a cloud provider, the same on many chips.
    Vlek,
}

impl fmt::Display for SnpSigner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Vcek => "VCEK",
            Self::Vlek => "VLEK",
        })
    }
}

/// The machine that the evidence comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Identity {
    /// Nitro: the security module's name, made of the EC2 instance's id and the enclave's. Printable ASCII.
    Nitro {
        /// The name.
        module_id: String,
    },
    /// SEV-SNP.
    Snp {
        /// The product, as its root says.
        product: Product,
        /// Which key signed.
        signer: SnpSigner,
        /// The chip; `None` when the host masks it.
        chip_id: Option<[u8; 64]>,
        /// VLEK: whom AMD gave the key. Printable ASCII.
        provider: Option<String>,
    },
    /// SGX and TDX.
    Intel {
        /// Family, model and configuration of the processor package.
        fmspc: [u8; 6],
        /// The platform's provisioning id, which names one machine.
        ppid: Vec<u8>,
    },
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nitro { module_id } => f.write_str(module_id),
            Self::Snp { product, signer, chip_id, provider } => {
                write!(f, "{product}, {signer}, chip ")?;
                match chip_id {
                    Some(chip) => f.write_str(&hex::encode(chip))?,
                    None => f.write_str("masked")?,
                }
                provider.as_ref().map_or(Ok(()), |provider| write!(f, ", provider {provider}"))
            }
            Self::Intel { fmspc, ppid } => write!(f, "FMSPC {}, PPID {}", hex::encode(fmspc), hex::encode(ppid)),
        }
    }
}

/// With what rights the guest was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// Nitro says nothing of it.
    Nitro,
    /// SEV-SNP.
    Snp {
        /// The guest's policy word: see [`GuestPolicy`].
        policy: GuestPolicy,
        /// The privilege level that asked for the report; 0 is the highest.
        vmpl: u32,
        /// The guest's own security version.
        svn: u32,
    },
    /// SGX.
    Sgx {
        /// ATTRIBUTES of the enclave: flags and XFRM, little-endian.
        attributes: [u8; 16],
        /// ISVPRODID.
        product: u16,
        /// ISVSVN.
        svn: u16,
    },
    /// TDX.
    Tdx {
        /// TDATTRIBUTES, little-endian.
        attributes: [u8; 8],
    },
}

/// The policy that a SEV-SNP guest was started with (SEV-SNP firmware ABI specification, table 10).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GuestPolicy(pub u64);

impl GuestPolicy {
    /// Whether another guest, the migration agent, may read this guest's keys.
    pub const fn allows_migration_agent(self) -> bool {
        self.0 >> 18 & 1 == 1
    }

    /// Whether the host may read the guest's memory.
    pub const fn allows_debug(self) -> bool {
        self.0 >> 19 & 1 == 1
    }

    /// Whether the guest may run beside others on one core.
    pub const fn allows_smt(self) -> bool {
        self.0 >> 16 & 1 == 1
    }
}

/// The sign by which evidence tells that its host can look into the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DebugSign {
    /// Nitro: this one of PCR0–2 is all zero.
    ZeroPcr(u8),
    /// SEV-SNP: the guest's policy, which has the DEBUG bit.
    GuestPolicy(u64),
    /// SGX: ATTRIBUTES, which have the DEBUG bit.
    EnclaveAttributes([u8; 16]),
    /// TDX: TDATTRIBUTES, which have a bit of TD Under Debug.
    DomainAttributes([u8; 8]),
}

impl fmt::Display for DebugSign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ZeroPcr(index) => write!(f, "PCR{index} is all zero"),
            Self::GuestPolicy(policy) => write!(f, "the guest's policy {policy:#x} has the DEBUG bit"),
            Self::EnclaveAttributes(attributes) => {
                write!(f, "the enclave's attributes {} have the DEBUG bit", hex::encode(attributes))
            }
            Self::DomainAttributes(attributes) => {
                write!(f, "the domain's attributes {} have a bit of TD Under Debug", hex::encode(attributes))
            }
        }
    }
}

/// What the platform says of a guest: authenticated, and to be judged by a [`Policy`](crate::Policy).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Who made the evidence.
    pub platform: Platform,
    /// What the guest runs.
    pub measurements: Measurements,
    /// What the guest had bound into it.
    pub bound: Bound,
    /// How new the platform's software is.
    pub tcb: Option<Tcb>,
    /// Whether the host can look into the guest, and by which sign.
    pub debug: Option<DebugSign>,
    /// The machine.
    pub identity: Identity,
    /// With what rights the guest was started.
    pub guest: Guest,
    /// When it was signed, in milliseconds since the Unix epoch. Only Nitro says it; elsewhere a nonce alone makes evidence fresh.
    pub issued_at_unix_ms: Option<u64>,
    /// Until when certificates and collateral hold, in seconds since the Unix epoch: the earliest end among them.
    pub valid_until_unix: u64,
    /// Whether revocation lists were among what was verified.
    pub revocation_checked: bool,
    /// The subject of the root that the chain led to, as in RFC 4514. A development root says `DEV ONLY` here.
    pub anchor_subject: String,
    /// SHA-256 of that root's DER.
    pub anchor_fingerprint: [u8; 32],
}

impl Claims {
    /// When it was signed, in whole seconds since the Unix epoch; only Nitro says it.
    pub fn issued_at_unix(&self) -> Option<u64> {
        self.issued_at_unix_ms.map(|ms| ms / 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_have_one_name_each() {
        let named = Register::NAMED.iter().map(|(register, _)| *register);
        let indexed = (0..32).map(Register::Pcr).chain((0..4).map(Register::Rtmr));
        for register in named.chain(indexed) {
            assert_eq!(register.to_string().parse(), Ok(register));
        }
        for wrong in ["", "pcr", "pcr32", "pcr03", "pcr+3", "rtmr4", "PCR0", "mrenclave "] {
            assert_eq!(wrong.parse::<Register>(), Err(()), "{wrong}");
        }
    }

    #[test]
    fn names_lead_back() {
        for platform in Platform::ALL {
            assert_eq!(Platform::from_id(platform.id()), Some(platform));
        }
        for status in TcbStatus::ALL {
            assert_eq!(TcbStatus::from_name(status.name()), Some(status));
        }
        for product in Product::ALL {
            assert_eq!(Product::from_name(&product.to_string()), Some(product));
        }
        assert_eq!(Product::of_cpuid(0x19, 0x01), Some(Product::Milan));
        assert_eq!(Product::of_cpuid(0x19, 0x11), Some(Product::Genoa));
        assert_eq!(Product::of_cpuid(0x19, 0xa0), Some(Product::Genoa));
        assert_eq!(Product::of_cpuid(0x1a, 0x02), Some(Product::Turin));
        assert_eq!(Product::of_cpuid(0x17, 0x31), None);
    }
}
