//! Why evidence was refused: one variant for each rule.

use std::fmt;

use crate::chain::ChainError;
use crate::claims::{DebugSign, Platform, Register, SnpSigner, TcbStatus};
use crate::intel::{CollateralError, QuoteError};
use crate::nitro::{DocumentError, EnvelopeError};
use crate::snp::{ReportError, TableError, VekError};

/// Why evidence was refused. The text names the rule, what was found and what was wanted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// No platform's evidence begins so.
    #[error(
        "the evidence is of no known kind: neither a Nitro document, nor a SEV-SNP report, nor an SGX or TDX quote"
    )]
    UnknownKind,
    /// More than any evidence has.
    #[error("the evidence has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// A platform that the policy does not allow.
    #[error("the evidence is of platform {found}, wanted {wanted}: the policy allows no other")]
    Platform {
        /// The platform.
        found: Platform,
        /// Those that are allowed.
        wanted: String,
    },

    /// Nitro: the bytes are no COSE_Sign1 envelope as Nitro makes them.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// Nitro: the envelope holds no attestation document as AWS specifies it.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// SEV-SNP: the bytes are no report as AMD specifies it.
    #[error(transparent)]
    Report(#[from] ReportError),
    /// SEV-SNP: what follows the report is no certificate table.
    #[error(transparent)]
    Table(#[from] TableError),
    /// SGX and TDX: the bytes are no quote as Intel specifies it.
    #[error(transparent)]
    Quote(#[from] QuoteError),

    /// The certificates do not lead from the evidence's key to the trust anchor.
    #[error(transparent)]
    Chain(#[from] ChainError),
    /// SEV-SNP: the leaf certificate is not that of the report.
    #[error(transparent)]
    Vek(#[from] VekError),
    /// SGX and TDX: what Intel says of the platform cannot be used.
    #[error(transparent)]
    Collateral(#[from] CollateralError),
    /// SGX and TDX: what stands between quote and collateral.
    #[error(transparent)]
    Intel(#[from] IntelError),
    /// The leaf certificate's key did not sign the evidence.
    #[error(
        "the evidence's signature does not verify with the attested key: it was changed, or was never signed by this platform"
    )]
    Signature,

    /// Made later than now.
    #[error(
        "the document is from the future: it was made at {issued_at_unix} and it is {now_unix} (Unix seconds), at most \
         {skew_seconds} s ahead are allowed; check this machine's clock"
    )]
    FromTheFuture {
        /// When the document says it was made.
        issued_at_unix: u64,
        /// The verifier's time.
        now_unix: u64,
        /// How far ahead it may be.
        skew_seconds: u64,
    },
    /// Made too long ago.
    #[error(
        "the document is {age_seconds} s old (made at {issued_at_unix}, it is {now_unix}), at most {max_age_seconds} s are \
         allowed; ask for fresh evidence, and check this machine's clock"
    )]
    TooOld {
        /// When the document says it was made.
        issued_at_unix: u64,
        /// The verifier's time.
        now_unix: u64,
        /// The difference.
        age_seconds: u64,
        /// How old it may be.
        max_age_seconds: u64,
    },
    /// A guest whose host can look into it.
    #[error("{sign}: the guest runs in debug mode, where its host can look into it; start it without debug mode")]
    Debug {
        /// By which sign.
        sign: DebugSign,
    },
    /// The policy lists no image.
    #[error(
        "the policy lists no measurements for {platform}, so no guest of it is believed; add a release, or a trust file for a \
         self-built image"
    )]
    NoMeasurements {
        /// The platform.
        platform: Platform,
    },
    /// The guest runs another image.
    #[error(
        "{register} is {found}, wanted {wanted} ({image}, the nearest of {images} known images): the guest runs an image that \
         this verifier does not believe"
    )]
    Measurement {
        /// The first register that differs from the nearest image.
        register: Register,
        /// Its value, shortened hex.
        found: String,
        /// The nearest image's value, shortened hex.
        wanted: String,
        /// The nearest image.
        image: String,
        /// How many images the policy lists.
        images: usize,
    },
    /// The image is known, and this is not its time.
    #[error(
        "image {image} is good from {not_before_unix} to {not_after_unix} and it is {now_unix} (Unix seconds): run the image of now"
    )]
    ImageWindow {
        /// The image.
        image: String,
        /// Its first second.
        not_before_unix: u64,
        /// Its last second.
        not_after_unix: u64,
        /// The verifier's time.
        now_unix: u64,
    },
    /// Another product of the same signer.
    #[error("the guest's product number is {found}, wanted {wanted} (image {image})")]
    Product {
        /// What the evidence says.
        found: u16,
        /// What the image's rule says.
        wanted: u16,
        /// The image.
        image: String,
    },
    /// An older version of the image than is wanted.
    #[error("the guest's security version is {found}, wanted {wanted} or higher (image {image}): run a newer one")]
    GuestSvn {
        /// What the evidence says.
        found: u32,
        /// What the image's rule says.
        wanted: u32,
        /// The image.
        image: String,
    },

    /// SEV-SNP: another privilege level.
    #[error(
        "the report was asked for at VMPL {found}, wanted {wanted}: other software of the guest, or its host, asked"
    )]
    Vmpl {
        /// The level.
        found: u32,
        /// The level wanted.
        wanted: u32,
    },
    /// SEV-SNP: somebody else may read the guest's keys.
    #[error(
        "the guest's policy {policy:#x} allows a migration agent, wanted none: another guest may move it and see its keys"
    )]
    MigrationAgent {
        /// The guest's policy.
        policy: u64,
    },
    /// SEV-SNP: a kind of key that the policy does not allow.
    #[error("the report is signed by a {found}, wanted {wanted}")]
    Signer {
        /// Which.
        found: SnpSigner,
        /// Those that are allowed.
        wanted: String,
    },
    /// SEV-SNP: the host hides which chip it is.
    #[error(
        "the report's chip id is masked by its host, wanted one: nobody can tell whether the certificate is this chip's"
    )]
    MaskedChip,
    /// SEV-SNP: the platform's firmware is too old.
    #[error(
        "the {which} TCB has {component} {found}, wanted {wanted} or higher: the platform's firmware must be updated"
    )]
    TcbFloor {
        /// Which of the four versions.
        which: &'static str,
        /// The component.
        component: &'static str,
        /// Its version.
        found: u8,
        /// The floor.
        wanted: u8,
    },
    /// SGX and TDX: Intel's verdict over the platform.
    #[error("the platform's TCB status is {found}, wanted {wanted}; advisories: {advisories}")]
    TcbStatus {
        /// The status.
        found: TcbStatus,
        /// Those that are allowed.
        wanted: String,
        /// The advisories that hold for it.
        advisories: String,
    },
    /// SGX and TDX: an advisory that the policy does not accept.
    #[error("advisory {found} holds for the platform, wanted {wanted}")]
    Advisory {
        /// The advisory.
        found: String,
        /// What the policy says of advisories.
        wanted: String,
    },
    /// SGX and TDX: an old evaluation.
    #[error(
        "the collateral's TCB evaluation number is {found}, wanted {wanted} or higher: an older one does not know the newest holes"
    )]
    Evaluation {
        /// The number.
        found: u32,
        /// The floor.
        wanted: u32,
    },
    /// SGX and TDX: a version below the policy's floor.
    #[error("the platform's {component} security version is {found}, wanted {wanted} or higher: it must be updated")]
    SvnFloor {
        /// Of what.
        component: String,
        /// The version.
        found: u16,
        /// The floor.
        wanted: u16,
    },
    /// TDX: somebody else has a say in the domain.
    #[error("the domain is bound to a service domain ({found}), wanted none: that one may move it and see its keys")]
    ServiceTd {
        /// The hash of the service domains, shortened hex, or the attribute that speaks of them.
        found: String,
    },

    /// Not the verifier's nonce.
    #[error("the document's nonce is {found}, wanted {wanted}: it answers somebody else's question, or is a replay")]
    Nonce {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
    /// Not the expected binding.
    #[error("the document binds user data {found}, wanted {wanted}: it speaks for another node or another cluster")]
    UserData {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
    /// Not the expected key.
    #[error("the document binds public key {found}, wanted {wanted}: it speaks for another key")]
    PublicKey {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
    /// Not the expected report data.
    #[error(
        "the evidence binds report data {found}, wanted {wanted}: it speaks for another node, answers somebody else's question, or is a replay"
    )]
    ReportData {
        /// Shortened hex.
        found: String,
        /// Shortened hex.
        wanted: String,
    },
}

