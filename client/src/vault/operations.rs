//! The operations, each with the answer that belongs to it.

use casemate_protocol::reply::{Answer, AuditEntry, KeyEntry, SecretEntry, VaultStatus};
use casemate_protocol::request::{KeyAlgorithm, KeyPolicy, Operation};
use casemate_protocol::secret::Secret;

use super::Vault;
use crate::error::VaultError;
use crate::record::Keep;
use crate::transport::Transport;

/// A secret with its revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretValue {
    /// The value.
    pub value: Secret,
    /// Its revision.
    pub revision: u64,
    /// When it was written, Unix seconds.
    pub written_at: u64,
}

/// A page of the audit chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditPage {
    /// The entries, oldest first.
    pub entries: Vec<AuditEntry>,
    /// Whether more follow.
    pub more: bool,
    /// The chain's hash before the oldest entry that the vault still has.
    pub before: [u8; 32],
}

/// Takes the answer of one variant; an authentic answer of another one is a fault of the vault.
macro_rules! expect {
    ($answer:expr, $pattern:pat => $value:expr) => {
        match $answer {
            $pattern => Ok($value),
            _ => Err(VaultError::Unexpected),
        }
    };
}

/// All of these fail as [`Vault::perform`] does.
#[allow(clippy::missing_errors_doc)]
impl<T: Transport + Sync, K: Keep> Vault<T, K> {
    /// The vault in numbers.
    pub async fn status(&self) -> Result<VaultStatus, VaultError> {
        expect!(self.perform(&Operation::Status).await?, Answer::Status(status) => status)
    }

    /// Writes a secret; gives its new revision. With `expected_revision` only if that is the present one (0: none exists).
    pub async fn secret_put(
        &self,
        name: &str,
        value: Secret,
        expected_revision: Option<u64>,
    ) -> Result<u64, VaultError> {
        let operation = Operation::SecretPut { name: name.to_owned(), value, expected_revision };
        expect!(self.perform(&operation).await?, Answer::Written { revision } => revision)
    }

    /// Reads a secret, or a former revision of it.
    pub async fn secret_get(&self, name: &str, revision: Option<u64>) -> Result<SecretValue, VaultError> {
        let operation = Operation::SecretGet { name: name.to_owned(), revision };
        expect!(
            self.perform(&operation).await?,
            Answer::Secret { value, revision, written_at } => SecretValue { value, revision, written_at }
        )
    }

