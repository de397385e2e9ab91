//! The parts of an enclave for development: the real supervisor and vault-managers, evidence of a development authority, the stand-in KMS.

use std::error::Error;
use std::sync::Arc;

use casemate_enclave::boot::Parts;
use casemate_enclave::keys::connector::Endpoint;
use casemate_enclave::outside::{ModuleError, SecurityModule};
use casemate_enclave::sandbox::SandboxOptions;
use casemate_enclave::system::{OsRandomness, SystemClock};
use casemate_link::Address;
use rustls::RootCertStore;
use rustls_pki_types::CertificateDer;

/// What becomes of such an enclave's words, beside the parts of its own.
#[derive(Debug)]
pub struct Outside {
    /// The parent.
    pub link: Address,
    /// The stand-in KMS, HOST:PORT.
    pub kms_endpoint: String,
    /// Its CA certificate, DER.
    pub kms_ca: Vec<u8>,
}

/// Parts with this security module, these walls and this outside.
///
/// # Errors
/// When the endpoint or the certificate is none.
pub fn parts(
    outside: Outside,
    sandbox: SandboxOptions,
    module: impl FnOnce() -> Result<Arc<dyn SecurityModule>, ModuleError> + 'static,
) -> Result<Parts, Box<dyn Error>> {
    let (host, port) = outside.kms_endpoint.rsplit_once(':').ok_or("the endpoint of the stand-in KMS is HOST:PORT")?;
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(outside.kms_ca))?;
    let endpoint = Endpoint { host: host.to_owned(), port: port.parse()?, roots: Arc::new(roots) };
    Ok(Parts {
        module: Box::new(module),
        clock: Arc::new(SystemClock::new()),
        randomness: Arc::new(OsRandomness),
        link: outside.link,
        endpoint: Arc::new(move |_| endpoint.clone()),
        sandbox,
        build: concat!(env!("CARGO_PKG_VERSION"), "-dev").to_owned(),
    })
}