/// Why a quote is refused whose framing and collateral are right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IntelError {
    /// The platform's key did not sign the quoting enclave's report.
    #[error(
        "the quoting enclave's report is not signed by the platform's key: the certificate chain is another machine's, or the report was changed"
    )]
    QeSignature,
    /// The quoting enclave does not speak for the key that signed the quote.
    #[error("the quoting enclave's report does not name the key that signed the quote: the key is somebody else's")]
    AttestationKey,
    /// Another quoting enclave than Intel's.
    #[error("the quoting enclave is not the one that the collateral names ({0})")]
    QuotingEnclave(String),
    /// The TDX module is not Intel's.
    #[error("the TDX module is not the one that the collateral names ({0})")]
    Module(String),
    /// The platform is older than anything that Intel lists.
    #[error(
        "no TCB level of the collateral fits the platform ({0}): it is older than all that Intel lists, or the collateral is"
    )]
    NoTcbLevel(String),
    /// Intel has withdrawn the platform's version.
    #[error("the platform's TCB status is Revoked: its keys may be known; no policy allows it")]
    TcbRevoked,
    /// Rights that no domain of ours is started with.
    #[error("the domain's attributes are not allowed ({0})")]
    DomainAttributes(String),
    /// Another of `dcap-qvl`'s rules.
    #[error("the quote breaks a rule of DCAP ({0})")]
    Other(String),
}

/// Text that somebody else wrote, for a message: shortened, and without what would steer a terminal or forge a line of a log.
pub(crate) fn printable(text: &str) -> String {
    const SHOWN: usize = 200;
    text.chars().take(SHOWN).map(|character| if character.is_control() { '?' } else { character }).collect()
}

/// Bytes as hex, shortened so that a message stays readable: nobody compares 96 digits by eye.
pub(crate) struct Short<'a>(pub(crate) &'a [u8]);

impl Short<'_> {
    const SHOWN: usize = 8;

    pub(crate) fn text(bytes: &[u8]) -> String {
        Short(bytes).to_string()
    }

    pub(crate) fn optional(bytes: Option<&[u8]>) -> String {
        bytes.map_or_else(|| "absent".to_owned(), Self::text)
    }
}

impl fmt::Display for Short<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("empty");
        }
        for byte in self.0.iter().take(Self::SHOWN) {
            write!(f, "{byte:02x}")?;
        }
        if self.0.len() > Self::SHOWN { f.write_str("…") } else { Ok(()) }
    }
}