    /// Lists the secrets whose names begin with `prefix`.
    pub async fn secret_list(&self, prefix: &str) -> Result<Vec<SecretEntry>, VaultError> {
        let mut all: Vec<SecretEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let operation = Operation::SecretList { prefix: prefix.to_owned(), after: after.clone() };
            let (entries, more) =
                expect!(self.perform(&operation).await?, Answer::Secrets { entries, more } => (entries, more))?;
            // Pages that do not move on would never end.
            let moves_on = entries.first().is_some_and(|first| after.as_ref().is_none_or(|after| first.name > *after));
            if more && !moves_on {
                return Err(VaultError::Unexpected);
            }
            all.extend(entries);
            if !more {
                return Ok(all);
            }
        }
    }

    /// Deletes a secret and its history.
    pub async fn secret_delete(&self, name: &str, expected_revision: Option<u64>) -> Result<(), VaultError> {
        self.perform(&Operation::SecretDelete { name: name.to_owned(), expected_revision }).await.map(drop)
    }

    /// The revisions kept of a secret, newest first.
    pub async fn secret_history(&self, name: &str) -> Result<Vec<SecretEntry>, VaultError> {
        let operation = Operation::SecretHistory { name: name.to_owned() };
        expect!(self.perform(&operation).await?, Answer::History { entries } => entries)
    }

    /// Makes a key inside the vault.
    pub async fn key_generate(
        &self,
        name: &str,
        algorithm: KeyAlgorithm,
        policy: KeyPolicy,
    ) -> Result<KeyEntry, VaultError> {
        let operation = Operation::KeyGenerate { name: name.to_owned(), algorithm, policy };
        expect!(self.perform(&operation).await?, Answer::Key(entry) => entry)
    }

    /// Takes a key in.
    pub async fn key_import(
        &self,
        name: &str,
        algorithm: KeyAlgorithm,
        policy: KeyPolicy,
        material: Secret,
    ) -> Result<KeyEntry, VaultError> {
        let operation = Operation::KeyImport { name: name.to_owned(), algorithm, policy, material };
        expect!(self.perform(&operation).await?, Answer::Key(entry) => entry)
    }

    /// Lists the keys.
    pub async fn key_list(&self) -> Result<Vec<KeyEntry>, VaultError> {
        let mut all: Vec<KeyEntry> = Vec::new();
        loop {
            let after = all.last().map(|entry| entry.name.clone());
            let answer = self.perform(&Operation::KeyList { after: after.clone() }).await?;
            let (entries, more) = expect!(answer, Answer::Keys { entries, more } => (entries, more))?;
            let moves_on = entries.first().is_some_and(|first| after.as_ref().is_none_or(|after| first.name > *after));
            if more && !moves_on {
                return Err(VaultError::Unexpected);
            }
            all.extend(entries);
            if !more {
                return Ok(all);
            }
        }
    }

    /// A key's entry, its public half included.
    pub async fn key_public(&self, name: &str) -> Result<KeyEntry, VaultError> {
        expect!(self.perform(&Operation::KeyPublic { name: name.to_owned() }).await?, Answer::Key(entry) => entry)
    }

    /// Signs a message: Ed25519 64 bytes, ECDSA DER.
    pub async fn key_sign(&self, name: &str, message: Secret) -> Result<Vec<u8>, VaultError> {
        let operation = Operation::KeySign { name: name.to_owned(), message };
        expect!(self.perform(&operation).await?, Answer::Signature(signature) => signature)
    }

    /// Whether a signature or MAC verifies.
    pub async fn key_verify(&self, name: &str, message: Secret, signature: Vec<u8>) -> Result<bool, VaultError> {
        let operation = Operation::KeyVerify { name: name.to_owned(), message, signature };
        expect!(self.perform(&operation).await?, Answer::Verified(verified) => verified)
    }

    /// Agrees on a shared secret with a peer's public key. It is raw: feed it to a KDF.
    pub async fn key_agree(&self, name: &str, peer: Vec<u8>) -> Result<Secret, VaultError> {
        let operation = Operation::KeyAgree { name: name.to_owned(), peer };
        expect!(self.perform(&operation).await?, Answer::Bytes(secret) => secret)
    }

    /// Encrypts: nonce, ciphertext, tag.
    pub async fn key_encrypt(&self, name: &str, plaintext: Secret, associated: Vec<u8>) -> Result<Vec<u8>, VaultError> {
        let operation = Operation::KeyEncrypt { name: name.to_owned(), plaintext, associated };
        expect!(self.perform(&operation).await?, Answer::Ciphertext(ciphertext) => ciphertext)
    }

    /// Decrypts what [`Vault::key_encrypt`] gave.
    pub async fn key_decrypt(
        &self,
        name: &str,
        ciphertext: Vec<u8>,
        associated: Vec<u8>,
    ) -> Result<Secret, VaultError> {
        let operation = Operation::KeyDecrypt { name: name.to_owned(), ciphertext, associated };
        expect!(self.perform(&operation).await?, Answer::Bytes(plaintext) => plaintext)
    }

    /// Computes a MAC, 32 bytes.
    pub async fn key_mac(&self, name: &str, message: Secret) -> Result<Vec<u8>, VaultError> {
        let operation = Operation::KeyMac { name: name.to_owned(), message };
        expect!(self.perform(&operation).await?, Answer::Signature(mac) => mac)
    }

    /// Takes the material of an exportable key out.
    pub async fn key_export(&self, name: &str) -> Result<Secret, VaultError> {
        let operation = Operation::KeyExport { name: name.to_owned() };
        expect!(self.perform(&operation).await?, Answer::Bytes(material) => material)
    }

    /// Deletes a key.
    pub async fn key_delete(&self, name: &str) -> Result<(), VaultError> {
        self.perform(&Operation::KeyDelete { name: name.to_owned() }).await.map(drop)
    }

    /// A page of the audit chain after entry `after`.
    pub async fn audit_page(&self, after: Option<u64>) -> Result<AuditPage, VaultError> {
        expect!(
            self.perform(&Operation::Audit { after }).await?,
            Answer::Audit { entries, more, before } => AuditPage { entries, more, before }
        )
    }
}
