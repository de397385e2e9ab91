//! The trust configuration: what a node is told at boot that decides whom it trusts. Its hash names the cluster.

use std::fmt;

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::codec::{self, DecodeError};
use crate::{label, limits};

/// Keys that sign releases, at most.
pub const RELEASE_KEYS: usize = 8;

/// What a node is told at boot, extended into PCR16 and locked before anything else happens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct TrustConfiguration {
    /// The format, 1.
    #[n(0)]
    pub format: u8,
    /// The full ARN of the KMS key.
    #[n(1)]
    pub kms_key_arn: String,
    /// The AWS region of that key.
    #[n(2)]
    pub region: String,
    /// Ed25519 public keys that sign the releases which this node accepts as peers.
    #[cbor(n(3), with = "codec::AtMost::<RELEASE_KEYS>")]
    pub release_keys: Vec<ReleaseKey>,
}

/// An Ed25519 public key that signs releases.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct ReleaseKey(#[cbor(n(0), with = "minicbor::bytes")] pub [u8; 32]);

impl TrustConfiguration {
    /// Parses the bytes that were handed in.
    ///
    /// # Errors
    /// When they are over 4 KiB, not well-formed, or of another format.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let configuration: Self = codec::decode(bytes, limits::TRUST_CONFIGURATION_BYTES)?;
        let fits = configuration.format == 1
            && configuration.kms_key_arn.len() <= 256
            && configuration.region.len() <= 32
            // Two encodings of one configuration would be two clusters.
            && codec::encode(&configuration) == bytes;
        if fits { Ok(configuration) } else { Err(DecodeError::Unexpected) }
    }
}

/// SHA-256 of the trust configuration's bytes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClusterId(pub [u8; 32]);

impl ClusterId {
    /// The cluster that this trust configuration makes.
    pub fn of(trust_configuration: &[u8]) -> Self {
        Self(Sha256::digest(trust_configuration).into())
    }
}

impl fmt::Display for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ClusterId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What a node's evidence binds as `user_data`: its identity key and its cluster.
pub fn node_user_data(identity: &[u8; 32], cluster: ClusterId) -> [u8; 32] {
    label::hash("casemate/node/v1", &[identity, &cluster.0])
}

#[cfg(test)]
mod tests {
    use super::*;

    pub(crate) fn sample() -> TrustConfiguration {
        TrustConfiguration {
            format: 1,
            kms_key_arn: "arn:aws:kms:us-east-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab".to_owned(),
            region: "us-east-1".to_owned(),
            release_keys: vec![ReleaseKey([7; 32])],
        }
    }

    #[test]
    fn one_encoding_one_cluster() {
        let bytes = codec::encode(&sample());
        assert_eq!(TrustConfiguration::decode(&bytes), Ok(sample()));
        assert_eq!(
            ClusterId::of(&bytes).to_string(),
            "9698b533446acb08e540e66471909b006282f3c67dcd2d55fd5e53e1b0114e75"
        );
        assert_eq!(
            hex::encode(node_user_data(&[1; 32], ClusterId([2; 32]))),
            "79b05fe4e3fcdadb4b38a2b4cdaa48c6443fb8a3b27e5d4b598a43514c7d7135"
        );
        // The same value with an unknown optional field is another cluster, hence refused.
        let mut longer = bytes.clone();
        longer[0] += 1;
        longer.extend_from_slice(&[0x04, 0x00]);
        assert_eq!(TrustConfiguration::decode(&longer), Err(DecodeError::Unexpected));
        assert_eq!(TrustConfiguration::decode(&[0; 5000]), Err(DecodeError::TooLarge));
    }
}
