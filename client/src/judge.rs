//! Whether to believe a node: the check that stands between a device and its lock key.
//!
//! Everything here is a pure function of what the node sent, what this device trusts, and the time.

use std::sync::Arc;
use std::time::Duration;

use casemate_attestation::{Bound, Claims, Collateral, MeasurementSet, Policy, Refusal, TrustAnchor};
use casemate_protocol::id::VaultId;
use casemate_protocol::limits;
use casemate_protocol::link::AttestReply;
use casemate_protocol::statement::{Credentials, Statement};
use casemate_protocol::trust::{ClusterId, TrustConfiguration, node_user_data};
use ed25519_dalek::{Signature, VerifyingKey};

use crate::trust::{Roots, Trust};

/// Evidence is renewed at least hourly; twice that forgives a renewal that had to be tried again.
pub const MAX_AGE: Duration = Duration::from_hours(2);
/// By how much a security module's clock may be ahead of ours.
pub const CLOCK_SKEW: Duration = Duration::from_mins(5);
const NITRO: u8 = 0;

/// Why a node is not believed. Nothing was sent to it but a handshake's first message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Distrust {
    /// Nothing is pinned.
    #[error("this home trusts no cluster yet")]
    NoCluster,
    /// No image is trusted.
    #[error("this home trusts no image yet")]
    NoImages,
    /// A platform that this client cannot judge.
    #[error("the node's platform (number {0}) is not one that this client can judge")]
    Platform(u8),
    /// Larger than evidence is.
    #[error("the node's evidence is larger than any that is genuine")]
    EvidenceTooLarge,
    /// Another cluster than the pinned one.
    #[error("the node belongs to cluster {found}, and this device is pinned to {pinned}")]
    Cluster {
        /// Pinned.
        pinned: ClusterId,
        /// SHA-256 of the trust configuration that the node showed.
        found: ClusterId,
    },
    /// The trust configuration has the right hash but not the right form.
    #[error("the node's trust configuration is not of a form that this client knows")]
    TrustConfiguration,
    /// The evidence is not genuine, not fresh, or of another image, node or cluster.
    #[error("the node's evidence is refused: {0}")]
    Evidence(Refusal),
    /// An older release than one that was accepted.
    #[error("the node runs release {found}, and this device has accepted release {highest} already")]
    OldRelease {
        /// What the node runs.
        found: u64,
        /// The highest accepted.
        highest: u64,
    },
    /// The identity key is not an Ed25519 key.
    #[error("the node's identity key is no valid key")]
    Identity,
    /// The statement's signature does not verify.
    #[error("the node did not sign the statement that names this vault's session key")]
    StatementSignature,
    /// The statement names another vault.
    #[error("the node's statement is for vault {0}")]
    StatementVault(VaultId),
    /// The statement names another key than the session has.
    #[error(
        "the node's statement names another key than the one that this session is with: somebody stands in between"
    )]
    StatementKey,
    /// The statement has ended.
    #[error("the node's statement ended at {not_after}, and it is {now} (Unix seconds)")]
    StatementEnded {
        /// Its end.
        not_after: u64,
        /// Now.
        now: u64,
    },
}

