//! What a device believes: images by their measurements, and one cluster.
//!
//! It never comes from a node, an operator or first use. Releases are signed by keys that are compiled into the client; a self-built
//! image is added by a person, with `casemate trust add FILE`, and nothing else.

use std::num::NonZeroUsize;
use std::sync::Arc;

use casemate_attestation::{Cache, MeasurementSet, TrustAnchor};
use casemate_protocol::label;
use casemate_protocol::trust::ClusterId;
use ed25519_dalek::{Signature, VerifyingKey};
use serde::{Deserialize, Serialize};

use crate::encoding;

/// Documents whose signatures are remembered: a few nodes', before and after they renewed theirs.
const REMEMBERED: NonZeroUsize = NonZeroUsize::new(16).expect("not zero");

/// What is compiled in: the caller's `main` names it, and nothing else can.
#[derive(Debug, Clone)]
pub struct Roots {
    /// The roots of platforms that are believed.
    pub anchors: Vec<TrustAnchor>,
    /// Ed25519 public keys that sign releases.
    pub release_keys: Vec<[u8; 32]>,
    /// The releases known when the client was built.
    pub releases: Vec<SignedRelease>,
    /// Evidence that led to one of the anchors before.
    pub verified: Arc<Cache>,
}

impl Roots {
    /// What the released client believes: AWS's root, and no release yet. A fresh one therefore trusts no node until a trust file is
    /// added. A release adds its key and its signed measurements here.
    pub fn released() -> Self {
        Self::of(TrustAnchor::aws_nitro())
    }

    /// One platform root and no release.
    pub fn of(anchor: TrustAnchor) -> Self {
        let verified = Arc::new(Cache::new(REMEMBERED));
        Self { anchors: vec![anchor], release_keys: Vec::new(), releases: Vec::new(), verified }
    }

    /// Whether any root is not a platform vendor's own: evidence then proves nothing outside a developer's machine.
    pub fn is_development(&self) -> bool {
        self.anchors.iter().any(|anchor| *anchor != TrustAnchor::aws_nitro())
    }
}

/// The measurements of an image, as files carry them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measurements {
    /// The whole image.
    #[serde(with = "encoding::hexed")]
    pub pcr0: [u8; 48],
    /// Kernel, command line and first ramdisk.
    #[serde(with = "encoding::hexed")]
    pub pcr1: [u8; 48],
    /// Further ramdisks: the application.
    #[serde(with = "encoding::hexed")]
    pub pcr2: [u8; 48],
}

impl From<Measurements> for MeasurementSet {
    fn from(Measurements { pcr0, pcr1, pcr2 }: Measurements) -> Self {
        Self { pcr0, pcr1, pcr2 }
    }
}

impl Measurements {
    fn has_debug_register(&self) -> bool {
        MeasurementSet::from(*self).debug_register().is_some()
    }
}

/// An image that its owner built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SelfBuilt {
    /// A name for people.
    pub name: String,
    /// Its measurements.
    #[serde(flatten)]
    pub measurements: Measurements,
}

/// A release with its signature.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRelease {
    /// Its number: higher is newer.
    pub number: u64,
    /// Its measurements.
    #[serde(flatten)]
    pub measurements: Measurements,
    /// Ed25519 by a release key over [`SignedRelease::signed_bytes`].
    #[serde(with = "encoding::hexed")]
    pub signature: [u8; 64],
}

impl SignedRelease {
    /// The signature's input: label `casemate/release/v1`, number, PCR0–2.
    pub fn signed_bytes(number: u64, measurements: &Measurements) -> Vec<u8> {
        let Measurements { pcr0, pcr1, pcr2 } = measurements;
        label::info("casemate/release/v1", &[&number.to_be_bytes(), pcr0, pcr1, pcr2])
    }

    /// Whether one of `release_keys` signed it.
    pub fn is_genuine(&self, release_keys: &[[u8; 32]]) -> bool {
        let signed = Self::signed_bytes(self.number, &self.measurements);
        let signature = Signature::from_bytes(&self.signature);
        release_keys
            .iter()
            .filter_map(|key| VerifyingKey::from_bytes(key).ok())
            .any(|key| key.verify_strict(&signed, &signature).is_ok())
    }
}

/// A file for `casemate trust add`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrustFile {
    /// The cluster id, hex.
    pub cluster: ClusterText,
    /// Self-built images.
    #[serde(default, rename = "image")]
    pub images: Vec<SelfBuilt>,
    /// Signed releases.
    #[serde(default, rename = "release")]
    pub releases: Vec<SignedRelease>,
}

