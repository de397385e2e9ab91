//! What a device can ask of its vault.

use minicbor::{Decode, Encode};
use sha2::{Digest, Sha256};

use crate::error::{ErrorCode, Refusal};
use crate::head::Head;
use crate::limits;
use crate::secret::Secret;

/// One request, as sealed into a session.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Request {
    /// For mutations: the device's sequence number, above all that it used before. Persisted by the device before it sends.
    #[n(0)]
    pub sequence: Option<u64>,
    /// The newest head that the device holds.
    #[n(1)]
    pub head: Option<Head>,
    /// What to do.
    #[n(2)]
    pub operation: Operation,
}

/// The hash that binds a reply to its request and an outcome to its sequence number: SHA-256 of the encoded request's
/// operation and sequence number, so that a retry under a newer head is the same request.
pub fn request_hash(sequence: Option<u64>, operation: &Operation) -> [u8; 32] {
    let mut hash = Sha256::new();
    crate::label::feed("casemate/request/v1", &[&sequence.unwrap_or(0).to_be_bytes()], |bytes| hash.update(bytes));
    // As it is encoded, with no copy of its secrets in between.
    crate::codec::feed(operation, |bytes| hash.update(bytes));
    hash.finalize().into()
}

/// Algorithms of vault-held keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum KeyAlgorithm {
    /// Ed25519 (RFC 8032): sign, verify. Material: 32-byte seed.
    #[n(0)]
    Ed25519,
    /// ECDSA and ECDH on P-256: sign (SHA-256, DER), verify, agree. Material: 32-byte scalar, big-endian.
    #[n(1)]
    P256,
    /// ECDSA on secp256k1: sign (SHA-256, DER, low-s), verify, agree. Material: 32-byte scalar, big-endian.
    #[n(2)]
    Secp256k1,
    /// X25519 (RFC 7748): agree. Material: 32 bytes.
    #[n(3)]
    X25519,
    /// AES-256-GCM: encrypt, decrypt. Material: 32 bytes.
    #[n(4)]
    Aes256Gcm,
    /// HMAC-SHA-256: mac, verify. Material: 32 bytes (imported: 16–64).
    #[n(5)]
    HmacSha256,
}

impl KeyAlgorithm {
    /// Every algorithm.
    pub const ALL: [Self; 6] =
        [Self::Ed25519, Self::P256, Self::Secp256k1, Self::X25519, Self::Aes256Gcm, Self::HmacSha256];

    /// The algorithm as people write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::P256 => "p256",
            Self::Secp256k1 => "secp256k1",
            Self::X25519 => "x25519",
            Self::Aes256Gcm => "aes256-gcm",
            Self::HmacSha256 => "hmac-sha256",
        }
    }
}

/// What may be done with a key beyond using it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Encode, Decode)]
#[cbor(map)]
pub struct KeyPolicy {
    /// Whether the owner may take the key material out.
    #[n(0)]
    pub exportable: bool,
    /// Whether each use is written to the audit chain, durably, before its result is given.
    #[n(1)]
    pub audit_use: bool,
}

