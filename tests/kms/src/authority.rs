//! The stand-in's own certificate authority: made once per state directory, it signs a fresh server certificate at each
//! start. Development binaries trust it; release binaries know Amazon's roots only.

use std::sync::Arc;

use data_encoding::BASE64;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, date_time_ymd,
};
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use zeroize::Zeroizing;

use crate::state::{StateDir, StateError};

/// File of the CA certificate in DER.
pub const CA_DER: &str = "ca.der";
/// File of the CA certificate in PEM.
pub const CA_PEM: &str = "ca.pem";
const CA_KEY: &str = "ca.key.pem";
const SUBJECT: &str = "Casemate stand-in KMS (DEV ONLY)";

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
pub enum AuthorityError {
    /// The state directory.
    #[error(transparent)]
    State(#[from] StateError),
    /// A certificate could not be made or a key not be read.
    #[error("the certificate authority failed: {0}; if its key was damaged, remove {CA_KEY} and {CA_DER}")]
    Certificate(#[from] rcgen::Error),
    /// The TLS library refused the certificate.
    #[error("TLS could not be set up: {0}")]
    Tls(#[from] rustls::Error),
}

/// The certificate authority.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Authority").field("subject", &SUBJECT).field("key", &"redacted").finish_non_exhaustive()
    }
}

impl Authority {
    /// Loads the authority of a state directory, or makes it.
    ///
    /// # Errors
    /// [`AuthorityError`].
    pub fn load(state: &StateDir) -> Result<Self, AuthorityError> {
        let key = if let Some(pem) = state.read(CA_KEY)? {
            KeyPair::from_pem(&String::from_utf8_lossy(&pem))?
        } else {
            let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
            let pem = Zeroizing::new(key.serialize_pem());
            state.write(CA_KEY, pem.as_bytes())?;
            key
        };
        let params = ca_params()?;
        // The certificate is kept, not made anew, so that whoever pinned its bytes still trusts it after a restart.
        let certificate = if let Some(der) = state.read(CA_DER)? {
            CertificateDer::from(der.to_vec())
        } else {
            let certificate = params.self_signed(&key)?;
            state.write(CA_PEM, certificate.pem().as_bytes())?;
            state.write(CA_DER, certificate.der())?;
            certificate.der().clone()
        };
        Ok(Self { issuer: Issuer::new(params, key), certificate })
    }

    /// The CA certificate, DER.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// The CA certificate, base64 of its DER.
    pub fn certificate_base64(&self) -> String {
        BASE64.encode(&self.certificate)
    }

    /// A server's TLS configuration with a fresh key and a certificate for `names` (DNS names or IP addresses).
    ///
    /// # Errors
    /// [`AuthorityError`], for a name that is neither a DNS name nor an address too.
    pub fn server_config(&self, names: &[String]) -> Result<Arc<ServerConfig>, AuthorityError> {
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?;
        let mut params = CertificateParams::new(names.to_vec())?;
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "stand-in KMS");
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        set_validity(&mut params);
        let certificate = params.signed_by(&key, &self.issuer)?;

        let chain = vec![certificate.der().clone()];
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(chain, private)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config))
    }
}

/// The same at each start, so that a certificate signed later names the kept one as its issuer.
fn ca_params() -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(Vec::new())?;
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, SUBJECT);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    set_validity(&mut params);
    Ok(params)
}

fn set_validity(params: &mut CertificateParams) {
    params.not_before = date_time_ymd(2024, 1, 1);
    params.not_after = date_time_ymd(2044, 1, 1);
}
