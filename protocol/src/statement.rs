//! The node's signed statement: this static key speaks for this vault, until then.

use minicbor::{Decode, Encode};

use crate::id::VaultId;
use crate::label;

/// What the node's identity key signs for each vault-manager. Attack stopped: a host that terminates the session itself, or that
/// lets one vault's manager answer for another.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Statement {
    /// The vault.
    #[n(0)]
    pub vault: VaultId,
    /// The vault-manager's X25519 static key.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub static_key: [u8; 32],
    /// Unix seconds.
    #[n(2)]
    pub not_after: u64,
    /// Ed25519 by the node's identity key over [`Statement::signed_bytes`].
    #[cbor(n(3), with = "minicbor::bytes")]
    pub signature: [u8; 64],
}

impl Statement {
    /// The signature's input.
    pub fn signed_bytes(vault: VaultId, static_key: &[u8; 32], not_after: u64) -> Vec<u8> {
        label::info("casemate/statement/v1", &[vault.as_bytes(), static_key, &not_after.to_be_bytes()])
    }
}

/// The payload of handshake message 2: everything a device needs to decide whether it talks to a genuine vault of its cluster.
#[derive(Debug, Clone, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Credentials {
    /// The platform: 0 is AWS Nitro.
    #[n(0)]
    pub platform: u8,
    /// Evidence that binds the node's identity key and its cluster.
    #[cbor(n(1), with = "minicbor::bytes")]
    pub evidence: Vec<u8>,
    /// The trust configuration, as handed to the node.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub trust_configuration: Vec<u8>,
    /// The node's Ed25519 identity key.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub identity: [u8; 32],
    /// The statement for this vault and this static key.
    #[n(4)]
    pub statement: Statement,
}