/// The operations. Names and values are bounded by [`Operation::validate`] before anything else happens.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub enum Operation {
    /// The vault's state in numbers.
    #[n(0)]
    Status,
    /// Creates the vault. Only as the first request of a session with a vault that does not exist.
    #[n(1)]
    CreateVault {
        /// The salt that, with the owner's static key, gives the vault's id.
        #[cbor(n(0), with = "minicbor::bytes")]
        salt: [u8; 16],
        /// The device's name.
        #[n(1)]
        device_name: String,
        /// The device's Ed25519 key, which signs `accept-rollback`.
        #[cbor(n(2), with = "minicbor::bytes")]
        device_signing_key: [u8; 32],
    },
    /// Destroys the vault for good.
    #[n(2)]
    DeleteVault,
    /// Takes an older or other history as the vault's own, after an honest restore from backup.
    #[n(3)]
    AcceptRollback {
        /// The head that the device holds.
        #[n(0)]
        held: Head,
        /// The head that the vault showed.
        #[n(1)]
        found: Head,
        /// Ed25519 by the device's signing key over [`accept_rollback_bytes`].
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: [u8; 64],
    },
    /// Writes a secret.
    #[n(4)]
    SecretPut {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its value, at most 64 KiB.
        #[n(1)]
        value: Secret,
        /// The revision that must be the present one; 0: it must not exist.
        #[n(2)]
        expected_revision: Option<u64>,
    },
    /// Reads a secret.
    #[n(5)]
    SecretGet {
        /// Its name.
        #[n(0)]
        name: String,
        /// A former revision instead of the present one.
        #[n(1)]
        revision: Option<u64>,
    },
    /// Lists secrets by name.
    #[n(6)]
    SecretList {
        /// Only names that begin so.
        #[n(0)]
        prefix: String,
        /// The last name of the page before.
        #[n(1)]
        after: Option<String>,
    },
    /// Deletes a secret and its history.
    #[n(7)]
    SecretDelete {
        /// Its name.
        #[n(0)]
        name: String,
        /// The revision that must be the present one.
        #[n(1)]
        expected_revision: Option<u64>,
    },
    /// Lists the revisions kept of a secret, newest first.
    #[n(8)]
    SecretHistory {
        /// Its name.
        #[n(0)]
        name: String,
    },
    /// Makes a key inside the vault.
    #[n(9)]
    KeyGenerate {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its algorithm.
        #[n(1)]
        algorithm: KeyAlgorithm,
        /// What may be done with it.
        #[n(2)]
        policy: KeyPolicy,
    },
    /// Takes a key in.
    #[n(10)]
    KeyImport {
        /// Its name.
        #[n(0)]
        name: String,
        /// Its algorithm.
        #[n(1)]
        algorithm: KeyAlgorithm,
        /// What may be done with it.
        #[n(2)]
        policy: KeyPolicy,
        /// The material, of the form that the algorithm names.
        #[n(3)]
        material: Secret,
    },
    /// Lists keys by name.
    #[n(11)]
    KeyList {
        /// The last name of the page before.
        #[n(0)]
        after: Option<String>,
    },
    /// The public half of an asymmetric key.
    #[n(12)]
    KeyPublic {
        /// The key's name.
        #[n(0)]
        name: String,
    },
    /// Signs a message.
    #[n(13)]
    KeySign {
        /// The key's name.
        #[n(0)]
        name: String,
        /// The message itself, not its hash.
        #[n(1)]
        message: Secret,
    },
    /// Verifies a signature or a MAC.
    #[n(14)]
    KeyVerify {
        /// The key's name.
        #[n(0)]
        name: String,
        /// The message.
        #[n(1)]
        message: Secret,
        /// The signature or MAC.
        #[cbor(n(2), with = "minicbor::bytes")]
        signature: Vec<u8>,
    },
    /// Agrees on a shared secret with a peer's public key.
    #[n(15)]
    KeyAgree {
        /// The key's name.
        #[n(0)]
        name: String,
        /// The peer's public key: 32 bytes (X25519) or a SEC1 point.
        #[cbor(n(1), with = "minicbor::bytes")]
        peer: Vec<u8>,
    },
    /// Encrypts.
    #[n(16)]
    KeyEncrypt {
        /// The key's name.
        #[n(0)]
        name: String,
        /// What to encrypt.
        #[n(1)]
        plaintext: Secret,
        /// Associated data, authenticated with it.
        #[cbor(n(2), with = "minicbor::bytes")]
        associated: Vec<u8>,
    },
    /// Decrypts.
    #[n(17)]
    KeyDecrypt {
        /// The key's name.
        #[n(0)]
        name: String,
        /// A ciphertext as `KeyEncrypt` gave it: nonce (12 bytes), ciphertext, tag (16 bytes).
        #[cbor(n(1), with = "minicbor::bytes")]
        ciphertext: Vec<u8>,
        /// The same associated data.
        #[cbor(n(2), with = "minicbor::bytes")]
        associated: Vec<u8>,
    },
    /// Computes a MAC.
    #[n(18)]
    KeyMac {
        /// The key's name.
        #[n(0)]
        name: String,
        /// The message.
        #[n(1)]
        message: Secret,
    },
    /// Deletes a key.
    #[n(19)]
    KeyDelete {
        /// The key's name.
        #[n(0)]
        name: String,
    },
    /// Takes the material of an exportable key out.
    #[n(20)]
    KeyExport {
        /// The key's name.
        #[n(0)]
        name: String,
    },
    /// Reads the audit chain, oldest first.
    #[n(21)]
    Audit {
        /// The last entry's number of the page before.
        #[n(0)]
        after: Option<u64>,
    },
}

impl Operation {
    /// Whether this operation needs a sequence number: it changes the vault, whatever a key's audit policy says.
    pub const fn is_mutation(&self) -> bool {
        matches!(
            self,
            Self::CreateVault { .. }
                | Self::DeleteVault
                | Self::AcceptRollback { .. }
                | Self::SecretPut { .. }
                | Self::SecretDelete { .. }
                | Self::KeyGenerate { .. }
                | Self::KeyImport { .. }
                | Self::KeyDelete { .. }
        )
    }

    /// Whether this operation uses a key and is written durably when the key's policy asks for that. Such requests carry a
    /// sequence number too, because the device does not know the policy for certain.
    pub const fn uses_key(&self) -> bool {
        matches!(
            self,
            Self::KeySign { .. }
                | Self::KeyVerify { .. }
                | Self::KeyAgree { .. }
                | Self::KeyEncrypt { .. }
                | Self::KeyDecrypt { .. }
                | Self::KeyMac { .. }
                | Self::KeyExport { .. }
        )
    }