impl Distrust {
    /// A stable name for programs.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NoCluster | Self::NoImages => "nothing_trusted",
            Self::Platform(_) => "platform_unknown",
            Self::EvidenceTooLarge | Self::Evidence(_) => "evidence_refused",
            Self::Cluster { .. } => "other_cluster",
            Self::TrustConfiguration => "trust_configuration_malformed",
            Self::OldRelease { .. } => "old_release",
            Self::Identity => "identity_malformed",
            Self::StatementSignature | Self::StatementVault(_) | Self::StatementKey => "statement_refused",
            Self::StatementEnded { .. } => "statement_ended",
        }
    }

    /// What to do about it.
    pub const fn remedy(&self) -> &'static str {
        match self {
            Self::NoCluster | Self::NoImages => {
                "Get the trust file from whoever built the enclave image and add it: `casemate trust add FILE`. Do not take it from the node's operator."
            }
            Self::Platform(_) => "Upgrade this program, or use a node on AWS Nitro.",
            Self::EvidenceTooLarge | Self::Identity | Self::TrustConfiguration => {
                "Do not use this node. If it should be genuine, upgrade this program and tell the operator."
            }
            Self::Cluster { .. } => {
                "Check the NATS address: it leads to another deployment. If the cluster was set up anew, its vaults are new too: use a fresh CASEMATE_HOME."
            }
            Self::Evidence(Refusal::TooOld { .. } | Refusal::FromTheFuture { .. }) => {
                "Check this machine's clock; if it is right, the node's evidence is not renewed: tell the operator."
            }
            Self::Evidence(Refusal::Measurement { .. } | Refusal::NoMeasurements { .. }) => {
                "If the image was upgraded, add its trust file (`casemate trust add FILE`) after checking where it comes from; otherwise do not use this node."
            }
            Self::Evidence(Refusal::Debug { .. }) => {
                "Never use a debug enclave: its host can read everything. Tell the operator."
            }
            Self::Evidence(_) => {
                "Do not use this node: what it shows is not genuine for this device. Tell the operator."
            }
            Self::OldRelease { .. } => {
                "The operator must upgrade the node; an older release may have known weaknesses."
            }
            Self::StatementSignature | Self::StatementVault(_) | Self::StatementKey => {
                "Do not use this connection: somebody on the way imitates the vault. Tell the operator's security contact."
            }
            Self::StatementEnded { .. } => {
                "Check this machine's clock; if it is right, try again: the node renews its statements."
            }
        }
    }
}

/// Which trusted image a node runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Image {
    /// A signed release.
    Release(u64),
    /// A self-built image, by its name.
    SelfBuilt(String),
}

/// What was believed, and why: for people to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// The image.
    pub image: Image,
    /// Everything that the evidence says.
    pub claims: Claims,
    /// The cluster.
    pub cluster: ClusterId,
    /// What the node was told.
    pub configuration: TrustConfiguration,
    /// The node's identity key.
    pub identity: [u8; 32],
    /// Whether the evidence proves nothing outside a developer's machine.
    pub is_development: bool,
}

/// What a judgement rests on.
#[derive(Debug, Clone, Copy)]
pub struct Grounds<'a> {
    /// What is compiled in.
    pub roots: &'a Roots,
    /// What this home trusts.
    pub trust: &'a Trust,
    /// Unix seconds.
    pub now: u64,
}

struct Shown<'a> {
    platform: u8,
    evidence: &'a [u8],
    trust_configuration: &'a [u8],
    identity: &'a [u8; 32],
    nonce: Option<&'a [u8]>,
}

