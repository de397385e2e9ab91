//! A policy in a file: TOML, in which every rule has a word of its own and a missing word means the strict choice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

use super::{Image, ImageError, IntelRules, NitroRules, Policy, SnpRules, Window};
use crate::anchor::AnchorError;
use crate::claims::{Bound, Platform, Product, Register, SnpSigner, SnpTcb, TcbStatus};
use crate::{TrustAnchor, encoding};

/// The longest file that is read.
const MAX_BYTES: usize = 256 * 1024;
/// The vendors' own roots, by a word.
const AWS: &str = "aws";
const INTEL: &str = "intel";

/// Why a policy cannot be read. The text names the key, what was found and what is allowed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PolicyError {
    /// More than a policy has.
    #[error("the policy has {found} bytes, at most {limit} are allowed")]
    TooLarge {
        /// Bytes found.
        found: usize,
        /// Bytes allowed.
        limit: usize,
    },
    /// Not TOML, or a word that there is none of.
    #[error("the policy cannot be read: {0}")]
    Syntax(String),
    /// A value that is not allowed.
    #[error("the policy's `{key}` is {found:?}; allowed: {allowed}")]
    Value {
        /// The key.
        key: String,
        /// The value, shortened.
        found: String,
        /// What is allowed.
        allowed: &'static str,
    },
    /// A root that is none.
    #[error("the policy's `{key}`: {error}")]
    Root {
        /// The key.
        key: String,
        /// Why.
        error: AnchorError,
    },
    /// An image that says too little, or what it cannot.
    #[error("the policy cannot be used: {0}")]
    Image(#[from] ImageError),
    /// An image that no release key signed.
    #[error("image {image} is not signed by a release key of this policy")]
    NotSigned {
        /// The image.
        image: String,
    },
    /// More images than a policy lists.
    #[error("a policy lists at most {} images", Policy::MAX_IMAGES)]
    TooMany,
    /// A policy that nothing can meet.
    #[error("the policy allows no platform: it has none of [nitro], [sev-snp], [sgx] and [tdx]")]
    NoPlatform,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default = "max_age")]
    max_age: u64,
    #[serde(default = "clock_skew")]
    clock_skew: u64,
    #[serde(default)]
    allow_debug: bool,
    #[serde(default)]
    any_image: bool,
    #[serde(default)]
    release_keys: Vec<String>,
    #[serde(default, skip_serializing_if = "BoundFile::is_empty")]
    bound: BoundFile,
    nitro: Option<NitroFile>,
    #[serde(rename = "sev-snp")]
    snp: Option<SnpFile>,
    sgx: Option<IntelFile>,
    tdx: Option<IntelFile>,
    #[serde(default, rename = "image", skip_serializing_if = "Vec::is_empty")]
    images: Vec<ImageFile>,
}

fn max_age() -> u64 {
    Policy::MAX_AGE.as_secs()
}