/// A cluster id as hex.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ClusterText(#[serde(with = "encoding::hexed")] pub [u8; 32]);

/// Why a trust file was not added.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TrustError {
    /// Another cluster is pinned.
    #[error("this home is pinned to cluster {pinned}, and the file names cluster {found}")]
    OtherCluster {
        /// Pinned.
        pinned: ClusterId,
        /// In the file.
        found: ClusterId,
    },
    /// Neither images nor releases.
    #[error("the file names no image and no release")]
    Empty,
    /// Zero measurements.
    #[error("image {0:?} has a measurement of zeros, which is how a debug enclave looks")]
    Debug(String),
    /// A name that would confuse a terminal.
    #[error("an image's name has 1 to 64 characters and no control characters")]
    Name,
    /// A release that no release key signed.
    #[error("release {0} is not signed by a release key of this client")]
    NotSigned(u64),
    /// A release below the highest that was accepted.
    #[error("release {number} is older than release {highest}, which this home has accepted already")]
    OldRelease {
        /// In the file.
        number: u64,
        /// Accepted.
        highest: u64,
    },
    /// More than a home keeps.
    #[error("a home trusts at most {0} images")]
    TooMany(usize),
}

impl TrustError {
    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::OtherCluster { .. } => {
                "Use another CASEMATE_HOME for another cluster; vaults do not move between clusters."
            }
            Self::Empty => "Add an [[image]] with name, pcr0, pcr1 and pcr2; `casemate trust add --help` shows one.",
            Self::Debug(_) => {
                "Build the image and take the measurements that the build prints; never trust a debug enclave."
            }
            Self::Name => "Give the image a short name.",
            Self::NotSigned(_) => {
                "Take the release from its publisher, or upgrade this program if the release key was replaced."
            }
            Self::OldRelease { .. } => "Take the newest release; an older one may have known weaknesses.",
            Self::TooMany(_) => "Start with a fresh CASEMATE_HOME, or trust signed releases instead.",
        }
    }
}

/// What a home trusts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Trust {
    format: u8,
    cluster: Option<ClusterText>,
    images: Vec<SelfBuilt>,
    releases: Vec<SignedRelease>,
    highest_release: Option<u64>,
}

impl Default for Trust {
    fn default() -> Self {
        Self { format: Self::FORMAT, cluster: None, images: Vec::new(), releases: Vec::new(), highest_release: None }
    }
}

impl Trust {
    /// The format of [`Trust`] in a file.
    pub const FORMAT: u8 = 1;
    /// Images and releases that a home keeps at most.
    pub const LIMIT: usize = 256;

    /// The format that the file named.
    pub const fn format(&self) -> u8 {
        self.format
    }

    /// The pinned cluster.
    pub fn cluster(&self) -> Option<ClusterId> {
        self.cluster.map(|ClusterText(id)| ClusterId(id))
    }

    /// The self-built images.
    pub fn images(&self) -> &[SelfBuilt] {
        &self.images
    }

    /// The releases that were added.
    pub fn releases(&self) -> &[SignedRelease] {
        &self.releases
    }

    /// The highest release whose evidence was accepted.
    pub const fn highest_release(&self) -> Option<u64> {
        self.highest_release
    }

    /// Adds a trust file, all of it or nothing; returns how much of it was new.
    ///
    /// # Errors
    /// See [`TrustError`].
    pub fn add(&mut self, file: &TrustFile, roots: &Roots) -> Result<usize, TrustError> {
        let found = ClusterId(file.cluster.0);
        if let Some(pinned) = self.cluster()
            && pinned != found
        {
            return Err(TrustError::OtherCluster { pinned, found });
        }
        if file.images.is_empty() && file.releases.is_empty() {
            return Err(TrustError::Empty);
        }
        for image in &file.images {
            if !(1..=64).contains(&image.name.chars().count()) || image.name.chars().any(char::is_control) {
                return Err(TrustError::Name);
            }
            if image.measurements.has_debug_register() {
                return Err(TrustError::Debug(image.name.clone()));
            }
        }
        for release in &file.releases {
            if !release.is_genuine(&roots.release_keys) || release.measurements.has_debug_register() {
                return Err(TrustError::NotSigned(release.number));
            }
            if let Some(highest) = self.highest_release.filter(|highest| release.number < *highest) {
                return Err(TrustError::OldRelease { number: release.number, highest });
            }
        }
        let mut changed = self.clone();
        changed.cluster = Some(file.cluster);
        changed.images.extend(file.images.iter().filter(|image| !self.images.contains(image)).cloned());
        changed.releases.extend(file.releases.iter().filter(|release| !self.releases.contains(release)).cloned());
        if changed.images.len() + changed.releases.len() > Self::LIMIT {
            return Err(TrustError::TooMany(Self::LIMIT));
        }
        let new = changed.images.len() + changed.releases.len() - self.images.len() - self.releases.len();
        *self = changed;
        Ok(new)
    }