impl Grounds<'_> {
    /// Judges the credentials of handshake message 2. `remote_static` is the key that the other side has proved to hold.
    ///
    /// # Errors
    /// The first rule that they break.
    pub fn judge_vault(
        &self,
        credentials: &Credentials,
        remote_static: &[u8; 32],
        vault: VaultId,
        pinned: ClusterId,
    ) -> Result<Trusted, Distrust> {
        let shown = Shown {
            platform: credentials.platform,
            evidence: &credentials.evidence,
            trust_configuration: &credentials.trust_configuration,
            identity: &credentials.identity,
            nonce: None,
        };
        let trusted = self.judge_node(&shown, pinned)?;
        self.judge_statement(&credentials.statement, &credentials.identity, remote_static, vault)?;
        Ok(trusted)
    }

    /// Judges the answer to a question on the `attest` subject.
    ///
    /// # Errors
    /// The first rule that it breaks.
    pub fn judge_answer(&self, answer: &AttestReply, nonce: &[u8], pinned: ClusterId) -> Result<Trusted, Distrust> {
        let shown = Shown {
            platform: answer.platform,
            evidence: &answer.evidence,
            trust_configuration: &answer.trust_configuration,
            identity: &answer.identity,
            nonce: Some(nonce),
        };
        self.judge_node(&shown, pinned)
    }

    fn images(&self) -> impl Iterator<Item = (Image, MeasurementSet)> {
        let built = self.trust.images().iter();
        let built = built.map(|image| (Image::SelfBuilt(image.name.clone()), image.measurements.into()));
        let releases = self.roots.releases.iter().chain(self.trust.releases());
        let genuine = releases.filter(|release| release.is_genuine(&self.roots.release_keys));
        built.chain(genuine.map(|release| (Image::Release(release.number), release.measurements.into())))
    }

    fn judge_node(&self, shown: &Shown<'_>, pinned: ClusterId) -> Result<Trusted, Distrust> {
        if shown.platform != NITRO {
            return Err(Distrust::Platform(shown.platform));
        }
        if shown.evidence.len() > limits::EVIDENCE_BYTES {
            return Err(Distrust::EvidenceTooLarge);
        }
        let cluster = ClusterId::of(shown.trust_configuration);
        if cluster != pinned {
            return Err(Distrust::Cluster { pinned, found: cluster });
        }
        let configuration =
            TrustConfiguration::decode(shown.trust_configuration).map_err(|_| Distrust::TrustConfiguration)?;
        let images: Vec<_> = self.images().collect();
        if images.is_empty() {
            return Err(Distrust::NoImages);
        }
        let claims = self.verify(shown, cluster, &images)?;
        let image = self.choose_image(&images, &claims)?;
        let genuine = self.roots.anchors.iter().find(|anchor| *anchor.fingerprint() == claims.anchor_fingerprint);
        let is_development = genuine != Some(&TrustAnchor::aws_nitro());
        Ok(Trusted { image, claims, cluster, configuration, identity: *shown.identity, is_development })
    }

    fn verify(
        &self,
        shown: &Shown<'_>,
        cluster: ClusterId,
        images: &[(Image, MeasurementSet)],
    ) -> Result<Claims, Distrust> {
        let mut refused = Distrust::NoImages;
        for anchor in &self.roots.anchors {
            let policy = Policy {
                max_age: MAX_AGE,
                clock_skew: CLOCK_SKEW,
                bound: Bound {
                    nonce: shown.nonce.map(<[u8]>::to_vec),
                    // Attack stopped: genuine evidence of another node, or of a node with another configuration.
                    user_data: Some(node_user_data(shown.identity, cluster).to_vec()),
                    public_key: Some(shown.identity.to_vec()),
                    report_data: None,
                },
                ..Policy::nitro(anchor.clone(), images.iter().map(|(_, measurements)| *measurements))
            };
            match self.roots.verified.verify(shown.evidence, &Collateral::NONE, self.now, &policy) {
                Ok(claims) => return Ok(Arc::unwrap_or_clone(claims)),
                Err(refusal) => refused = Distrust::Evidence(refusal),
            }
        }
        Err(refused)
    }

    /// The matching image; of several the one that a person added, then the newest release.
    fn choose_image(&self, images: &[(Image, MeasurementSet)], claims: &Claims) -> Result<Image, Distrust> {
        let matching = || {
            images
                .iter()
                .filter(|(_, measurements)| claims.measurements.image() == Some(*measurements))
                .map(|(image, _)| image)
        };
        if let Some(built) = matching().find(|image| matches!(image, Image::SelfBuilt(_))) {
            return Ok(built.clone());
        }
        let number = |image: &Image| match image {
            Image::Release(number) => Some(*number),
            Image::SelfBuilt(_) => None,
        };
        // The policy has found one of them, so there is a number.
        let found = matching().filter_map(number).max().ok_or(Distrust::NoImages)?;
        match self.trust.highest_release() {
            // Attack stopped: a host that goes back to a release with a known weakness.
            Some(highest) if found < highest => Err(Distrust::OldRelease { found, highest }),
            _ => Ok(Image::Release(found)),
        }
    }

    fn judge_statement(
        &self,
        statement: &Statement,
        identity: &[u8; 32],
        remote_static: &[u8; 32],
        vault: VaultId,
    ) -> Result<(), Distrust> {
        let key = VerifyingKey::from_bytes(identity).map_err(|_| Distrust::Identity)?;
        let signed = Statement::signed_bytes(statement.vault, &statement.static_key, statement.not_after);
        key.verify_strict(&signed, &Signature::from_bytes(&statement.signature))
            .map_err(|_| Distrust::StatementSignature)?;
        if statement.vault != vault {
            return Err(Distrust::StatementVault(statement.vault));
        }
        if statement.static_key != *remote_static {
            return Err(Distrust::StatementKey);
        }
        if statement.not_after <= self.now {
            return Err(Distrust::StatementEnded { not_after: statement.not_after, now: self.now });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trust::tests::{file, roots};
    use casemate_protocol::codec;
    use ed25519_dalek::{Signer, SigningKey};

    const NOW: u64 = 1_700_000_000;
    const VAULT: VaultId = VaultId::from_bytes([4; 20]);

    fn statement(key: &SigningKey) -> Statement {
        let signature = key.sign(&Statement::signed_bytes(VAULT, &[9; 32], NOW + 1)).to_bytes();
        Statement { vault: VAULT, static_key: [9; 32], not_after: NOW + 1, signature }
    }

    fn configuration() -> Vec<u8> {
        codec::encode(&TrustConfiguration {
            format: 1,
            kms_key_arn: "arn:aws:kms:us-east-1:111122223333:key/x".to_owned(),
            region: "us-east-1".to_owned(),
            release_keys: Vec::new(),
        })
    }

    fn credentials(key: &SigningKey) -> Credentials {
        Credentials {
            platform: 0,
            evidence: vec![0; 100],
            trust_configuration: configuration(),
            identity: key.verifying_key().to_bytes(),
            statement: statement(key),
        }
    }

    /// The statement's rules, one by one; evidence has its own tests, and behaviours with genuine development evidence are tested
    /// against the running system.
    #[test]
    fn each_break_of_a_statement_has_its_own_refusal() {
        let (roots, trust) = (roots(), Trust::default());
        let grounds = Grounds { roots: &roots, trust: &trust, now: NOW };
        let (key, other) = (SigningKey::from_bytes(&[1; 32]), SigningKey::from_bytes(&[2; 32]));
        let identity = key.verifying_key().to_bytes();
        let good = statement(&key);
        let resigned = |mut statement: Statement| {
            let signed = Statement::signed_bytes(statement.vault, &statement.static_key, statement.not_after);
            statement.signature = key.sign(&signed).to_bytes();
            statement
        };
        let elsewhere = VaultId::from_bytes([5; 20]);
        let cases = [
            (good.clone(), Ok(())),
            (statement(&other), Err(Distrust::StatementSignature)),
            (Statement { not_after: NOW + 9, ..good.clone() }, Err(Distrust::StatementSignature)),
            (resigned(Statement { vault: elsewhere, ..good.clone() }), Err(Distrust::StatementVault(elsewhere))),
            (resigned(Statement { static_key: [8; 32], ..good.clone() }), Err(Distrust::StatementKey)),
            (
                resigned(Statement { not_after: NOW, ..good.clone() }),
                Err(Distrust::StatementEnded { not_after: NOW, now: NOW }),
            ),
        ];
        for (statement, expected) in cases {
            assert_eq!(grounds.judge_statement(&statement, &identity, &[9; 32], VAULT), expected);
        }
        let mut torsion = [0; 32];
        torsion[0] = 1;
        let weak = Statement { signature: [0; 64], ..good };
        assert_eq!(
            grounds.judge_statement(&weak, &torsion, &[9; 32], VAULT),
            Err(Distrust::StatementSignature),
            "a key of small order signs everything"
        );
    }

    #[test]
    fn what_surrounds_the_evidence() {
        let (roots, key) = (roots(), SigningKey::from_bytes(&[1; 32]));
        let pinned = ClusterId::of(&configuration());
        let judge = |trust: &Trust, credentials: &Credentials, pinned| {
            Grounds { roots: &roots, trust, now: NOW }.judge_vault(credentials, &[9; 32], VAULT, pinned).unwrap_err()
        };
        let (empty, mut trust) = (Trust::default(), Trust::default());
        trust.add(&file(1, 10), &roots).unwrap();
        let good = credentials(&key);
        assert_eq!(judge(&empty, &good, pinned), Distrust::NoImages);
        assert!(matches!(judge(&trust, &good, pinned), Distrust::Evidence(_)));
        assert_eq!(judge(&trust, &Credentials { platform: 3, ..good.clone() }, pinned), Distrust::Platform(3));
        let other = ClusterId([0; 32]);
        assert_eq!(judge(&trust, &good, other), Distrust::Cluster { pinned: other, found: pinned });
        let large = Credentials { evidence: vec![0; limits::EVIDENCE_BYTES + 1], ..good.clone() };
        assert_eq!(judge(&trust, &large, pinned), Distrust::EvidenceTooLarge);
        let strange = Credentials { trust_configuration: vec![0xa0], ..good };
        assert_eq!(judge(&trust, &strange, ClusterId::of(&[0xa0])), Distrust::TrustConfiguration);
    }
}
