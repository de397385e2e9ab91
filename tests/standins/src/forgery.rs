//! Evidence as it should be, or false in exactly one respect: each rule of the verifier is tested by what breaks it alone.

use std::fmt;

use ciborium::Value;
use coset::iana::Algorithm;
use coset::{CborSerializable, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable};
use p384::ecdsa::signature::Signer;
use p384::ecdsa::{Signature, SigningKey};
use p384::pkcs8::DecodePrivateKey;

use crate::document::SimulatedDocument;
use crate::issuing::{Curve, LeafPlan, issue_leaf};
use crate::{AuthorityError, DevelopmentAuthority};

/// A field of the payload: its name and its value.
pub type PayloadField = (Value, Value);

type Edit<'a, T> = Box<dyn FnOnce(&mut T) + 'a>;

/// A document on its way to be signed. [`of`](Self::of) makes an honest one; a test then changes what it wants to be false.
pub struct Forgery<'a> {
    /// What the document says.
    pub document: SimulatedDocument,
    /// The leaf whose key signs it.
    pub leaf: LeafPlan,
    /// Who issues that leaf; the cabundle stays the authority's.
    pub leaf_issuer: &'a DevelopmentAuthority,
    /// Whether the document shows another leaf of the same issuer than the one whose key signs.
    pub swapped_leaf: bool,
    /// The algorithm that the protected header names; the signature stays ES384.
    pub algorithm: Algorithm,
    /// Whether the payload is a map of indefinite length, as Nitro writes it since late 2025.
    pub indefinite: bool,
    /// Whether the envelope has COSE_Sign1's tag; Nitro's has none.
    pub tagged: bool,
    authority: &'a DevelopmentAuthority,
    edit_cabundle: Option<Edit<'a, Vec<Vec<u8>>>>,
    edit_fields: Option<Edit<'a, Vec<PayloadField>>>,
    edit_signed: Option<Edit<'a, Vec<u8>>>,
    edit_signature: Option<Edit<'a, Vec<u8>>>,
}

impl<'a> Forgery<'a> {
    /// An honest document under `authority`.
    pub fn of(authority: &'a DevelopmentAuthority, document: SimulatedDocument) -> Self {
        Self {
            leaf: LeafPlan::honest(document.timestamp_unix_ms / 1000),
            document,
            leaf_issuer: authority,
            swapped_leaf: false,
            algorithm: Algorithm::ES384,
            indefinite: true,
            tagged: false,
            authority,
            edit_cabundle: None,
            edit_fields: None,
            edit_signed: None,
            edit_signature: None,
        }
    }

    /// Changes any of the public fields.
    #[must_use]
    pub fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    /// Changes the certificates above the leaf before they are signed into the document.
    #[must_use]
    pub fn editing_cabundle(mut self, edit: impl FnOnce(&mut Vec<Vec<u8>>) + 'a) -> Self {
        self.edit_cabundle = Some(Box::new(edit));
        self
    }

    /// Changes the payload's fields before they are signed.
    #[must_use]
    pub fn editing_fields(mut self, edit: impl FnOnce(&mut Vec<PayloadField>) + 'a) -> Self {
        self.edit_fields = Some(Box::new(edit));
        self
    }

    /// Changes the payload's bytes after they are signed.
    #[must_use]
    pub fn editing_signed_payload(mut self, edit: impl FnOnce(&mut Vec<u8>) + 'a) -> Self {
        self.edit_signed = Some(Box::new(edit));
        self
    }

    /// Changes the signature.
    #[must_use]
    pub fn editing_signature(mut self, edit: impl FnOnce(&mut Vec<u8>) + 'a) -> Self {
        self.edit_signature = Some(Box::new(edit));
        self
    }

    /// Makes the evidence.
    ///
    /// # Panics
    ///
    /// If keys and certificates cannot be made, for which there is no cause but a broken build.
    pub fn build(self) -> Vec<u8> {
        self.try_build().expect("keys and certificates can be made")
    }

    fn try_build(self) -> Result<Vec<u8>, AuthorityError> {
        let issuer = self.leaf_issuer.issuer();
        let key = self.leaf.curve.generate()?;
        let mut certificate = issue_leaf(self.leaf, &key, issuer)?;
        if self.swapped_leaf {
            certificate = issue_leaf(self.leaf, &self.leaf.curve.generate()?, issuer)?;
        }
        let mut cabundle = self.authority.cabundle().to_vec();
        if let Some(edit) = self.edit_cabundle {
            edit(&mut cabundle);
        }
        let mut fields = self.document.fields(certificate, cabundle);
        if let Some(edit) = self.edit_fields {
            edit(&mut fields);
        }
        let payload = encode(fields, self.indefinite);
        let protected = HeaderBuilder::new().algorithm(self.algorithm).build();
        let mut envelope = CoseSign1Builder::new()
            .protected(protected)
            .payload(payload)
            .create_signature(&[], |message| es384(self.leaf.curve, &key.serialize_der(), message))
            .build();
        if let (Some(edit), Some(payload)) = (self.edit_signed, &mut envelope.payload) {
            edit(payload);
        }
        if let Some(edit) = self.edit_signature {
            edit(&mut envelope.signature);
        }
        let encoded = if self.tagged { envelope.to_tagged_vec() } else { envelope.to_vec() };
        Ok(encoded.expect("an envelope can be written to memory"))
    }
}

impl fmt::Debug for Forgery<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Forgery").field("document", &self.document).field("leaf", &self.leaf).finish_non_exhaustive()
    }
}

/// `r ‖ s`. A P-256 key cannot sign ES384; its evidence is refused for the key before anybody looks at the signature.
fn es384(curve: Curve, key_der: &[u8], message: &[u8]) -> Vec<u8> {
    match curve {
        Curve::P384 => {
            let key = SigningKey::from_pkcs8_der(key_der).expect("a P-384 key that was just made");
            let signature: Signature = key.sign(message);
            signature.to_bytes().to_vec()
        }
        Curve::P256 => vec![1; 96],
    }
}

fn encode(fields: Vec<PayloadField>, indefinite: bool) -> Vec<u8> {
    let mut bytes = Vec::new();
    if indefinite {
        bytes.push(0xbf);
        for (name, value) in &fields {
            write(name, &mut bytes);
            write(value, &mut bytes);
        }
        bytes.push(0xff);
    } else {
        write(&Value::Map(fields), &mut bytes);
    }
    bytes
}

fn write(value: &Value, bytes: &mut Vec<u8>) {
    ciborium::into_writer(value, bytes).expect("CBOR can be written to memory");
}