    /// Evidence of this release was accepted; older ones are refused from now on.
    pub fn accept_release(&mut self, number: u64) {
        self.highest_release = self.highest_release.max(Some(number));
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    pub(crate) fn measurements(seed: u8) -> Measurements {
        Measurements { pcr0: [seed; 48], pcr1: [seed + 1; 48], pcr2: [seed + 2; 48] }
    }

    pub(crate) fn file(cluster: u8, image: u8) -> TrustFile {
        let image = SelfBuilt { name: "mine".to_owned(), measurements: measurements(image) };
        TrustFile { cluster: ClusterText([cluster; 32]), images: vec![image], releases: Vec::new() }
    }

    fn key() -> SigningKey {
        SigningKey::from_bytes(&[3; 32])
    }

    pub(crate) fn release(number: u64, seed: u8) -> SignedRelease {
        let measurements = measurements(seed);
        let signature = key().sign(&SignedRelease::signed_bytes(number, &measurements)).to_bytes();
        SignedRelease { number, measurements, signature }
    }

    pub(crate) fn roots() -> Roots {
        Roots { release_keys: vec![key().verifying_key().to_bytes()], ..Roots::released() }
    }

    #[test]
    fn a_fresh_released_client_trusts_nothing() {
        let roots = Roots::released();
        assert!(roots.releases.is_empty() && !roots.is_development());
        let trust = Trust::default();
        assert!(trust.cluster().is_none() && trust.images().is_empty());
    }

    #[test]
    fn one_home_one_cluster() {
        let mut trust = Trust::default();
        assert_eq!(trust.add(&file(1, 10), &roots()), Ok(1));
        assert_eq!(trust.add(&file(1, 10), &roots()), Ok(0), "adding twice changes nothing");
        assert_eq!(trust.add(&file(1, 20), &roots()), Ok(1));
        let before = trust.clone();
        assert!(matches!(trust.add(&file(2, 30), &roots()), Err(TrustError::OtherCluster { .. })));
        assert_eq!(trust, before);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        let mut trust = Trust::default();
        let mut debug = file(1, 10);
        debug.images[0].measurements.pcr2 = [0; 48];
        assert_eq!(trust.add(&debug, &roots()), Err(TrustError::Debug("mine".to_owned())));
        let mut steering = file(1, 10);
        steering.images[0].name = "\u{1b}[2J".to_owned();
        assert_eq!(trust.add(&steering, &roots()), Err(TrustError::Name));
        let empty = TrustFile { images: Vec::new(), ..file(1, 10) };
        assert_eq!(trust.add(&empty, &roots()), Err(TrustError::Empty));
        assert_eq!(trust, Trust::default());
    }

    #[test]
    fn releases_need_their_signature_and_never_go_back() {
        let with = |release| TrustFile { releases: vec![release], ..file(1, 10) };
        let mut trust = Trust::default();
        let mut forged = release(7, 30);
        forged.number = 8;
        assert_eq!(trust.add(&with(forged), &roots()), Err(TrustError::NotSigned(8)));
        assert_eq!(trust.add(&with(release(7, 30)), &Roots::released()), Err(TrustError::NotSigned(7)));
        assert_eq!(trust.add(&with(release(7, 30)), &roots()), Ok(2));
        trust.accept_release(7);
        trust.accept_release(5);
        assert_eq!(trust.highest_release(), Some(7));
        assert_eq!(trust.add(&with(release(6, 40)), &roots()), Err(TrustError::OldRelease { number: 6, highest: 7 }));
    }

    #[test]
    fn the_file_as_people_write_it() {
        let pcr = |byte: &str| byte.repeat(48);
        let text = format!(
            "cluster = \"{}\"\n[[image]]\nname = \"mine\"\npcr0 = \"{}\"\npcr1 = \"{}\"\npcr2 = \"{}\"\n",
            "01".repeat(32),
            pcr("0a"),
            pcr("0b"),
            pcr("0c"),
        );
        assert_eq!(toml::from_str::<TrustFile>(&text).unwrap(), file(1, 10));
        for wrong in [text.replace("cluster", "clutter"), text.replace("0b0b", "0b"), text.replace("pcr2", "pcr3")] {
            assert!(toml::from_str::<TrustFile>(&wrong).is_err());
        }
    }
}