fn clock_skew() -> u64 {
    Policy::CLOCK_SKEW.as_secs()
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BoundFile {
    user_data: Option<String>,
    nonce: Option<String>,
    public_key: Option<String>,
    report_data: Option<String>,
}

impl BoundFile {
    fn is_empty(&self) -> bool {
        [&self.user_data, &self.nonce, &self.public_key, &self.report_data].into_iter().all(Option::is_none)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct NitroFile {
    roots: Option<Vec<String>>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct SnpFile {
    roots: Option<Vec<String>>,
    signers: Option<Vec<String>>,
    #[serde(default)]
    vmpl: u32,
    #[serde(default)]
    allow_migration_agent: bool,
    #[serde(default)]
    allow_masked_chip: bool,
    #[serde(default)]
    require_crl: bool,
    #[serde(default)]
    min_tcb: BTreeMap<String, TcbFile>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TcbFile {
    #[serde(default)]
    fmc: u8,
    #[serde(default)]
    bootloader: u8,
    #[serde(default)]
    tee: u8,
    #[serde(default)]
    snp: u8,
    #[serde(default)]
    microcode: u8,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct IntelFile {
    roots: Option<Vec<String>>,
    statuses: Option<Vec<String>>,
    allowed_advisories: Option<BTreeSet<String>>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    refused_advisories: BTreeSet<String>,
    #[serde(default)]
    min_evaluation: u32,
    min_cpu_svn: Option<String>,
    #[serde(default)]
    min_pce_svn: u16,
    min_tee_tcb_svn: Option<String>,
    #[serde(default)]
    allow_service_td: bool,
}

#[derive(Serialize, Deserialize)]
struct ImageFile {
    name: String,
    platform: String,
    not_before: Option<u64>,
    not_after: Option<u64>,
    product: Option<u16>,
    min_svn: Option<u32>,
    signature: Option<String>,
    /// The registers by name; a word that is none is found out when they are read.
    #[serde(flatten)]
    registers: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ImagesFile {
    #[serde(rename = "image")]
    images: Vec<ImageFile>,
}

fn wrong(key: impl Into<String>, found: &str, allowed: &'static str) -> PolicyError {
    PolicyError::Value { key: key.into(), found: found.chars().take(64).collect(), allowed }
}

fn read<T: for<'a> Deserialize<'a>>(text: &str) -> Result<T, PolicyError> {
    if text.len() > MAX_BYTES {
        return Err(PolicyError::TooLarge { found: text.len(), limit: MAX_BYTES });
    }
    toml::from_str(text).map_err(|error| {
        let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
        let place = line.map(|line| format!("line {line}: ")).unwrap_or_default();
        PolicyError::Syntax(format!("{place}{}", error.message()))
    })
}

fn hex_bytes(key: &str, text: &str) -> Result<Vec<u8>, PolicyError> {
    hex::decode(text).map_err(|_| wrong(key, text, "lower- or upper-case hex"))
}

fn hex_array<const N: usize>(key: &str, text: &str, allowed: &'static str) -> Result<[u8; N], PolicyError> {
    hex::decode(text).ok().and_then(|bytes| bytes.try_into().ok()).ok_or_else(|| wrong(key, text, allowed))
}

/// A root as DER in base64, or as the one certificate of a PEM.
fn root(key: &str, text: &str) -> Result<TrustAnchor, PolicyError> {
    let body = text.trim();
    let body = body.strip_prefix("-----BEGIN CERTIFICATE-----").unwrap_or(body);
    let body = body.strip_suffix("-----END CERTIFICATE-----").unwrap_or(body);
    let der = encoding::base64(body)
        .ok_or_else(|| wrong(key, text, "the vendor's name, or one certificate in base64 or PEM"))?;
    TrustAnchor::from_der(der).map_err(|error| PolicyError::Root { key: key.to_owned(), error })
}

fn roots(
    section: &str,
    texts: Option<Vec<String>>,
    vendor: &str,
    own: fn() -> TrustAnchor,
) -> Result<Vec<TrustAnchor>, PolicyError> {
    let key = format!("{section}.roots");
    let texts = texts.unwrap_or_else(|| vec![vendor.to_owned()]);
    if texts.is_empty() {
        return Err(wrong(key, "[]", "at least one root"));
    }
    texts.iter().map(|text| if text == vendor { Ok(own()) } else { root(&key, text) }).collect()
}

impl Policy {
    /// Reads a policy.
    ///
    /// # Errors
    ///
    /// The first word that is wrong. Nothing is assumed for it.
    pub fn parse(text: &str) -> Result<Self, PolicyError> {
        let file: File = read(text)?;
        if file.images.len() > Self::MAX_IMAGES {
            return Err(PolicyError::TooMany);
        }
        let release_keys = file.release_keys.iter().map(|key| hex_array("release_keys", key, "64 hex digits each"));
        let policy = Self {
            nitro: file.nitro.map(NitroFile::into_rules).transpose()?,
            snp: file.snp.map(SnpFile::into_rules).transpose()?,
            sgx: file.sgx.map(|file| file.into_rules("sgx")).transpose()?,
            tdx: file.tdx.map(|file| file.into_rules("tdx")).transpose()?,
            images: file
                .images
                .into_iter()
                .map(|image| Ok(image.into_image()?.0))
                .collect::<Result<_, PolicyError>>()?,
            any_image: file.any_image,
            release_keys: release_keys.collect::<Result<_, _>>()?,
            max_age: Duration::from_secs(file.max_age),
            clock_skew: Duration::from_secs(file.clock_skew),
            bound: file.bound.into_bound()?,
            allow_debug: file.allow_debug,
        };
        if policy.platforms().is_empty() {
            return Err(PolicyError::NoPlatform);
        }
        Ok(policy)
    }

    /// Adds the images of a file that need not be trusted, a node's for example: each must be signed by one of
    /// [`release_keys`](Self::release_keys). All of it or nothing; returns how many of them are new.
    ///
    /// # Errors
    ///
    /// When the file cannot be read, or an image in it is not signed.
    pub fn add_images(&mut self, text: &str) -> Result<usize, PolicyError> {
        let file: ImagesFile = read(text)?;
        let mut images = self.images.clone();
        for image in file.images {
            let (image, signature) = image.into_image()?;
            // Attack stopped: a host that adds its own image to what a verifier believes.
            if !signature.is_some_and(|signature| image.is_signed(&signature, &self.release_keys)) {
                return Err(PolicyError::NotSigned { image: image.name });
            }
            if !images.contains(&image) {
                images.push(image);
            }
        }
        if images.len() > Self::MAX_IMAGES {
            return Err(PolicyError::TooMany);
        }
        let new = images.len() - self.images.len();
        self.images = images;
        Ok(new)
    }
}

impl BoundFile {
    fn into_bound(self) -> Result<Bound, PolicyError> {
        let bytes = |key: &str, text: Option<String>| text.map(|text| hex_bytes(key, &text)).transpose();
        let report_data =
            self.report_data.map(|text| hex_array("bound.report_data", &text, "128 hex digits")).transpose()?;
        Ok(Bound {
            user_data: bytes("bound.user_data", self.user_data)?,
            nonce: bytes("bound.nonce", self.nonce)?,
            public_key: bytes("bound.public_key", self.public_key)?,
            report_data,
        })
    }
}

impl NitroFile {
    fn into_rules(self) -> Result<NitroRules, PolicyError> {
        Ok(NitroRules { anchors: roots("nitro", self.roots, AWS, TrustAnchor::aws_nitro)? })
    }
}

impl SnpFile {
    fn into_rules(self) -> Result<SnpRules, PolicyError> {
        const ROOTS: &str = "a product (Milan, Genoa or Turin) for AMD's own root, or PRODUCT:CERTIFICATE in base64";
        let all = || Product::ALL.map(|product| product.to_string()).to_vec();
        let texts = self.roots.unwrap_or_else(all);
        let anchors = texts.iter().map(|text| {
            let (name, certificate) =
                text.split_once(':').map_or((text.as_str(), None), |(name, der)| (name, Some(der)));
            let product = Product::from_name(name).ok_or_else(|| wrong("sev-snp.roots", text, ROOTS))?;
            let anchor = certificate.map_or(Ok(TrustAnchor::amd(product)), |der| root("sev-snp.roots", der))?;
            Ok((product, anchor))
        });
        let anchors: Vec<_> = anchors.collect::<Result<_, PolicyError>>()?;
        if anchors.is_empty() {
            return Err(wrong("sev-snp.roots", "[]", ROOTS));
        }
        let both = || vec!["vcek".to_owned(), "vlek".to_owned()];
        let signers = self.signers.unwrap_or_else(both);
        let signers = signers.iter().map(|text| match text.as_str() {
            "vcek" => Ok(SnpSigner::Vcek),
            "vlek" => Ok(SnpSigner::Vlek),
            other => Err(wrong("sev-snp.signers", other, "vcek, vlek")),
        });
        let min_tcb = self.min_tcb.into_iter().map(|(name, TcbFile { fmc, bootloader, tee, snp, microcode })| {
            let product = Product::from_name(&name);
            let product = product.ok_or_else(|| wrong("sev-snp.min_tcb", &name, "Milan, Genoa, Turin"))?;
            Ok((product, SnpTcb { fmc, bootloader, tee, snp, microcode }))
        });
        Ok(SnpRules {
            anchors,
            signers: signers.collect::<Result<_, _>>()?,
            min_tcb: min_tcb.collect::<Result<_, PolicyError>>()?,
            vmpl: self.vmpl,
            allow_migration_agent: self.allow_migration_agent,
            allow_masked_chip: self.allow_masked_chip,
            require_crl: self.require_crl,
        })
    }
}

impl IntelFile {
    fn into_rules(self, section: &str) -> Result<IntelRules, PolicyError> {
        const STATUSES: &str = "Intel's words, such as UpToDate, SWHardeningNeeded, ConfigurationNeeded or OutOfDate";
        let up_to_date = || vec![TcbStatus::UpToDate.name().to_owned()];
        let statuses = self.statuses.unwrap_or_else(up_to_date);
        let statuses = statuses
            .iter()
            .map(|text| TcbStatus::from_name(text).ok_or_else(|| wrong(format!("{section}.statuses"), text, STATUSES)));
        let svn = |key: &str, text: Option<String>| {
            text.map_or(Ok([0; 16]), |text| hex_array(&format!("{section}.{key}"), &text, "32 hex digits"))
        };
        if section == "sgx" && (self.min_tee_tcb_svn.is_some() || self.allow_service_td) {
            return Err(wrong("sgx", "min_tee_tcb_svn or allow_service_td", "these two in [tdx] only"));
        }
        Ok(IntelRules {
            anchors: roots(section, self.roots, INTEL, TrustAnchor::intel)?,
            statuses: statuses.collect::<Result<_, _>>()?,
            allowed_advisories: self.allowed_advisories,
            refused_advisories: self.refused_advisories,
            min_evaluation: self.min_evaluation,
            min_cpu_svn: svn("min_cpu_svn", self.min_cpu_svn)?,
            min_pce_svn: self.min_pce_svn,
            min_tee_tcb_svn: svn("min_tee_tcb_svn", self.min_tee_tcb_svn)?,
            allow_service_td: self.allow_service_td,
        })
    }
}

impl ImageFile {
    /// The image, and its signature if it has one.
    fn into_image(self) -> Result<(Image, Option<[u8; 64]>), PolicyError> {
        const REGISTERS: &str = "a register such as pcr0, measurement, mrenclave or mrtd, or name, platform, not_before, \
                                 not_after, product, min_svn, signature";
        let platform = Platform::from_id(&self.platform);
        let platform = platform.ok_or_else(|| wrong("image.platform", &self.platform, "nitro, sev-snp, sgx, tdx"))?;
        let registers = self.registers.iter().map(|(name, text)| {
            let register: Register = name.parse().map_err(|()| wrong("image", name, REGISTERS))?;
            Ok((register, hex_bytes(&format!("image.{name}"), text)?))
        });
        let image = Image {
            registers: registers.collect::<Result<_, PolicyError>>()?,
            name: self.name,
            platform,
            product: self.product,
            min_svn: self.min_svn,
            window: Window {
                not_before_unix: self.not_before.unwrap_or(Window::ALWAYS.not_before_unix),
                not_after_unix: self.not_after.unwrap_or(Window::ALWAYS.not_after_unix),
            },
        };
        image.check()?;
        let signature = self.signature.map(|text| hex_array("image.signature", &text, "128 hex digits")).transpose()?;
        Ok((image, signature))
    }

    fn of(image: &Image) -> Self {
        let Window { not_before_unix, not_after_unix } = image.window;
        Self {
            name: image.name.clone(),
            platform: image.platform.id().to_owned(),
            not_before: Some(not_before_unix).filter(|unix| *unix != Window::ALWAYS.not_before_unix),
            // TOML's numbers end at 2^63; nothing of ours lives that long.
            not_after: Some(not_after_unix).filter(|unix| i64::try_from(*unix).is_ok()),
            product: image.product,
            min_svn: image.min_svn,
            signature: None,
            registers: image
                .registers
                .iter()
                .map(|(register, value)| (register.to_string(), hex::encode(value)))
                .collect(),
        }
    }
}

fn root_text(anchor: &TrustAnchor, vendor: &str, own: &TrustAnchor) -> String {
    if anchor == own { vendor.to_owned() } else { BASE64.encode(anchor.der()) }
}

impl File {
    fn of(policy: &Policy) -> Self {
        let hexed = |bytes: &Option<Vec<u8>>| bytes.as_ref().map(hex::encode);
        let seconds = |duration: Duration| duration.as_secs().min(i64::MAX.unsigned_abs());
        Self {
            max_age: seconds(policy.max_age),
            clock_skew: seconds(policy.clock_skew),
            allow_debug: policy.allow_debug,
            any_image: policy.any_image,
            release_keys: policy.release_keys.iter().map(hex::encode).collect(),
            bound: BoundFile {
                user_data: hexed(&policy.bound.user_data),
                nonce: hexed(&policy.bound.nonce),
                public_key: hexed(&policy.bound.public_key),
                report_data: policy.bound.report_data.map(hex::encode),
            },
            nitro: policy.nitro.as_ref().map(|rules| {
                let own = TrustAnchor::aws_nitro();
                NitroFile { roots: Some(rules.anchors.iter().map(|anchor| root_text(anchor, AWS, &own)).collect()) }
            }),
            snp: policy.snp.as_ref().map(SnpFile::of),
            sgx: policy.sgx.as_ref().map(|rules| IntelFile::of(rules, Platform::Sgx)),
            tdx: policy.tdx.as_ref().map(|rules| IntelFile::of(rules, Platform::Tdx)),
            images: policy.images.iter().map(ImageFile::of).collect(),
        }
    }
}

impl SnpFile {
    fn of(rules: &SnpRules) -> Self {
        let root = |(product, anchor): &(Product, TrustAnchor)| {
            let own = *anchor == TrustAnchor::amd(*product);
            if own { product.to_string() } else { format!("{product}:{}", BASE64.encode(anchor.der())) }
        };
        let floor = |(product, tcb): (&Product, &SnpTcb)| {
            let SnpTcb { fmc, bootloader, tee, snp, microcode } = *tcb;
            (product.to_string(), TcbFile { fmc, bootloader, tee, snp, microcode })
        };
        Self {
            roots: Some(rules.anchors.iter().map(root).collect()),
            signers: Some(rules.signers.iter().map(|signer| signer.to_string().to_lowercase()).collect()),
            vmpl: rules.vmpl,
            allow_migration_agent: rules.allow_migration_agent,
            allow_masked_chip: rules.allow_masked_chip,
            require_crl: rules.require_crl,
            min_tcb: rules.min_tcb.iter().map(floor).collect(),
        }
    }
}

impl IntelFile {
    fn of(rules: &IntelRules, platform: Platform) -> Self {
        let own = TrustAnchor::intel();
        let svn = |svn: &[u8; 16]| svn.iter().any(|byte| *byte != 0).then(|| hex::encode(svn));
        Self {
            roots: Some(rules.anchors.iter().map(|anchor| root_text(anchor, INTEL, &own)).collect()),
            statuses: Some(rules.statuses.iter().map(ToString::to_string).collect()),
            allowed_advisories: rules.allowed_advisories.clone(),
            refused_advisories: rules.refused_advisories.clone(),
            min_evaluation: rules.min_evaluation,
            min_cpu_svn: svn(&rules.min_cpu_svn),
            min_pce_svn: rules.min_pce_svn,
            min_tee_tcb_svn: svn(&rules.min_tee_tcb_svn).filter(|_| platform == Platform::Tdx),
            allow_service_td: rules.allow_service_td && platform == Platform::Tdx,
        }
    }
}

/// The policy as the file that [`Policy::parse`] reads: every rule, those that were left out as well.
impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&toml::to_string(&File::of(self)).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    const NITRO: &str = "[nitro]\n[[image]]\nplatform = \"nitro\"\nname = \"mine\"\n";

    fn pcrs(from: u8) -> String {
        (0..3).fold(String::new(), |text, index| {
            text + &format!("pcr{index} = \"{}\"\n", hex::encode([from + index; 48]))
        })
    }

    fn refusal(text: &str) -> String {
        Policy::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn what_is_printed_reads_as_the_same() {
        let mut full = Policy::genuine();
        full.any_image = false;
        full.bound.report_data = Some([7; 64]);
        full.bound.nonce = Some(Vec::new());
        full.release_keys = vec![[3; 32]];
        let snp = full.snp.as_mut().unwrap();
        snp.min_tcb.insert(Product::Turin, SnpTcb { fmc: 1, bootloader: 2, tee: 3, snp: 4, microcode: 5 });
        snp.anchors[0].1 = TrustAnchor::amd(Product::Turin);
        let tdx = full.tdx.as_mut().unwrap();
        tdx.statuses.extend(TcbStatus::ALL);
        tdx.min_tee_tcb_svn = [1; 16];
        tdx.allow_service_td = true;
        tdx.allowed_advisories = Some(["INTEL-SA-00001".to_owned()].into());
        let image = |platform, register: Register| Image {
            name: "x".to_owned(),
            platform,
            registers: [(register, vec![1; register.bytes()])].into(),
            product: None,
            min_svn: None,
            window: Window { not_before_unix: 5, not_after_unix: 9 },
        };
        full.images = vec![
            image(Platform::Nitro, Register::Pcr(8)),
            image(Platform::SevSnp, Register::Measurement),
            image(Platform::Sgx, Register::MrEnclave),
            image(Platform::Tdx, Register::MrTd),
        ];
        for policy in [full, Policy::genuine(), Policy::parse(&(NITRO.to_owned() + &pcrs(1))).unwrap()] {
            let text = policy.to_string();
            assert_eq!(Policy::parse(&text).as_ref(), Ok(&policy), "{text}");
        }
    }

    #[test]
    fn a_missing_word_is_the_strict_choice() {
        let policy = Policy::parse("[nitro]\n[sev-snp]\n[sgx]\n[tdx]\n").unwrap();
        assert_eq!(policy, Policy { any_image: false, ..Policy::genuine() });
        assert!(!policy.allow_debug && policy.max_age == Duration::from_mins(5));
        assert_eq!(policy.tdx.unwrap().statuses, [TcbStatus::UpToDate].into());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (text, words) in [
            ("", "allows no platform"),
            ("[nitro", "line 1"),
            ("[nitro]\nrotos = []", "rotos"),
            ("[nitro]\nroots = []", "nitro.roots"),
            ("[nitro]\nroots = [\"gcp\"]", "nitro.roots"),
            ("[sev-snp]\nroots = [\"Rome\"]", "Rome"),
            ("[sev-snp]\nsigners = [\"ARK\"]", "vcek, vlek"),
            ("[sev-snp.min_tcb.Rome]\nsnp = 1", "Rome"),
            ("[sev-snp.min_tcb.Milan]\nsnp = 256", "256"),
            ("[sgx]\nstatuses = [\"Revoked\"]", "sgx.statuses"),
            ("[sgx]\nallow_service_td = true", "[tdx] only"),
            ("[tdx]\nmin_cpu_svn = \"00\"", "tdx.min_cpu_svn"),
            ("release_keys = [\"00\"]\n[nitro]", "release_keys"),
            ("[nitro]\n[bound]\nnonce = \"x\"", "bound.nonce"),
            ("[nitro]\n[bound]\nreport_data = \"00\"", "bound.report_data"),
        ] {
            assert!(refusal(text).contains(words), "{text}: {}", refusal(text));
        }
        let image = |lines: &str| refusal(&format!("{NITRO}{lines}"));
        assert!(image("").contains("pcr0, pcr1 and pcr2"));
        assert!(image("pcr0 = \"00\"").contains('1'), "{}", image("pcr0 = \"00\""));
        assert!(image(&(pcrs(1) + "mrtd = \"00\"")).contains("mrtd"));
        assert!(image(&(pcrs(1) + "pcr32 = \"00\"")).contains("pcr32"));
        assert!(image(&(pcrs(1) + "min_svn = 1")).contains("min_svn"));
        assert!(image(&(pcrs(1) + "not_before = 2\nnot_after = 1")).contains("ends before"));
        assert!(image(&format!("pcr8 = \"{}\"", "00".repeat(48))).contains("nobody signed"));
    }

    #[test]
    fn signed_images_need_no_trusted_file() {
        let key = SigningKey::from_bytes(&[3; 32]);
        let mut policy = Policy::parse("[nitro]").unwrap();
        policy.release_keys = vec![key.verifying_key().to_bytes()];
        let unsigned = format!("{}{}not_after = 9\n", NITRO.trim_start_matches("[nitro]\n"), pcrs(1));
        assert!(matches!(policy.add_images(&unsigned), Err(PolicyError::NotSigned { .. })));
        let mut trusted = Policy::parse(&format!("[nitro]\n{unsigned}")).unwrap();
        let image = trusted.images.remove(0);
        let signature = hex::encode(key.sign(&image.signed_bytes()).to_bytes());
        let signed = format!("{unsigned}signature = \"{signature}\"\n");
        for other in ["not_after = 9\n", "mine"] {
            let changed = signed.replace(other, if other == "mine" { "yours" } else { "not_after = 10\n" });
            assert!(matches!(policy.add_images(&changed), Err(PolicyError::NotSigned { .. })), "{changed}");
        }
        assert_eq!(policy.add_images(&signed), Ok(1));
        assert_eq!(policy.add_images(&signed), Ok(0));
        assert_eq!(policy.images, [image]);
        policy.release_keys.clear();
        assert!(policy.add_images(&signed).is_err(), "nobody may sign");
    }
}