    /// Checks every bound that holds for all vaults.
    ///
    /// # Errors
    /// `too_large` or `invalid_argument`, naming the field.
    pub fn validate(&self) -> Result<(), Refusal> {
        match self {
            Self::Status | Self::DeleteVault | Self::AcceptRollback { .. } | Self::Audit { .. } => Ok(()),
            Self::CreateVault { device_name, .. } => name("device_name", device_name),
            Self::SecretPut { name: n, value, .. } => {
                name("name", n)?;
                size("value", value.len(), limits::SECRET_BYTES)
            }
            Self::SecretList { prefix, after } => {
                size("prefix", prefix.len(), limits::NAME_BYTES)?;
                size("after", after.as_ref().map_or(0, String::len), limits::NAME_BYTES)
            }
            Self::KeyList { after } => size("after", after.as_ref().map_or(0, String::len), limits::NAME_BYTES),
            Self::SecretGet { name: n, .. }
            | Self::SecretDelete { name: n, .. }
            | Self::SecretHistory { name: n }
            | Self::KeyGenerate { name: n, .. }
            | Self::KeyPublic { name: n }
            | Self::KeyDelete { name: n }
            | Self::KeyExport { name: n } => name("name", n),
            Self::KeyImport { name: n, material, .. } => {
                name("name", n)?;
                size("material", material.len(), 64)
            }
            Self::KeySign { name: n, message } | Self::KeyMac { name: n, message } => {
                name("name", n)?;
                size("message", message.len(), limits::KEY_INPUT_BYTES)
            }
            Self::KeyVerify { name: n, message, signature } => {
                name("name", n)?;
                size("message", message.len(), limits::KEY_INPUT_BYTES)?;
                size("signature", signature.len(), 256)
            }
            Self::KeyAgree { name: n, peer } => {
                name("name", n)?;
                size("peer", peer.len(), 133)
            }
            Self::KeyEncrypt { name: n, plaintext, associated } => {
                name("name", n)?;
                size("plaintext", plaintext.len(), limits::KEY_INPUT_BYTES)?;
                size("associated", associated.len(), limits::KEY_INPUT_BYTES)
            }
            Self::KeyDecrypt { name: n, ciphertext, associated } => {
                name("name", n)?;
                size("ciphertext", ciphertext.len(), limits::KEY_INPUT_BYTES + 28)?;
                size("associated", associated.len(), limits::KEY_INPUT_BYTES)
            }
        }
    }
}

fn size(field: &'static str, found: usize, limit: usize) -> Result<(), Refusal> {
    if found <= limit { Ok(()) } else { Err(Refusal::field(ErrorCode::TooLarge, field)) }
}

/// A name has 1–256 bytes and no control characters (a terminal that lists names shall not be steered by one).
fn name(field: &'static str, text: &str) -> Result<(), Refusal> {
    size(field, text.len(), limits::NAME_BYTES)?;
    if text.is_empty() || text.chars().any(char::is_control) {
        return Err(Refusal::field(ErrorCode::InvalidArgument, field));
    }
    Ok(())
}

/// What a device signs to accept another history.
pub fn accept_rollback_bytes(vault: crate::id::VaultId, held: &Head, found: &Head) -> Vec<u8> {
    crate::label::info(
        "casemate/accept-rollback/v1",
        &[vault.as_bytes(), &held.version.to_be_bytes(), &held.hash, &found.version.to_be_bytes(), &found.hash],
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds() {
        let put = |name: &str, len: usize| Operation::SecretPut {
            name: name.to_owned(),
            value: Secret::new(vec![0; len]),
            expected_revision: None,
        };
        assert_eq!(put(&"n".repeat(256), limits::SECRET_BYTES).validate(), Ok(()));
        assert_eq!(put("n", limits::SECRET_BYTES + 1).validate(), Err(Refusal::field(ErrorCode::TooLarge, "value")));
        assert_eq!(put(&"n".repeat(257), 0).validate(), Err(Refusal::field(ErrorCode::TooLarge, "name")));
        assert_eq!(put("", 0).validate(), Err(Refusal::field(ErrorCode::InvalidArgument, "name")));
        assert_eq!(put("a\u{1b}[2J", 0).validate(), Err(Refusal::field(ErrorCode::InvalidArgument, "name")));
    }

    #[test]
    fn the_hash_binds_sequence_and_operation_but_not_the_head() {
        let get = Operation::SecretGet { name: "a".to_owned(), revision: None };
        assert_ne!(request_hash(Some(1), &get), request_hash(Some(2), &get));
        assert_ne!(request_hash(None, &get), request_hash(None, &Operation::Status));
    }
}
