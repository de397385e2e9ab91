//! AWS Nitro attestation documents, one file for each structure they consist of.
//!
//! The format and the rules of its verification are AWS's:
//! <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>. From the outside in:
//! [`Envelope`] (COSE_Sign1, RFC 9052), [`Document`] (CBOR), the certificate chain (X.509).

mod chain;
mod cose;
mod document;
mod items;
mod root;
mod verify;

pub use cose::{Envelope, EnvelopeError};
pub use document::{
    Document, DocumentError, MAX_BOUND_BYTES, MAX_CABUNDLE, MAX_CERTIFICATE_BYTES, MAX_MODULE_ID_BYTES,
    MAX_PUBLIC_KEY_BYTES,
};
pub use verify::{Authenticated, authenticate};

pub(crate) use chain::Chain;
pub(crate) use root::ROOT_G1;
pub(crate) use verify::{authenticate_under, chain_time};
